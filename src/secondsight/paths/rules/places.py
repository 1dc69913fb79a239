"""Rules of operations that move numbers to other shapes and places."""

from __future__ import annotations

from typing import Any

import torch

from secondsight.paths.linear_maps import Cast, Composed, Expand, Identity, Permute, Place, Reshape, Slice
from secondsight.paths.rules.move import Edge, Move, rule

aten = torch.ops.aten


@rule(aten.alias.default, aten.detach.default, aten.clone.default, aten.lift_fresh.default)
def identity(move: Move) -> list[Edge]:
    """Copies and aliases."""
    return move.first(Identity())


@rule(aten._to_copy.default)
def cast(move: Move) -> list[Edge]:
    """Another precision."""
    start, end = move.points(0)[1].dtype, move.results[1].dtype
    return move.first(Identity() if start == end else Cast(start, end))


@rule(aten.copy.default)
def copy(move: Move) -> list[Edge]:
    """The second argument in the shape and precision of the first."""
    start, end = move.points(1)[1], move.results[1]
    maps = [Cast(start.dtype, end.dtype), Expand(start.shape, end.shape)]
    return [move.edge(move.sources[1], Composed(maps))] if isinstance(move.sources[1], int) else []


@rule(
    aten.view.default, aten._unsafe_view.default, aten.unsqueeze.default, aten.squeeze.default,
    aten.squeeze.dim, aten.squeeze.dims,
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


@rule(
    aten.split.Tensor, aten.split_with_sizes.default, aten.unsafe_split.Tensor, aten.unsafe_split_with_sizes.default,
    aten.unbind.int,
)  # fmt: skip
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
