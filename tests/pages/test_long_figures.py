"""Long texts in figures: paragraphs within their axes, the strongest sentences underlined, a cap that is said."""

import re
from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from secondsight.visual.figures import draw, pairs
from secondsight.visual.passages import passages
from texts import DOCUMENT, QUERY, paired_inputs


def drawn(e, *picks):
    figure = Figure()
    FigureCanvasAgg(figure)
    draw(figure, e, *(picks or (None, None)))
    figure.canvas.draw()
    return figure


def words_of(axes):
    return [text for text in axes.texts if text.get_fontsize() == 8.0]


@pytest.fixture(scope="module")
def e():
    return paired_inputs(QUERY, DOCUMENT)


def test_words_stand_in_paragraphs_and_do_not_overlap(e):
    axes = drawn(e).axes[1]
    texts = words_of(axes)
    words = e.right_layout.words
    assert [text.get_text() for text in texts] == [word.text for word in words]
    boxes = [text.get_window_extent() for text in texts]
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)
    middles = [text.get_position()[1] for text in texts]
    for (first, second), (above, below), (left, right) in zip(
        pairwise(words), pairwise(middles), pairwise(boxes), strict=True
    ):
        between = DOCUMENT[first.end : second.start]
        if "\n" in between:
            assert below > above
        elif not between:
            assert below == above
        if below == above:
            assert left.x1 <= right.x0 + 1


def test_the_three_strongest_sentences_are_underlined_and_named(e):
    axes = drawn(e).axes[1]
    scores = e.matrix.sum(0)
    sums = sorted(
        (float(scores[p.first : p.end].sum()) for p in passages(e.right_layout)), reverse=bool(scores.sum() > 0)
    )
    note = " ".join(text.get_text() for text in axes.texts if text.get_fontsize() == 6.5)
    assert f"Underlined: the strongest sentences, {', '.join(f'{v:+.4f}' for v in sums[:3])}.".replace("-", "−") in note
    (lines,) = [artist for artist in axes.collections if isinstance(artist, LineCollection)]
    ranked = sorted(
        passages(e.right_layout), key=lambda p: float(scores[p.first : p.end].sum()), reverse=bool(scores.sum() > 0)
    )
    assert len(lines.get_segments()) == sum(p.end - p.first for p in ranked[:3])


def test_a_very_long_text_shows_its_strongest_sentences_and_says_so():
    e = paired_inputs(QUERY, "\n\n".join(DOCUMENT.replace("two", f"{i} more") for i in range(60)))
    figure = drawn(e)
    assert figure.get_size_inches()[1] < 8
    count = len(passages(e.right_layout))
    written = " ".join(text.get_text() for text in figure.axes[1].texts)
    assert f"The 12 strongest of {count} sentences, in the order of the text." in written
    assert len(words_of(figure.axes[1])) < 600


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_long_captions_of_photographs_and_pairs_are_drawn(suffix, tmp_path):
    e = paired_inputs(Image.new("RGB", (400, 300), "grey"), DOCUMENT)
    e.save(tmp_path / f"e{suffix}", (0, 20))
    assert (tmp_path / f"e{suffix}").stat().st_size > 5000
    framed = [patch for patch in drawn(e, (0, 20), None).axes[-1].patches if patch.get_edgecolor()[3]]
    assert len(framed) == len(re.findall(r"\w+", DOCUMENT[:20]))
    assert pairs([(e, None), (e, None)]).get_size_inches()[1] < 12
