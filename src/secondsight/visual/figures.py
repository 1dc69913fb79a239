"""The paper's Figure 1 for one pair: a heatmap on the image above, the coloured caption below."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from secondsight.algebra.layout import (
    Box,
    GridLayout,
    Layout,
    SpectrogramLayout,
    word_scores,
)
from secondsight.support.errors import InputError
from secondsight.visual.colours import NEGATIVE, POSITIVE, faded, limit_of, map_over_photo, overlay
from secondsight.visual.saving import printable, save

if TYPE_CHECKING:
    from secondsight.explanation import Explanation

_WIDTH = 6.4
"""Inches; a column and a half of a paper."""

_PIXELS = 1600
"""Pixels of a drawn photograph's longer side."""

_COLUMN = 2.7
"""Inches of a pair among others."""

_SCALE = LinearSegmentedColormap.from_list(
    "secondsight", [tuple(c / 255 for c in NEGATIVE), (1.0, 1.0, 1.0), tuple(c / 255 for c in POSITIVE)]
)


def plot(e: Explanation, selection: Any = None, *, box: Box | None = None) -> Figure:
    """A matplotlib figure of an explanation.

    `selection` of the right side (a span) sets the heatmap on the left, `box` of the left image (x0, y0, x1, y1 in
    original pixels) the colours of the caption; None selects everything. Red is positive, blue negative.
    """
    import matplotlib.pyplot as plt

    figure = plt.figure()
    try:
        draw(figure, e, selection, box)
    except BaseException:
        plt.close(figure)
        raise
    if "inline" in str(rcParams["backend"]):
        # The notebook shows the returned figure; an open one would be shown twice.
        plt.close(figure)
    return figure


def save_figure(e: Explanation, path: str | os.PathLike[str], selection: Any = None, box: Box | None = None) -> None:
    """Write the figure as .png, .svg or .pdf."""
    figure = Figure()
    FigureCanvasAgg(figure)
    draw(figure, e, selection, box)
    save(figure, path)


def draw(figure: Figure, e: Explanation, selection: Any, box: Box | None) -> None:
    """Draw an explanation into an empty figure, whose size is set to fit."""
    toward_left = e.toward_left(selection)
    toward_right = e.toward_right(box) if box is not None else e.toward_right(None)
    selected = e.right_layout.select(selection) if selection is not None else None
    region = selection if isinstance(selection, tuple) and isinstance(e.right_layout, GridLayout) else None
    upper = _Panel(e.left_layout, e.left_input, toward_left, box, None)
    lower = _Panel(e.right_layout, e.right_input, toward_right, region, selected)
    # A single picture may be taller than two that share the page.
    most = 7.0 if upper.pictures + lower.pictures < 2 else 3.6
    tops, bottoms = upper.height(most), lower.height(most)
    height = tops + bottoms + 0.75
    figure.set_size_inches(_WIDTH, height)
    upper.draw(figure, (bottoms + 0.7) / height, tops / height)
    lower.draw(figure, 0.62 / height, bottoms / height)
    parts = " ".join(f"{'−' if value < 0 else '+'} {abs(value):.4f} {name}" for name, value in e.terms.labels())
    equation = f"{e.quantity} {e.similarity:.4f} = {parts.removeprefix('+ ')}".replace("-", "−")
    figure.text(0.02, 0.3 / height, equation, fontsize=7.5, color="#333333", parse_math=False)
    figure.text(0.02, 0.1 / height, _small_print(e), fontsize=6.5, color="#777777", parse_math=False)


