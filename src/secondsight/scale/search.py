"""Retrieval that says why: which cells and words carry a match, and why one entry ranks above another.

`search` works on anything `Searchable`: a store on disk, or contributions that a program keeps in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions, margin
from secondsight.algebra.layout import word_scores
from secondsight.scale.query import query_of as query_of
from secondsight.scale.usual import OrdinaryQueries, Usual
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.scale.lead import Lead

RANKINGS: dict[str, str] = {
    "similarity": "how close an entry is to the query",
    "above-usual": "how much closer it is to the query than to ordinary queries",
}
"""What entries can be ranked by, and what that is."""

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

    `pair` has the entry on the left and the query on the right. `usual` is the entry's mean similarity to ordinary
    queries, where they were given, and `taken_off` these queries where that mean is taken off the similarity to rank by.
    """

    key: str
    similarity: float
    entry: Contributions
    query: Contributions
    usual: Usual | None = None
    taken_off: OrdinaryQueries | None = None

    @property
    def pair(self) -> Interactions:
        """The four terms and the matrix of this entry with the query."""
        return self.entry @ self.query

    @property
    def score(self) -> float:
        """The number that ranks: the similarity, or what is left of it when the usual one is taken off."""
        return self.similarity if self.taken_off is None else self.entry.similarity_to(self.ranking_query)

    @property
    def ranking_query(self) -> Contributions:
        """The query whose similarities are the scores."""
        return self.query if self.taken_off is None else self.taken_off.taken_off(self.query)

    def above(self, lower: Hit) -> Interactions:
        """Why this entry ranks above `lower`: the margin of their scores, with the query on the right.

        The left side has the features of both entries; those of `lower` count negatively.
        """
        if self.entry.pairing is not None:
            return margin(self.pair.T, lower.pair.T).T
        return (self.entry - lower.entry) @ self.ranking_query

    def compare(self, lower: Hit) -> Lead:
        """By how much this entry leads `lower`, and because of which words and regions: parts that add up exactly.

        Raises `InputError` for hits of different searches.
        """
        from secondsight.scale.lead import Lead

        return Lead(self, lower)


def search(
    entries: Searchable,
    query: Contributions,
    k: int = 10,
    *,
    without: Any = None,
    rank: str = "similarity",
    ordinary: OrdinaryQueries | None = None,
    index: Any = None,
) -> list[Hit]:
    """The `k` entries that match a query best, explained; no encoder is needed.

    `without` takes words (or another selection) out of the query: entries are then ranked as `query.without` predicts, and
    `edited_ranking` says where they stood before, and where they really stand.
    With `ordinary` queries every hit says how close its entry usually is, and `rank` "above-usual" takes that off: entries
    that are close to every query then no longer come first. The ranking is exact unless `index` is given: an approximate
    index over `entries.embeddings` with faiss's method `search(vectors, k)`, which returns similarities and row numbers.
    Raises `InputError` if the query and the entries come from different models or methods.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InputError(f"k must be a whole number of at least 1, not {k!r}")
    if rank not in RANKINGS:
        raise InputError(f"unknown ranking {rank!r}; known: {', '.join(RANKINGS)}")
    if rank == "above-usual" and ordinary is None:
        raise InputError(
            'the ranking "above-usual" needs ordinary=ordinary_queries(store, model), of secondsight.scale'
        )
    keys = entries.keys()
    if not keys:
        raise InputError("there are no entries to search: decompose some inputs first")
    query = query if without is None else query.without(without)
    if query.pairing is not None and (ordinary is not None or index is not None):
        raise InputError(
            "token vectors are ranked by their best matches, one entry after the other: leave out ordinary= and index="
        )
    taken_off = ordinary if rank == "above-usual" else None
    ranking_query = query if taken_off is None else taken_off.taken_off(query)
    direction = ranking_query.embedding.cpu() * query.scale
    if query.pairing is not None:
        rows = _best_matching((entries[key] for key in keys), query, min(k, len(keys)))
    elif index is None:
        rows = _nearest(entries.embeddings, direction, min(k, len(keys)))
    else:
        rows = _approximately_nearest(index, direction, k)
    usual = [None] * len(rows) if ordinary is None else ordinary.usual(entries.embeddings, rows)
    hits = []
    for row, usual_of_entry in zip(rows, usual, strict=True):
        entry = entries[keys[row]]
        entry.check_same_space(query)
        hits.append(Hit(keys[row], entry.similarity_to(query), entry, query, usual_of_entry, taken_off))
    return sorted(hits, key=lambda hit: -hit.score)


class Place(NamedTuple):
    """Where an entry stands in a ranking of all entries: its rank, from 1, and the score that ranks it."""

    rank: int
    score: float


@dataclass(frozen=True)
class EditedPlace:
    """Where an entry stands for the whole query, as predicted for the query without a part, and as measured, if it was."""

    key: str
    before: Place
    predicted: Place
    measured: Place | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        names = ("before", "predicted", "measured")
        places = {name: getattr(self, name) for name in names}
        return {"key": self.key} | {name: place and place._asdict() for name, place in places.items()}


def edited_ranking(
    entries: Searchable,
    query: Contributions,
    without: Any,
    k: int = 10,
    *,
    measured: Contributions | None = None,
    rank: str = "similarity",
    ordinary: OrdinaryQueries | None = None,
) -> list[EditedPlace]:
    """The best `k` entries for a query without a part, as `search(…, without=…)` ranks them, and their places otherwise.

    `measured` is the query encoded again without the part, see `secondsight.scale.query.edited_query`; entries that are
    among the best `k` by it, or were before, are appended. Raises `InputError` as `search` does.
    """
    search(entries, query, 1, without=without, rank=rank, ordinary=ordinary)  # refuses what cannot be searched
    keys, taken_off = entries.keys(), ordinary if rank == "above-usual" else None
    queries = [query, query.without(without), *([] if measured is None else [measured])]
    places = [_places(entries, keys, one if taken_off is None else taken_off.taken_off(one)) for one in queries]
    predicted = places[1]
    shown = {row for ranking in places for row, place in enumerate(ranking) if place.rank <= k}
    ordered = sorted(shown, key=lambda row: predicted[row].rank)
    return [EditedPlace(keys[row], *(ranking[row] for ranking in places)) for row in ordered]


def _places(entries: Searchable, keys: Sequence[str], query: Contributions) -> list[Place]:
    """The place of every entry, in their order; equal scores keep that order."""
    if query.pairing is None:
        embeddings = entries.embeddings
        direction = (query.embedding.cpu() * query.scale).to(embeddings)
        scores = torch.cat([embeddings[i : i + _BLOCK] @ direction for i in range(0, len(embeddings), _BLOCK)])
    else:
        scores = torch.tensor([entries[key].similarity_to(query) for key in keys])
    ranks = torch.empty(len(scores), dtype=torch.long)
    ranks[scores.argsort(descending=True, stable=True)] = torch.arange(1, len(scores) + 1)
    return [Place(rank, score) for rank, score in zip(ranks.tolist(), scores.tolist(), strict=True)]


def _best_matching(entries: Iterable[Contributions], query: Contributions, k: int) -> list[int]:
    """The rows with the largest MaxSim; ties keep the order of the entries."""
    similarities = []
    for entry in entries:
        entry.check_same_space(query)
        similarities.append(entry.similarity_to(query))
    return [int(row) for row in torch.tensor(similarities).argsort(descending=True, stable=True)[:k]]


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
