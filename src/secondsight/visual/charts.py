"""Charts of experiments in one style: colour-blind safe, small type, legends outside the data.

Each is a `matplotlib.figure.Figure` of a paper's column width; `secondsight.visual.save` writes it, with text kept as text.
The names of series are texts, or pairs (group, member): a group's lines share their colour and differ in their dashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from secondsight.support.errors import InputError
from secondsight.visual.bar_charts import bars, class_bars, stacked_shares
from secondsight.visual.chart_style import (
    BEFORE_AND_AFTER,
    add_legend,
    axes_of,
    colours,
    series_name,
    set_frame,
    strokes,
    with_style,
)
from secondsight.visual.saving import printable

__all__ = [
    "BEFORE_AND_AFTER",
    "bands",
    "bars",
    "calibration",
    "class_bars",
    "clusters",
    "curve_panels",
    "curves",
    "distributions",
    "gallery",
    "histograms",
    "lines",
    "picture_rows",
    "picture_table",
    "stacked_shares",
]


@with_style
def distributions(
    series: Mapping[Any, Any],
    label: str,
    low: float = 0.0,
    dashes: Mapping[str, str] | None = None,
    high: float = 1.0,
) -> Figure:
    """The cumulative distribution of every series: the share of cases at or below each value, from `low` to `high`."""
    figure, axes = axes_of()
    for (name, values), (colour, dash) in zip(series.items(), strokes(series, dashes), strict=True):
        x = np.sort(np.asarray(values, float))
        axes.step([low, *x, high], [0.0, *(np.arange(1, len(x) + 1) / len(x)), 1.0], where="post", color=colour,
                  linestyle=dash, label=f"{series_name(name)} (median {np.median(x):.2f}, n = {len(x)})")  # fmt: skip
    axes.set(xlabel=label, ylabel="share of cases at or below", xlim=(low, high), ylim=(0, 1))
    add_legend(axes)
    return figure


@with_style
def histograms(series: Mapping[str, Any], label: str, title: str) -> Figure:
    """Overlaid histograms of the series on common bins, with a line at zero."""
    figure, axes = axes_of()
    pooled = np.concatenate([np.asarray(v, float) for v in series.values()])
    low, high = min(pooled.min(), 0.0), max(pooled.max(), 0.0)
    # Zero is an edge of a bin, so that no bar mixes signs.
    width = (high - low) / 40 if high > low else 1e-6
    first = np.floor(low / width)
    bins = np.arange(first, max(np.ceil(high / width), first + 1) + 1) * width
    for (name, values), colour in zip(series.items(), colours(len(series)), strict=True):
        v = np.asarray(values, float)
        axes.hist(v, bins=bins, color=colour, alpha=0.5, label=f"{printable(name)} ({(v < 0).mean():.0%} negative)")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel=label, ylabel="cases")
    add_legend(axes, title)
    return figure


@with_style
def curves(series: Mapping[Any, Any], x: str, y: str, title: str, dashes: Mapping[str, str] | None = None) -> Figure:
    """Mean curves over shares 0 … 1 with a band of one standard deviation; every series is an array (pair, share)."""
    figure, axes = axes_of()
    _draw_curves(axes, series, dashes)
    axes.set(xlabel=x, ylabel=y, xlim=(0, 1))
    add_legend(axes, title)
    return figure


@with_style
def curve_panels(
    panels: Mapping[str, Mapping[Any, Any]], x: Sequence[str], y: str, dashes: Mapping[str, str] | None = None
) -> Figure:
    """Panels of `curves` in rows of two under one legend; `x` has a label for each panel."""
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(6.4, 0.5 + 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False, sharey=True).flatten()
    for axes, label, (title, series) in zip(grid, x, panels.items(), strict=False):
        set_frame(axes)
        _draw_curves(axes, series, dashes)
        axes.set(xlabel=label, xlim=(0, 1))
        axes.set_title(title, loc="left")
    for axes in grid[::2]:
        axes.set_ylabel(y)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    handles, labels = grid[0].get_legend_handles_labels()
    columns = 1 if max(map(len, labels)) > 44 else 2
    figure.set_figheight(figure.get_figheight() + 0.15 * -(-len(labels) // columns))
    figure.legend(handles, labels, frameon=False, loc="outside upper left", ncols=columns)
    return figure


def _draw_curves(axes: Any, series: Mapping[Any, Any], dashes: Mapping[str, str] | None) -> None:
    for (name, values), (colour, dash) in zip(series.items(), strokes(series, dashes), strict=True):
        v = np.asarray(values, float)
        shares, mean, spread = np.linspace(0, 1, v.shape[1]), v.mean(0), v.std(0)
        label = f"{series_name(name)} (mean ± sd, n = {len(v)})"
        axes.plot(shares, mean, color=colour, linestyle=dash, label=label)
        axes.fill_between(shares, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)


@with_style
def bands(series: Mapping[Any, tuple[Any, Any, Any]], x: str, y: str, title: str, *, log: bool = False) -> Figure:
    """Lines with a band of one standard deviation, one for each series of (positions, means, deviations).

    Positions are drawn on a logarithmic scale, and with `log` the values too.
    """
    figure, axes = axes_of()
    lowest = min(float(np.min(np.asarray(means, float))) for _, means, _ in series.values())
    for (name, (positions, means, spread)), (colour, dash) in zip(series.items(), strokes(series), strict=True):
        mean, deviation = np.asarray(means, float), np.asarray(spread, float)
        low = mean - deviation
        if log:
            # A deviation above the mean would reach down to a logarithm of nothing.
            low = np.maximum(low, 0.3 * lowest if lowest > 0 else np.finfo(float).tiny)
        axes.plot(
            positions, mean, marker="o", markersize=3, color=colour, linestyle=dash,
            label=f"{series_name(name)} (mean ± sd)",
        )  # fmt: skip
        axes.fill_between(positions, low, mean + deviation, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
    else:
        axes.set_ylim(bottom=0)
    axes.set(xlabel=x, ylabel=y)
    add_legend(axes, title)
    return figure


@with_style
def lines(
    series: Mapping[str, tuple[Sequence[float], Any]], x: str, y: str, title: str, *, log: bool = False
) -> Figure:
    """Lines with points, one for each series of (positions, values), on logarithmic axes if `log`."""
    figure, axes = axes_of()
    for (name, (positions, values)), colour in zip(series.items(), colours(len(series)), strict=True):
        axes.plot(positions, values, marker="o", markersize=3, color=colour, label=printable(name))
    if log:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
    axes.set(xlabel=x, ylabel=y)
    add_legend(axes, title)
    return figure


@with_style
def calibration(panels: Mapping[str, Mapping[str, tuple[Any, Any]]], x: str, y: str) -> Figure:
    """A panel for every name with (predicted, measured) points of each kind, on common axes, and the line of equality."""
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(0.6 + 2.1 * columns, 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    points = [[np.asarray(v, float) for v in pair] for panel in panels.values() for pair in panel.values()]
    # The measured values set the scale: predictions far from them are drawn at the edge.
    reach = 1.5 * max(float(np.abs(np.concatenate([v for _, v in points])).max()), 1e-6)
    shown = np.concatenate([[0.0], *(np.clip(np.concatenate(pair), -reach, reach) for pair in points)])
    margin = 0.06 * float(np.ptp(shown))
    limits = float(shown.min()) - margin, float(shown.max()) + margin
    kinds = list(dict.fromkeys(kind for panel in panels.values() for kind in panel))
    by_kind = dict(zip(kinds, colours(len(kinds)), strict=True))
    for axes, (name, panel) in zip(grid, panels.items(), strict=False):
        axes.axline((0, 0), slope=1, color="#888888", linewidth=0.8)
        for kind, (predicted, values) in panel.items():
            axes.scatter(
                np.clip(predicted, -reach, reach), values, s=6, alpha=0.6, linewidths=0, color=by_kind[kind], label=kind
            )
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.set_title(fill(printable(name), 34), loc="left")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for number, axes in enumerate(grid[: len(panels)]):
        axes.set(xlabel=x, ylabel=y if number % columns == 0 else "")
    grid[0].legend(frameon=False, loc="upper left", handletextpad=0.1, borderaxespad=0.2)
    return figure


@with_style
def clusters(evidence: np.ndarray, categories: Sequence[str], names: Sequence[str], kinds: Sequence[str]) -> Figure:
    """Cases in the plane of their evidence's two principal directions, coloured by category; `kinds` lists the categories."""
    spread = evidence.std(0)
    x = (evidence - evidence.mean(0)) / np.where(spread > 0, spread, 1)
    _, _, directions = np.linalg.svd(x, full_matrices=False)
    # The sign of a direction is arbitrary; it is fixed so that every machine draws the same.
    directions *= np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(1)])[:, None]
    points = x @ directions[:2].T
    figure, axes = axes_of(6.4, 4.6)
    for kind, colour in zip(kinds, colours(len(kinds)), strict=True):
        members = [i for i, category in enumerate(categories) if category == kind]
        if not members:
            continue
        axes.scatter(points[members, 0], points[members, 1], color=colour, s=18, label=kind)
    for i, name in list(enumerate(names))[:80]:
        axes.annotate(
            printable(name), points[i], fontsize=5, xytext=(2, 2), textcoords="offset points", color="#444444"
        )
    axes.set(xlabel="evidence, first principal direction", ylabel="second")
    axes.legend(frameon=False, fontsize=8)
    return figure


