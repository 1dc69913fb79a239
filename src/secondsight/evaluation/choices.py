"""Scores of comparisons: whether captions that fit an image are more similar to it than those that do not, and chance."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import permutations
from math import comb

Pair = tuple[int, int]
"""An image and a caption of a comparison, by their numbers."""

SCORES = ("text", "image", "group")
"""Winoground's scores (Thrush et al. 2022), for any number of images and captions."""

_ENUMERATED = 8
"""Pairs of a comparison up to which all orders of their similarities are looked at."""


def scores(similarities: Mapping[Pair, float], fits: frozenset[Pair]) -> dict[str, bool]:
    """Winoground's scores of one comparison from the similarities of all its pairs, of which `fits` belong together.

    "text": every image is more similar to each caption that fits it than to any other. "image": every caption is more
    similar to each image that it fits than to any other. "group": both. With one image there is only "text".
    """
    right, wrong = _split(similarities, fits)
    text = all(similarities[i, c] > similarities[j, d] for i, c in right for j, d in wrong if i == j)
    if len({image for image, _ in similarities}) < 2:
        return {"text": text}
    image = all(similarities[i, c] > similarities[j, d] for i, c in right for j, d in wrong if c == d)
    return {"text": text, "image": image, "group": text and image}


@lru_cache(4096)
def chances(pairs: frozenset[Pair], fits: frozenset[Pair]) -> dict[str, float]:
    """The probability of every score if all orders of the pairs' similarities are equally likely; NaN for many pairs."""
    if len({image for image, _ in pairs}) == 1:
        return {"text": 1 / comb(len(pairs), len(fits))}
    if len(pairs) > _ENUMERATED:
        return dict.fromkeys(SCORES, float("nan"))
    counts, orders = dict.fromkeys(SCORES, 0), 0
    for order in permutations(range(len(pairs))):
        orders += 1
        for name, holds in scores(dict(zip(sorted(pairs), order, strict=True)), fits).items():
            counts[name] += holds
    return {name: count / orders for name, count in counts.items()}


def _split(similarities: Mapping[Pair, float], fits: frozenset[Pair]) -> tuple[list[Pair], list[Pair]]:
    """The pairs that belong together, and the others."""
    return [pair for pair in similarities if pair in fits], [pair for pair in similarities if pair not in fits]