def pairs(explanations: Sequence[tuple[Explanation, Any]], columns: int = 3) -> Figure:
    """Several explanations side by side, as in [M25] Figure 1: what each word, or each box, matched.

    Every entry is an explanation and what is picked of it: a span of its right side, whose map is drawn, or a box (x0, y0,
    x1, y1) of its left image, which is framed and colours the words; None shows everything. Maps have colour scales of
    their own. Raises `InputError` where nothing is given.
    """
    if not explanations:
        raise InputError("a figure of pairs needs at least one explanation")
    columns = min(columns, len(explanations))
    rows = [explanations[i : i + columns] for i in range(0, len(explanations), columns)]
    share, wide = 1 / columns, _COLUMN
    panels, tall = [], []
    for row in rows:
        panel_row = []
        for column, (e, picked) in enumerate(row):
            box = picked if isinstance(picked, tuple) and len(picked) == 4 else None
            span = None if box is not None else picked
            selected = None if span is None else e.right_layout.select(span)
            upper = _Panel(e.left_layout, e.left_input, e.toward_left(span), box, None, column * share, share)
            lower = _Panel(e.right_layout, e.right_input, e.toward_right(box), None, selected, column * share, share)
            panel_row.append((upper, lower))
        panels.append(panel_row)
        tall.append([max(pair[side].height(7.0, wide) for pair in panel_row) for side in (0, 1)])
    figure = Figure(figsize=(wide * columns, sum(sum(pair) for pair in tall) + 0.1 * len(rows)))
    FigureCanvasAgg(figure)
    whole = float(figure.get_size_inches()[1])
    top = whole
    for panel_row, (above, below) in zip(panels, tall, strict=True):
        for upper, lower in panel_row:
            upper.draw(figure, (top - above) / whole, above / whole)
            lower.draw(figure, (top - above - below) / whole, below / whole)
        top -= above + below + 0.1
    return figure


def method_grid(explanations: Sequence[Explanation], selections: Sequence[Any]) -> Figure:
    """One pair by several methods, as in [M25] Figure 12: a column for every explanation, a row for every selection.

    Every map has a colour scale of its own, red positive and blue negative, because methods differ in their units of
    effect; its end stands in the corner. Raises `InputError` where a left side is not an image.
    """
    if not explanations or not selections:
        raise InputError("a grid needs at least one explanation and one selection")
    if not all(isinstance(e.left_layout, GridLayout) for e in explanations):
        raise InputError("a grid of maps needs images on the left side")
    layout = explanations[0].left_layout
    wide = 1.7
    tall = wide / _ratio(layout, None)
    figure = Figure(figsize=(0.9 + wide * len(explanations), 0.45 + (tall + 0.06) * len(selections)))
    FigureCanvasAgg(figure)
    width, height = figure.get_size_inches()
    for column, e in enumerate(explanations):
        left = (0.9 + column * wide) / width
        title = _titled(e)
        figure.text(left + 0.48 * wide / width, 1 - 0.22 / height, title, ha="center", va="center", fontsize=8)
        for row, selection in enumerate(selections):
            bottom = 1 - (0.45 + (row + 1) * (tall + 0.06) - 0.06) / height
            axes = figure.add_axes((left, bottom, 0.96 * wide / width, tall / height))
            values = e.toward_left(selection)
            limit = limit_of(_amounts(e.left_layout, values))
            _picture(axes, e.left_layout, e.left_input, values, limit, None, "")
            _corner(axes, limit)
            if column == 0:
                label = selection if isinstance(selection, str) else "all" if selection is None else str(selection)
                figure.text(
                    0.82 / width,
                    bottom + tall / height / 2,
                    printable(label),
                    ha="right",
                    va="center",
                    fontsize=9,
                    parse_math=False,
                )
    return figure


def _titled(e: Explanation) -> str:
    """The method's name, with the layer for integrated Jacobians, which are compared across layers."""
    name, outcome = str(e.about.get("method", "")), e.outcomes[0]
    return f"{name}\n(layer {outcome.layer})" if name == "integrated-jacobian" and outcome is not None else name


def _small_print(e: Explanation) -> str:
    layers = [str(outcome.layer) if outcome is not None else "–" for outcome in e.outcomes]
    method = e.about.get("method", "")
    if set(layers) != {"–"}:
        method = f"{method} at layers {' / '.join(layers)}"
    error = f"error {e.error:.1e}" + ("" if e.converged else ", not converged")
    return " · ".join(printable(str(part)) for part in (error, method, e.about.get("model", "")) if part)


def _short(value: float) -> str:
    return f"{value:.2g}"


