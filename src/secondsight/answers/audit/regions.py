"""Regions of an image as weights over its cells, and how much of a word's positive attribution lies in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from secondsight.algebra.layout import GridLayout
from secondsight.data.grounded import Box, GroundedCaption
from secondsight.evaluation.measures import clip_box

BACKGROUND = "background"
"""The region that no annotated object covers; with the data set's own name for it, as in "background: snow"."""


def covered_share(layout: GridLayout, boxes: Sequence[Box], without: Sequence[Box] = ()) -> Float[np.ndarray, " cell"]:
    """The share of every visible cell's area that lies in one of the boxes and in none of `without`, exactly, row by row."""
    inside = [box for box in (clip_box(box, layout.frame) for box in boxes) if box is not None]
    outside = [box for box in (clip_box(box, layout.frame) for box in without) if box is not None]
    x0, y0, x1, y1 = layout.frame
    rows, columns = layout.grid
    lines = np.linspace(x0, x1, columns + 1), np.linspace(y0, y1, rows + 1)
    # Between the lines of the grid and of the boxes, everything is either inside or outside.
    xs, ys = (
        np.unique(np.concatenate([lines[axis], *([box[axis], box[axis + 2]] for box in [*inside, *outside])]))
        for axis in (0, 1)
    )
    pieces = (_within(inside, xs, ys) & ~_within(outside, xs, ys)) * np.outer(np.diff(ys), np.diff(xs))
    first_row, first_column = np.searchsorted(ys, lines[1][:-1]), np.searchsorted(xs, lines[0][:-1])
    cells = np.add.reduceat(np.add.reduceat(pieces, first_row, axis=0), first_column, axis=1)
    area = (x1 - x0) * (y1 - y0) / (rows * columns)
    return np.minimum(cells / area, 1.0).ravel()


def _within(
    boxes: Sequence[Box], xs: Float[np.ndarray, " x"], ys: Float[np.ndarray, " y"]
) -> Bool[np.ndarray, "row column"]:
    """Which rectangles between the lines lie in a box."""
    across, down = (xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2
    within = np.zeros((len(down), len(across)), dtype=bool)
    for left, top, right, bottom in boxes:
        within |= ((down > top) & (down < bottom))[:, None] & ((across > left) & (across < right))[None]
    return within


def positive_share(
    values: Float[np.ndarray, "*word cell"], weights: Float[np.ndarray, " cell"]
) -> Float[np.ndarray, "*word"]:
    """The share of the positive values that lies in a region, 0 … 1; NaN where no value is positive."""
    positive = np.clip(values, 0, None)
    total = positive.sum(-1)
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, positive @ weights / total, np.nan)


def boxes_of(example: GroundedCaption) -> dict[str, list[Box]]:
    """The boxes of every class that is annotated in the image, crowds included."""
    boxes: dict[str, list[Box]] = {}
    for region in example.regions:
        boxes.setdefault(region.label, []).append(region.box)
    return boxes


def background_of(facts: Mapping[str, str]) -> str:
    """The name of the region outside all objects."""
    return f"{BACKGROUND}: {facts[BACKGROUND]}" if facts.get(BACKGROUND) else BACKGROUND
