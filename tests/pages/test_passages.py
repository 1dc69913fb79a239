"""The passages of a text: every word in one, sentences and lines whole."""

import pytest
import torch

from secondsight.algebra.layout import TokenLayout, word_scores
from secondsight.visual.page_data import page_data
from secondsight.visual.passages import LONG, is_long, passages, strongest_passages
from texts import DOCUMENT, QUERY, paired_inputs, words_layout


def texts_of(text: str) -> list[str]:
    return [passage.text for passage in passages(words_layout(text))]


@pytest.mark.parametrize("text", [DOCUMENT, QUERY, "one", "。", "no end here\n\n\nbut a line", "word " * 200])
def test_every_word_is_in_one_passage(text):
    layout = words_layout(text)
    covered = [i for passage in passages(layout) for i in range(passage.first, passage.end)]
    assert covered == list(range(len(layout.words)))
    assert max(passage.end - passage.first for passage in passages(layout)) <= 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rains. We stay.", ["It rains.", "We stay."]),
        ("Mrs. Watts sleeps. J. S. Bach plays, e.g. fugues.", ["Mrs. Watts sleeps.", "J. S. Bach plays, e.g. fugues."]),
        ("It costs 3.50 in all! Really?", ["It costs 3.50 in all!", "Really?"]),
        ("A heading\nA line that\nis wrapped\n- an entry", ["A heading", "A line that\nis wrapped", "- an entry"]),
        ("it ends here\n\nwhatever follows", ["it ends here", "whatever follows"]),
        ('He said "no." She left.', ['He said "no."', "She left."]),
        ("今日は雨です。家にいます。", ["今日は雨です。", "家にいます。"]),
    ],
)
def test_passages_are_sentences_and_lines(text, expected):
    assert texts_of(text) == expected


def test_tokens_without_a_text_have_passages_of_equal_length():
    layout = TokenLayout(size=90, special={}, tokens=tuple("t" * 90), offsets=(None,) * 90, text=None)
    assert [(passage.first, passage.end) for passage in passages(layout)] == [(0, 45), (45, 90)]


def test_the_strongest_passages_are_those_of_the_largest_sums():
    layout = words_layout(DOCUMENT)
    values = torch.randn(layout.size, generator=torch.Generator().manual_seed(1)).double()
    for signed in (values + 1, values - 1):
        scores = [value for _, value in word_scores(layout, signed)]
        sums = [sum(scores[passage.first : passage.end]) for passage in passages(layout)]
        expected = sorted(sums, reverse=sum(scores) > 0)[:3]
        assert [value for _, value in strongest_passages(layout, signed, 3)] == pytest.approx(expected)


def test_only_the_page_of_a_long_text_has_passages():
    case = page_data(paired_inputs(QUERY, DOCUMENT))["cases"][0]
    assert "passages" not in case["left"]
    assert len(case["right"]["words"]) > LONG
    assert case["right"]["passages"] == [passage.first for passage in passages(words_layout(DOCUMENT))]
    assert is_long(words_layout(DOCUMENT))
    assert not is_long(words_layout(QUERY))
