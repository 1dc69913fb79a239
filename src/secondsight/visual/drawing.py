"""What figures are made of: a picture under its map, words on their colours, a colour scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from secondsight.algebra.layout import GridLayout, Layout, SpectrogramLayout, word_scores
from secondsight.visual.colours import NEGATIVE, POSITIVE, fade, grey_levels, map_over_photo, on_white, overlay
from secondsight.visual.saving import printable, with_names

WIDTH = 6.4
"""Inches; a column and a half of a paper."""

_MAX_PIXELS = 1600
"""Pixels of a drawn photograph's longer side."""

_SCALE = LinearSegmentedColormap.from_list(
    "secondsight", [tuple(c / 255 for c in NEGATIVE), (1.0, 1.0, 1.0), tuple(c / 255 for c in POSITIVE)]
)


class WordScore(NamedTuple):
    """A word with its value, and whether it is framed because it was selected."""

    text: str
    value: float
    framed: bool


def is_picture(layout: Layout) -> bool:
    """Whether the features are cells of a picture: a photograph or a spectrogram."""
    return layout.cells.ndim == 2


def aspect_ratio(layout: Layout) -> float:
    """Width over height of the picture as it is drawn."""
    # A spectrogram has no size of its own.
    width, height = getattr(layout, "image_size", (2.6, 1.0))
    return float(width / height)


def text_height(layout: Layout, width: float) -> float:
    """Inches that a text takes when it is wrapped at `width` inches."""
    length = len(layout.text or "") if layout.words else layout.size * 4
    return 0.16 + 0.3 * (1 + int(length / (62 * width / WIDTH)))


def scale_values(layout: Layout, values: Float[Tensor, " feature"]) -> list[float]:
    """The values that the colour scale must cover: those of words (sums over their tokens) or of visible features."""
    if layout.words:
        return [value for _, value in word_scores(layout, values)]
    return [float(v) for v in values.detach().cpu()[layout.visible]]


def scored_words(
    layout: Layout, values: Float[Tensor, " feature"], selection: Float[Tensor, " feature"] | None
) -> list[WordScore]:
    """The words of a layout with their values; without words, its visible features by their indices."""
    words = layout.words
    if not words:
        return [WordScore(str(i), float(values[i]), False) for i in layout.visible]
    framed = [selection is not None and bool(selection[list(word.features)].any()) for word in words]
    return [WordScore(*score, frame) for score, frame in zip(word_scores(layout, values), framed, strict=True)]


def draw_picture(
    axes: Axes,
    layout: Layout,
    content: Any,
    values: Float[Tensor, " feature"],
    limit: float,
    box: Any = None,
    sign: str = "",
) -> None:
    """A photograph or spectrogram under its map, with a frame around `box` and a sign in the corner."""
    _DRAW[layout.kind](axes, layout, content, values.detach().cpu(), limit)
    if isinstance(box, tuple):
        # The box of a sound is a stretch of seconds.
        x0, y0, x1, y1 = box if len(box) == 4 else (box[0], axes.get_ylim()[0], box[1], axes.get_ylim()[1])
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="#ffd400", linewidth=2))
    if sign:
        style = {"facecolor": "white", "edgecolor": "none", "boxstyle": "round,pad=0.2"}
        axes.text(0.03, 0.95, sign, transform=axes.transAxes, va="top", fontsize=12, weight="bold", bbox=style)


def _draw_photo(axes: Axes, layout: GridLayout, photo: Image.Image, values: Tensor, limit: float) -> None:
    axes.set_axis_off()
    # The photograph shrinks to what a page can show; the axes keep the pixels of the original.
    width, height = layout.image_size
    shrink = min(1.0, _MAX_PIXELS / max(width, height))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = photo if shrink == 1 else photo.resize(size, Image.Resampling.LANCZOS)
    extent = (0.0, float(width), float(height), 0.0)
    axes.imshow(map_over_photo(small, layout.heatmap(values, size[::-1]).numpy(), limit), extent=extent)


