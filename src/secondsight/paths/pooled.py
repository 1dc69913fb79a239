"""Closed form for a last block in which one query pools: contributions for a fraction of a forward pass.

Only the pooled query's output matters there. Moving position p alone along the path moves its key and value, hence the
pooled attention output z by w_p (dv_p + (q·dk_p/√d)(v_p − z)) per head; the pooled position also moves the query and
its own residual stream. The path is a straight line and layer norm acts per position, so keys, values and their tangents
at every node are scalar combinations of two projections, one of the reference and one of the difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.paths.quadrature import Nodes, Rule
from secondsight.paths.tails import Affine, Derivative, Norm, Step
from secondsight.support.memory import retry_smaller


@dataclass(frozen=True)
class PooledBlock:
    """One attention block whose output is read at one position, and all that follows.

    With h = norm(x): z = softmax(query(h_pool)·key(h)·scale + mask) value(h) per head, y = x_pool + gain·out(z) (without
    x_pool where `residual` is False), embedding = tail(y), each row by itself.
    """

    pool: int
    query: Affine
    key: Affine
    value: Affine
    out: Affine
    heads: int
    tail: Step
    norm: Norm | None = None
    gain: Float[Tensor, " width"] | None = None
    residual: bool = True
    mask: Float[Tensor, " position"] | None = None

    def reference(self, hidden: Float[Tensor, "position width"]) -> PooledReference:
        """What the path needs of its start alone; reusable for every input that shares the reference."""
        scaled = self._centre(hidden)
        c = self._weigh(scaled)
        shift = self.norm.bias if self.norm is not None and self.norm.bias is not None else None
        zero = torch.zeros_like(hidden[0]) if shift is None else shift
        return PooledReference(
            hidden,
            scaled,
            self._split(self.key.forward(c)),
            self._split(self.value.forward(c)),
            self._split(self.query.forward(c[self.pool])[None])[:, 0],
            self._split(self.value(zero)[None]),
            self._split(self.query(zero)[None])[:, 0],
        )

    def _centre(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.norm is not None and self.norm.centred else x

    def _weigh(self, x: Tensor) -> Tensor:
        return x if self.norm is None or self.norm.weight is None else x * self.norm.weight

    def _split(self, x: Float[Tensor, "position width"]) -> Float[Tensor, "head position channel"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(0, 1)


@dataclass(frozen=True)
class PooledReference:
    """The reference's half of a pooled path: hidden states, and their projections per head without and with bias.

    Keys have none: what is the same for all positions changes no softmax.
    """

    hidden: Float[Tensor, "position width"]
    centred: Float[Tensor, "position width"]
    key: Float[Tensor, "head position channel"]
    value: Float[Tensor, "head position channel"]
    query: Float[Tensor, "head channel"]
    value_bias: Float[Tensor, "head 1 channel"]
    query_bias: Float[Tensor, "head channel"]


@dataclass(frozen=True)
class _Tangents:
    """What every position's move does to the pooled attention; leading axes are (head, node)."""

    z: Float[Tensor, "head node channel"]  # attention output
    on_bias: Float[Tensor, "head node position"]  # dz_p = on_start V_r + on_delta V_δ + on_bias (V_b − z)
    on_start: Float[Tensor, "head node position"]
    on_delta: Float[Tensor, "head node position"]
    from_query: Float[Tensor, "head node channel"]  # what the moving query adds, at the pooled position


@dataclass(frozen=True)
class _State:
    """The path at every node of a rule."""

    tangents: _Tangents
    embedding: Float[Tensor, "node joint"]
    along: Float[Tensor, "node joint"]  # d/dα of the embedding
    tail: Derivative  # derivative of the tail at the residual stream after attention


