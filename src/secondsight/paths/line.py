"""The straight path through any head, as a sum of linearisations: derivatives at nodes, or mean Jacobians over cells."""

from __future__ import annotations

import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from threading import RLock
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.paths.attention import fused_attention
from secondsight.paths.linearisation import Linearisation
from secondsight.paths.quadrature import Nodes, Rule
from secondsight.support.memory import retry_in_smaller_chunks
from secondsight.support.progress import part_of

Head = Callable[[Float[Tensor, "node position width"]], Float[Tensor, "node joint"]]

_WORKING_FLOATS = 2**21
"""Work of the nodes that are linearised together; larger heads go node by node."""

_CACHED_FLOATS = 2**28
"""Floats that all linearisations kept for further use may hold together, 1 GB in float32."""


@runtime_checkable
class Path(Protocol):
    """The straight line from a reference's hidden states to an input's, and derivatives of the embedding along it.

    With δ the difference of hidden states: `total` is d/dα g, `vectors` are U_p = ∫ (∂g/∂x_p) δ_p dα ([M25] Eq. 6-9),
    `push` is Σ_p w_p U_p and `pull` is directions·U, both without U. `closed_form` says that all of them cost less than a
    forward pass; `work` is the cost of one derivative at one node, in a unit that all paths share. `needs_probe` says that
    the sums are complete with any nodes, so that only the contributions show whether there are enough.
    """

    closed_form: bool
    needs_probe: bool
    strategy: str
    work: float
    positions: int
    dtype: torch.dtype

    def value_at(self, nodes: Nodes) -> Float[Tensor, "node joint"]:
        """Embeddings along the path."""

    def total(self, rule: Rule) -> Float[Tensor, "node joint"]:
        """d/dα of the embedding at every node, not weighted."""

    def vectors(self, rule: Rule) -> Float[Tensor, "position joint"]:
        """Contribution vectors U."""

    def push(self, rule: Rule, weights: Float[Tensor, " position"]) -> Float[Tensor, " joint"]:
        """Σ_p weights_p U_p."""

    def pull(self, rule: Rule, directions: Float[Tensor, "row joint"]) -> Float[Tensor, "row position"]:
        """directions · U_p."""


