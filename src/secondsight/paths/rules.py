"""The table of rules: for every ATen operation, its mean Jacobian between two points as linear maps of its arguments.

A rule gets one operation as it ran at two points (`Move`) and gives the edges of the chain: for each argument that depends
on the input, the linear map to the output. An operation without a rule is refused by name, see `linearisation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from secondsight.paths import secants
from secondsight.paths.linear_maps import (
    Affine,
    Cast,
    Composed,
    Convolution,
    Derivative,
    Expand,
    Identity,
    LinearMap,
    LowRank,
    MatrixTimes,
    Permute,
    Place,
    Reshape,
    Scale,
    Slice,
    Sum,
    TimesMatrix,
)
from secondsight.paths.tape import Operation

aten = torch.ops.aten

Points = tuple[Tensor, Tensor]
"""Values of a tensor at the reference and at the input."""


@dataclass(frozen=True, eq=False)
class Edge:
    """A linear map from the tensor with the number `source` to that with the number `target`."""

    source: int
    target: int
    map: LinearMap


class NoRule(Exception):
    """An operation that no rule covers, or covers only where its choices are the same at both points; says why."""


@dataclass(frozen=True, eq=False)
class Move:
    """One operation as it ran at the reference (`before`) and at the input (`after`)."""

    before: Operation
    after: Operation

    @cached_property
    def arguments(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Positional arguments at both points."""
        return self.before.nested(self.before.arguments)[0], self.after.nested(self.after.arguments)[0]

    @cached_property
    def sources(self) -> tuple[Any, ...]:
        """The numbers of the positional arguments, nested as they are."""
        return self.after.nested(list(self.after.sources))[0]

    @cached_property
    def keywords(self) -> dict[str, Any]:
        """Keyword arguments at the input."""
        return self.after.nested(self.after.arguments)[1]

    def points(self, position: int) -> tuple[Any, Any]:
        """A positional argument, a tensor or a number, at both points."""
        before, after = self.arguments
        return before[position], after[position]

    def argument(self, position: int, default: Any = None) -> Any:
        """A positional argument at the input, with a default where it was left out."""
        arguments = self.arguments[1]
        return arguments[position] if position < len(arguments) else default

    def mean(self, position: int) -> Any:
        """The mean of a factor over both points; what does not depend on the input must be the same at both."""
        start, end = self.points(position)
        if isinstance(self.sources[position], int):
            return end if self.standing else (start + end) / 2
        if isinstance(end, Tensor) and not _same(start, end):
            raise NoRule("takes a factor that differs between the reference and the input, and does not depend on them")
        return end

    @property
    def results(self) -> Points:
        """The first output at both points."""
        return self.before.outputs[0], self.after.outputs[0]

    @property
    def standing(self) -> bool:
        """Whether both points are the same run, so that mean Jacobians are derivatives."""
        return self.before is self.after

    def edge(self, source: int, jacobian: LinearMap, output: int = 0) -> Edge:
        """An edge to one of the outputs."""
        target = self.after.targets[output]
        assert target is not None  # rules look at floating-point outputs only
        return Edge(source, target, jacobian)

    def first(self, jacobian: LinearMap) -> list[Edge]:
        """The only edge, from the first argument to the first output; `NoRule` where another argument moves too."""
        self.require_constants(0)
        return [self.edge(self.sources[0], jacobian)]

    def require_constants(self, *moving: int) -> None:
        """`NoRule` unless all but these positional arguments are the same at both points."""
        for position, source in enumerate(self.sources):
            if position not in moving and isinstance(source, int):
                raise NoRule(f"depends on the input in its argument {position} too")
        for before, after, source in zip(self.before.arguments, self.after.arguments, self.after.sources, strict=True):
            if source is None and isinstance(after, Tensor) and not _same(before, after):
                raise NoRule("takes an index or a mask that differs between the reference and the input")


def _same(before: Any, after: Tensor) -> bool:
    if before is after:
        return True
    # Weights come as fresh views of one storage.
    view = (after.data_ptr(), after.shape, after.stride(), after.dtype)
    return view == (before.data_ptr(), before.shape, before.stride(), before.dtype) or torch.equal(before, after)


Rule = Callable[[Move], list[Edge]]

RULES: dict[Any, Rule] = {}
"""Rules by ATen operation; a project may add rules for operations of its own."""


