"""Charts of experiments in one style: colour-blind safe, small type, legends outside the data.

Each is a `matplotlib.figure.Figure` of a paper's column width; `secondsight.visual.save` writes it, with text kept as text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from secondsight.support.errors import InputError
from secondsight.visual.saving import printable

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A00")
"""The palette of Okabe and Ito, its yellow darkened for white paper."""

_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    # Names of models, classes and settings are not mathtext.
    "text.parse_math": False,
}
"""Type of 7 to 8 points, as papers require."""


def with_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """A drawing function that uses the common style, whatever matplotlib's settings are."""

    @wraps(draw)
    def draw_with_style(*args: Any, **options: Any) -> Figure:
        with rc_context(_STYLE):
            return draw(*args, **options)

    return draw_with_style


def _axes(width: float = 5.2, height: float = 3.1) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e5e5e5", linewidth=0.5)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(axes: Any, title: str = "") -> None:
    """A legend above the data, in as many columns as the names leave room for."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        axes.set_title(title, loc="left")
        return
    # Characters that fit on a line: type of 7 points is about half as wide as high.
    room = int((axes.figure.get_size_inches()[0] - 1.0) * 72 / 7 / 0.55)
    lines = [fill(label, room - 8) for label in labels]
    columns = max(1, min(len(lines), room // (max(map(len, lines)) + 8)))
    rows = sum(line.count("\n") + 1 for line in lines) if columns == 1 else -(-len(lines) // columns)
    # The figure grows by the height of the names, so that the data keep theirs.
    axes.figure.set_figheight(axes.figure.get_figheight() + 0.15 * (rows - 1))
    axes.legend(handles, lines, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns,
                title=title or None, alignment="left", borderaxespad=0.3)  # fmt: skip


@with_style
def distributions(series: Mapping[Any, Any], label: str, low: float = 0.0) -> Figure:
    """The cumulative distribution of every series: the share of cases at or below each value."""
    figure, axes = _axes()
    for (name, values), colour in zip(series.items(), _colours(len(series)), strict=True):
        x = np.sort(np.asarray(values, float))
        axes.step([low, *x, 1.0], [0.0, *(np.arange(1, len(x) + 1) / len(x)), 1.0], where="post", color=colour,
                  label=f"{printable(name)} (median {np.median(x):.2f}, n = {len(x)})")  # fmt: skip
    axes.set(xlabel=label, ylabel="share of cases at or below", xlim=(low, 1), ylim=(0, 1))
    _legend(axes)
    return figure


@with_style
def histograms(series: Mapping[str, Any], label: str, title: str) -> Figure:
    """Overlaid histograms of the series on common bins, with a line at zero."""
    figure, axes = _axes()
    pooled = np.concatenate([np.asarray(v, float) for v in series.values()])
    low, high = min(pooled.min(), 0.0), max(pooled.max(), 0.0)
    # Zero is an edge of a bin, so that no bar mixes signs.
    width = (high - low) / 40 if high > low else 1e-6
    first = np.floor(low / width)
    bins = np.arange(first, max(np.ceil(high / width), first + 1) + 1) * width
    for (name, values), colour in zip(series.items(), _colours(len(series)), strict=True):
        v = np.asarray(values, float)
        axes.hist(v, bins=bins, color=colour, alpha=0.5, label=f"{printable(name)} ({(v < 0).mean():.0%} negative)")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel=label, ylabel="cases")
    _legend(axes, title)
    return figure


@with_style
def class_bars(table: pd.DataFrame, value: str, spread: str, most: int = 30) -> Figure:
    """Mean ± sd of the `most` most frequent classes, with a bar for each setting."""
    counts = table.groupby("class").cases.max().sort_values(ascending=False, kind="stable")
    classes = list(counts.index[:most])
    settings = list(dict.fromkeys(table.setting))
    means = table[table.setting == settings[0]].set_index("class")[value]
    classes.sort(key=lambda name: (-means.get(name, -1.0), name))
    figure, axes = _axes(6.4, 1.0 + 0.17 * len(classes) * max(len(settings), 1.4))
    height = 0.8 / len(settings)
    for i, (setting, colour) in enumerate(zip(settings, _colours(len(settings)), strict=True)):
        rows = table[table.setting == setting].set_index("class")
        positions = [k + (i - (len(settings) - 1) / 2) * height for k, name in enumerate(classes) if name in rows.index]
        present = [name for name in classes if name in rows.index]
        means, errors = rows.loc[present, value], rows.loc[present, spread]
        axes.barh(positions, means, height, xerr=errors, color=colour, label=printable(setting),
                  error_kw={"elinewidth": 0.6, "ecolor": "#555555"})  # fmt: skip
    axes.set_yticks(range(len(classes)), [f"{printable(name)} ({counts[name]})" for name in classes], fontsize=7)
    axes.set(xlabel=f"{value} ± sd (cases in brackets)", xlim=(0, 1))
    axes.set_ylim(len(classes) - 0.4, -0.6)
    if len(settings) > 1:
        _legend(axes)
    return figure


@with_style
def bars(table: pd.DataFrame, label: str) -> Figure:
    """A group of bars for every row, a bar for every column, values printed at their ends."""
    figure, axes = _axes(6.4, 1.2 + 0.24 * table.size)
    height = 0.8 / max(table.shape[1], 1)
    for i, (column, colour) in enumerate(zip(table.columns, _colours(table.shape[1]), strict=True)):
        positions = np.arange(len(table)) + (i - (table.shape[1] - 1) / 2) * height
        drawing = axes.barh(
            positions, table[column].fillna(0).to_numpy(float), height, color=colour, label=printable(column)
        )
        labels = ["" if np.isnan(v) else f"{v:.2f}" for v in table[column].to_numpy(float)]
        axes.bar_label(drawing, labels, fontsize=7, padding=2)
    axes.set_yticks(range(len(table)), [printable(name) for name in table.index], fontsize=8)
    axes.set(xlabel=label)
    axes.set_ylim(len(table) - 0.4, -0.6)
    _legend(axes)
    return figure


@with_style
def curves(series: Mapping[str, Any], x: str, y: str, title: str) -> Figure:
    """Mean curves over shares 0 … 1 with a band of one standard deviation; every series is an array (pair, share)."""
    figure, axes = _axes()
    for (name, values), colour in zip(series.items(), _colours(len(series)), strict=True):
        v = np.asarray(values, float)
        shares, mean, spread = np.linspace(0, 1, v.shape[1]), v.mean(0), v.std(0)
        axes.plot(shares, mean, color=colour, label=f"{printable(name)} (mean ± sd, n = {len(v)})")
        axes.fill_between(shares, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel=x, ylabel=y, xlim=(0, 1))
    _legend(axes, title)
    return figure


@with_style
def lines(
    series: Mapping[str, tuple[Sequence[float], Any]], x: str, y: str, title: str, *, log: bool = False
) -> Figure:
    """Lines with points, one for each series of (positions, values), on logarithmic axes if `log`."""
    figure, axes = _axes()
    for (name, (positions, values)), colour in zip(series.items(), _colours(len(series)), strict=True):
        axes.plot(positions, values, marker="o", markersize=3, color=colour, label=printable(name))
    if log:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
    axes.set(xlabel=x, ylabel=y)
    _legend(axes, title)
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
    colours = dict(zip(kinds, _colours(len(kinds)), strict=True))
    for axes, (name, panel) in zip(grid, panels.items(), strict=False):
        axes.axline((0, 0), slope=1, color="#888888", linewidth=0.8)
        for kind, (predicted, values) in panel.items():
            axes.scatter(
                np.clip(predicted, -reach, reach), values, s=6, alpha=0.6, linewidths=0, color=colours[kind], label=kind
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
def stacked_counts(table: pd.DataFrame) -> Figure:
    """A stacked bar for every row: how many failures were in each column's category."""
    figure, axes = _axes(6.4, 1.2 + 0.4 * len(table))
    start = np.zeros(len(table))
    for column, colour in zip(table.columns, _colours(len(table.columns)), strict=True):
        counts = table[column].to_numpy(float)
        axes.barh(range(len(table)), counts, left=start, color=colour, label=printable(column))
        start += counts
    axes.set_yticks(range(len(table)), [printable(name) for name in table.index], fontsize=8)
    axes.set(xlabel="failures (PGE < 0.2) by proposed category")
    axes.set_ylim(len(table) - 0.4, -0.6)
    _legend(axes)
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
    figure, axes = _axes(6.4, 4.6)
    for kind, colour in zip(kinds, _colours(len(kinds)), strict=True):
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


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


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