@dataclass(frozen=True)
class _Panel:
    """One side of the pair: its inputs with a value per feature; `box` and `chosen` are what was picked on it.

    It takes the `share` of the figure's width from `left` on.
    """

    layout: Layout
    display: Any
    values: Tensor
    box: Box | None
    selected: Tensor | None
    left: float = 0.0
    share: float = 1.0

    @property
    def parts(self) -> list[tuple[Layout, Any, Tensor, Tensor | None, str]]:
        """(layout, what to show, values, chosen, sign) of every input that the side joins."""
        if len(self.layout.parts) == 1:
            return [(self.layout, self.display, self.values, self.selected, "")]
        count = len(self.layout.parts)
        display = self.layout.each(self.display)
        selected = [None] * count if self.selected is None else self.layout.split(self.selected)
        signs = ["+" if sign > 0 else "−" for sign in self.layout.signs]
        return list(zip(self.layout.parts, display, self.layout.split(self.values), selected, signs, strict=True))

    @property
    def pictures(self) -> int:
        return sum(_pictured(layout) for layout, *_ in self.parts)

    def height(self, most: float, wide: float = _WIDTH) -> float:
        """Inches at a width of `wide`: pictures, `most` tall, stand side by side, texts below one another."""
        share = self._pictured * wide / max(self.pictures, 1)
        tall = [min(share / _ratio(layout, display), most) for layout, display, *_ in self.parts if _pictured(layout)]
        return max(tall, default=0.0) + self._texts(wide)

    @property
    def _pictured(self) -> float:
        """Pictures' share of the width: beside one alone is room for the colour scale."""
        return 0.84 if self.share == 1.0 else 0.96

    def _texts(self, wide: float) -> float:
        return sum(_text_height(layout, wide) for layout, *_ in self.parts if not _pictured(layout))

    def draw(self, figure: Figure, bottom: float, height: float) -> None:
        """Draw into a strip of the figure; colours share one scale over the side's inputs."""
        limit = limit_of([float(v) for layout, _, values, *_ in self.parts for v in _amounts(layout, values)])
        wide, inches = (float(v) for v in figure.get_size_inches())
        wide *= self.share
        texts = self._texts(wide) / inches
        place, line = 0, bottom + texts
        for layout, display, values, selected, sign in self.parts:
            if _pictured(layout):
                x, across = self._across(0.02 + self._pictured * place / self.pictures, self._pictured / self.pictures)
                rect = (x, bottom + texts, across, height - texts)
                axes = figure.add_axes(rect)
                _picture(axes, layout, display, values, limit, self.box, sign)
                if self.share < 1:
                    _corner(axes, limit)
                place += 1
            else:
                text_height = _text_height(layout, wide) / inches
                line -= text_height
                x, across = self._across(0.02, 0.96)
                _flow(figure.add_axes((x, line, across, text_height)), _items(layout, values, selected), limit, sign)
        if self.pictures and self.share == 1:
            _bar(figure, limit, (0.875, bottom + texts + 0.1 * (height - texts), 0.018, 0.8 * (height - texts)))

    def _across(self, left: float, share: float) -> tuple[float, float]:
        return self.left + self.share * left, self.share * share


def _pictured(layout: Layout) -> bool:
    return layout.cells.ndim == 2


def _ratio(layout: Layout, display: Any) -> float:
    """Width over height as drawn."""
    if isinstance(layout, GridLayout):
        return layout.image_size[0] / layout.image_size[1]
    return 2.6


def _amounts(layout: Layout, values: Tensor) -> list[float]:
    """The values that the colour scale spans: of visible features, or of words, which sum their tokens."""
    words = layout.words
    if words:
        return [value for _, value in word_scores(layout, values)]
    return [float(v) for v in values.detach().cpu()[layout.visible]]


def _corner(axes: Axes, limit: float) -> None:
    """The end of the colour scale, in a corner of the map."""
    style = {"facecolor": "white", "edgecolor": "none", "boxstyle": "round,pad=0.15", "alpha": 0.8}
    axes.text(0.97, 0.05, f"±{_short(limit)}", transform=axes.transAxes, ha="right", fontsize=6, bbox=style)


def _bar(figure: Figure, limit: float, rect: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(rect)
    scale = ScalarMappable(Normalize(-limit, limit), _SCALE)
    bar = figure.colorbar(scale, cax=axes, ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels([_short(-limit), "0", f"+{_short(limit)}"], fontsize=7)
    bar.outline.set_visible(False)


def _text_height(layout: Layout, wide: float) -> float:
    length = len(layout.text or "") if layout.words else layout.size * 4
    return 0.16 + 0.3 * (1 + int(length / (62 * wide / _WIDTH)))


def _picture(axes: Axes, layout: Layout, display: Any, values: Tensor, limit: float, box: Any, sign: str) -> None:
    """A photograph or spectrogram under its map."""
    values = values.detach().cpu()
    if isinstance(layout, SpectrogramLayout):
        _spectrogram(axes, layout, np.asarray(display, dtype=float), values, limit)
    else:
        assert isinstance(layout, GridLayout)
        axes.set_axis_off()
        # As many pixels as a page can show; axes stay in those of the original.
        width, height = layout.image_size
        shrink = min(1.0, _PIXELS / max(width, height))
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        photo = display if shrink == 1 else display.resize(size, Image.Resampling.LANCZOS)
        extent = (0.0, float(width), float(height), 0.0)
        axes.imshow(map_over_photo(photo, layout.heatmap(values, size[::-1]).numpy(), limit), extent=extent)
    if isinstance(box, tuple):
        # Of a sound, a stretch of seconds.
        x0, y0, x1, y1 = box if len(box) == 4 else (box[0], axes.get_ylim()[0], box[1], axes.get_ylim()[1])
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="#ffd400", linewidth=2))
    if sign:
        style = {"facecolor": "white", "edgecolor": "none", "boxstyle": "round,pad=0.2"}
        axes.text(0.03, 0.95, sign, transform=axes.transAxes, va="top", fontsize=12, weight="bold", bbox=style)


