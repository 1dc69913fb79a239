"""Rules of numbers that sum up axes: lengths, variances and logarithms of sums of exponentials."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from secondsight.paths import secants
from secondsight.paths.linear_maps import Composed, LinearMap, LowRank, Permute, Reshape, Scale, Sum
from secondsight.paths.rules.functions import inverse, to_last
from secondsight.paths.rules.move import Edge, Move, NoRule, rule
from secondsight.paths.secants import Points

aten = torch.ops.aten


class Rows:
    """A tensor with some of its axes gathered in one last axis."""

    def __init__(self, shape: torch.Size, axes: Any) -> None:
        rank = len(shape)
        axes = range(rank) if axes is None or axes == [] else axes if isinstance(axes, (list, tuple)) else [axes]
        self.axes = tuple(axis % rank for axis in axes) if rank else ()
        self.order = (*(axis for axis in range(rank) if axis not in self.axes), *self.axes)
        self.turned = torch.Size(shape[axis] for axis in self.order)
        self.outer = self.turned[: rank - len(self.axes)]
        self.size = math.prod(self.turned[len(self.outer) :])
        self.flat = torch.Size([*self.outer, self.size])

    def of(self, points: Points) -> Points:
        """The rows at both points."""
        start, end = (z.permute(self.order).reshape(self.flat) for z in points)
        return start, end

    def results(self, points: Points) -> Points:
        """Results of the rows, with a last axis of length 1."""
        start, end = (y.reshape(*self.outer, 1) for y in points)
        return start, end

    @property
    def gather(self) -> list[LinearMap]:
        """The maps from the tensor to its rows."""
        return [Permute(self.order), Reshape(self.turned, self.flat)]

    def along(self, gradient: Tensor, target: torch.Size) -> LinearMap:
        """Every row's inner product with a gradient."""
        return Composed([
            *self.gather, Scale(self.flat, self.flat, gradient),
            Sum(self.flat, (len(self.flat) - 1,)), Reshape(torch.Size([*self.outer, 1]), target),
        ])  # fmt: skip


@rule(aten.linalg_vector_norm.default)
def vector_norm(move: Move) -> list[Edge]:
    """The Euclidean norm, and the sum of absolute values."""
    order = move.argument(1, 2)
    if order not in (1, 2):
        raise NoRule("is a norm other than the Euclidean and the sum of absolute values")
    rows = Rows(move.points(0)[1].shape, move.argument(2))
    points = rows.of(move.points(0))
    if order == 1:
        gradient = secants.slope(torch.abs, points, (points[0].abs(), points[1].abs()))
    else:
        gradient = secants.length(points, rows.results(move.results))
    return move.first(rows.along(gradient, move.results[1].shape))


@rule(aten.var.correction, aten.std.correction, aten.var_mean.correction)
def spread(move: Move) -> list[Edge]:
    """The variance, whose gradient 2 (z − mean)/(n − correction) is linear; the deviation is a length."""
    rows = Rows(move.points(0)[1].shape, move.argument(1))
    start, end = (z - z.mean(-1, keepdim=True) for z in rows.of(move.points(0)))
    correction = move.keywords.get("correction", move.argument(2))
    freedom = rows.size - (1 if correction is None else correction)
    target = move.results[1].shape
    if move.after.function is aten.std.correction:
        before, after = (y * freedom**0.5 for y in rows.results(move.results))
        gradient = secants.length((start, end), (before, after)) / freedom**0.5
        # A row whose numbers are all the same has a deviation without a derivative.
        return move.first(rows.along(gradient - gradient.mean(-1, keepdim=True), target))
    edges = move.first(rows.along((start + end) / freedom, target))
    if move.after.function is aten.var_mean.correction:
        even = end.new_full((1,), 1 / rows.size)
        edges.append(move.edge(move.sources[0], rows.along(even, target), 1))
    return edges


@rule(aten.logsumexp.default)
def log_of_sum(move: Move) -> list[Edge]:
    """The logarithm of a sum of exponentials: its gradient is the mean softmax."""
    rows = Rows(move.points(0)[1].shape, move.argument(1))
    points, totals = rows.of(move.points(0)), rows.results(move.results)
    return move.first(rows.along(_mean_softmax(points, totals), move.results[1].shape))


@rule(aten._log_softmax.default)
def log_softmax(move: Move) -> list[Edge]:
    """Numbers less the logarithm of the sum of their exponentials."""
    start, end = move.points(0)
    axis = move.argument(1) % end.ndim
    turn = to_last(end.ndim, axis)
    points = start.movedim(axis, -1), end.movedim(axis, -1)
    mean = _mean_softmax(points, (points[0].logsumexp(-1, keepdim=True), points[1].logsumexp(-1, keepdim=True)))
    unit = torch.ones_like(mean)
    jacobian = LowRank(unit, [(-unit[..., None, :], mean[..., None, :], None)])
    return move.first(jacobian if turn is None else Composed([turn, jacobian, inverse(turn)]))


def _mean_softmax(points: Points, totals: Points) -> Tensor:
    """The mean softmax along the last axis, corrected so that it gives the rise of the logarithm of the sum."""
    start, end = (z.softmax(-1) for z in points)
    mean = secants.softmax(points, (start, end)).diagonal
    run = torch.where(points[0] == points[1], 0, points[1] - points[0])
    missing = totals[1] - totals[0] - (mean * run).sum(-1, keepdim=True)
    length = run.square().sum(-1, keepdim=True)
    return mean + run * (missing / length.masked_fill(length == 0, 1))
