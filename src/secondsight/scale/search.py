"""Retrieval that says why: which cells and words carry a match, and why one entry ranks above another.

`search` works on anything `Searchable`: a store on disk, or contributions that a program keeps in memory.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import word_scores
from secondsight.encoders.fingerprint import fingerprint
from secondsight.inputs.kinds import possible_kinds
from secondsight.methods import method_named
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.scale.store import Store

_BLOCK = 65536


@runtime_checkable
class Searchable(Protocol):
    """Entries in a fixed order: their keys, their embeddings, and the contributions of each by key."""

    def keys(self) -> Sequence[str]:
        """All keys, in the order of `embeddings`."""

    @property
    def embeddings(self) -> Float[Tensor, "entry joint"]:
        """All embeddings times their scale. Entries are ranked in this tensor's precision."""

    def __getitem__(self, key: str) -> Contributions:
        """The contributions of one entry; read only for the entries that are returned."""


@dataclass(frozen=True, eq=False)
class Hit:
    """An entry, its similarity to the query, and the pair explained: `hit.pair[…]` is its map.

    `pair` has the entry on the left and the query on the right.
    """

    key: str
    similarity: float
    entry: Contributions
    query: Contributions

    @property
    def pair(self) -> Interactions:
        """The four terms and the matrix of this entry with the query."""
        return self.entry @ self.query

    def above(self, lower: Hit) -> Interactions:
        """Why this entry ranks above `lower`: the margin of their similarities, with the query on the right.

        The left side has the features of both entries; those of `lower` count negatively.
        """
        return (self.entry - lower.entry) @ self.query


def search(entries: Searchable, query: Contributions, k: int = 10, *, index: Any = None) -> list[Hit]:
    """The `k` entries that match a query best, explained; no encoder is needed.

    The ranking is exact unless `index` is given: an approximate index over `entries.embeddings` with faiss's method
    `search(vectors, k)`, which returns similarities and row numbers. Raises `InputError` if the query and the entries come
    from different models or methods.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, not {k!r}")
    keys = entries.keys()
    if not keys:
        raise InputError("there are no entries to search: decompose some inputs first")
    direction = query.embedding.cpu() * query.scale
    if index is None:
        rows = _nearest(entries.embeddings, direction, min(k, len(keys)))
    else:
        rows = _approximately_nearest(index, direction, k)
    hits = []
    for row in rows:
        entry = entries[keys[row]]
        entry.check_same_space(query)
        # In double precision, as in the pair's terms.
        similarity = float(entry.embedding.double() @ query.embedding.double()) * entry.scale * query.scale
        hits.append(Hit(keys[row], similarity, entry, query))
    return sorted(hits, key=lambda hit: -hit.similarity)


def _nearest(embeddings: Float[Tensor, "entry joint"], direction: Float[Tensor, " joint"], k: int) -> list[int]:
    """The rows with the largest products, computed block by block; ties keep the order of the entries."""
    direction = direction.to(embeddings)
    best, rows = embeddings.new_empty(0), torch.empty(0, dtype=torch.long)
    for first in range(0, len(embeddings), _BLOCK):
        products = embeddings[first : first + _BLOCK] @ direction
        best, rows = torch.cat([best, products]), torch.cat([rows, torch.arange(first, first + len(products))])
        order = best.argsort(descending=True, stable=True)[:k]
        best, rows = best[order], rows[order]
    return [int(row) for row in rows]


def _approximately_nearest(index: Any, direction: Float[Tensor, " joint"], k: int) -> list[int]:
    _, rows = index.search(direction.float()[None].numpy(), k)
    # faiss fills up with -1 when it finds fewer than k.
    return [int(row) for row in rows[0] if row >= 0]


def words_of_ranking(hits: Sequence[Hit]) -> list[tuple[str, float]]:
    """(word, score) of the query: what each word adds to the mean margin of the first hit above the rest."""
    if len(hits) < 2:
        raise InputError("explaining a ranking needs at least two hits: search with a larger k")
    first, *rest = hits
    margins = [first.above(lower).toward_right(None) for lower in rest]
    return word_scores(first.query.layout, torch.stack(margins).mean(0))


def query_of(store: Store, model: DualEncoder, raw: Any) -> Contributions:
    """The contributions of a raw query by the store's method; raises `InputError` if `model` is not the store's."""
    if fingerprint(model) != store.facts["weights"]:
        raise InputError(
            f"the store was made by {store.facts['model']!r} with other weights or in another precision than "
            f"{model.name!r}: load the store's model, with its --precision"
        )
    stored_side = model.side(store.facts["side"])
    opposite = model.right if stored_side is model.left else model.left
    # A text searches images and an image searches texts; otherwise the query is of the store's kind.
    side = opposite if opposite.kind in possible_kinds(raw) else stored_side
    method = method_named(store.facts["method"]["name"], **_options(store))
    contributions = side.contributions([raw], method)[0]
    return replace(contributions, space=store.facts["space"])


def _options(store: Store) -> dict[str, Any]:
    return {name: ast.literal_eval(literal) for name, literal in store.facts["method"]["options"].items()}
