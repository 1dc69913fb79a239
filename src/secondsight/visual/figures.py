"""Figures of explanations: one pair ([M25] Figure 1), several pairs side by side, one pair by several methods."""

from __future__ import annotations

import os
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from secondsight.algebra.layout import Box
from secondsight.support.errors import InputError
from secondsight.visual.colours import limit_of
from secondsight.visual.details import details
from secondsight.visual.drawing import WIDTH, aspect_ratio, draw_picture, scale_values, write_limit
from secondsight.visual.headline import headline
from secondsight.visual.panel import Panel
from secondsight.visual.saving import printable, save, shown_figure, with_names
from secondsight.visual.sentences import cut_texts, special_shares

if TYPE_CHECKING:
    from secondsight.explanation import Explanation

_TITLE_CHARACTERS, _TITLE_LINE = 76, 0.15
"""Characters of a line of a figure's title, and its height in inches."""

_NOTE_CHARACTERS, _NOTE_LINE, _NOTED = 118, 0.12, 12
"""Characters of a line of small print below the equation, its height in inches, and the entries of a table named there."""

_PAIR_WIDTH = 2.7
"""Inches of a pair in `pairs`."""

_MAP_WIDTH = 1.7
"""Inches of a map in `method_grid`, its gap included."""

_ROW_LABELS, _COLUMN_TITLES = 0.9, 0.45
"""Inches that `method_grid` leaves at the left and at the top."""


def plot(e: Explanation, selection: Any = None, *, box: Box | None = None) -> Figure:
    """A matplotlib figure of an explanation.

    `selection` of the right side (a span) decides the heatmap on the left, `box` of the left image (x0, y0, x1, y1 in
    original pixels) the colours of the caption; None stands for everything. Red is positive, blue negative.
    """
    with shown_figure() as figure:
        draw(figure, e, selection, box)
    return figure


def save_figure(e: Explanation, path: str | os.PathLike[str], selection: Any = None, box: Box | None = None) -> None:
    """Write the figure as .png, .svg or .pdf."""
    figure = Figure()
    FigureCanvasAgg(figure)
    draw(figure, e, selection, box)
    save(figure, path)


def draw(figure: Figure, e: Explanation, selection: Any, box: Box | None) -> None:
    """Draw an explanation into an empty figure, whose size is set to fit."""
    weights = e.right_layout.select(selection) if selection is not None else None
    right_box = selection if isinstance(selection, tuple) and e.right_layout.kind == "image" else None
    upper = Panel(e.left_layout, e.left_input, e.toward_left(selection), box)
    lower = Panel(e.right_layout, e.right_input, e.toward_right(box), right_box, weights)
    # A single picture takes the page's width; two share its height.
    limit = 7.0 if upper.pictures + lower.pictures < 2 else 3.6
    upper_height, lower_height = upper.height(limit), lower.height(limit)
    title = wrap(headline(e, selection, box), _TITLE_CHARACTERS)
    notes = _notes(e)
    # With some room below the equation.
    below = _NOTE_LINE * (len(notes) + 1) if notes else 0.0
    height = upper_height + lower_height + below + 0.85 + _TITLE_LINE * len(title)
    figure.set_size_inches(WIDTH, height)
    upper.draw(figure, (lower_height + below + 0.7) / height, upper_height / height)
    lower.draw(figure, (below + 0.62) / height, lower_height / height)
    for number, line in enumerate(title):
        top = 1 - (0.17 + _TITLE_LINE * number) / height
        figure.text(0.02, top, with_names(printable(line)), fontsize=9, weight="bold", parse_math=False)
    terms = " ".join(f"{'−' if value < 0 else '+'} {abs(value):.4f} {name}" for name, value in e.terms.labels())
    equation = f"{e.quantity} {e.similarity:.4f} = {terms.removeprefix('+ ')}".replace("-", "−")
    figure.text(0.02, (below + 0.3) / height, equation, fontsize=7.5, color="#333333", parse_math=False)
    for number, line in enumerate(reversed(notes)):
        bottom = (0.28 + _NOTE_LINE * number) / height
        figure.text(0.02, bottom, with_names(printable(line)), fontsize=6.5, color="#333333", parse_math=False)
    figure.text(0.02, 0.1 / height, _small_print(e), fontsize=6.5, color="#777777", parse_math=False)


