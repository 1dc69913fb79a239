"""Untrusted input: some seeds of every target in hostile.py; `python tests/support/hostile.py TARGET MINUTES` tries more."""

import pytest

import hostile
import secondsight as ss

COUNTS = {
    "image": 400, "caption": 20, "selection": 600, "file": 200, "store": 200, "data": 400, "yaml": 60, "checkpoint": 10,
    "request": 200, "html": 8, "picture": 8, "command": 10,
}  # fmt: skip
"""How many seeds of every target are tried."""

REGRESSIONS = {
    # An index error, a short buffer and missing dimensions, out of Pillow's plugins.
    "image": [205, 956, 71466],
    "selection": [13],
    # Sizes, keys and kinds of values that a saved file cannot have.
    "file": [2, 13, 160, 165, 192, 3835],
    "store": [37, 1140],
    "caption": [73],
    # A file's name that is too long, and one with line breaks in a sentence.
    "data": [799, 2629],
    "yaml": [],
    "checkpoint": [],
    # The name of an unknown field, repeated with its line breaks.
    "request": [3843],
    # A setting's name that looks like a formula.
    "html": [520],
    # A mark of writing direction, which breaks matplotlib's PDF.
    "picture": [42],
    "command": [],
}
"""Seeds that once gave a traceback."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", COUNTS)
def test_untrusted_input_works_or_is_refused_in_one_sentence(target):
    problems = {seed: hostile.attempt(target, seed) for seed in [*range(COUNTS[target]), *REGRESSIONS[target]]}
    assert {seed: problem for seed, problem in problems.items() if problem is not None} == {}


def test_a_file_that_promises_too_much_is_refused_at_once(tmp_path):
    path = tmp_path / "x.json"
    hostile.explanation().interactions.save(path)
    path.write_text(path.read_text().replace('"size": ', '"size": 1208925819614629174706176', 1))
    with pytest.raises(ss.InputError, match="must have 0 … 100000000 features, not 12089"):
        ss.Interactions.load(path)


def test_half_a_character_is_refused():
    with pytest.raises(ss.InputError, match="half a character"):
        ss.explain(hostile.model(), hostile.explanation().left_input, "a \ud800 cat")
