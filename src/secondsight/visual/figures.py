"""The paper's Figure 1 for one pair: a heatmap on the image above, the coloured caption below."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from secondsight.errors import InputError
from secondsight.files import atomic
from secondsight.layout import GridLayout, Layout, TokenLayout
from secondsight.visual.colours import NEGATIVE, POSITIVE, faded, limit_of, overlay

if TYPE_CHECKING:
    from secondsight.explanation import Explanation

_WIDTH = 6.4
"""Inches; a column and a half of a paper."""

_SCALE = LinearSegmentedColormap.from_list(
    "secondsight", [tuple(c / 255 for c in NEGATIVE), (1.0, 1.0, 1.0), tuple(c / 255 for c in POSITIVE)]
)


def plot(e: Explanation, selection: Any = None, *, box: tuple[float, float, float, float] | None = None) -> Figure:
    """A matplotlib figure of an explanation.

    `selection` of the right side (a span) gives the heatmap on the left; `box` of the left image (x0, y0, x1, y1 in
    original pixels) colours the caption instead. Without either, both show everything. Red is positive, blue negative.
    """
    import matplotlib.pyplot as plt

    figure = plt.figure()
    try:
        draw(figure, e, selection, box)
    except BaseException:
        plt.close(figure)
        raise
    if "inline" in str(rcParams["backend"]):
        # The notebook shows the returned figure; left open it would be shown a second time.
        plt.close(figure)
    return figure


def save_figure(e: Explanation, path: str | os.PathLike[str], selection: Any = None) -> None:
    """Write the figure as .png, .svg or .pdf."""
    figure = Figure()
    FigureCanvasAgg(figure)
    draw(figure, e, selection, None)
    with atomic(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:].lower(), dpi=200)


def draw(figure: Figure, e: Explanation, selection: Any, box: tuple[float, float, float, float] | None) -> None:
    """Draw an explanation into an empty figure, whose size is set to fit."""
    if selection is not None and box is not None:
        raise InputError("choose either a span (heatmap) or a box (coloured caption), not both")
    toward_left = e.toward_left(selection)
    toward_right = e.toward_right(box) if box is not None else e.toward_right(None)
    chosen = e.right_layout.select(selection) if selection is not None else None
    left, right = e.left_layout, e.right_layout
    upper = _image_height(left) if isinstance(left, GridLayout) else _text_height(left)
    lower = _text_height(right) if not isinstance(right, GridLayout) else _image_height(right)
    height = upper + lower + 0.75
    figure.set_size_inches(_WIDTH, height)
    top = figure.add_axes((0.02, (lower + 0.7) / height, 0.84, upper / height))
    bottom = figure.add_axes((0.02, 0.62 / height, 0.96, lower / height))
    limit = _panel(top, left, e.left_input, toward_left, None if box is None else box)
    _panel(bottom, right, e.right_input, toward_right, None, chosen)
    if isinstance(left, GridLayout):
        bar = figure.add_axes((0.875, (lower + 0.7 + 0.1 * upper) / height, 0.018, 0.8 * upper / height))
        scale = ScalarMappable(Normalize(-limit, limit), _SCALE)
        colorbar = figure.colorbar(scale, cax=bar, ticks=[-limit, 0, limit])
        colorbar.ax.set_yticklabels([_short(-limit), "0", f"+{_short(limit)}"], fontsize=7)
        colorbar.outline.set_visible(False)
    parts = " ".join(f"{'−' if value < 0 else '+'} {abs(value):.4f} {name}" for name, value in e.terms.labels())
    equation = f"similarity {e.similarity:.4f} = {parts.removeprefix('+ ')}".replace("-", "−")
    figure.text(0.02, 0.3 / height, equation, fontsize=7.5, color="#333333")
    figure.text(0.02, 0.1 / height, _small_print(e), fontsize=6.5, color="#777777")


def _small_print(e: Explanation) -> str:
    about = e.about
    layers = " / ".join(str(about.get(side, {}).get("layer", "–")) for side in ("left", "right"))
    return f"error {e.error:.1e} · {about.get('method', '')} at layers {layers} · {about.get('model', '')}"


def _short(value: float) -> str:
    return f"{value:.2g}"


def _image_height(layout: GridLayout) -> float:
    width, height = layout.image_size
    return min(0.84 * _WIDTH * height / width, 7.0)


def _text_height(layout: Layout) -> float:
    length = len(layout.text or "") if isinstance(layout, TokenLayout) else layout.size * 4
    return 0.16 + 0.3 * (1 + length // 62)


def _panel(
    axes: Axes, layout: Layout, shown: Any, values: Tensor, box: Any = None, chosen: Tensor | None = None
) -> float:
    """One side with its values; returns the end of its colour scale."""
    axes.set_axis_off()
    if isinstance(layout, GridLayout):
        heat = layout.heatmap(values).detach().cpu().numpy()
        limit = limit_of(layout.view(values).detach().cpu())
        axes.imshow(faded(np.asarray(shown)))
        axes.imshow(overlay(heat, limit))
        if box is not None:
            x0, y0, x1, y1 = box
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="#ffd400", linewidth=2))
        return limit
    items = _items(layout, values, chosen)
    limit = limit_of([value for _, value, _ in items])
    _flow(axes, items, limit)
    return limit


def _items(layout: Layout, values: Tensor, chosen: Tensor | None) -> list[tuple[str, float, bool]]:
    """(text, value, chosen) of every word, or of every feature where there are no words."""
    if not isinstance(layout, TokenLayout):
        return [(str(i), float(values[i]), False) for i in layout.visible]
    picked = [chosen is not None and bool(chosen[list(w.features)].any()) for w in layout.words]
    return [(w, v, p) for (w, v), p in zip(layout.word_scores(values), picked, strict=True)]


def _flow(axes: Axes, items: list[tuple[str, float, bool]], limit: float) -> None:
    """Words from left to right, wrapped, each on its colour; chosen ones are framed."""
    figure = axes.figure
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[arg-type]  # an Axes made here has a root figure
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    box = axes.get_window_extent(renderer)
    x, line, gap = 0.012, 0.3 * figure.dpi / box.height, 0.011
    y = 1 - 0.75 * line
    for text, value, picked in items:
        red, green, blue, alpha = overlay(np.array(value), limit, 0.75)
        back = tuple(1 - alpha + alpha * c for c in (red, green, blue))
        style = {"facecolor": back, "edgecolor": "#222222" if picked else back, "boxstyle": "round,pad=0.22"}
        ink = "white" if alpha > 0.62 else "#111111"
        word = axes.text(x, y, text, fontsize=11, va="center", color=ink, bbox=style)
        width = word.get_window_extent(renderer).width / box.width
        if x + width > 0.985 and x > 0.02:
            x, y = 0.012, y - line
            word.set_position((x, y))
        x += width + gap + 0.008
