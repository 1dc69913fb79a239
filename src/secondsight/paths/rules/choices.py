"""Rules of operations that choose among numbers: maxima, pools of maxima, and where."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from secondsight.paths import secants
from secondsight.paths.linear_maps import Composed, Reshape, Scale
from secondsight.paths.rules.move import Edge, Move, rule
from secondsight.paths.rules.statistics import Rows
from secondsight.paths.secants import Points

aten = torch.ops.aten


@rule(
    aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default, aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool3d.default,
)  # fmt: skip
def max_pool(move: Move) -> list[Edge]:
    """The mixture of the reference's and the input's largest entry that gives the rise."""
    start, end = move.points(0)
    places = 2 if "pool2d" in str(move.after.function) else 3
    flat = torch.Size([*end.shape[:-places], math.prod(end.shape[-places:])])
    index = tuple(operation.outputs[1].flatten(-places) for operation in (move.before, move.after))
    choice = secants.largest((start.reshape(flat), end.reshape(flat)), (index[0], index[1]), flat)
    pooled = torch.Size(index[1].shape)
    return move.first(Composed([Reshape(end.shape, flat), choice, Reshape(pooled, move.results[1].shape)]))


@rule(aten.max.dim, aten.min.dim, aten.amax.default, aten.amin.default, aten.max.default, aten.min.default)
def largest(move: Move) -> list[Edge]:
    """The largest, or the smallest, entry of some axes."""
    rows = Rows(move.points(0)[1].shape, move.argument(1))
    points = rows.of(move.points(0))
    sign = -1 if "min" in str(move.after.function) else 1
    index = tuple((sign * point).argmax(-1, keepdim=True) for point in points)
    choice = secants.largest(points, (index[0], index[1]), rows.flat)
    return move.first(Composed([*rows.gather, choice, Reshape(torch.Size(index[1].shape), move.results[1].shape)]))


@rule(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def fill(move: Move) -> list[Edge]:
    """Numbers outside a mask, and inside it another number."""
    shape, dtype = move.results[1].shape, move.results[1].dtype
    mask = move.argument(1)
    return [
        move.edge(source, Scale(move.points(position)[1].shape, shape, share.to(dtype)))
        for position, share in ((0, ~mask), (2, mask))
        if isinstance(source := move.sources[position], int)
    ]


@rule(aten.maximum.default, aten.minimum.default, aten.where.self)
def choose(move: Move) -> list[Edge]:
    """Of two tensors elementwise: where the choice changes, the mixture of both that gives the rise."""
    ternary = move.after.function is aten.where.self
    positions = (1, 2) if ternary else (0, 1)
    first, second = (move.points(position) for position in positions)
    y0, y1 = move.results
    rises = [end - start for start, end in (first, second)]
    if ternary:
        before, after = move.points(0)
    else:
        order = torch.ge if move.after.function is aten.maximum.default else torch.le
        before, after = order(first[0], second[0]), order(first[1], second[1])
    rise = y1 - y0
    weight = torch.where(before == after, after.to(y1.dtype), secants.mixture(rise, *torch.broadcast_tensors(*rises)))
    weights = _completed((weight, 1 - weight), rises, rise)
    return [
        move.edge(move.sources[position], Scale(point[1].shape, y1.shape, share))
        for position, point, share in zip(positions, (first, second), weights, strict=True)
        if isinstance(move.sources[position], int)
    ]


def _completed(weights: Points, rises: list[Tensor], rise: Tensor) -> Points:
    """Weights changed as little as makes the mixture of two rises the rise, where a choice between them jumps."""
    missing = rise - sum(torch.where(w == 0, 0, w * r) for w, r in zip(weights, rises, strict=True))
    size = rises[0].square() + rises[1].square()
    # What neither side's move explains is a jump of the choice itself, which the residual shows.
    share = torch.where((size > 0) & size.isfinite(), missing / size, 0)
    first, second = (w + torch.where(share == 0, 0, share * r) for w, r in zip(weights, rises, strict=True))
    return first, second
