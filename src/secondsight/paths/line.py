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
    `push` is Σ_p w_p U_p and `pull` is directions·U, both without U.
    """

    @property
    def positions(self) -> int:
        """Number of positions, the rows of `vectors`."""

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
    over each node's cell, see `engine.kinks`.
    """

    def __init__(
        self,
        head: Head,
        start: Float[Tensor, "position width"],
        end: Float[Tensor, "position width"],
        mode: Literal["forward", "reverse"] = "forward",
        kinks: Sequence[nn.Module] = (),
    ) -> None:
        self.head, self.start, self.delta, self.mode, self.kinks = head, start, end - start, mode, kinks
        positions, width = start.shape
        # A transformer block's MLP and attention scores, primal and tangent; generous for convolutions.
        self._floats = 12 * positions * width + min(24 * positions**2, 48 * positions * width)

    @property
    def positions(self) -> int:
        """Number of positions, the rows of `vectors`."""
        return len(self.delta)

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
        together = max(1, _WORKING_FLOATS // chunk_divisor // self._floats)
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
        """Contribution vectors U, by `mode`."""
        return retry_in_smaller_chunks(lambda chunk_divisor: self._vectors(rule, chunk_divisor))

    def _vectors(self, rule: Rule, chunk_divisor: int) -> Tensor:
        if self.mode == "reverse":
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


class PairedMatrix:
    """A = U Vᵀ row by row: pulls the other side's vectors back through a path, only those that are asked for.

    `other` (row, joint) are V, `along` (joint,) is Σ_p U_p, `scale` multiplies every number. What was computed is kept.
    """

    def __init__(
        self, path: Path, rule: Rule, other: Float[Tensor, "row joint"], along: Float[Tensor, " joint"], scale: float
    ) -> None:
        self.path, self.rule, self.other, self.along, self.scale = path, rule, other, along, scale
        self._rows: dict[bytes, Tensor] = {}
        self._dense: Tensor | None = None

    def times(self, right: Float[Tensor, " right"]) -> Float[Tensor, " left"]:
        """Σ_j A_ij w_j by one cotangent a node."""
        if self._dense is not None:
            return self._dense @ right
        key = right.double().cpu().numpy().tobytes()
        if key not in self._rows:
            direction = (right.to(self.other) @ self.other)[None]
            self._rows[key] = self.path.pull(self.rule, direction)[0] * self.scale
        return self._rows[key]

    def times_left(self, left: Float[Tensor, " left"]) -> Float[Tensor, " right"]:
        """Σ_i w_i A_ij by one tangent a node."""
        if self._dense is not None:
            return left @ self._dense
        return self.other @ self.path.push(self.rule, left).to(self.other) * self.scale

    def total(self) -> float:
        """Σ_ij A_ij."""
        return float(self.along.double() @ self.other.double().sum(0)) * self.scale

    def dense(self) -> Float[Tensor, "left right"]:
        """The whole matrix by one cotangent per row of the other side that is not zero, as a start token's often is."""
        if self._dense is None:
            some = self.other.any(1)
            some[:1] |= not bool(some.any())
            rows = self.path.pull(self.rule, self.other[some])
            self._dense = rows.new_zeros(rows.shape[1], len(self.other))
            self._dense[:, some] = rows.T * self.scale
        return self._dense
