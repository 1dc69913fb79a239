"""Both ways of retrieval in a collection: who comes first how often, and which ranking finds the right one.

Similarities are computed in blocks, so that memory does not grow with the product of both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from secondsight.answers.collection import Collection, Progress

NEAREST = 10
"""Entries of a result list in which it is counted how often an entry turns up."""

MOST_QUERIES = 20_000
"""Queries of a ranking; more are sampled."""

RANKINGS = ("similarity", "above usual", "without the alone term")
"""Rankings that are compared: by the similarity, with the entry's mean over all queries taken off, with its alone term."""

_BLOCK = 512


@dataclass(frozen=True, eq=False)
class Direction:
    """One side as queries of the other: embeddings and references times their scales, and each query's right entries.

    `right` lists rows of entries for every query, filled up with −1.
    """

    name: str
    queries: Float[Tensor, "query joint"]
    query_references: Float[Tensor, "query joint"]
    entries: Float[Tensor, "entry joint"]
    entry_references: Float[Tensor, "entry joint"]
    right: Int[Tensor, "query right"]

    @property
    def usual(self) -> Float[Tensor, " entry"]:
        """Every entry's mean similarity to all queries."""
        return (self.entries.double() @ self.queries.double().mean(0)).float()

    def scores(self, rows: Tensor) -> dict[str, Float[Tensor, "query entry"]]:
        """The scores of all entries for some queries, in every ranking."""
        similarities = self.queries[rows] @ self.entries.T
        alone = self.query_references[rows] @ (self.entries - self.entry_references).T
        return dict(zip(RANKINGS, (similarities, similarities - self.usual, similarities - alone), strict=True))


def directions(collection: Collection) -> list[Direction]:
    """Captions as queries of images, then images as queries of captions."""
    images, texts = collection.images, collection.texts
    left, right = ((store.embeddings, store.reference_embeddings) for store in (images, texts))
    rows_of_images = {key: row for row, key in enumerate(images.keys())}
    rows_of_texts = {key: row for row, key in enumerate(texts.keys())}
    pairs = [(rows_of_images[image], rows_of_texts[text]) for image, text in collection.pairs]
    backwards = [(text, image) for image, text in pairs]
    return [
        Direction("caption → image", *right, *left, _right(backwards, len(texts))),
        Direction("image → caption", *left, *right, _right(pairs, len(images))),
    ]


def _right(pairs: Sequence[tuple[int, int]], queries: int) -> Int[Tensor, "query right"]:
    entries: list[list[int]] = [[] for _ in range(queries)]
    for query, entry in pairs:
        entries[query].append(entry)
    most = max(map(len, entries))
    return torch.tensor([rows + [-1] * (most - len(rows)) for rows in entries])


def rank_all(
    direction: Direction, *, seed: int = 0, progress: Progress | None = None
) -> tuple[Int[Tensor, " entry"], pd.DataFrame, int]:
    """How many result lists of `NEAREST` each entry is in, the table of recalls by ranking, and the number of queries.

    Recall@k is the share of queries with a right entry among the first k; entries of equal score count as found.
    """
    rows = torch.arange(len(direction.queries))
    if len(rows) > MOST_QUERIES:
        drawn = np.random.default_rng(seed).choice(len(rows), MOST_QUERIES, replace=False)
        rows = torch.from_numpy(np.sort(drawn))
    nearest = min(NEAREST, max(len(direction.entries) // 4, 1))
    lists = torch.zeros(len(direction.entries), dtype=torch.long)
    better: dict[str, list[Tensor]] = {name: [] for name in RANKINGS}
    for first in range(0, len(rows), _BLOCK):
        block = rows[first : first + _BLOCK]
        right = direction.right[block]
        answered = (right >= 0).any(1)
        for name, scores in direction.scores(block).items():
            if name == RANKINGS[0]:
                lists += torch.bincount(scores.topk(nearest).indices.flatten(), minlength=len(lists))
            right_scores = scores.gather(1, right.clamp(min=0)).masked_fill(right < 0, -torch.inf).amax(1)
            better[name].append((scores > right_scores[:, None]).sum(1)[answered])
        if progress is not None:
            progress(f"ranking {direction.name}", first + len(block), len(rows))
    places = {name: torch.cat(counts).double() for name, counts in better.items()}
    recalls = {
        name: {f"recall@{k}": float((place < k).double().mean()) for k in (1, 5)} for name, place in places.items()
    }
    table = pd.DataFrame.from_dict(recalls, orient="index").rename_axis("ranking").reset_index()
    return lists, table.assign(direction=direction.name), len(rows)


def hubness(lists: Int[Tensor, " entry"]) -> float:
    """The skewness of the numbers of result lists that entries are in, N_k (Radovanović et al. 2010): 0 without hubs."""
    return float(stats.skew(lists.numpy())) if len(lists.unique()) > 1 else 0.0  # undefined where all are alike
