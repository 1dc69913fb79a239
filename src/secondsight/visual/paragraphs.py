"""A long text in a figure: paragraphs of small words on their colours, with the strongest sentences underlined."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from textwrap import wrap
from typing import NamedTuple

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path
from torch import Tensor

from secondsight.algebra.layout import Layout
from secondsight.visual.colours import on_white
from secondsight.visual.drawing import WordScore, scored_words
from secondsight.visual.passages import Passage, passages, strongest_passages
from secondsight.visual.saving import printable, with_names

_SIZE, _LINE, _SPACE = 8.0, 0.165, 0.035
"""Points of the letters; inches between lines and between words."""

_NOTE = 19
"""Characters of the note's letters in an inch."""

_MARGIN, _INDENT = 0.075, 0.185
"""Inches beside the text, and before its first line where a sign stands."""

_WHOLE, _SHOWN = 1000, 12
"""Words up to which a text is drawn as a whole, and sentences of a longer one."""

_UNDERLINED = 3


class _Placed(NamedTuple):
    """A word with its number in the text, its left end and its line's middle in inches, downwards, and its width."""

    number: int
    word: WordScore
    x: float
    y: float
    width: float


class Paragraphs:
    """A long text laid out at a width in inches; `height` is what it takes."""

    def __init__(
        self,
        layout: Layout,
        values: Float[Tensor, " feature"],
        selection: Float[Tensor, " feature"] | None,
        sign: str,
        width: float,
    ) -> None:
        self.sign = sign
        self._layout, self._width = layout, 0.96 * width
        self._words = scored_words(layout, values, selection)
        sentences = passages(layout)
        self._all = len(sentences)
        ranked = strongest_passages(layout, values, _SHOWN)
        self._strongest = ranked[:_UNDERLINED]
        self._whole = len(self._words) <= _WHOLE
        drawn = sentences if self._whole else sorted(passage for passage, _ in ranked)
        self._placed = list(self._place(drawn))
        self._bottom = self._placed[-1].y + 0.7 * _LINE
        self._note_lines = -(-len(self._note(1.0)) // self._characters)
        self.height = self._bottom + (0.8 + 0.7 * self._note_lines) * _LINE

    @property
    def _characters(self) -> int:
        """Characters of a line of the note."""
        return int(_NOTE * self._width)

    def _place(self, drawn: list[Passage]) -> Iterator[_Placed]:
        """Words from left to right, wrapped where the text has spaces, and with its own line breaks."""
        words = self._layout.words
        font = FontProperties(size=_SIZE)
        x, y = _MARGIN + (_INDENT if self.sign else 0.0), 0.75 * _LINE
        for cluster, gap in self._clusters(drawn):
            widths = [_width(words[i].text, font) for i in cluster]
            breaks = gap.count("\n")
            if breaks or (x + sum(widths) > self._width - _MARGIN and x > _MARGIN):
                x, y = _MARGIN, y + _LINE * (1.5 if breaks > 1 else 1.0)
            for index, width in zip(cluster, widths, strict=True):
                yield _Placed(index, self._words[index], x, y, width)
                x += width
            x += _SPACE

    def _clusters(self, drawn: list[Passage]) -> Iterator[tuple[list[int], str]]:
        """Words that nothing separates, such as one and its comma, and what stands before them in the text."""
        words, text = self._layout.words, self._layout.text
        cluster: list[int] = []
        before = ""
        for previous, index in pairwise([-1, *(i for passage in drawn for i in range(passage.first, passage.end))]):
            if previous < 0:
                gap = ""
            elif index > previous + 1:
                # Sentences were left out.
                gap = "\n\n"
            else:
                gap = " " if text is None else text[words[previous].end : words[index].start]
            if gap and cluster:
                yield cluster, before
                cluster = []
            before = before if cluster else gap
            cluster.append(index)
        yield cluster, before

    def draw(self, axes: Axes, limit: float) -> None:
        """Draw into axes of this height; colours end at `limit`."""
        axes.set_axis_off()
        axes.set_xlim(0, self._width)
        axes.set_ylim(self.height, 0)
        if self.sign:
            axes.text(_MARGIN, 0.75 * _LINE, self.sign, fontsize=11, va="center", color="#555555")
        underlined = {i for passage, _ in self._strongest for i in range(passage.first, passage.end)}
        lines = [(y + 0.44 * _LINE, x, x + width) for index, _, x, y, width in self._placed if index in underlined]
        axes.hlines(*zip(*lines, strict=True), color="#b58900", linewidth=1.2, zorder=4)
        for _, word, x, y, width in self._placed:
            colour, opacity = on_white(word.value, limit)
            edge = "#222222" if word.framed else "none"
            # All colours lie below all letters, which reach into their neighbours'.
            place, size = (x - 0.4 * _SPACE, y - 0.46 * _LINE), (width + 0.8 * _SPACE, 0.92 * _LINE)
            axes.add_patch(
                Rectangle(place, *size, facecolor=colour, edgecolor=edge, linewidth=0.8, zorder=2 + word.framed)
            )
            ink = "white" if opacity > 0.62 else "#111111"
            text = with_names(printable(word.text))
            axes.text(x, y, text, fontsize=_SIZE, va="center_baseline", color=ink, parse_math=False, zorder=4)
        for number, line in enumerate(wrap(self._note(limit), self._characters)):
            y = self._bottom + (0.5 + 0.7 * number) * _LINE
            axes.text(_MARGIN, y, line, fontsize=6.5, va="center", color="#777777")

    def _note(self, limit: float) -> str:
        values = ", ".join(f"{value:+.4f}" for _, value in self._strongest).replace("-", "−")
        part = "" if self._whole else f"The {_SHOWN} strongest of {self._all} sentences, in the order of the text. "
        return f"{part}Colours end at ±{limit:.2g}. Underlined: the strongest sentences, {values}."


def _width(text: str, font: FontProperties) -> float:
    """Inches of a word."""
    width, _, _ = text_to_path.get_text_width_height_descent(with_names(printable(text)), font, ismath=False)
    return float(width) / 72
