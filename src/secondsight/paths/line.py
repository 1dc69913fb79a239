"""The general path through any head: forward and reverse mode, in chunks that bound the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap

from secondsight.paths.kinks import averaged, mean_slopes
from secondsight.paths.quadrature import Nodes, Rule
from secondsight.support.memory import retry_in_smaller_chunks

Head = Callable[[Float[Tensor, "node position width"]], Float[Tensor, "node joint"]]

_WORKING_FLOATS = 2**26
"""Floats that all tangents of one chunk may take at once, 256 MB in float32."""


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
    dimension. Neither makes gradients for weights. `kinks` are activations in the head to be taken with their mean slope
    over each node's cell, see `paths.kinks`.
    """

    closed_form = False

    def __init__(
        self,
        head: Head,
        start: Float[Tensor, "position width"],
        end: Float[Tensor, "position width"],
        mode: Literal["forward", "reverse"] = "forward",
        kinks: Sequence[nn.Module] = (),
    ) -> None:
        self.head, self.start, self.delta, self.kinks = head, start, end - start, kinks
        self.strategy: str = mode
        self.needs_probe = bool(kinks)
        self.positions, self.dtype = len(start), start.dtype
        positions, width = start.shape
        # A transformer block's MLP and attention scores, primal and tangent; generous for convolutions.
        self.work = float(12 * positions * width + min(24 * positions**2, 48 * positions * width))

    def _at(self, nodes: Nodes) -> Float[Tensor, "node position width"]:
        return self.start + nodes.to(self.start)[:, None, None] * self.delta

    def _local(self, rule: Rule, part: slice) -> Head:
        """The head to differentiate at these nodes: with mean slopes over their cells where it has kinks."""
        if not self.kinks:
            return self.head
        edges = rule.edges[part.start : part.stop + 1]
        return averaged(self.head, mean_slopes(self.head, self.kinks, self._at(edges)))

    def _chunks(self, nodes: Nodes, rows: int, chunk_divisor: int) -> Iterator[tuple[slice, int]]:
        """Slices of nodes, and how many tangents to take at once with each; `chunk_divisor` makes both smaller."""
        together = max(1, _WORKING_FLOATS // chunk_divisor // int(self.work))
        rows_at_once = min(rows, together)
        nodes_at_once = max(1, together // rows_at_once)
        for first in range(0, len(nodes), nodes_at_once):
            yield slice(first, min(first + nodes_at_once, len(nodes))), rows_at_once

    def value_at(self, nodes: Nodes) -> Float[Tensor, "node joint"]:
        """Embeddings along the path."""

        def run(chunk_divisor: int) -> Tensor:
            return torch.cat([self.head(self._at(nodes[part])) for part, _ in self._chunks(nodes, 1, chunk_divisor)])

        return retry_in_smaller_chunks(run)

    def total(self, rule: Rule) -> Float[Tensor, "node joint"]:
        """d/dα of the embedding at every node, one tangent each."""
        return self._along(rule, self.delta)

    def _along(self, rule: Rule, tangent: Tensor) -> Float[Tensor, "node joint"]:
        def run(chunk_divisor: int) -> Tensor:
            parts = []
            for part, _ in self._chunks(rule.nodes, 1, chunk_divisor):
                x = self._at(rule.nodes[part])
                parts.append(jvp(self._local(rule, part), (x,), (tangent.expand_as(x).clone(),))[1])
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
        for part, rows in self._chunks(rule.nodes, len(directions), chunk_divisor):
            back = vjp(self._local(rule, part), self._at(rule.nodes[part]))[1]
            w = rule.weights[part].to(self.delta)[:, None]

            def pulled(direction: Tensor, back: Callable[..., tuple[Tensor]] = back, w: Tensor = w) -> Tensor:
                return (back(w * direction)[0].sum(0) * self.delta).sum(-1)

            result += vmap(pulled, chunk_size=rows)(directions.to(self.delta))
        return result

    def vectors(self, rule: Rule) -> Float[Tensor, "position joint"]:
        """Contribution vectors U, by the strategy."""
        return retry_in_smaller_chunks(lambda chunk_divisor: self._vectors(rule, chunk_divisor))

    def _vectors(self, rule: Rule, chunk_divisor: int) -> Tensor:
        if self.strategy == "reverse":
            joint = self.head(self.start[None]).shape[-1]
            return self._pull(rule, torch.eye(joint, dtype=self.delta.dtype, device=self.delta.device), chunk_divisor).T
        total: Tensor | None = None
        for part, rows in self._chunks(rule.nodes, self.positions, chunk_divisor):
            x, w, local = self._at(rule.nodes[part]), rule.weights[part].to(self.delta), self._local(rule, part)

            def moved(position: Tensor, x: Tensor = x, w: Tensor = w, local: Head = local) -> Tensor:
                # One-hot times the difference: this position moves, all others stand still.
                tangent = (position[:, None] * self.delta).expand_as(x)
                return w @ jvp(local, (x,), (tangent,))[1]

            eye = torch.eye(self.positions, dtype=self.delta.dtype, device=self.delta.device)
            part_of = vmap(moved, chunk_size=rows)(eye)
            total = part_of if total is None else total + part_of
        assert total is not None  # a rule has at least one node
        return total
