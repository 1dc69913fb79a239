"""Quality against cost: points with names, and the line of those that no other one beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from secondsight.visual.chart_style import COLOURS, set_frame, with_style
from secondsight.visual.saving import printable


@with_style
def scatter(panels: Mapping[str, Mapping[str, tuple[float, float]]], x: str) -> Figure:
    """A panel for each measure with a point (cost, quality) for each name, cost on a logarithmic axis.

    A line joins the points of which no other one is both cheaper and better. Higher is better.
    """
    figure = Figure(figsize=(7.2, 4.4 * len(panels)), layout="constrained")
    for axes, (y, points) in zip(figure.subplots(len(panels), squeeze=False).flatten(), panels.items(), strict=True):
        set_frame(axes)
        axes.set(xscale="log", xlabel=f"{x} (logarithmic)", ylabel=y)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(0.08, 0.1)
        front = pareto_front(points)
        axes.plot(*zip(*(points[name] for name in front), strict=True), color=COLOURS[1], linewidth=0.9, zorder=1,
                  drawstyle="steps-post", label="no other is cheaper and better")  # fmt: skip
        for name, point in points.items():
            axes.plot(*point, "o", markersize=4, color=COLOURS[1] if name in front else COLOURS[0])
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2)
        _label_points(axes, points, front)
    return figure


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of (cost, quality) points of which no other one is at most as dear and better, cheapest first."""
    front: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if not front or points[name][1] > points[front[-1]][1]:
            front.append(name)
    return front


def _label_points(axes: Any, points: Mapping[str, tuple[float, float]], front: Sequence[str]) -> None:
    """A name beside every point, away from other names, points and the front's steps, with a line where it is far."""
    size = 5.5
    figure = axes.figure
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    places = {name: axes.transData.transform(point) * scale for name, point in points.items()}
    occupied = [(px - 2, py - 2, px + 2, py + 2) for px, py in places.values()]
    for (x0, y0), (x1, y1) in pairwise(places[name] for name in front):
        occupied += [(x0, y0 - 1, x1, y0 + 1), (x1 - 1, y0, x1 + 1, y1)]
    left, bottom, right, top = axes.bbox.extents * scale
    offsets = [
        (distance * np.cos(angle), distance * np.sin(angle))
        for distance in range(5, 120, 4)
        for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ]
    for name, (px, py) in sorted(places.items(), key=lambda item: item[1][0]):
        text = printable(name)
        width, height = 0.62 * size * len(text), 1.2 * size
        boxes = [
            (px + dx - (width if dx < -1 else 0 if dx > 1 else width / 2), py + dy - height / 2, dx, dy)
            for dx, dy in offsets
        ]
        free = (
            (x, y, dx, dy)
            for x, y, dx, dy in boxes
            if left <= x and x + width <= right and bottom <= y and y + height <= top
            and not any(x < x1 and x0 < x + width and y < y1 and y0 < y + height for x0, y0, x1, y1 in occupied)
        )  # fmt: skip
        x, y, dx, dy = next(free, boxes[0])
        occupied.append((x, y, x + width, y + height))
        far = np.hypot(dx, dy) > 10
        axes.annotate(
            text, points[name], xytext=(dx, dy), textcoords="offset points", fontsize=size, va="center",
            ha="right" if dx < -1 else "left" if dx > 1 else "center", color="#333333",
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2} if far else None,
        )  # fmt: skip
