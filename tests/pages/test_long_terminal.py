"""Long texts in the terminal: the strongest sentences, few words in the table, the whole text where there are colours."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

import secondsight as ss
from secondsight.algebra.layout import JoinedLayout
from secondsight.visual.headline import headline
from secondsight.visual.passages import passages
from secondsight.visual.terminal import terminal
from texts import DOCUMENT, QUERY, paired_inputs


def printed(e: ss.Explanation, width: int = 90, **options) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal(e, **options))
    return console.file.getvalue()


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.fixture(scope="module")
def e():
    return paired_inputs(QUERY, DOCUMENT)


@pytest.mark.parametrize("width", [60, 90])
def test_sentences_and_words_are_the_strongest(e, width):
    text = printed(e, width)
    scores = e.matrix.sum(0)
    sums = {part.text: float(scores[part.first : part.end].sum()) for part in passages(e.right_layout)}
    expected = sorted(sums, key=sums.__getitem__, reverse=bool(scores.sum() > 0))[:5]
    places = [flat(text).index(f"{sums[sentence]:+.4f} {flat(sentence)}") for sentence in expected]
    assert places == sorted(places)
    assert f"the 5 strongest of {len(sums)} sentences" in flat(text)
    assert f"the 20 strongest of {len(scores)} words × {QUERY}" in flat(text)
    assert max(map(len, text.splitlines())) <= width
    # The query's words, whose title does not repeat the document, and no word for every line of the screen.
    assert "words × The harbour was rebuilt after two storms." in flat(text)
    assert len(text.splitlines()) < 80


def test_a_selection_ranks_the_sentences_of_the_left_text(e):
    text = flat(printed(e.T, selection="cost"))
    scores = e.matrix[QUERY.split().index("cost")]
    sums = {part.text: float(scores[part.first : part.end].sum()) for part in passages(e.right_layout)}
    first = sorted(sums, key=sums.__getitem__, reverse=bool(scores.sum() > 0))[0]
    assert f"sentences × 'cost' {sums[first]:+.4f} {flat(first)}" in text


def test_where_there_are_colours_the_text_keeps_its_line_breaks(e):
    assert DOCUMENT in printed(e, 200, columns=40)
    assert DOCUMENT not in printed(e, 200)
    book = paired_inputs(QUERY, "\n\n".join([DOCUMENT] * 10))
    assert len(printed(book, columns=40).splitlines()) < 80


def test_margins_between_long_texts_say_which_and_stay_short(e):
    other = paired_inputs(QUERY, DOCUMENT.replace("twelve", "nine"), seed=1)
    margin = ss.explanation.contrast(e, other)
    assert isinstance(margin.right_layout, JoinedLayout)
    assert len(printed(margin).splitlines()) < 110


def test_titles_name_the_ends_of_a_long_selection(e):
    words = [word.text for word in e.right_layout.words][:30]
    expected = f"“{' '.join(words[:5])} … {' '.join(words[-4:])}” "
    assert headline(e, list(range(30))).startswith(expected)


def test_words_that_were_cut_off_are_counted(e):
    assert "does not read" not in printed(e)
    layout, tokens = e.right_layout, e.right_layout.size - 10
    special = {**layout.special, **dict.fromkeys(range(tokens, layout.size), "padding")}
    cut = replace(e, right_layout=replace(layout, special=special, offsets=(*layout.offsets[:tokens], *[None] * 10)))
    words = cut.right_layout.words
    unread = [i for i, word in enumerate(words) if not word.features]
    assert unread == list(range(unread[0], len(words)))
    sentence = (
        f"of the {len(words)} words and marks of “{words[0].text} …” the model does not read the last {len(unread)}"
    )
    assert sentence in flat(printed(cut))
    assert sentence in " ".join(text.get_text() for text in cut.plot().texts).replace("\n", " ")