@with_style
def gallery(pictures: Sequence[tuple[Image.Image, str]], columns: int = 4) -> Figure:
    """Pictures in rows, each with a line or two of text below, such as maps of failures with their categories."""
    if not pictures:
        raise InputError("a gallery needs at least one picture")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(1.7 * columns, 1.95 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels:
        axes.set_axis_off()
    for axes, (picture, text) in zip(panels, pictures, strict=False):
        axes.imshow(np.asarray(picture.convert("RGB")))
        axes.text(0.5, -0.03, fill(printable(text), 30), transform=axes.transAxes, ha="center", va="top", fontsize=7)
    return figure


@with_style
def picture_rows(rows: Mapping[str, Sequence[tuple[Image.Image, str]]]) -> Figure:
    """A row of pictures for every name, each with a line or two of text below, such as failures by category."""
    if not any(rows.values()):
        raise InputError("rows of pictures need at least one picture")
    columns = max(map(len, rows.values()))
    figure = Figure(figsize=(0.3 + 1.3 * columns, 1.65 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes, (name, pictures) in zip(grid, rows.items(), strict=True):
        for panel in axes:
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
        axes[0].set_ylabel(fill(printable(name), 18))
        for panel, (picture, text) in zip(axes, pictures, strict=False):
            panel.imshow(np.asarray(picture.convert("RGB")))
            panel.text(
                0.5, -0.03, fill(printable(text), 24), transform=panel.transAxes, ha="center", va="top", fontsize=6
            )
    return figure


@with_style
def picture_table(rows: Sequence[tuple[str, Sequence[np.ndarray], Sequence[str]]]) -> Figure:
    """Rows of (name, pictures, a text below each), pictures of a column being equally large."""
    columns = max(len(pictures) for _, pictures, _ in rows)
    shape = max(picture.shape[0] / picture.shape[1] for _, pictures, _ in rows for picture in pictures)
    width, height = 0.95, 0.95 * shape + 0.22
    figure = Figure(figsize=(2.0 + width * columns, height * len(rows)))
    whole = figure.get_size_inches()
    for number, (name, pictures, texts) in enumerate(rows):
        top = whole[1] - number * height
        wrapped = "\n".join(fill(printable(line), 34) for line in name.splitlines())
        figure.text(0.05 / whole[0], (top - 0.05) / whole[1], wrapped, fontsize=6.5, va="top")
        for column, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            tall = 0.9 * picture.shape[0] / picture.shape[1]
            left = 2.0 + column * width
            axes = figure.add_axes((left / whole[0], (top - 0.03 - tall) / whole[1], 0.9 / whole[0], tall / whole[1]))
            axes.imshow(picture, aspect="auto")
            axes.set_axis_off()
            figure.text((left + 0.45) / whole[0], (top - 0.05 - tall) / whole[1], fill(printable(text), 20),
                        fontsize=6, ha="center", va="top")  # fmt: skip
    return figure