class PooledPath:
    """The straight path between two inputs of a `PooledBlock`; see the module's text for the formula."""

    closed_form = True
    needs_probe = False
    strategy: str = "pooled"

    def __init__(self, block: PooledBlock, start: PooledReference, end: Float[Tensor, "position width"]) -> None:
        self.block, self.start = block, start
        self.delta = end - start.hidden
        self.positions, self.dtype = len(self.delta), self.delta.dtype
        # The tail at a single position, and a product with keys and values.
        self.work = 14.0 * self.delta.shape[1] + 4.0 * self.delta.numel()
        self._latest: tuple[tuple[float, ...], _State] | None = None
        centred = block._centre(self.delta)
        d = block._weigh(centred)
        self.key, self.value = block._split(block.key.forward(d)), block._split(block.value.forward(d))
        self.query = block._split(block.query.forward(d[block.pool])[None])[:, 0]
        if block.norm is not None:
            r = start.centred
            self.variance = (
                (r * r).mean(-1) + block.norm.eps,
                2 * (r * centred).mean(-1),
                (centred * centred).mean(-1),
            )

    def _inverse_deviation(self, alpha: Float[Tensor, "node 1"]) -> tuple[Tensor, Tensor]:
        """1/σ(α) and −d/dα of it, per node and position; one and zero without a norm."""
        if self.block.norm is None:
            inverse = torch.ones(len(alpha), self.positions, dtype=alpha.dtype, device=alpha.device)
            return inverse, torch.zeros_like(inverse)
        v0, v1, v2 = self.variance
        deviation = (v0 + alpha * (v1 + alpha * v2)).sqrt()
        return 1 / deviation, (v1 + 2 * alpha * v2) / (2 * deviation**3)

    def _state(self, nodes: Nodes) -> _State:
        # `adapt` evaluates the final rule; vectors and products need its state again.
        key = tuple(nodes.tolist())
        if self._latest is not None and self._latest[0] == key:
            return self._latest[1]
        block, alpha = self.block, nodes.to(self.delta)[:, None]
        attention = self._attention(alpha)
        y = block.out(attention.z.permute(1, 0, 2).flatten(1))
        if block.gain is not None:
            y = y * block.gain
        if block.residual:
            y = y + self.start.hidden[block.pool] + alpha * self.delta[block.pool]
        all_positions = self._pooled_tangent(attention, torch.ones_like(self.delta[:, 0]))
        embedding, along, tail = block.tail.linearise(y, all_positions)
        state = _State(attention, embedding, along, tail)
        self._latest = (key, state)
        return state

    def _attention(self, alpha: Float[Tensor, "node 1"]) -> _Tangents:
        """The pooled attention at every node, and how it moves with every position.

        With i = 1/σ(α) and j = −di/dα per position, a position's projections and their derivatives by α are
        k = (K_r + α K_δ) i,  dk = K_δ i − (K_r + α K_δ) j,  v = (V_r + α V_δ) i + V_b,  dv = V_δ i − (V_r + α V_δ) j,
        and likewise for the query at the pooled position.
        """
        block, start, nodes = self.block, self.start, len(alpha)
        i, j = self._inverse_deviation(alpha)
        i_pool, j_pool = i[:, block.pool, None], j[:, block.pool, None]
        raw_query = start.query[:, None] + alpha * self.query[:, None]
        q = raw_query * i_pool + start.query_bias[:, None]
        dq = self.query[:, None] * i_pool - raw_query * j_pool
        # Products of q and of dq, one stacked on the other, with K_r and K_δ.
        queries = torch.cat([q, dq], 1) / math.sqrt(q.shape[-1])
        on_start, on_delta = queries @ start.key.mT, queries @ self.key.mT
        q_on_key = on_start[:, :nodes] + alpha * on_delta[:, :nodes]
        logits = q_on_key * i
        if block.mask is not None:
            logits = logits + block.mask
        w = logits.softmax(-1)
        wi = w * i
        z = wi @ start.value + (wi * alpha) @ self.value + start.value_bias
        # dz_p = w_p (dv_p + c_p (v_p − z)) with c_p = q·dk_p, sorted by V_r, V_δ and V_b − z.
        c = on_delta[:, :nodes] * i - q_on_key * j
        on_start_value = c * i - j
        # What the moving query adds: Σ_p w_p (dq·k_p) (v_p − z).
        w_dq = w * ((on_start[:, nodes:] + alpha * on_delta[:, nodes:]) * i)
        w_dq_i = w_dq * i
        from_query = w_dq_i @ start.value + (w_dq_i * alpha) @ self.value
        from_query = from_query + w_dq.sum(-1, keepdim=True) * (start.value_bias - z)
        return _Tangents(z, w * c, w * on_start_value, w * (i + alpha * on_start_value), from_query)

    def _out(self, dz: Float[Tensor, "*batch inner"]) -> Float[Tensor, "*batch width"]:
        dy = self.block.out.forward(dz)
        return dy if self.block.gain is None else dy * self.block.gain

    def _pooled_tangent(self, s: _Tangents, weights: Float[Tensor, " position"]) -> Float[Tensor, "node width"]:
        """Tangent of y when every position moves by its weight times the difference."""
        r, d, wc = s.on_start * weights, s.on_delta * weights, s.on_bias * weights
        dz = r @ self.start.value + d @ self.value + wc.sum(-1, keepdim=True) * (self.start.value_bias - s.z)
        dz = dz + weights[self.block.pool] * s.from_query
        dy = self._out(dz.permute(1, 0, 2).flatten(1))
        return dy + weights[self.block.pool] * self.delta[self.block.pool] if self.block.residual else dy

    def value_at(self, nodes: Nodes) -> Float[Tensor, "node joint"]:
        """Embeddings along the path."""
        return self._state(nodes).embedding

    def total(self, rule: Rule) -> Float[Tensor, "node joint"]:
        """d/dα of the embedding at every node: the sum over positions of what `vectors` integrates."""
        return self._state(rule.nodes).along

    def push(self, rule: Rule, weights: Float[Tensor, " position"]) -> Float[Tensor, " joint"]:
        """Σ_p weights_p U_p by one tangent a node."""
        s = self._state(rule.nodes)
        tangent = s.tail.forward(self._pooled_tangent(s.tangents, weights.to(self.delta)))
        return rule.weights.to(tangent) @ tangent

    def pull(self, rule: Rule, directions: Float[Tensor, "row joint"]) -> Float[Tensor, "row position"]:
        """directions · U_p by one cotangent a direction through the single-token tail, without U."""
        state, block = self._state(rule.nodes), self.block
        s = state.tangents
        weighted = directions.to(self.delta)[:, None] * rule.weights.to(self.delta)[:, None]
        g = state.tail.backward(weighted)  # (row, node, width)
        gz = (g if block.gain is None else g * block.gain) @ block.out.weight
        gz = gz.unflatten(-1, (block.heads, -1)).permute(2, 0, 1, 3)  # (head, row, node, channel)
        flat = gz.flatten(1, 2)
        on_value = (flat @ self.start.value.mT).unflatten(1, gz.shape[1:3]) * s.on_start[:, None]
        on_value += (flat @ self.value.mT).unflatten(1, gz.shape[1:3]) * s.on_delta[:, None]
        apart = (gz * (self.start.value_bias - s.z)[:, None]).sum(-1, keepdim=True)
        on_value += apart * s.on_bias[:, None]
        result = on_value.sum((0, 2))
        result[:, block.pool] += (gz * s.from_query[:, None]).sum((0, 2, 3))
        if block.residual:
            result[:, block.pool] += g.sum(1) @ self.delta[block.pool]
        return result

    def vectors(self, rule: Rule) -> Float[Tensor, "position joint"]:
        """U: every position's tangent of y, through the tail, summed over the nodes."""
        return retry_smaller(lambda: self._vectors(rule), lambda: self.vectors_by_node(rule))

    def vectors_by_node(self, rule: Rule) -> Float[Tensor, "position joint"]:
        """The same as `vectors`, one node after another, which needs less memory."""
        total = self._vectors(rule.node(0))
        for number in range(1, len(rule)):
            total += self._vectors(rule.node(number))
        return total

    def vectors_by_head(self, rule: Rule) -> Float[Tensor, "head position joint"]:
        """U split exactly by the attention head through which a position moved the output.

        What comes after the heads is linear at every node. The last entry is the residual stream's own move at the pooled
        position, which passes no head; zero elsewhere and without a residual.
        """
        return retry_smaller(lambda: self._by_head(rule), lambda: self._by_head_and_node(rule))

    def _by_head_and_node(self, rule: Rule) -> Float[Tensor, "head position joint"]:
        total = self._by_head(rule.node(0))
        for number in range(1, len(rule)):
            total += self._by_head(rule.node(number))
        return total

    def _by_head(self, rule: Rule) -> Float[Tensor, "head position joint"]:
        state, block = self._state(rule.nodes), self.block
        joint = state.embedding.shape[-1]
        eye = torch.eye(joint, dtype=self.dtype, device=self.delta.device)
        jacobian = state.tail.backward(eye[:, None] * rule.weights.to(eye)[:, None])  # (joint, node, width)
        through_out = (jacobian if block.gain is None else jacobian * block.gain) @ block.out.weight
        by_head = through_out.unflatten(-1, (block.heads, -1)).permute(2, 1, 3, 0)  # (head, node, channel, joint)
        dz = self._attention_tangents(state.tangents).transpose(1, 2).flatten(2)  # (head, position, node · channel)
        vectors = dz @ by_head.flatten(1, 2)
        stream = torch.zeros_like(vectors[:1])
        if block.residual:
            stream[0, block.pool] = jacobian.sum(1) @ self.delta[block.pool]
        return torch.cat([vectors, stream])

    def _attention_tangents(self, s: _Tangents) -> Float[Tensor, "head node position channel"]:
        """dz of the pooled attention for every position's own move."""
        dz = s.on_start[..., None] * self.start.value[:, None]
        dz = dz.addcmul_(s.on_delta[..., None], self.value[:, None])
        dz = dz.addcmul_(s.on_bias[..., None], (self.start.value_bias - s.z)[:, :, None])
        dz[:, :, self.block.pool] += s.from_query
        return dz

    def _vectors(self, rule: Rule) -> Float[Tensor, "position joint"]:
        state, block = self._state(rule.nodes), self.block
        dz = self._attention_tangents(state.tangents)
        dy = self._out(dz.permute(2, 1, 0, 3).flatten(2))  # (position, node, width)
        if block.residual:
            dy[block.pool] += self.delta[block.pool]
        weights = rule.weights.to(dy)[:, None]
        joint = state.embedding.shape[-1]
        if joint < self.positions:
            eye = torch.eye(joint, dtype=dy.dtype, device=dy.device)
            jacobian = state.tail.backward(eye[:, None] * weights)  # (joint, node, width)
            return dy.flatten(1) @ jacobian.flatten(1).T
        # Few rows at a time stay in the processor's cache; a GPU wants many.
        chunk = max(1, (256 if dy.device.type == "cpu" else 65536) // len(rule))
        return torch.cat([(state.tail.forward(part) * weights).sum(1) for part in dy.split(chunk)])