def _draw_spectrogram(axes: Axes, layout: SpectrogramLayout, content: Any, values: Tensor, limit: float) -> None:
    """Sound as frequency over time, quiet parts dark."""
    levels = np.asarray(content, dtype=float)
    end = layout.seconds or levels.shape[1]
    extent = (0.0, float(end), 0.0, float(levels.shape[0]))
    grey = np.repeat(grey_levels(levels)[..., None], 3, axis=-1)
    axes.imshow(fade(grey), origin="lower", extent=extent, aspect="auto")
    heat = layout.heatmap(values, (levels.shape[0], levels.shape[1])).numpy()
    axes.imshow(overlay(heat, limit), origin="lower", extent=extent, aspect="auto")
    axes.set_yticks([])
    axes.tick_params(axis="x", labelsize=6, length=2, pad=1, direction="in", colors="white")
    for label in axes.get_xticklabels():
        label.set_verticalalignment("bottom")
    axes.xaxis.set_tick_params(pad=-9)
    unit = "s" if layout.seconds else "frames"
    axes.text(0.99, 0.03, unit, transform=axes.transAxes, ha="right", fontsize=6, color="white")


_DRAW: dict[str, Callable[..., None]] = {"image": _draw_photo, "audio": _draw_spectrogram}
"""How a picture is drawn, by the kind of its layout."""


def draw_words(axes: Axes, words: list[WordScore], limit: float, sign: str) -> None:
    """Words from left to right, wrapped, each on its colour, after the sign if there is one."""
    axes.set_axis_off()
    figure = axes.figure
    renderer = _renderer(figure)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    extent = axes.get_window_extent(renderer)
    # Lengths are fractions of the line, which is shorter if several pairs stand side by side.
    inch = figure.dpi / extent.width
    size = 11.0 if extent.width > 4 * figure.dpi else 8.5
    margin, gap, line = 0.075 * inch, 0.117 * inch * size / 11, 0.3 * figure.dpi / extent.height
    x, y = margin, 1 - 0.75 * line
    if sign:
        axes.text(x, y, sign, fontsize=size, va="center", color="#555555")
        x += 0.185 * inch
    for text, value, framed in words:
        background, opacity = on_white(value, limit)
        edge = "#222222" if framed else background
        style = {"facecolor": background, "edgecolor": edge, "boxstyle": "round,pad=0.22"}
        ink = "white" if opacity > 0.62 else "#111111"
        word = axes.text(
            x, y, with_names(printable(text)), fontsize=size, va="center", color=ink, bbox=style, parse_math=False
        )
        width = word.get_window_extent(renderer).width / extent.width
        if x + width > 1 - margin and x > 1.5 * margin:
            x, y = margin, y - line
            word.set_position((x, y))
        x += width + gap


def _renderer(figure: Any) -> Any:
    """A renderer that measures text; the figure keeps its canvas, which may belong to an open window."""
    canvas = figure.canvas
    if hasattr(canvas, "get_renderer"):
        return canvas.get_renderer()
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.set_canvas(canvas)
    return renderer


def draw_scale(figure: Figure, limit: float, rect: tuple[float, float, float, float]) -> None:
    """The colour scale as a bar in `rect` (left, bottom, width, height) of the figure."""
    axes = figure.add_axes(rect)
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), _SCALE), cax=axes, ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels([f"lowers\n{-limit:.2g}", "0", f"raises\n+{limit:.2g}"], fontsize=7)
    bar.outline.set_visible(False)


def write_limit(axes: Axes, limit: float) -> None:
    """The end of the colour scale in a corner of the map."""
    style = {"facecolor": "white", "edgecolor": "none", "boxstyle": "round,pad=0.15", "alpha": 0.8}
    axes.text(0.97, 0.05, f"±{limit:.2g}", transform=axes.transAxes, ha="right", fontsize=6, bbox=style)
