"""Rules of operations that choose among numbers: maxima, pools of maxima, and where."""

from __future__ import annotations

import math

import torch

from secondsight.paths import secants
from secondsight.paths.linear_maps import Composed, Reshape, Scale
from secondsight.paths.rules.functions import to_last
from secondsight.paths.rules.move import Edge, Move, NoRule, rule

aten = torch.ops.aten


@rule(aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default)
def max_pool(move: Move) -> list[Edge]:
    """The mixture of the reference's and the input's largest entry that gives the rise."""
    start, end = move.points(0)
    places = 2 if move.after.function is aten.max_pool2d_with_indices.default else 3
    flat = torch.Size([*end.shape[:-places], math.prod(end.shape[-places:])])
    index = tuple(operation.outputs[1].flatten(-places) for operation in (move.before, move.after))
    choice = secants.largest((start.reshape(flat), end.reshape(flat)), (index[0], index[1]), flat)
    pooled = torch.Size(index[1].shape)
    return move.first(Composed([Reshape(end.shape, flat), choice, Reshape(pooled, move.results[1].shape)]))


@rule(aten.max.dim, aten.min.dim, aten.amax.default, aten.amin.default)
def largest(move: Move) -> list[Edge]:
    """The largest, or the smallest, entry of an axis."""
    start, end = move.points(0)
    axis = move.argument(1, -1)
    if isinstance(axis, (list, tuple)):
        if len(axis) != 1:
            raise NoRule("looks for the largest over several axes")
        axis = axis[0]
    sign = -1 if "min" in str(move.after.function) else 1
    turn = to_last(end.ndim, axis % end.ndim)
    points = start.movedim(axis, -1), end.movedim(axis, -1)
    index = tuple((sign * point).argmax(-1, keepdim=True) for point in points)
    choice = secants.largest(points, (index[0], index[1]), points[1].shape)
    last = Reshape(torch.Size(index[1].shape), move.results[1].shape)
    return move.first(Composed([*([] if turn is None else [turn]), choice, last]))


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
    weight = torch.where(
        before == after, after.to(y1.dtype), secants.mixture(y1 - y0, *torch.broadcast_tensors(*rises))
    )
    return [
        move.edge(move.sources[position], Scale(point[1].shape, y1.shape, share))
        for position, point, share in zip(positions, (first, second), (weight, 1 - weight), strict=True)
        if isinstance(move.sources[position], int)
    ]
