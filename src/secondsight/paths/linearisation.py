"""A function between two points as a chain of mean Jacobians, one for every operation that it runs.

Each operation f is replaced by its mean Jacobian J̄ between its values at the two points, for which J̄ Δz = Δf exactly. The
chain of these is linear and maps the step from the first point to the second to the difference of the function's values,
without any quadrature over the function as a whole. With the same point twice it is the function's derivative.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from secondsight.paths.kinks import KINKED_OPERATIONS
from secondsight.paths.linear_maps import LinearMap, Slice
from secondsight.paths.locality import Pool, colours, find_pool, gathered, local_moves
from secondsight.paths.memory import storage
from secondsight.paths.rules import Edge, Move, NoRule, edges_of
from secondsight.paths.tape import CannotRecord, Operation, record
from secondsight.support.errors import InputError
from secondsight.support.memory import retry_in_smaller_chunks
from secondsight.support.progress import part_of, tell

Function = Callable[[Tensor], Tensor]

_EDGES_TOLD = 32
"""After so many maps a pass through a chain says how far it is."""

_ROW_FLOATS = 2**26
"""Floats that the rows of one chunk may take in the largest tensor of the chain, 256 MB in float32."""

_ROW_FLOATS_ON_CPU = 2**24
"""The same for processors, which gain nothing from more and pay for fresh memory."""


class UnexplainedOperation(InputError):
    """An operation that has no mean Jacobian, or that did not run at both points; `number` counts those before it."""

    def __init__(self, function: object, number: int, reason: str) -> None:
        self.function, self.number, self.reason = function, number, reason
        super().__init__(f"the operation {function} {reason}")


@dataclass(frozen=True, eq=False)
class _Missing(LinearMap):
    """Stands for the map of an operation without a rule."""

    problem: UnexplainedOperation

    def push(self, t: Tensor) -> Tensor:
        """Raises."""
        raise self.problem

    def pull(self, g: Tensor) -> Tensor:
        """Raises."""
        raise self.problem


class Linearisation:
    """The linear chain of a function from `start` to `end`, or its derivative at `start`.

    With `kinks`, two points on either side of `start`, activations such as ReLU are taken with their mean slopes between
    these and everything else with its derivative at `start`. Tangents are (row, *input) and cotangents (row, *output);
    rows are independent of each other. `start_value` and `value` are the function's values at `start` and `end`, `floats`
    what the chain holds in memory. Raises `UnexplainedOperation` where an operation has no rule or the runs differ.
    """

    def __init__(
        self,
        function: Function,
        start: Tensor,
        end: Tensor | None = None,
        kinks: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.input_shape, self.floats = start.shape, 0
        self._edges: list[Edge] = []
        self._largest, self._count = start.numel(), 0
        self._weights: set[int] = set()  # storages of what does not depend on the input
        points = [start] if end is None else [start, end]
        tapes: list[deque[Operation]] = []
        values: list[Tensor] = []
        for point in [*points, *(kinks or ())]:
            tapes.append(deque())
            try:
                value, self._output = record(function, point, tapes[-1].append)
            except CannotRecord as problem:
                reason = "writes into what depends on the input, in a way that cannot be followed"
                raise UnexplainedOperation(problem.function, problem.number, reason) from problem
            values.append(value)
        self.start_value, self.value = values[0], values[len(points) - 1]
        with torch.no_grad():
            while any(tapes):
                # Values are let go one by one, as maps take their place.
                self._connect([tape.popleft() if tape else None for tape in tapes], len(points))
        self._edges = _reaching(self._edges, self._output)
        for edge in self._edges:
            if isinstance(edge.map, _Missing):
                raise edge.map.problem
        held = {storage(tensor): tensor.numel() for edge in self._edges for tensor in _tensors_of(edge.map)}
        self.floats = sum(size for key, size in held.items() if key not in self._weights)

    def _connect(self, runs: Sequence[Operation | None], points: int) -> None:
        """Adds the edges of an operation that ran at all points."""
        operation = next(run for run in runs if run is not None)
        if not all(run is not None and _alike(operation, run) for run in runs):
            raise UnexplainedOperation(
                operation.function, self._count, "did not run alike at the reference and at the input"
            )
        kinked = len(runs) > points and operation.function in KINKED_OPERATIONS
        before, after = (runs[-2], runs[-1]) if kinked else (runs[0], runs[points - 1])
        assert before is not None
        assert after is not None
        try:
            self._edges.extend(edges_of(Move(before, after)))
        except NoRule as reason:
            # What has no rule is an error only where the output needs it: an index may come from sorted numbers.
            missing = _Missing(UnexplainedOperation(operation.function, self._count, str(reason)))
            pairs = product(operation.sources, operation.targets)
            self._edges.extend(Edge(a, b, missing) for a, b in pairs if a is not None and b is not None)
        sizes = [leaf.numel() for leaf in operation.outputs if isinstance(leaf, Tensor)]
        self._largest = max(self._largest, *sizes)
        constants = zip(operation.arguments, operation.sources, strict=True)
        self._weights.update(storage(leaf) for leaf, source in constants if isinstance(leaf, Tensor) and source is None)
        self._count += 1

    def push(self, tangents: Tensor) -> Tensor:
        """What the output moves for every tangent: (row, *output)."""
        return self._in_chunks(self._push, tangents)

    def push_positions(self, step: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """What the output moves when one position after the other takes its part of a step: (position, *output).

        The function's input and `step` are (node, position, width). Positions that stand still cost nothing. On a `grid` of
        (rows, columns) positions share tangents as far as the chain is local, see `locality`.
        """
        moving = step.any(-1).any(0).nonzero().flatten()
        result = step.new_zeros(step.shape[1], *self.value.shape)
        pool = find_pool(self._edges, step.shape, grid) if grid else None
        if pool is not None and math.prod(pool.reach.period) < len(moving):
            return self._push_colours(step, grid or (0, 0), pool)

        def push(rows: Tensor) -> Tensor:
            tangents = step.new_zeros(len(rows), *step.shape)
            tangents[torch.arange(len(rows)), :, rows] = step[:, rows].transpose(0, 1)
            return self._push(tangents)

        if len(moving):
            result[moving] = self._in_chunks(push, moving)
        return result

    def _push_colours(self, step: Tensor, grid: tuple[int, int], pool: Pool) -> Tensor:
        """Positions that move no cell in common are pushed together up to the pool, and apart from there."""
        colour, owner = colours(pool.reach, grid)
        colour = colour.to(step.device)

        def to_pool(chosen: Tensor) -> Tensor:
            tangents = torch.stack([step * (colour == number)[:, None] for number in chosen.tolist()])
            moved = self._push(tangents, 0, pool.edge, self._edges[pool.edge].source)
            return gathered(moved, pool.reach, owner[chosen], step.shape[1])

        def from_pool(rows: Tensor) -> Tensor:
            edge = self._edges[pool.edge]
            return self._push(edge.map.push(rows), pool.edge + 1, None, self._output, edge.target)

        with torch.no_grad():
            parts = [to_pool(chosen) for chosen in torch.arange(len(owner)).split(self._together())]
        return self._in_chunks(from_pool, sum(parts[1:], parts[0]))

    def _together(self) -> int:
        """How many rows go through the chain at once."""
        floats = _ROW_FLOATS_ON_CPU if self.value.device.type == "cpu" else _ROW_FLOATS
        return max(1, floats // self._largest)

    def pull(self, cotangents: Tensor) -> Tensor:
        """The transpose: gradients of every cotangent's inner product with the output, (row, *input)."""

        def pull(rows: Tensor) -> Tensor:
            totals = self._pull(rows, self._edges)
            return totals[0] if 0 in totals else rows.new_zeros(len(rows), *self.input_shape)

        return self._in_chunks(pull, cotangents)

    def pull_positions(self, cotangents: Tensor, step: Tensor) -> Tensor:
        """Inner products of every cotangent's gradient with each position's part of a step: (row, position).

        The function's input and `step` are (node, position, width). As far as positions do not mix, the step is pushed once and
        met there, so that no cotangent is pulled through what comes before.
        """
        with torch.no_grad():
            meeting = local_moves(self._edges, step)
        beyond = [edge for edge in self._edges if edge.target not in meeting]

        def pull(rows: Tensor) -> Tensor:
            totals = self._pull(rows, beyond)
            products = [moved.dot(totals[number]) for number, moved in meeting.items() if number in totals]
            return sum(products[1:], products[0]) if products else rows.new_zeros(len(rows), step.shape[1])

        return self._in_chunks(pull, cotangents)

    def _in_chunks(self, run: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        def chunked(chunk_divisor: int) -> Tensor:
            chunks = rows.split(max(1, self._together() // chunk_divisor))
            results = []
            for number, chunk in enumerate(chunks):
                with part_of(number, number + 1, len(chunks)):
                    results.append(run(chunk))
                    tell(1.0)
            return torch.cat(results)

        with torch.no_grad():
            return retry_in_smaller_chunks(chunked)

    def _push(
        self, tangents: Tensor, first: int = 0, last: int | None = None, target: int | None = -1, source: int = 0
    ) -> Tensor:
        """Through some of the edges, from one tensor to another, by default from the input to the output."""
        target = self._output if target == -1 else target
        edges = self._edges[first:last]
        moves: dict[int | None, Tensor] = {source: tangents}
        last_use = {edge.source: position for position, edge in enumerate(edges)}
        for position, edge in enumerate(edges):
            if position % _EDGES_TOLD == _EDGES_TOLD - 1:
                tell(position / len(edges))
            if edge.source in moves:
                moved = edge.map.push(moves[edge.source])
                moves[edge.target] = moves[edge.target] + moved if edge.target in moves else moved
                if last_use[edge.source] == position and edge.source != target:
                    del moves[edge.source]
        return moves[target] if target in moves else tangents.new_zeros(len(tangents), *self.value.shape)

    def _pull(self, cotangents: Tensor, edges: Sequence[Edge]) -> dict[int, Tensor]:
        """Back through some of the edges: gradients of the tensors that none of them leads to, by number."""
        totals: dict[int, Tensor] = {} if self._output is None else {self._output: cotangents}
        writable: set[int] = set()
        for position in range(len(edges) - 1, -1, -1):
            edge = edges[position]
            if position % _EDGES_TOLD == _EDGES_TOLD - 1:
                tell(1 - position / len(edges))
            if edge.target not in totals:
                continue
            g, total = totals[edge.target], totals.get(edge.source)
            if isinstance(edge.map, Slice):
                # Slices of one tensor, such as queries, keys and values, are written into one total.
                if edge.source not in writable:
                    zeros = g.new_zeros(len(g), *edge.map.source)
                    totals[edge.source] = zeros if total is None else zeros + total
                    writable.add(edge.source)
                edge.map.pull_into(totals[edge.source], g)
            else:
                pulled = edge.map.pull(g)
                totals[edge.source] = pulled if total is None else total + pulled
                writable.discard(edge.source)
            if position == 0 or edges[position - 1].target != edge.target:
                del totals[edge.target]
        return totals


def _tensors_of(value: object) -> Iterator[Tensor]:
    """The tensors that a map, or anything nested in it, holds."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors_of(part)
    elif isinstance(value, LinearMap):
        for part in vars(value).values():
            yield from _tensors_of(part)


def _alike(first: Operation, second: Operation) -> bool:
    """Whether two operations are the same, at two points."""
    return (
        first.function is second.function
        and first.sources == second.sources
        and first.targets == second.targets
        and [getattr(leaf, "shape", None) for leaf in first.outputs]
        == [getattr(leaf, "shape", None) for leaf in second.outputs]
    )


def _reaching(edges: list[Edge], output: int | None) -> list[Edge]:
    """The edges that lead to the output."""
    needed = {output}
    reaching = []
    for edge in reversed(edges):
        if edge.target in needed:
            needed.add(edge.source)
            reaching.append(edge)
    return reaching[::-1]
