"""Rules of sums, products and everything linear with constant weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from secondsight.paths import secants
from secondsight.paths.linear_maps import (
    Composed,
    Convolution,
    Expand,
    Identity,
    LinearMap,
    MatrixTimes,
    Reshape,
    Scale,
    Slice,
    Sum,
    TimesMatrix,
)
from secondsight.paths.rules.affine import affine
from secondsight.paths.rules.move import Edge, Move, rule

aten = torch.ops.aten


@rule(aten.add.Tensor, aten.sub.Tensor, aten.add.Scalar, aten.sub.Scalar, aten.rsub.Scalar, aten.rsub.Tensor)
def add(move: Move) -> list[Edge]:
    """A sum: every summand by itself."""
    sign = 1.0 if "add" in str(move.after.function) else -1.0
    factor = sign * float(move.keywords.get("alpha", move.argument(2, 1.0)))
    factors = (factor, 1.0) if "rsub" in str(move.after.function) else (1.0, factor)
    shape = move.results[1].shape
    return [
        move.edge(source, _factor(move.points(position)[1].shape, shape, factors[position]))
        for position, source in enumerate(move.sources[:2])
        if isinstance(source, int)
    ]


@rule(aten.mul.Tensor, aten.mul.Scalar)
def multiply(move: Move) -> list[Edge]:
    """A product: each factor times the mean of the other."""
    shape = move.results[1].shape
    return [
        move.edge(source, _factor(move.points(position)[1].shape, shape, move.mean(1 - position)))
        for position, source in enumerate(move.sources[:2])
        if isinstance(source, int)
    ]


@rule(aten.div.Tensor, aten.div.Scalar)
def divide(move: Move) -> list[Edge]:
    """a/b as a · b⁻¹: a times the mean of b⁻¹, and b by the secant −1/(b₀ b₁) of b⁻¹ times the mean of a."""
    shape = move.results[1].shape
    b0, b1 = (b.to(move.results[1].dtype) if isinstance(b, Tensor) else b for b in move.points(1))
    if not isinstance(move.sources[1], int):
        move.require_constants(0)
    edges = []
    if isinstance(move.sources[0], int):
        inverse = (1 / b0 + 1 / b1) / 2
        edges.append(move.edge(move.sources[0], _factor(move.points(0)[1].shape, shape, inverse)))
    if isinstance(move.sources[1], int):
        edges.append(move.edge(move.sources[1], _factor(b1.shape, shape, -move.mean(0) / (b0 * b1))))
    return edges


def _factor(source: torch.Size, target: torch.Size, factor: Any) -> LinearMap:
    """Times a number or a tensor."""
    if isinstance(factor, (int, float)) and factor == 1:
        return Identity() if source == target else Expand(source, target)
    return Scale(source, target, factor)


@rule(aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default)
def matrix_product(move: Move) -> list[Edge]:
    """A matrix product, each factor times the mean of the other, plus what is added to it."""
    added = len(move.arguments[1]) - 2
    alpha, beta = float(move.keywords.get("alpha", 1)), float(move.keywords.get("beta", 1))
    edges = []
    if added and isinstance(move.sources[0], int):
        edges.append(move.edge(move.sources[0], _factor(move.points(0)[1].shape, move.results[1].shape, beta)))
    if isinstance(move.sources[added], int):
        edges.append(move.edge(move.sources[added], TimesMatrix(move.mean(added + 1), alpha)))
    if isinstance(move.sources[added + 1], int):
        edges.append(move.edge(move.sources[added + 1], MatrixTimes(move.mean(added), alpha)))
    return edges


@rule(aten.mv.default)
def matrix_times_vector(move: Move) -> list[Edge]:
    """A matrix (M, K) times a vector (K): each times the mean of the other."""
    rows, size = move.points(0)[1].shape
    column, last = torch.Size([size, 1]), Reshape(torch.Size([rows, 1]), torch.Size([rows]))
    edges = []
    if isinstance(move.sources[0], int):
        edges.append(move.edge(move.sources[0], Composed([TimesMatrix(move.mean(1)[:, None]), last])))
    if isinstance(move.sources[1], int):
        first = Reshape(torch.Size([size]), column)
        edges.append(move.edge(move.sources[1], Composed([first, MatrixTimes(move.mean(0)), last])))
    return edges


@rule(aten.dot.default)
def inner_product(move: Move) -> list[Edge]:
    """An inner product of vectors: each times the mean of the other."""
    shape = move.points(0)[1].shape
    last = [Sum(shape, (0,)), Reshape(torch.Size([1]), torch.Size([]))]
    return [
        move.edge(source, Composed([Scale(shape, shape, move.mean(1 - position)), *last]))
        for position, source in enumerate(move.sources)
        if isinstance(source, int)
    ]


@rule(aten.addcmul.default)
def add_product(move: Move) -> list[Edge]:
    """A sum with a product of two tensors."""
    shape, value = move.results[1].shape, float(move.keywords.get("value", 1))
    factors = (1.0, lambda: value * move.mean(2), lambda: value * move.mean(1))
    return [
        move.edge(source, _factor(point.shape, shape, factor() if callable(factor) else factor))
        for source, point, factor in zip(move.sources, move.arguments[1], factors, strict=True)
        if isinstance(source, int)
    ]


@rule(aten.lerp.Scalar, aten.lerp.Tensor)
def interpolate(move: Move) -> list[Edge]:
    """a + w (b − a) for a weight w."""
    shape, weight = move.results[1].shape, move.mean(2)
    edges = [
        move.edge(source, _factor(move.points(position)[1].shape, shape, factor))
        for position, (source, factor) in enumerate(zip(move.sources[:2], (1 - weight, weight), strict=True))
        if isinstance(source, int)
    ]
    if isinstance(move.sources[2], int):
        edges.append(move.edge(move.sources[2], _factor(move.points(2)[1].shape, shape, move.mean(1) - move.mean(0))))
    return edges


@rule(aten.glu.default)
def gated(move: Move) -> list[Edge]:
    """The first half times the sigmoid of the second: a product after an elementwise function."""
    shape, target = move.points(0)[1].shape, move.results[1].shape
    axis = move.argument(1, -1) % len(shape)
    (a0, b0), (a1, b1) = (z.chunk(2, axis) for z in move.points(0))
    g0, g1 = b0.sigmoid(), b1.sigmoid()
    slope = secants.slope(torch.sigmoid, (b0, b1), (g0, g1))
    halves = [Slice(shape, (*[slice(None)] * axis, part)) for part in (slice(target[axis]), slice(target[axis], None))]
    factors = ((g0 + g1) / 2, slope * (a0 + a1) / 2)
    move.require_constants(0)
    return [
        move.edge(move.sources[0], Composed([half, Scale(target, target, factor)]))
        for half, factor in zip(halves, factors, strict=True)
    ]


@rule(aten.convolution.default)
def convolve(move: Move) -> list[Edge]:
    """A convolution with constant weights."""
    move.require_constants(0)
    start = move.points(0)[1]
    if start.ndim == len(move.argument(3)) + 1:
        return affine(move)  # no batch axis
    return [move.edge(move.sources[0], Convolution(start.shape, move.argument(1), tuple(move.arguments[1][3:])))]


@rule(aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim)
def add_up(move: Move) -> list[Edge]:
    """Sums and means over axes."""
    start = move.points(0)[1]
    axes = move.argument(1) if len(move.arguments[1]) > 1 else None
    axes = range(start.ndim) if axes is None or axes == [] else axes if isinstance(axes, (list, tuple)) else [axes]
    axes = tuple(axis % start.ndim for axis in axes)
    count = math.prod(start.shape[axis] for axis in axes)
    total = Sum(start.shape, axes, 1 / count if "mean" in str(move.after.function) else 1.0)
    rest = torch.Size(1 if axis in axes else size for axis, size in enumerate(start.shape))
    return move.first(Composed([total, Reshape(rest, move.results[1].shape)]))