class LinePath:
    """A path through `head`, a pure function of hidden states (node, position, width), each node by itself.

    `mode` says how `vectors` are made: "forward" takes one tangent per position, "reverse" one cotangent per joint
    dimension. `mean` says which operations are taken with their mean Jacobian over a node's cell rather than their
    derivative at the node: "none", "kinks" for activations such as ReLU (see `rules.KINKED`), "all" for every operation,
    which makes the sums exact with any number of cells. `grid` are the (rows, columns) that the positions of a feature map
    fill.
    """

    closed_form = False

    def __init__(
        self,
        head: Head,
        start: Float[Tensor, "position width"],
        end: Float[Tensor, "position width"],
        mode: Literal["forward", "reverse"] = "forward",
        mean: Literal["none", "kinks", "all"] = "none",
        grid: tuple[int, int] | None = None,
    ) -> None:
        self.grid = grid
        self.head, self.start, self.end, self.delta, self.mean = head, start, end, end - start, mean
        self.strategy: str = mode
        self.needs_probe = mean == "kinks"
        self.positions, self.dtype = len(start), start.dtype
        positions, width = start.shape
        # A transformer block's MLP and attention scores; generous for convolutions.
        self.work = float(12 * positions * width + min(24 * positions**2, 48 * positions * width))

    def _at(self, nodes: Nodes) -> Float[Tensor, "node position width"]:
        at = self.start + nodes.to(self.start)[:, None, None] * self.delta
        at[(nodes == 1).to(at.device)] = self.end
        return at

    def linearisation(self, rule: Rule, part: slice) -> Linearisation:
        """The head at some nodes of a rule, or over their cells."""
        edges = rule.edges[part.start : part.stop + 1]
        # Rounding must not take the last cell past the input.
        edges = torch.where((edges - 1).abs() < 1e-12, torch.ones_like(edges), edges)
        key = (self.mean, tuple(rule.nodes[part].tolist()), tuple(edges.tolist()))

        def linearise() -> Linearisation:
            if self.mean == "all":
                return Linearisation(self.head, self._at(edges[:-1]), self._at(edges[1:]))
            nodes = self._at(rule.nodes[part])
            if self.mean == "kinks":
                return Linearisation(self.head, nodes, kinks=(self._at(edges[:-1]), self._at(edges[1:])))
            return Linearisation(self.head, nodes)

        return _linearisations.get(self, key, linearise)

    def _parts(self, rule: Rule, chunk_divisor: int = 1) -> Iterator[tuple[slice, Linearisation]]:
        together = max(1, _WORKING_FLOATS // chunk_divisor // int(self.work))
        for first in range(0, len(rule), together):
            part = slice(first, min(first + together, len(rule)))
            yield part, self.linearisation(rule, part)

    def value_at(self, nodes: Nodes) -> Float[Tensor, "node joint"]:
        """Embeddings along the path."""

        def run(chunk_divisor: int) -> Tensor:
            together = max(1, _WORKING_FLOATS // chunk_divisor // int(self.work))
            return torch.cat([self.head(self._at(part)) for part in nodes.split(together)])

        with torch.no_grad(), fused_attention():
            return retry_in_smaller_chunks(run)

    def total(self, rule: Rule) -> Float[Tensor, "node joint"]:
        """d/dα of the embedding at every node, one tangent each."""
        return self._along(rule, self.delta)

    def _along(self, rule: Rule, tangent: Tensor) -> Float[Tensor, "node joint"]:
        def run(chunk_divisor: int) -> Tensor:
            parts = []
            for part, linear in self._parts(rule, chunk_divisor):
                with part_of(part.start, part.stop, len(rule)):
                    along = linear.push(tangent.expand(part.stop - part.start, *tangent.shape)[None])[0]
                # Where the head breaks on the way, its derivative says so too.
                parts.append(along.where(linear.value.isfinite(), torch.nan))
            return torch.cat(parts)

        return retry_in_smaller_chunks(run)

    def push(self, rule: Rule, weights: Float[Tensor, " position"]) -> Float[Tensor, " joint"]:
        """Σ_p weights_p U_p by one tangent a node."""
        along = self._along(rule, self.delta * weights.to(self.delta)[:, None])
        return rule.weights.to(along) @ along

    def pull(self, rule: Rule, directions: Float[Tensor, "row joint"]) -> Float[Tensor, "row position"]:
        """directions · U_p by one cotangent a direction and node."""
        return retry_in_smaller_chunks(lambda chunk_divisor: self._pull(rule, directions, chunk_divisor))

    def _pull(self, rule: Rule, directions: Tensor, chunk_divisor: int) -> Tensor:
        result = self.delta.new_zeros(len(directions), self.positions)
        for part, linear in self._parts(rule, chunk_divisor):
            cotangents = rule.weights[part].to(self.delta)[:, None] * directions.to(self.delta)[:, None]
            with part_of(part.start, part.stop, len(rule)):
                result += linear.pull_positions(
                    cotangents, self.delta.expand(part.stop - part.start, *self.delta.shape)
                )
        return result

    def vectors(self, rule: Rule) -> Float[Tensor, "position joint"]:
        """Contribution vectors U, by the strategy."""
        if self.strategy == "reverse":
            with torch.no_grad():
                joint = self.head(self.start[None]).shape[-1]
            return self.pull(rule, torch.eye(joint, dtype=self.delta.dtype, device=self.delta.device)).T
        return retry_in_smaller_chunks(lambda chunk_divisor: self._pushed(rule, chunk_divisor))

    def _pushed(self, rule: Rule, chunk_divisor: int) -> Tensor:
        parts = []
        for part, linear in self._parts(rule, chunk_divisor):
            steps = self.delta.expand(part.stop - part.start, *self.delta.shape)
            with part_of(part.start, part.stop, len(rule)):
                moved = linear.push_positions(steps, self.grid)
            parts.append(torch.einsum("n,pnk->pk", rule.weights[part].to(self.delta), moved))
        return sum(parts[1:], parts[0])


class _Cache:
    """Recent linearisations, so that each serves several calls; the oldest are dropped when they hold too much memory."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[int, object], Linearisation] = OrderedDict()
        self._lock = RLock()

    def get(self, path: LinePath, key: object, linearise: Callable[[], Linearisation]) -> Linearisation:
        """The path's linearisation under a key."""
        entry = (id(path), key)
        with self._lock:
            if entry in self._entries:
                self._entries.move_to_end(entry)
                return self._entries[entry]
        linear = linearise()
        with self._lock:
            if linear.floats <= _CACHED_FLOATS:
                if not any(owner == id(path) for owner, _ in self._entries):
                    weakref.finalize(path, self._forget, id(path))
                self._entries[entry] = linear
            while sum(cached.floats for cached in self._entries.values()) > _CACHED_FLOATS:
                self._entries.popitem(last=False)
        return linear

    def _forget(self, owner: int) -> None:
        with self._lock:
            for entry in [entry for entry in self._entries if entry[0] == owner]:
                del self._entries[entry]


_linearisations = _Cache()

if hasattr(os, "register_at_fork"):
    # A process forked while another thread holds the lock would wait for a thread that it does not have.
    os.register_at_fork(after_in_child=lambda: globals().update(_linearisations=_Cache()))
