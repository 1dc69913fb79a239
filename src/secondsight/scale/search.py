"""Retrieval over a store that says why: which cells and words carry a match, and why this is above that."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.encoders.fingerprint import fingerprint
from secondsight.inputs.kinds import possible_kinds
from secondsight.methods import method_named
from secondsight.model import DualEncoder
from secondsight.scale.decompose import side_of
from secondsight.scale.store import Store
from secondsight.support.errors import InputError

_BLOCK = 65536


@dataclass(frozen=True, eq=False)
class Hit:
    """An entry of the store, its similarity to the query, and the pair explained: `hit.pair[…]` is its map.

    `pair` has the store's entry on the left and the query on the right.
    """

    key: str
    similarity: float
    entry: Contributions
    query: Contributions

    @property
    def pair(self) -> Interactions:
        """The four terms and the matrix of this entry with the query."""
        return self.entry @ self.query

    def above(self, other: Hit) -> Interactions:
        """Why this entry is above another: the margin of their similarities, the query's words on the right.

        The left side has the features of both entries, those of the other one subtracted.
        """
        return (self.entry - other.entry) @ self.query


def search(store: Store, query: Contributions, k: int = 10, *, index: Any = None) -> list[Hit]:
    """The `k` entries of a store that match a query best, explained; no encoder is needed.

    Exact, unless `index` is given: an approximate one over `store.embeddings`, anything with faiss's
    `search(vectors, k)`, which returns similarities and row numbers. Raises `InputError` where query and store are of
    different models or methods.
    """
    if k < 1:
        raise InputError(f"k={k!r} must be at least 1")
    if not len(store):
        raise InputError(f"{str(store.folder)!r} has no entries")
    keys = list(store)
    direction = (query.embedding * query.scale).float().cpu()
    rows = _nearest(store.embeddings, direction, min(k, len(keys))) if index is None else _asked(index, direction, k)
    hits = []
    for row in rows:
        entry = store[keys[row]]
        # The similarity in double, as the pair's own terms have it.
        value = float(entry.embedding.double() @ query.embedding.double()) * entry.scale * query.scale
        entry.check_same_space(query)
        hits.append(Hit(keys[row], value, entry, query))
    return sorted(hits, key=lambda hit: -hit.similarity)


def _nearest(embeddings: Tensor, direction: Tensor, k: int) -> list[int]:
    """The rows with the largest product, block by block; equal ones in the store's order."""
    best, places = torch.empty(0), torch.empty(0, dtype=torch.long)
    for first in range(0, len(embeddings), _BLOCK):
        values = embeddings[first : first + _BLOCK] @ direction
        best, places = torch.cat([best, values]), torch.cat([places, torch.arange(first, first + len(values))])
        order = best.argsort(descending=True, stable=True)[:k]
        best, places = best[order], places[order]
    return [int(i) for i in places]


def _asked(index: Any, direction: Tensor, k: int) -> list[int]:
    _, rows = index.search(direction[None].numpy(), k)
    return [int(i) for i in rows[0] if i >= 0]


def words_of_ranking(hits: Sequence[Hit]) -> list[tuple[str, float]]:
    """(word, score) of the query: what each word adds to the mean margin of the first hit above the others."""
    from secondsight.algebra.layout import word_scores

    if len(hits) < 2:
        raise InputError("a ranking needs at least two hits")
    first, *others = hits
    rows = [first.above(other).toward_right(None) for other in others]
    return word_scores(first.query.layout, torch.stack(rows).mean(0))


def query_of(store: Store, model: DualEncoder, raw: Any) -> Contributions:
    """A raw query's contributions by the store's own method; raises `InputError` where the model is not the store's."""
    if fingerprint(model) != store.facts["weights"]:
        raise InputError(
            f"the store was made by {store.facts['model']!r} with other weights than {model.name!r} has (or in another "
            "precision: --precision)"
        )
    own = side_of(model, store.facts["side"])
    other = model.right if own is model.left else model.left
    # A text is a query for images, and an image for texts; else something of the store's own kind is meant.
    side = other if other.kind in possible_kinds(raw) else own
    method = method_named(store.facts["method"]["name"], **_options(store))
    made = side.contributions([raw], method)[0]
    return replace(made, space=store.facts["space"])


def _options(store: Store) -> dict[str, Any]:
    return {name: ast.literal_eval(value) for name, value in store.facts["method"]["options"].items()}
