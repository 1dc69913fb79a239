"""Rules of elementwise functions, softmax and norms that keep the shape."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from secondsight.paths import secants
from secondsight.paths.linear_maps import Composed, LinearMap, Permute, Reshape, Scale
from secondsight.paths.rules.move import Edge, Move, NoRule, rule
from secondsight.paths.secants import Points
from secondsight.paths.tape import Operation

aten = torch.ops.aten


# These are elementwise although torch does not say so.
@rule(aten.hardswish.default, aten.log_sigmoid_forward.default, aten._prelu_kernel.default)
def elementwise(move: Move) -> list[Edge]:
    """An elementwise function of one argument: rise over run."""
    position = next(i for i, source in enumerate(move.sources) if isinstance(source, int))
    start, end = move.points(position)
    move.require_same()

    def function(z: Tensor) -> Tensor:
        arguments = list(move.arguments[1])
        arguments[position] = z
        result = move.after.function(*arguments, **move.keywords)
        value: Tensor = result if isinstance(result, Tensor) else result[0]
        return value

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
    turn = to_last(end.ndim, axis)
    first, second = (y.movedim(axis, -1) for y in move.results)
    visible = second.sum(-1, keepdim=True) > 0
    hidden = not bool(visible.all())
    if hidden:
        # A mask hides all positions of a row, whose probabilities are zeros or NaN.
        first, second = (torch.where(visible, y, 0) for y in (first, second))
    last = end.movedim(axis, -1)
    maps: list[LinearMap] = [
        secants.softmax((last if start is end else start.movedim(axis, -1), last), (first, second))
    ]
    if hidden:
        maps.append(Scale(second.shape, second.shape, visible.to(second.dtype)))
    if turn is not None:
        maps = [turn, *maps, inverse(turn)]
    return move.first(maps[0] if len(maps) == 1 else Composed(maps))


def to_last(rank: int, axis: int) -> Permute | None:
    """The permutation that makes an axis the last one; None where it is."""
    if axis == rank - 1:
        return None
    return Permute((*(a for a in range(rank) if a != axis), axis))


def inverse(turn: Permute) -> Permute:
    """The permutation back."""
    return Permute(tuple(sorted(range(len(turn.axes)), key=turn.axes.__getitem__)))


@rule(aten.native_layer_norm.default)
def layer_norm(move: Move) -> list[Edge]:
    """Layer norm over the last axes."""
    normalized, weight, eps = (move.argument(k) for k in (1, 2, 4))
    _, end = move.points(0)
    flat = torch.Size([*end.shape[: end.ndim - len(normalized)], math.prod(normalized)])
    column = (*flat[:-1], 1)

    def unit(rows: Tensor, operation: Operation) -> Tensor:
        # The operation gives means and inverse deviations too.
        _, mean, inverse = operation.outputs
        return (rows - mean.reshape(column)) * inverse.reshape(column)

    maps = _norm(move, flat, eps, unit)
    if weight is not None:
        maps.append(Scale(end.shape, end.shape, weight))
    return move.first(maps[0] if len(maps) == 1 else Composed(maps))


def _norm(
    move: Move, flat: torch.Size, eps: float, unit: Callable[[Tensor, Operation], Tensor] | None = None
) -> list[LinearMap]:
    """A norm along the last axis of another shape; `unit` gives what the operation gave before its weights."""

    def computed(rows: Tensor, _: Operation) -> Tensor:
        c = rows - rows.mean(-1, keepdim=True)
        return c * (c.square().mean(-1, keepdim=True) + eps).rsqrt()

    start, end = move.points(0)
    last = end.reshape(flat)
    first = last if start is end else start.reshape(flat)

    def units() -> Points:
        return (unit or computed)(first, move.before), (unit or computed)(last, move.after)

    jacobian = secants.norm((first, last), eps, units)
    return [jacobian] if flat == end.shape else [Reshape(end.shape, flat), jacobian, Reshape(flat, end.shape)]


@rule(aten.native_group_norm.default)
def group_norm(move: Move) -> list[Edge]:
    """Group norm: a norm over each group of channels and all places."""
    _, end = move.points(0)
    weight, batch, channels, groups, eps = (move.argument(k) for k in (1, 3, 4, 6, 7))
    flat = torch.Size([batch, groups, end.numel() // (batch * groups)])
    maps = _norm(move, flat, eps)
    if weight is not None:
        maps.append(Scale(end.shape, end.shape, weight.reshape(channels, *[1] * (end.ndim - 2))))
    return move.first(Composed(maps))


@rule(
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
    aten._batch_norm_no_update.default,
)
def batch_norm(move: Move) -> list[Edge]:
    """Batch norm of a model in evaluation: a factor for each channel; with a batch of one, a norm of each channel."""
    arguments, (_, end) = move.arguments[1], move.points(0)
    weight, variance = arguments[1], arguments[4]
    eps, each = arguments[-1], (-1, *[1] * (end.ndim - 2))
    if move.after.function is not aten.native_batch_norm.default or not arguments[5]:
        factor = (variance + eps).rsqrt() * (1 if weight is None else weight)
        return move.first(Scale(end.shape, end.shape, factor.reshape(each)))
    if len(end) > 1:
        raise NoRule("takes its statistics from the batch")
    # Instance norm puts all inputs and channels side by side in a batch of one.
    flat = torch.Size([end.shape[1], end[0, 0].numel()])
    maps = _norm(move, flat, eps)
    if weight is not None:
        maps.append(Scale(end.shape, end.shape, weight.reshape(each)))
    return move.first(Composed(maps))
