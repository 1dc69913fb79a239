"""Joint dimensions that stand for words, as those of sparse encoders: which of them make up a similarity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from secondsight.algebra.interactions import Interactions

_MOST = 10


def with_axes(pair: Interactions, name_of: Callable[[int], str | None]) -> Interactions:
    """The pair with `about["axes"]`: the largest parts of its similarity by joint dimension, as (name, part).

    The part of dimension k is g_k·h_k, in units of the similarity; the parts of all dimensions add up to it. Pairs of
    dimensions without names, and pairs whose sides have no contributions, come back as they are.
    """
    left, right = pair.left_contributions, pair.right_contributions
    if left is None or right is None or name_of(0) is None:
        return pair
    parts = left.embedding.double().cpu() * right.embedding.double().cpu() * (left.scale * right.scale)
    largest = parts.abs().topk(min(_MOST, len(parts))).indices.tolist()
    axes = [(name_of(axis), float(parts[axis])) for axis in largest if parts[axis]]
    return replace(pair, about={**pair.about, "axes": axes})
