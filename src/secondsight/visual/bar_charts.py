"""Charts of bars: classes before and after, measures by model, shares of categories."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from secondsight.visual.chart_style import add_legend, axes_of, colours, with_style
from secondsight.visual.saving import printable

_NAMED = 5
"""Classes with the largest gains that a title names."""


@with_style
def class_bars(
    table: pd.DataFrame, value: str, spread: str, most: int = 30, gains: Mapping[str, float] | None = None
) -> Figure:
    """Mean ± sd of the `most` most frequent classes, with a bar for each setting, ordered by the first setting.

    `gains` are standardised differences by class: they stand beside the bars, and the title names the largest.
    """
    counts = table.groupby("class").cases.max().sort_values(ascending=False, kind="stable")
    classes = list(counts.index[:most])
    settings = list(dict.fromkeys(table.setting))
    means = table[table.setting == settings[0]].set_index("class")[value]
    classes.sort(key=lambda name: (-means.get(name, -1.0), name))
    figure, axes = axes_of(6.4, 1.0 + 0.17 * len(classes) * max(len(settings), 1.4))
    height = 0.8 / len(settings)
    for i, (setting, colour) in enumerate(zip(settings, colours(len(settings)), strict=True)):
        rows = table[table.setting == setting].set_index("class")
        positions = [k + (i - (len(settings) - 1) / 2) * height for k, name in enumerate(classes) if name in rows.index]
        present = [name for name in classes if name in rows.index]
        means, errors = rows.loc[present, value], rows.loc[present, spread]
        axes.barh(positions, means, height, xerr=errors, color=colour, label=printable(setting),
                  error_kw={"elinewidth": 0.6, "ecolor": "#555555"})  # fmt: skip
    axes.set_yticks(range(len(classes)), [f"{printable(name)} ({counts[name]})" for name in classes], fontsize=7)
    axes.set(xlabel=f"{value} ± sd (cases in brackets)", xlim=(0, 1))
    axes.set_ylim(len(classes) - 0.4, -0.6)
    title = ""
    if gains:
        for k, name in enumerate(classes):
            if name in gains:
                axes.text(
                    1.01, k, f"{gains[name]:+.2f}", transform=axes.get_yaxis_transform(), va="center", fontsize=6.5
                )
        axes.text(1.01, -0.7, "d", transform=axes.get_yaxis_transform(), va="bottom", fontsize=7)
        largest = [name for name in sorted(gains, key=lambda name: -gains[name])[:_NAMED] if gains[name] > 0]
        listing = ", ".join(f"{printable(name)} {gains[name]:+.2f}" for name in largest) or "none"
        title = fill(f"largest gains by standardised mean difference d: {listing}", 92)
    if len(settings) > 1:
        add_legend(axes, title)
    return figure


@with_style
def bars(table: pd.DataFrame, label: str) -> Figure:
    """A group of bars for every row, a bar for every column, values printed at their ends."""
    figure, axes = axes_of(6.4, 1.2 + 0.24 * table.size)
    height = 0.8 / max(table.shape[1], 1)
    for i, (column, colour) in enumerate(zip(table.columns, colours(table.shape[1]), strict=True)):
        positions = np.arange(len(table)) + (i - (table.shape[1] - 1) / 2) * height
        drawing = axes.barh(
            positions, table[column].fillna(0).to_numpy(float), height, color=colour, label=printable(column)
        )
        labels = ["" if np.isnan(v) else f"{v:.2f}" for v in table[column].to_numpy(float)]
        axes.bar_label(drawing, labels, fontsize=7, padding=2)
    axes.set_yticks(range(len(table)), [printable(name) for name in table.index], fontsize=8)
    axes.set(xlabel=label)
    axes.set_ylim(len(table) - 0.4, -0.6)
    add_legend(axes)
    return figure


@with_style
def stacked_shares(table: pd.DataFrame, label: str) -> Figure:
    """A stacked bar for every row of counts: the share of each column; the row's total stands beside its name."""
    figure, axes = axes_of(6.4, 1.2 + 0.4 * len(table))
    totals = table.sum(axis=1)
    start = np.zeros(len(table))
    for column, colour in zip(table.columns, colours(len(table.columns)), strict=True):
        shares = (table[column] / totals.where(totals > 0, 1)).to_numpy(float)
        drawing = axes.barh(range(len(table)), shares, left=start, color=colour, label=printable(column))
        labels = [f"{share:.0%}" if share >= 0.05 else "" for share in shares]
        axes.bar_label(drawing, labels, label_type="center", fontsize=6.5, color="white")
        start += shares
    axes.set_yticks(range(len(table)), [f"{printable(name)} ({totals[name]:g})" for name in table.index], fontsize=8)
    axes.set(xlabel=label, xlim=(0, 1))
    axes.set_ylim(len(table) - 0.4, -0.6)
    add_legend(axes)
    return figure
