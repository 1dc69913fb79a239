"""Words of sentences: numbers of things, p-values that no test can vouch for."""

import json

import numpy as np

from secondsight.answers import Claim, Section, write_answer
from secondsight.answers.wording import count, p_text, plural, times


def test_a_p_value_is_never_told_as_zero():
    assert [p_text("p", p) for p in (0.0, 9e-5, 1e-4, 0.0123, 1.0)] == [
        "p < 0.0001", "p < 0.0001", "p = 0.0001", "p = 0.012", "p = 1",
    ]  # fmt: skip


def test_things_are_counted_in_english():
    assert [plural(noun) for noun in ("query", "miss", "caption")] == ["queries", "misses", "captions"]
    assert (count(1, "query"), count(2, "miss"), times(1), times(3)) == ("1 query", "2 misses", "once", "3 times")


def test_a_missing_number_is_null_in_the_summary(tmp_path):
    claim = Claim("a claim", numbers={"q": np.nan, "images": np.int64(3), "name": "dog"})
    write_answer(tmp_path, "title", "about", [Section("a section", "about", [claim])], {})
    text = (tmp_path / "summary.json").read_text()
    assert "NaN" not in text
    (told,) = json.loads(text)["claims"]
    assert (told["q"], told["images"], told["name"]) == (None, 3, "dog")