def pairs(explanations: Sequence[tuple[Explanation, Any]], columns: int = 3) -> Figure:
    """Several explanations side by side, as in [M25] Figure 1: what each word, or each box, matched.

    Every entry is an explanation and what is picked in it: a span of its right side, whose map is drawn; or a box (x0, y0,
    x1, y1) of its left image, which is framed and colours the words; or None for everything. Every map has its own colour
    scale. Raises `InputError` without explanations.
    """
    if not explanations:
        raise InputError("a figure of pairs needs at least one explanation")
    columns = min(columns, len(explanations))
    rows = []
    for first in range(0, len(explanations), columns):
        row_entries = explanations[first : first + columns]
        rows.append([_pair_panels(e, pick, i / columns, 1 / columns) for i, (e, pick) in enumerate(row_entries)])
    heights = [
        [max(panel.height(7.0, _PAIR_WIDTH) for panel in panels) for panels in zip(*row, strict=True)] for row in rows
    ]
    figure = Figure(figsize=(_PAIR_WIDTH * columns, sum(sum(pair) for pair in heights) + 0.1 * len(rows)))
    FigureCanvasAgg(figure)
    total = float(figure.get_size_inches()[1])
    top = total
    for row, (above, below) in zip(rows, heights, strict=True):
        for upper, lower in row:
            upper.draw(figure, (top - above) / total, above / total)
            lower.draw(figure, (top - above - below) / total, below / total)
        top -= above + below + 0.1
    return figure


def _pair_panels(e: Explanation, pick: Any, left: float, share: float) -> tuple[Panel, Panel]:
    """Both sides of a pair that takes the fraction `share` of the figure's width, from the fraction `left` on."""
    box = pick if isinstance(pick, tuple) and len(pick) == 4 else None
    span = None if box is not None else pick
    weights = None if span is None else e.right_layout.select(span)
    upper = Panel(e.left_layout, e.left_input, e.toward_left(span), box, None, left, share)
    lower = Panel(e.right_layout, e.right_input, e.toward_right(box), None, weights, left, share)
    return upper, lower


def method_grid(
    explanations: Sequence[Explanation], selections: Sequence[Any], titles: Sequence[str] | None = None
) -> Figure:
    """One pair by several methods, as in [M25] Figure 12: a column for every explanation, a row for every selection.

    `titles` stand above the columns, by default the methods' names.
    Every map has its own colour scale, red positive and blue negative, because methods differ in their units of effect;
    the end of the scale stands in the corner. Raises `InputError` if a left side is not an image.
    """
    if not explanations or not selections:
        raise InputError("a grid needs at least one explanation and one selection")
    if not all(e.left_layout.kind == "image" for e in explanations):
        raise InputError("a grid of maps needs images on the left side")
    map_height = _MAP_WIDTH / aspect_ratio(explanations[0].left_layout)
    row_height = map_height + 0.06
    size = (_ROW_LABELS + _MAP_WIDTH * len(explanations), _COLUMN_TITLES + row_height * len(selections))
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    width, height = figure.get_size_inches()
    bottoms = [1 - (_COLUMN_TITLES + (row + 1) * row_height - 0.06) / height for row in range(len(selections))]
    for column, e in enumerate(explanations):
        left = (_ROW_LABELS + column * _MAP_WIDTH) / width
        center, top = left + 0.48 * _MAP_WIDTH / width, 1 - 0.22 / height
        title = _title(e) if titles is None else "\n".join(wrap(printable(titles[column]), 24))
        figure.text(center, top, title, ha="center", va="center", fontsize=8, parse_math=False)
        for bottom, selection in zip(bottoms, selections, strict=True):
            axes = figure.add_axes((left, bottom, 0.96 * _MAP_WIDTH / width, map_height / height))
            values = e.toward_left(selection)
            limit = limit_of(scale_values(e.left_layout, values))
            draw_picture(axes, e.left_layout, e.left_input, values, limit)
            write_limit(axes, limit)
            if column == 0:
                label = "all" if selection is None else printable(str(selection))
                middle = bottom + map_height / height / 2
                figure.text(0.82 / width, middle, label, ha="right", va="center", fontsize=9, parse_math=False)
    return figure


def _title(e: Explanation) -> str:
    """The method's name; for the integrated Jacobian, whose layer is often varied, also the layer."""
    name, outcome = str(e.about.get("method", "")), e.outcomes[0]
    return f"{name}\n(layer {outcome.layer})" if name == "integrated-jacobian" and outcome is not None else name


def _notes(e: Explanation) -> list[str]:
    """Small print: the best matches or words of the vocabulary that make up the similarity, and shares without a place."""
    lines = []
    for table in details(e):
        # Lines break between entries only.
        entries = " · ".join(entry.replace(" ", "\u00a0") for entry in table.short[:_NOTED])
        entries += " …" if len(table.short) > _NOTED else ""
        lines += wrap(table.title, _NOTE_CHARACTERS) + wrap(entries, _NOTE_CHARACTERS)
    lines += [part for line in (*special_shares(e), *cut_texts(e)) for part in wrap(line, _NOTE_CHARACTERS)]
    return lines


def _small_print(e: Explanation) -> str:
    layers = [str(outcome.layer) if outcome is not None else "–" for outcome in e.outcomes]
    method = e.about.get("method", "")
    if set(layers) != {"–"}:
        method = f"{method} at layers {' / '.join(layers)}"
    error = f"error {e.error:.1e}" + ("" if e.converged else ", not converged")
    return " · ".join(printable(str(part)) for part in (error, method, e.about.get("model", "")) if part)