def _spectrogram(axes: Axes, layout: SpectrogramLayout, levels: np.ndarray, values: Tensor, limit: float) -> None:
    """Sound as frequency over time, quiet parts dark."""
    last = layout.seconds or levels.shape[1]
    extent = (0.0, float(last), 0.0, float(levels.shape[0]))
    low, high = float(levels.min()), float(levels.max())
    grey = np.repeat(((levels - low) / ((high - low) or 1.0) * 255)[..., None], 3, axis=-1)
    axes.imshow(faded(grey), origin="lower", extent=extent, aspect="auto")
    heat = layout.heatmap(values, (levels.shape[0], levels.shape[1])).numpy()
    axes.imshow(overlay(heat, limit), origin="lower", extent=extent, aspect="auto")
    axes.set_yticks([])
    axes.tick_params(axis="x", labelsize=6, length=2, pad=1, direction="in", colors="white")
    for label in axes.get_xticklabels():
        label.set_verticalalignment("bottom")
    axes.xaxis.set_tick_params(pad=-9)
    unit = "s" if layout.seconds else "frames"
    axes.text(0.99, 0.03, unit, transform=axes.transAxes, ha="right", fontsize=6, color="white")


def _items(layout: Layout, values: Tensor, selected: Tensor | None) -> list[tuple[str, float, bool]]:
    """(text, value, picked) of every word, or of every feature where there are no words."""
    words = layout.words
    if not words:
        return [(str(i), float(values[i]), False) for i in layout.visible]
    picked = [selected is not None and bool(selected[list(w.features)].any()) for w in words]
    return [(w, v, p) for (w, v), p in zip(word_scores(layout, values), picked, strict=True)]


def _renderer(figure: Any) -> Any:
    """A renderer to measure text with; the figure keeps its canvas, which may belong to a window."""
    canvas = figure.canvas
    if hasattr(canvas, "get_renderer"):
        return canvas.get_renderer()
    measured = FigureCanvasAgg(figure).get_renderer()
    figure.set_canvas(canvas)
    return measured


def _flow(axes: Axes, items: list[tuple[str, float, bool]], limit: float, sign: str) -> None:
    """Words from left to right, wrapped, each on its colour; picked words are framed; a sign comes first where there is one."""
    axes.set_axis_off()
    figure = axes.figure
    renderer = _renderer(figure)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    box = axes.get_window_extent(renderer)
    # In shares of the line, which is shorter where several pairs stand side by side.
    inch = figure.dpi / box.width
    size = 11.0 if box.width > 4 * figure.dpi else 8.5
    first, gap, line = 0.075 * inch, 0.117 * inch * size / 11, 0.3 * figure.dpi / box.height
    x, y = first, 1 - 0.75 * line
    if sign:
        axes.text(x, y, sign, fontsize=size, va="center", color="#555555")
        x += 0.185 * inch
    for text, value, picked in items:
        red, green, blue, alpha = overlay(np.array(value), limit, 0.75)
        back = tuple(1 - alpha + alpha * c for c in (red, green, blue))
        style = {"facecolor": back, "edgecolor": "#222222" if picked else back, "boxstyle": "round,pad=0.22"}
        ink = "white" if alpha > 0.62 else "#111111"
        word = axes.text(x, y, printable(text), fontsize=size, va="center", color=ink, bbox=style, parse_math=False)
        width = word.get_window_extent(renderer).width / box.width
        if x + width > 1 - first and x > 1.5 * first:
            x, y = first, y - line
            word.set_position((x, y))
        x += width + gap
