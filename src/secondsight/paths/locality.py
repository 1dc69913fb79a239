"""Where a chain is local before it pools, so that distant positions can share a tangent.

In a stage of a convolutional network a position moves only the cells within reach of its kernels, up to the pool that adds
all cells up. Positions whose cells do not overlap are pushed together and told apart by the cells that moved (Curtis, Powell
and Reid 1974): nine tangents for a 3 × 3 kernel, however many positions there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from secondsight.paths.linear_maps import (
    Cast,
    Centre,
    Composed,
    Convolution,
    Identity,
    LinearMap,
    LowRank,
    Permute,
    Reshape,
    Scale,
    Sum,
    TimesMatrix,
)
from secondsight.paths.rules import Edge


@dataclass(frozen=True)
class Reach:
    """Where a tensor of a `shape` holds cells of the input's grid of rows and columns, and what each cell depends on.

    `axes` are its row and column axes, or the one axis of both together. Along either direction, cell i depends on the
    input's places i · stride + low … i · stride + high.
    """

    shape: torch.Size
    axes: tuple[int, ...]
    cells: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    low: tuple[int, int] = (0, 0)
    high: tuple[int, int] = (0, 0)

    @property
    def period(self) -> tuple[int, int]:
        """How far apart two positions must be, in rows and columns, to move no cell in common."""
        return self.high[0] - self.low[0] + 1, self.high[1] - self.low[1] + 1


@dataclass(frozen=True)
class Pool:
    """The edge, by its number in the chain, through which all cells reach the output, and their reach before it."""

    edge: int
    reach: Reach


def find_pool(edges: Sequence[Edge], shape: torch.Size, grid: tuple[int, int]) -> Pool | None:
    """The pool of a chain whose input (1, position, width) is a grid of (rows, columns); None where it is not local.

    Everything between input and pool must be local, and nothing may go around the pool.
    """
    reaches = {0: Reach(shape, (1,), grid)}
    pool: Pool | None = None
    for number, edge in enumerate(edges):
        if edge.source not in reaches:
            continue
        reach = reaches[edge.source]
        if pool is None and _pools(edge.map, reach):
            pool = Pool(number, reach)
            continue
        moved = _through(edge.map, reach)
        moved = moved if edge.target not in reaches or moved is None else _joined(reaches[edge.target], moved)
        if moved is None or pool is not None:
            return None
        reaches[edge.target] = moved
    return pool


@dataclass(frozen=True)
class LocalMove:
    """What a tensor moves when every position takes its part of a step, each position moving its own place on `axis` alone."""

    move: Tensor
    axis: int

    def dot(self, gradients: Tensor) -> Tensor:
        """Inner products of gradients (row, *shape) with the move, position by position: (row, position)."""
        # A host that computes parts in another precision has tensors and gradients of several.
        dtype = torch.promote_types(gradients.dtype, self.move.dtype)
        first = gradients.to(dtype).movedim(self.axis + 1, 1).flatten(2)
        second = self.move.to(dtype).movedim(self.axis, 0).flatten(1)
        return torch.einsum("rpd,pd->rp", first, second)


def local_moves(edges: Sequence[Edge], step: Tensor) -> dict[int, LocalMove]:
    """The tensors, by number, in which a chain has not yet mixed the positions of its input and a step (node, position, width).

    These are the input and all tensors that depend on the input through these alone, each position by itself.
    """
    reaches = {0: Reach(step.shape, (1,), (step.shape[1], 1))}
    moves, mixed = {0: step}, set[int]()
    for edge in edges:
        reach = _through(edge.map, reaches[edge.source]) if edge.source in reaches else None
        if reach is None or reach.period != (1, 1) or edge.target in mixed:
            mixed.add(edge.target)
        elif edge.target in reaches:
            mixed.update({edge.target} if reaches[edge.target].axes != reach.axes else ())
            moves[edge.target] = moves[edge.target] + edge.map.push(moves[edge.source][None])[0]
        else:
            reaches[edge.target] = reach
            moves[edge.target] = edge.map.push(moves[edge.source][None])[0]
        if edge.target in mixed:
            reaches.pop(edge.target, None)
            moves.pop(edge.target, None)
    return {number: LocalMove(move, reaches[number].axes[0]) for number, move in moves.items()}


def _pools(jacobian: LinearMap, reach: Reach) -> bool:
    """Whether a map adds up all cells."""
    first = jacobian.maps[0] if isinstance(jacobian, Composed) else jacobian
    return isinstance(first, Sum) and set(reach.axes) <= set(first.axes)


def _through(jacobian: LinearMap, reach: Reach) -> Reach | None:
    """The reach after a map; None for a map that is not known to be local."""
    if isinstance(jacobian, Composed):
        result: Reach | None = reach
        for part in jacobian.maps:
            result = None if result is None else _through(part, result)
        return result
    if isinstance(jacobian, (Identity, Cast)):
        return reach
    if isinstance(jacobian, Scale):
        return reach if jacobian.source == jacobian.target else None
    rank = len(reach.shape)
    if isinstance(jacobian, (TimesMatrix, LowRank, Centre)):
        if rank - 1 in reach.axes or (isinstance(jacobian, TimesMatrix) and jacobian.matrix.ndim > 2):
            return None
        width = jacobian.matrix.shape[-1] if isinstance(jacobian, TimesMatrix) else reach.shape[-1]
        return replace(reach, shape=torch.Size([*reach.shape[:-1], width]))
    if isinstance(jacobian, Permute):
        order = jacobian.axes
        axes = tuple(order.index(axis) for axis in reach.axes)
        return replace(reach, shape=torch.Size(reach.shape[axis] for axis in order), axes=axes)
    if isinstance(jacobian, Reshape):
        return _reshaped(jacobian.target, reach)
    return _convolved(jacobian, reach) if isinstance(jacobian, Convolution) else None


def _reshaped(target: torch.Size, reach: Reach) -> Reach | None:
    """Rows and columns joined into one axis, or parted, with all numbers in the same order."""
    if len(reach.axes) == 2 and reach.axes[1] != reach.axes[0] + 1:
        return None
    before = reach.shape[: reach.axes[0]].numel()
    after = reach.shape[reach.axes[-1] + 1 :].numel()
    for axis in range(len(target)):
        if target[:axis].numel() != before:
            continue
        if target[axis] == reach.cells[0] * reach.cells[1] and target[axis + 1 :].numel() == after:
            return replace(reach, shape=target, axes=(axis,))
        if target[axis : axis + 2] == torch.Size(reach.cells) and target[axis + 2 :].numel() == after:
            return replace(reach, shape=target, axes=(axis, axis + 1))
    return None


def _convolved(convolution: Convolution, reach: Reach) -> Reach | None:
    options: list[Any] = list(convolution.options)
    stride, padding, dilation, transposed = options[:4]
    if transposed or reach.axes != (2, 3) or len(reach.shape) != 4:
        return None
    output = torch.ops.aten.convolution(
        torch.empty(reach.shape, device="meta"), convolution.weight.to("meta"), None, *convolution.options
    ).shape
    steps, low, high = [], [], []
    for axis in (0, 1):
        step, pad, gap = (values[axis if len(values) > 1 else 0] for values in (stride, padding, dilation))
        span = gap * (convolution.weight.shape[2 + axis] - 1)
        steps.append(reach.stride[axis] * step)
        low.append(reach.low[axis] - pad * reach.stride[axis])
        high.append(reach.high[axis] + (span - pad) * reach.stride[axis])
    return Reach(
        output, (2, 3), (output[2], output[3]), (steps[0], steps[1]), (low[0], low[1]), (high[0], high[1])
    )  # fmt: skip


def _joined(first: Reach, second: Reach) -> Reach | None:
    """The reach of a sum."""
    if replace(first, low=second.low, high=second.high) != second:
        return None
    low = tuple(min(pair) for pair in zip(first.low, second.low, strict=True))
    high = tuple(max(pair) for pair in zip(first.high, second.high, strict=True))
    return replace(first, low=(low[0], low[1]), high=(high[0], high[1]))


def colours(reach: Reach, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The colour of every position, and for every colour and cell the position that moves it, −1 for none.

    Positions of one colour share no cell. Shapes (position,) and (colour, cell).
    """
    colour, owner = [], []
    for axis in (0, 1):
        period = min(reach.period[axis], grid[axis])
        colour.append(torch.arange(grid[axis]) % period)
        lowest = torch.arange(reach.cells[axis]) * reach.stride[axis] + reach.low[axis]
        position = (
            lowest + (torch.arange(period)[:, None] - lowest) % reach.period[axis]
            if period == reach.period[axis]
            else None
        )
        if position is None:
            # Every position of the axis has a colour to itself.
            position = torch.arange(period)[:, None].expand(-1, reach.cells[axis])
            within = (position >= lowest) & (position <= lowest + reach.period[axis] - 1)
            position = torch.where(within, position, -1)
        owner.append(torch.where((position >= 0) & (position < grid[axis]), position, -1))
    rows, columns = owner
    count = len(columns)
    joint = rows[:, None, :, None] * grid[1] + columns[None, :, None, :]
    outside = (rows < 0)[:, None, :, None] | (columns < 0)[None, :, None, :]
    return (colour[0][:, None] * count + colour[1]).flatten(), joint.masked_fill(outside, -1).flatten(0, 1).flatten(1)


def gathered(moved: Tensor, reach: Reach, owner: Tensor, positions: int) -> Tensor:
    """Of tangents (colour, *shape) before the pool, the sum over each position's cells: (position, *shape) with cells of 1.

    `owner` (colour, cell) is that of `colours`.
    """
    axes = tuple(axis + 1 for axis in reach.axes)
    last = moved.movedim(axes, tuple(range(-len(axes), 0))).flatten(-len(axes))
    outer = last.shape[1:-1]
    cells = last.flatten(1, -2).mT.flatten(0, 1)
    sums = cells.new_zeros(positions + 1, cells.shape[-1])
    sums.index_add_(0, owner.flatten().to(cells.device) % (positions + 1), cells)
    spread = sums[:positions].reshape(positions, *outer, *[1] * len(axes))
    return spread.movedim(tuple(range(-len(axes), 0)), axes)
