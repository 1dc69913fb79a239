"""Ranks of the right entries, block by block, and recall with its intervals and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.answers.collection import Collection
from secondsight.answers.significance import sign_test_p
from secondsight.scale.search import Searchable

PLAIN, ABOVE = "similarity", "above usual"
"""The two rankings: by the similarity, and by what is left of it when each entry's usual one is taken off."""

_BLOCK = 2**22
"""Similarities that are in memory at once."""


@dataclass(frozen=True, eq=False)
class Direction:
    """One way to search: every query against all entries, of which those in the rows `relevant` are right.

    `groups` names what each query's photograph or document is: queries of one are not independent. `nouns` call a query and
    an entry by what they are.
    """

    name: str
    nouns: tuple[str, str]
    queries: Searchable
    query_keys: Sequence[str]
    entries: Searchable
    entry_keys: Sequence[str]
    relevant: Sequence[Sequence[int]]
    groups: Sequence[str]

    @cached_property
    def late(self) -> bool:
        """Whether entries are token vectors, whose similarity is MaxSim."""
        return self.entries[self.entry_keys[0]].pairing is not None

    @cached_property
    def query_embeddings(self) -> Float[Tensor, "query joint"]:
        """The queries' embeddings times their scales."""
        return _embeddings(self.queries, self.query_keys)

    @cached_property
    def entry_embeddings(self) -> Float[Tensor, "entry joint"]:
        """The entries' embeddings times their scales."""
        return _embeddings(self.entries, self.entry_keys)

    @cached_property
    def usual(self) -> Float[Tensor, " entry"] | None:
        """Every entry's mean similarity to all queries; None for token vectors, whose best matches have no mean query."""
        return None if self.late else self.entry_embeddings @ self.query_embeddings.mean(0)

    def scores(self) -> Iterator[Float[Tensor, "query entry"]]:
        """The similarities of all queries, some queries at a time."""
        if self.late:
            entries = [self.entries[key] for key in self.entry_keys]
            for key in self.query_keys:
                query = self.queries[key]
                yield torch.tensor([[entry.similarity_to(query) for entry in entries]], dtype=torch.float64)
            return
        for block in self.query_embeddings.split(max(_BLOCK // len(self.entry_keys), 1)):
            yield block @ self.entry_embeddings.T


@dataclass(frozen=True, eq=False)
class Ranks:
    """By query: the `rank` of the first right entry, from 1, the row of that entry, and the row of the first entry of all."""

    rank: np.ndarray
    right: np.ndarray
    winner: np.ndarray


def directions(collection: Collection) -> list[Direction]:
    """Both ways to search a collection: with its texts (or queries), and with its images (or documents)."""
    image_keys = list(dict.fromkeys(image for image, _ in collection.pairs))
    text_keys = list(dict.fromkeys(text for _, text in collection.pairs))
    image_rows, text_rows = ({key: row for row, key in enumerate(keys)} for keys in (image_keys, text_keys))
    images_of: list[list[int]] = [[] for _ in text_keys]
    texts_of: list[list[int]] = [[] for _ in image_keys]
    for image, text in dict.fromkeys(collection.pairs):
        images_of[text_rows[text]].append(image_rows[image])
        texts_of[image_rows[image]].append(text_rows[text])
    pictures = collection.images.facts["side"] != "text"
    names = ("text→image", "image→text") if pictures else ("query→document", "document→query")
    nouns = ("caption", "photograph") if pictures else ("query", "document")
    groups = [image_keys[rows[0]] for rows in images_of]
    return [
        Direction(
            names[0], nouns, collection.texts, text_keys, collection.images, image_keys, images_of, groups
        ),
        Direction(
            names[1], nouns[::-1], collection.images, image_keys, collection.texts, text_keys, texts_of, image_keys
        ),
    ]  # fmt: skip


def ranks_of(direction: Direction, *, above_usual: bool = False) -> Ranks:
    """The ranks by the similarity, or with every entry's usual one taken off.

    Similarities are computed in double precision and compared in single, so that equal entries tie; ties keep the order of
    the entries, as in `search`.
    """
    usual = direction.usual if above_usual else None
    rank: list[int] = []
    right: list[int] = []
    winner: list[int] = []
    for scores in direction.scores():
        compared = (scores if usual is None else scores - usual).float().numpy()
        for values in compared:
            rows = np.array(direction.relevant[len(rank)], dtype=np.int64)
            best = int(rows[values[rows].argmax()])
            ahead = (values > values[best]).sum() + (values[:best] == values[best]).sum()
            rank.append(int(ahead) + 1)
            right.append(best)
            winner.append(int(values.argmax()))
    return Ranks(np.array(rank), np.array(right), np.array(winner))


def recall_table(direction: Direction, by: dict[str, Ranks], k: Sequence[int], alpha: float, seed: int) -> pd.DataFrame:
    """recall@k and the median rank of every ranking, with intervals over photographs or documents."""
    hits = np.stack([ranking.rank <= depth for ranking in by.values() for depth in k], 1)
    low, high = intervals(hits, direction.groups, alpha, seed)
    rows, column = [], 0
    for name, ranking in by.items():
        row = {
            "direction": direction.name,
            "ranked by": name,
            "queries": len(ranking.rank),
            "entries": len(direction.entry_keys),
        }
        for depth in k:
            row |= {
                f"recall@{depth}": hits[:, column].mean(),
                f"recall@{depth} low": low[column],
                f"recall@{depth} high": high[column],
            }
            column += 1
        rows.append(row | {"median rank": float(np.median(ranking.rank))})
    return pd.DataFrame(rows)


def change_table(direction: Direction, by: dict[str, Ranks], k: Sequence[int], alpha: float, seed: int) -> pd.DataFrame:
    """What taking the usual similarity off changes in recall@k.

    `p` is the exact sign test over photographs (or documents) of which more queries are found in one ranking than in the
    other; where each has one query it is McNemar's.
    """
    change = np.stack([(by[ABOVE].rank <= depth) * 1.0 - (by[PLAIN].rank <= depth) for depth in k], 1)
    low, high = intervals(change, direction.groups, alpha, seed)
    sums = _sums(change, direction.groups)
    better, worse = (sums > 0).sum(0), (sums < 0).sum(0)
    p = [sign_test_p(*counts) for counts in zip(better.tolist(), worse.tolist(), strict=True)]
    return pd.DataFrame(
        {
            "direction": direction.name,
            "recall": [f"@{depth}" for depth in k],
            "change": change.mean(0),
            "low": low,
            "high": high,
            f"{direction_group(direction)}s better": better,
            f"{direction_group(direction)}s worse": worse,
            "p": p,
        }
    )


def direction_group(direction: Direction) -> str:
    """What queries are grouped by: the photograph, or the document."""
    return next(noun for noun in direction.nouns if noun in ("photograph", "document"))


def _embeddings(store: Searchable, keys: Sequence[str]) -> Float[Tensor, "entry joint"]:
    rows = {key: row for row, key in enumerate(store.keys())}
    return store.embeddings[[rows[key] for key in keys]].double()


def _sums(values: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Values (query, column) added up by group."""
    codes = pd.factorize(np.asarray(groups, dtype=object))[0]
    sums = np.zeros((codes.max() + 1, values.shape[1]))
    np.add.at(sums, codes, values)
    return sums


def intervals(
    values: np.ndarray, groups: Sequence[str], alpha: float, seed: int, draws: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals of the columns' means when whole groups are drawn anew."""
    sums, counts = _sums(values, groups), _sums(np.ones((len(values), 1)), groups)
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(draws):
        times = np.bincount(generator.integers(0, len(sums), len(sums)), minlength=len(sums))
        means.append(times @ sums / (times @ counts))
    low, high = np.quantile(np.array(means), [alpha / 2, 1 - alpha / 2], axis=0)
    return low, high