def rule(*functions: Any) -> Callable[[Rule], Rule]:
    """Registers a rule for these operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(functions, function))
        return function

    return register


def edges_of(move: Move) -> list[Edge]:
    """The edges of an operation; `NoRule` where it has none."""
    function = move.after.function
    if function in RULES:
        return RULES[function](move)
    if function in AFFINE:
        return affine(move)
    tracked = [source for source in move.after.sources if source is not None]
    if torch.Tag.pointwise in function.tags and len(tracked) == 1:
        return elementwise(move)
    if move.standing:
        return list(_by_torch(move, Derivative))
    raise NoRule("has no rule")


# Shapes and places


@rule(aten.alias.default, aten.detach.default, aten.clone.default, aten.lift_fresh.default, aten.contiguous.default)
def identity(move: Move) -> list[Edge]:
    """Copies and aliases."""
    return move.first(Identity())


@rule(aten._to_copy.default)
def cast(move: Move) -> list[Edge]:
    """Another precision."""
    start, end = move.points(0)[1].dtype, move.results[1].dtype
    return move.first(Identity() if start == end else Cast(start, end))


@rule(
    aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.unsqueeze.default, aten.squeeze.default,
    aten.squeeze.dim, aten.squeeze.dims, aten.flatten.using_ints, aten.unflatten.int,
)  # fmt: skip
def reshape(move: Move) -> list[Edge]:
    """The same numbers in the same order."""
    return move.first(Reshape(move.points(0)[1].shape, move.results[1].shape))


@rule(aten.t.default, aten.transpose.int, aten.permute.default)
def permute(move: Move) -> list[Edge]:
    """Axes in another order."""
    rank = move.points(0)[1].ndim
    if move.after.function is aten.permute.default:
        axes = [axis % rank for axis in move.argument(1)]
    else:
        axes = list(range(rank))
        first, second = (move.argument(1), move.argument(2)) if len(move.sources) > 1 else (0, rank - 1)
        axes[first], axes[second] = axes[second], axes[first]
    return move.first(Permute(tuple(axes)))


@rule(aten.expand.default)
def expand(move: Move) -> list[Edge]:
    """Broadcasting."""
    return move.first(Expand(move.points(0)[1].shape, move.results[1].shape))


@rule(aten.select.int)
def select(move: Move) -> list[Edge]:
    """One index of an axis."""
    shape, axis, index = move.points(0)[1].shape, move.argument(1), move.argument(2)
    return move.first(Slice(shape, _along(axis % len(shape), index % shape[axis])))


@rule(aten.slice.Tensor)
def take_slice(move: Move) -> list[Edge]:
    """A range of an axis."""
    shape, axis = move.points(0)[1].shape, move.argument(1, 0)
    part = slice(move.argument(2), move.argument(3), move.argument(4, 1))
    return move.first(Slice(shape, _along(axis % len(shape), part)))


@rule(aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int)
def split(move: Move) -> list[Edge]:
    """Parts of an axis, each an output."""
    shape = move.points(0)[1].shape
    unbound = move.after.function is aten.unbind.int
    axis = move.argument(1 if unbound else 2, move.keywords.get("dim", 0)) % len(shape)
    move.require_constants(0)
    edges, begin = [], 0
    for output, part in enumerate(move.after.outputs):
        size = 1 if unbound else part.shape[axis]
        index = begin if unbound else slice(begin, begin + size)
        edges.append(move.edge(move.sources[0], Slice(shape, _along(axis, index)), output))
        begin += size
    return edges


@rule(aten.cat.default)
def cat(move: Move) -> list[Edge]:
    """Every argument at its place."""
    shape = move.results[1].shape
    axis = move.argument(1, move.keywords.get("dim", 0)) % len(shape)
    edges, begin = [], 0
    for tensor, source in zip(move.argument(0), move.sources[0], strict=True):
        end = begin + (tensor.shape[axis] if tensor.ndim == len(shape) else 0)
        if source is not None:
            edges.append(move.edge(source, Place(shape, tuple(_along(axis, slice(begin, end))))))
        begin = end
    return edges


def _along(axis: int, index: int | slice) -> tuple[Any, ...]:
    return (*[slice(None)] * axis, index)


# Sums and products


@rule(aten.add.Tensor, aten.sub.Tensor, aten.add.Scalar, aten.sub.Scalar, aten.rsub.Scalar, aten.rsub.Tensor)
def add(move: Move) -> list[Edge]:
    """A sum: every summand by itself."""
    sign = 1.0 if "add" in str(move.after.function) else -1.0
    factor = sign * float(move.keywords.get("alpha", move.argument(2, 1.0)))
    factors = (-1.0, 1.0) if "rsub" in str(move.after.function) else (1.0, factor)
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


# Functions


def elementwise(move: Move) -> list[Edge]:
    """An elementwise function of one argument: rise over run."""
    position = next(i for i, source in enumerate(move.sources) if isinstance(source, int))
    start, end = move.points(position)
    for before, after, source in zip(move.before.arguments, move.after.arguments, move.after.sources, strict=True):
        if source is None and isinstance(after, Tensor) and not _same(before, after):
            raise NoRule("takes another tensor that differs between the reference and the input")

    def function(z: Tensor) -> Tensor:
        arguments = list(move.arguments[1])
        arguments[position] = z
        result: Tensor = move.after.function(*arguments, **move.keywords)
        return result

    if end.shape != move.results[1].shape:
        shape = move.results[1].shape
        start, end = start.expand(shape), end.expand(shape)
    slope = secants.slope(function, (start, end), move.results)
    return [move.edge(move.sources[position], Scale(move.points(position)[1].shape, move.results[1].shape, slope))]


@rule(aten._softmax.default, aten._safe_softmax.default)
def softmax(move: Move) -> list[Edge]:
    """Softmax along any axis."""
    start, end = move.points(0)
    axis = move.argument(1) % end.ndim
    turn = _to_last(end.ndim, axis)
    jacobian = secants.softmax(
        (start.movedim(axis, -1), end.movedim(axis, -1)), tuple(y.movedim(axis, -1) for y in move.results)
    )
    return move.first(jacobian if turn is None else Composed([turn, jacobian, _inverse(turn)]))


def _to_last(rank: int, axis: int) -> Permute | None:
    """The permutation that makes an axis the last one; None where it is."""
    if axis == rank - 1:
        return None
    return Permute((*(a for a in range(rank) if a != axis), axis))


def _inverse(turn: Permute) -> Permute:
    return Permute(tuple(sorted(range(len(turn.axes)), key=turn.axes.__getitem__)))


@rule(aten.native_layer_norm.default)
def layer_norm(move: Move) -> list[Edge]:
    """Layer norm over the last axes."""
    normalized, weight, bias, eps = (move.argument(k) for k in (1, 2, 3, 4))
    start, end = move.points(0)
    flat = torch.Size([*end.shape[: end.ndim - len(normalized)], math.prod(normalized)])
    points = start.reshape(flat), end.reshape(flat)
    # The operation gives means and inverse deviations too.
    units = [
        (z - mean.reshape(*flat[:-1], 1)) * inverse.reshape(*flat[:-1], 1)
        for z, (_, mean, inverse) in zip(points, (move.before.outputs, move.after.outputs), strict=True)
    ]
    maps: list[LinearMap] = [
        Reshape(end.shape, flat), secants.norm(points, (units[0], units[1]), eps), Reshape(flat, end.shape)
    ]  # fmt: skip
    if len(normalized) == 1:
        maps = [maps[1]]
    if weight is not None:
        maps.append(Scale(end.shape, end.shape, weight))
    return move.first(maps[0] if len(maps) == 1 else Composed(maps))


def _units(points: Points, eps: float, centred: bool = True) -> Points:
    """What a norm gives before its weights, at both points."""

    def unit(z: Tensor) -> Tensor:
        c = z - z.mean(-1, keepdim=True) if centred else z
        return c * (c.square().mean(-1, keepdim=True) + eps).rsqrt()

    return unit(points[0]), unit(points[1])


@rule(aten.native_group_norm.default)
def group_norm(move: Move) -> list[Edge]:
    """Group norm: a norm over each group of channels and all places."""
    start, end = move.points(0)
    weight, batch, channels, groups, eps = (move.argument(k) for k in (1, 3, 4, 6, 7))
    flat = torch.Size([batch, groups, end.numel() // (batch * groups)])
    points = start.reshape(flat), end.reshape(flat)
    maps: list[LinearMap] = [
        Reshape(end.shape, flat), secants.norm(points, _units(points, eps), eps), Reshape(flat, end.shape)
    ]  # fmt: skip
    if weight is not None:
        maps.append(Scale(end.shape, end.shape, weight.reshape(channels, *[1] * (end.ndim - 2))))
    return move.first(Composed(maps))


@rule(aten.native_batch_norm.default, aten._native_batch_norm_legit_no_training.default, aten._batch_norm_no_update.default)
def batch_norm(move: Move) -> list[Edge]:
    """Batch norm of a model in evaluation: a factor for each channel."""
    arguments, end = move.arguments[1], move.points(0)[1]
    weight, variance = arguments[1], arguments[4]
    eps = arguments[-1]
    if move.after.function is aten.native_batch_norm.default and arguments[5]:
        raise NoRule("takes its statistics from the batch")
    factor = (variance + eps).rsqrt() * (1 if weight is None else weight)
    return move.first(Scale(end.shape, end.shape, factor.reshape(-1, *[1] * (end.ndim - 2))))


@rule(aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim, aten.norm.Scalar)
def vector_norm(move: Move) -> list[Edge]:
    """The Euclidean norm."""
    start, end = move.points(0)
    if move.argument(1, 2) not in (2, 2.0):
        raise NoRule("is a norm other than the Euclidean")
    axes = move.argument(2)
    axes = range(end.ndim) if axes is None or axes == [] else axes if isinstance(axes, (list, tuple)) else [axes]
    axes = tuple(axis % end.ndim for axis in axes)
    order = (*(axis for axis in range(end.ndim) if axis not in axes), *axes)
    kept = torch.Size(end.shape[axis] for axis in order[: end.ndim - len(axes)])
    flat = torch.Size([*kept, math.prod(end.shape[axis] for axis in axes)])
    points = start.permute(order).reshape(flat), end.permute(order).reshape(flat)
    rows = tuple(y.reshape(*kept, 1) for y in move.results)
    gradient = secants.length(points, (rows[0], rows[1]))
    turned = torch.Size(end.shape[axis] for axis in order)
    return move.first(
        Composed([
            Permute(order), Reshape(turned, flat), Scale(flat, flat, gradient),
            Sum(flat, (len(flat) - 1,)), Reshape(torch.Size([*kept, 1]), move.results[1].shape),
        ])
    )  # fmt: skip


# Choices


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
    turn = _to_last(end.ndim, axis % end.ndim)
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


# Affine operations without a map of their own

AFFINE: set[Any] = {
    aten.index.Tensor, aten.index_select.default, aten.gather.default, aten.roll.default, aten.flip.default,
    aten.constant_pad_nd.default, aten.reflection_pad2d.default, aten.replication_pad2d.default,
    aten.avg_pool2d.default, aten.avg_pool1d.default, aten._adaptive_avg_pool2d.default, aten.adaptive_avg_pool1d.default,
    aten._adaptive_avg_pool3d.default, aten.upsample_bicubic2d.default, aten.upsample_bilinear2d.default,
    aten.upsample_nearest2d.default, aten._upsample_bicubic2d_aa.default, aten._upsample_bilinear2d_aa.default,
    aten.pixel_shuffle.default, aten.pixel_unshuffle.default, aten.im2col.default, aten.unfold.default,
    aten.masked_fill.Scalar, aten.masked_fill.Tensor, aten.copy.default, aten.select_scatter.default,
    aten.slice_scatter.default, aten.index_put.default, aten.scatter.src, aten.scatter.value, aten.stack.default,
    aten.cumsum.default, aten.tril.default, aten.triu.default, aten.neg.default, aten.repeat.default,
    aten.as_strided.default, aten.diagonal.default, aten.index_add.default, aten.scatter_add.default,
    aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.fill.Scalar, aten.new_zeros.default,
    aten.mv.default, aten.dot.default, aten.lift.default, aten.movedim.int, aten.squeeze_copy.dim, aten._conj.default,
    aten.tile.default, aten.repeat_interleave.self_int, aten.pad.default, aten.glu.default,
}  # fmt: skip
AFFINE -= {aten.glu.default}


def affine(move: Move) -> list[Edge]:
    """Any affine operation, differentiated by torch."""
    for before, after, source in zip(move.before.arguments, move.after.arguments, move.after.sources, strict=True):
        if source is None and isinstance(after, Tensor) and not _same(before, after):
            raise NoRule("takes an index or a mask that differs between the reference and the input")
    return list(_by_torch(move, Affine))


def _by_torch(move: Move, jacobian: Callable[[Callable[[Tensor], Tensor], Tensor], LinearMap]) -> Iterator[Edge]:
    """Edges from every argument that depends on the input to every output, each a function of its argument alone."""
    operation = move.after
    for output, target in enumerate(operation.targets):
        for position, source in enumerate(operation.sources):
            if target is None or source is None:
                continue

            def function(z: Tensor, position: int = position, output: int = output) -> Tensor:
                leaves = list(operation.arguments)
                leaves[position] = z
                arguments, keywords = operation.nested(leaves)
                result = operation.function(*arguments, **keywords)
                outputs = result if isinstance(result, (tuple, list)) else [result]
                return outputs[output]

            yield Edge(source, target, jacobian(function, operation.arguments[position]))


__all__ = ["AFFINE", "RULES", "Edge", "LowRank", "Move", "NoRule", "Points", "edges_of", "rule"]
