"""The rule of attention as one operation: its mean Jacobian, computed again where it is needed, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from secondsight.paths import attention, secants  # noqa: F401  # defines the operation
from secondsight.paths.linear_maps import LinearMap, LowRank
from secondsight.paths.rules.move import Edge, Move, rule

_BLOCK_FLOATS = 2**22
"""Floats of the tensors that a block of queries takes."""


@rule(torch.ops.secondsight.attention.default)
def attend(move: Move) -> list[Edge]:
    """Attention as one operation."""
    mask, causal, scale = (move.argument(position) for position in (1, 2, 3))
    jacobian = _MeanAttention(move.points(0)[0], move.points(0)[1], mask, causal, scale)
    return move.first(jacobian)


class _MeanAttention(LinearMap):
    """The mean Jacobian of attention between `start` and `end` (…, position, 3 · width), of which only these two are kept.

    It is that of attention's parts: two products with the other factor's mean, and between them the softmax's.
    """

    def __init__(self, start: Tensor, end: Tensor, mask: Tensor | None, causal: bool, scale: float) -> None:
        self.start, self.end, self.mask, self.causal, self.scale = start, end, mask, causal, scale
        self.standing = start is end
        self.length, self.width = end.shape[-2], end.shape[-1] // 3
        self.heads = end.shape[:-2].numel()
        self.count = 1 if self.standing else self._nodes()

    def push(self, t: Tensor) -> Tensor:
        """Tangents of the scores, of the probabilities, and of their products with the values."""
        tangents = t.reshape(len(t), self.heads, self.length, -1)
        result = tangents.new_empty(*tangents.shape[:-1], self.width)
        for head in range(self.heads):
            query, key, value = self._means(head)
            to_query, to_key, to_value = tangents[:, head].chunk(3, -1)
            for part, softmax, probabilities in self._blocks(head, len(t)):
                scores = to_query[:, part] @ key.mT + query[part] @ to_key.mT
                result[:, head, part] = softmax.push(scores * self.scale) @ value + probabilities @ to_value
        return result.reshape(*t.shape[:-1], self.width)

    def pull(self, g: Tensor) -> Tensor:
        """The transpose."""
        cotangents = g.reshape(len(g), self.heads, self.length, -1)
        result = cotangents.new_zeros(*cotangents.shape[:-1], 3 * self.width)
        for head in range(self.heads):
            query, key, value = self._means(head)
            to_query, to_key, to_value = result[:, head].chunk(3, -1)
            for part, softmax, probabilities in self._blocks(head, len(g)):
                rows = cotangents[:, head, part]
                scores = softmax.pull(rows @ value.mT) * self.scale
                to_query[:, part] = scores @ key
                to_key += scores.mT @ query[part]
                to_value += probabilities.mT @ rows
        return result.reshape(*g.shape[:-1], 3 * self.width)

    def _means(self, head: int) -> Sequence[Tensor]:
        """Mean queries, keys and values of a head."""
        end = self._head(self.end, head)
        mean = end if self.standing else (self._head(self.start, head) + end) / 2
        return mean.chunk(3, -1)

    def _head(self, states: Tensor, head: int) -> Tensor:
        return states.reshape(self.heads, self.length, -1)[head]

    def _blocks(self, head: int, rows: int) -> Iterator[tuple[slice, LowRank, Tensor]]:
        """Queries of a head with their softmax's mean Jacobian, and the mean of their probabilities at both ends."""
        for queries, *scores in self._scores(head, self.count + 2 * rows):
            last = torch.softmax(scores[1], -1)
            first = last if self.standing else torch.softmax(scores[0], -1)
            yield queries, secants.softmax((scores[0], scores[1]), (first, last), self.count), (first + last) / 2

    def _scores(self, head: int, matrices: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Blocks of queries and their scores (query, position) at both ends, of which so many matrices fit into a block."""
        step = max(1, _BLOCK_FLOATS // (self.length * (matrices + 6)))
        states = [self._head(point, head) for point in ((self.end,) if self.standing else (self.start, self.end))]
        for first in range(0, self.length, step):
            queries = slice(first, min(first + step, self.length))
            scores = []
            for point in states:
                query, key, _ = point.chunk(3, -1)
                scores.append(self._masked((query[queries] * self.scale) @ key.mT, head, queries))
            yield queries, scores[0], scores[-1]

    def _masked(self, scores: Tensor, head: int, queries: slice) -> Tensor:
        if self.causal:
            later = torch.ones_like(scores, dtype=torch.bool).triu(queries.start + 1)
            scores = scores.masked_fill(later, -math.inf)
        if self.mask is not None:
            # Expanding copies nothing; heads count through all leading axes.
            shape = torch.Size([*self.end.shape[:-2], self.length, self.length])
            place = torch.unravel_index(torch.tensor(head), shape[:-2]) if len(shape) > 2 else ()
            mask = self.mask.expand(shape)[tuple(int(index) for index in place)][queries]
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        return scores

    def _nodes(self) -> int:
        """As many nodes as the softmax of all heads and queries needs."""
        counts = secants.softmax_nodes(self.end.dtype)
        for count in counts:
            missing = largest = 0.0
            for head in range(self.heads):
                for _, *scores in self._scores(head, count):
                    first, last = (torch.softmax(z, -1) for z in scores)
                    misses = secants.softmax_miss((scores[0], scores[1]), (first, last), count)
                    missing, largest = max(missing, misses[0]), max(largest, misses[1])
            if largest == 0 or secants.enough(missing, largest, self.end.dtype):
                return count
        return counts[-1]
