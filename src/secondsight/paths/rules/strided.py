"""Rules of views of flat memory, which stand for what was written in place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from secondsight.paths.linear_maps import LinearMap
from secondsight.paths.memory import Geometry
from secondsight.paths.rules.move import Edge, Move, NoRule, rule

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Strided(LinearMap):
    """A view of the input's numbers by size, strides and offset."""

    source: torch.Size
    where: Geometry

    @cached_property
    def index(self) -> Tensor:
        """The place of every number of the view."""
        return torch.arange(math.prod(self.source)).as_strided(*self.where)

    def push(self, t: Tensor) -> Tensor:
        """The view."""
        return t.flatten(1)[:, self.index.to(t.device)]

    def pull(self, g: Tensor) -> Tensor:
        """The view's numbers at their places, zeros elsewhere."""
        total = g.new_zeros(len(g), math.prod(self.source))
        index = self.index.flatten().to(g.device)
        return total.index_add_(1, index, g.flatten(1)).reshape(len(g), *self.source)


@dataclass(frozen=True, eq=False)
class Transposed(LinearMap):
    """The transpose of a map."""

    of: LinearMap

    def push(self, t: Tensor) -> Tensor:
        """Back."""
        return self.of.pull(t)

    def pull(self, g: Tensor) -> Tensor:
        """Forward."""
        return self.of.push(g)


@dataclass(frozen=True, eq=False)
class Emptied(LinearMap):
    """The input with zeros where a view lies."""

    view: Strided

    def push(self, t: Tensor) -> Tensor:
        """The rest."""
        rest = t.flatten(1).clone()
        rest[:, self.view.index.flatten().to(t.device)] = 0
        return rest.reshape(t.shape)

    def pull(self, g: Tensor) -> Tensor:
        """The rest."""
        return self.push(g)


@rule(aten.as_strided.default)
def view(move: Move) -> list[Edge]:
    """A view of memory."""
    memory, size, stride = move.arguments[1][:3]
    offset = move.argument(3)
    if not memory.is_contiguous() or memory.storage_offset():
        raise NoRule("reads memory in another order than its argument lies there")
    return move.first(Strided(memory.shape, (tuple(size), tuple(stride), offset or 0)))


@rule(aten.as_strided_scatter.default)
def write(move: Move) -> list[Edge]:
    """A view of memory with other numbers put in."""
    memory, _, size, stride = move.arguments[1][:4]
    where = Strided(memory.shape, (tuple(size), tuple(stride), move.argument(4) or 0))
    edges = []
    if isinstance(move.sources[0], int):
        edges.append(move.edge(move.sources[0], Emptied(where)))
    if isinstance(move.sources[1], int):
        edges.append(move.edge(move.sources[1], Transposed(where)))
    return edges
