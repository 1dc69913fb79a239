"""One side of a pair in a figure: its pictures side by side, its texts below them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from secondsight.algebra.layout import Layout
from secondsight.visual.colours import limit_of
from secondsight.visual.drawing import (
    WIDTH,
    aspect_ratio,
    draw_picture,
    draw_scale,
    draw_words,
    is_picture,
    scale_values,
    scored_words,
    text_height,
    write_limit,
)
from secondsight.visual.paragraphs import Paragraphs
from secondsight.visual.passages import is_long

_SCALE_HEIGHT = 0.9
"""Inches of the strip in which the colour scale with its labels stands."""


class _Part(NamedTuple):
    """One input of a side: what to show, a value per feature, the weights of the selection, and its sign."""

    layout: Layout
    content: Any
    values: Tensor
    selection: Tensor | None
    sign: str

    def _paragraphs(self, width: float) -> Paragraphs:
        return Paragraphs(self.layout, self.values, self.selection, self.sign, width)

    def text_height(self, width: float) -> float:
        """Inches that the text takes when it is wrapped at `width` inches."""
        return self._paragraphs(width).height if is_long(self.layout) else text_height(self.layout, width)

    def draw_text(self, axes: Axes, limit: float, width: float) -> None:
        """Draw the text's words on their colours."""
        if is_long(self.layout):
            self._paragraphs(width).draw(axes, limit)
        else:
            draw_words(axes, scored_words(self.layout, self.values, self.selection), limit, self.sign)


@dataclass(frozen=True)
class Panel:
    """One side of a pair: its inputs, a value per feature, and what is picked: a framed `box`, weights of a `selection`.

    It occupies the fraction `share` of the figure's width, from the fraction `left` on.
    """

    layout: Layout
    content: Any
    values: Tensor
    box: Any = None
    selection: Tensor | None = None
    left: float = 0.0
    share: float = 1.0

    @property
    def pictures(self) -> int:
        """The number of pictures."""
        return sum(is_picture(part.layout) for part in self._parts)

    def height(self, limit: float, width: float = WIDTH) -> float:
        """Inches of height at `width` inches; a picture is at most `limit` inches high."""
        picture_width = self._pictures_share * width / max(self.pictures, 1)
        heights = [
            min(picture_width / aspect_ratio(part.layout), limit) for part in self._parts if is_picture(part.layout)
        ]
        # The scale beside the picture has labels that need their room, also where the picture is very wide.
        least = _SCALE_HEIGHT if heights and self.share == 1 else 0.0
        return max([*heights, least]) + self._texts_height(width)

    def draw(self, figure: Figure, bottom: float, height: float) -> None:
        """Draw into a strip of the figure, given as fractions of its height; all inputs share one colour scale."""
        limit = limit_of([value for part in self._parts for value in scale_values(part.layout, part.values)])
        width, inches = (float(v) for v in figure.get_size_inches())
        width *= self.share
        texts = self._texts_height(width) / inches
        column, line = 0, bottom + texts
        for part in self._parts:
            if is_picture(part.layout):
                fraction = self._pictures_share / self.pictures
                x, across = self._in_figure(0.02 + self._pictures_share * column / self.pictures, fraction)
                axes = figure.add_axes((x, bottom + texts, across, height - texts))
                draw_picture(axes, part.layout, part.content, part.values, limit, self.box, part.sign)
                if self.share < 1:
                    write_limit(axes, limit)
                column += 1
            else:
                part_height = part.text_height(width) / inches
                line -= part_height
                x, across = self._in_figure(0.02, 0.96)
                axes = figure.add_axes((x, line, across, part_height))
                part.draw_text(axes, limit, width)
        if self.pictures and self.share == 1:
            draw_scale(figure, limit, (0.875, bottom + texts + 0.1 * (height - texts), 0.018, 0.8 * (height - texts)))

    @property
    def _parts(self) -> list[_Part]:
        if len(self.layout.parts) == 1:
            return [_Part(self.layout, self.content, self.values, self.selection, "")]
        contents = self.layout.each(self.content)
        selections = [None] * len(contents) if self.selection is None else self.layout.split(self.selection)
        signs = ["+" if sign > 0 else "−" for sign in self.layout.signs]
        parts = zip(self.layout.parts, contents, self.layout.split(self.values), selections, signs, strict=True)
        return [_Part(*part) for part in parts]

    @property
    def _pictures_share(self) -> float:
        """The pictures' fraction of the width: a panel as wide as the figure leaves room for the colour scale."""
        return 0.84 if self.share == 1.0 else 0.96

    def _texts_height(self, width: float) -> float:
        return sum(part.text_height(width) for part in self._parts if not is_picture(part.layout))

    def _in_figure(self, left: float, width: float) -> tuple[float, float]:
        """A stretch (left, width) of the panel as fractions of the figure."""
        return self.left + self.share * left, self.share * width
