"""Figures of parts of one explanation, a row for each: a title, the left side's map, and the right side's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from secondsight.support.errors import InputError
from secondsight.visual.drawing import WIDTH
from secondsight.visual.panel import Panel
from secondsight.visual.saving import printable, shown_figure, with_names

if TYPE_CHECKING:
    from secondsight.algebra.heads import Heads
    from secondsight.algebra.interactions import Interactions
    from secondsight.algebra.modes import Modes
    from secondsight.concepts import Concepts

_TITLE, _GAP, _PICTURE = 0.3, 0.12, 2.6
"""Inches of a row's title, of the space between rows, and of the highest picture."""


class Row(NamedTuple):
    """A part of an explanation: its title, values of the left features, and of the right ones where it has such."""

    title: str
    left: Tensor
    right: Tensor | None


def plot_modes(modes: Modes) -> Figure:
    """A row for every mode: its share and what it adds, its map, its words by their weight."""
    rows = [
        Row(
            f"mode {number}: {mode.share:.0%} of ΣA², {signed(mode.contribution)} to the {modes.pair.quantity}",
            mode.left,
            mode.right,
        )
        for number, mode in enumerate(modes, 1)
    ]
    return plot_rows(modes.pair, rows)


def plot_concepts(concepts: Concepts, k: int) -> Figure:
    """A row for each of the k strongest concepts: what it adds, and its map."""
    rows = [
        Row(f"{part.name}: {signed(part.similarity)} to the {concepts.pair.quantity}", concepts.values(part.name), None)
        for part in concepts.parts[:k]
    ]
    return plot_rows(concepts.pair, rows)


def plot_heads(heads: Heads, k: int, selection: Any) -> Figure:
    """A row for each of the k strongest heads: its part of the interaction, its map for a selection, and its words."""
    visible = heads.pair.left_layout.select(None)
    rows = [
        Row(
            f"{part.name}: {signed(part.interaction)} of the interaction",
            part.toward_left(selection),
            visible.to(part.matrix) @ part.matrix,
        )
        for part in heads.strongest(k)
    ]
    return plot_rows(heads.pair, rows)


def signed(value: float) -> str:
    """A part of the similarity as figures write it."""
    return f"{value:+.4f}".replace("-", "−")


def plot_rows(pair: Interactions, rows: Sequence[Row]) -> Figure:
    """A matplotlib figure with the rows below each other; every row has its own colour scale.

    Inputs are drawn where the pair is an `Explanation`; an image needs its picture (`InputError`). Raises it for no rows.
    """
    if not rows:
        raise InputError("there is nothing to draw: the explanation has no such part")
    inputs = getattr(pair, "left_input", None), getattr(pair, "right_input", None)
    panels = [
        (
            Panel(pair.left_layout, inputs[0], row.left),
            None if row.right is None else Panel(pair.right_layout, inputs[1], row.right),
        )
        for row in rows
    ]
    _check_pictures([panel for pair_of_panels in panels for panel in pair_of_panels if panel is not None])
    heights = [
        [0.0 if panel is None else panel.height(_PICTURE) for panel in pair_of_panels] for pair_of_panels in panels
    ]
    total = sum(sum(row) + _TITLE + _GAP for row in heights)
    with shown_figure(figsize=(WIDTH, total)) as figure:
        top = total
        for row, (left, right), (left_height, right_height) in zip(rows, panels, heights, strict=True):
            title = with_names(printable(row.title))
            figure.text(0.02, (top - 0.2) / total, title, fontsize=9, weight="bold", parse_math=False)
            top -= _TITLE + left_height
            left.draw(figure, top / total, left_height / total)
            top -= right_height
            if right is not None:
                right.draw(figure, top / total, right_height / total)
            top -= _GAP
    return figure


def _check_pictures(panels: Sequence[Panel]) -> None:
    for panel in panels:
        contents = panel.layout.each(panel.content)
        pictured = zip(panel.layout.parts, contents, strict=True)
        if any(part.cells.ndim == 2 and content is None for part, content in pictured):
            raise InputError(
                "the picture itself is not at hand: plot what ss.explain returned, not a pair read from a file"
            )
