"""An entry's usual similarity: its mean over ordinary queries, by which hubs are recognised and taken out of a ranking."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.model import DualEncoder, Side
from secondsight.scale.query import query_side
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, load_json

if TYPE_CHECKING:
    from secondsight.scale.store import Store

HUB_DEVIATIONS = 2.0
"""An entry is a hub where its usual similarity is that many standard deviations above the mean of all entries."""


@dataclass(frozen=True)
class Usual:
    """How close an entry is to ordinary queries: its mean `similarity` to them, and its `rank` among all `entries`, from 1.

    A `hub` is close to most queries, two standard deviations above the entries' mean, and turns up in many rankings.
    """

    similarity: float
    rank: int
    entries: int
    hub: bool


@dataclass(frozen=True, eq=False)
class OrdinaryQueries:
    """Everyday queries of one kind, as the mean (joint,) of their embeddings times their scales; `count` says how many.

    An entry's product with `mean` is its mean similarity to them, so that taking it off an entry's similarity is taking
    the mean off the query: one ranking, and the same maps and words.
    """

    mean: Float[Tensor, " joint"]
    count: int

    def __post_init__(self) -> None:
        if self.count < 1 or not bool(torch.isfinite(self.mean).all()):
            raise InputError(f"ordinary queries need at least one, with finite embeddings; there are {self.count}")

    @classmethod
    def of(cls, side: Side, inputs: Sequence[Any]) -> OrdinaryQueries:
        """The mean of raw inputs, such as captions, which are encoded here; too long ones are cut."""
        if not inputs:
            raise InputError("the list of ordinary queries is empty: give at least one, better some dozens")
        return cls(embedding_sum(side, inputs) / len(inputs), len(inputs))

    def similarities(self, embeddings: Float[Tensor, "entry joint"]) -> Float[Tensor, " entry"]:
        """Every entry's usual similarity, of embeddings times their scale."""
        return embeddings @ self._mean_for(embeddings.shape[-1]).to(embeddings)

    def taken_off(self, query: Contributions) -> Contributions:
        """The query whose similarities are those of `query` minus each entry's usual one.

        Embedding and reference move by the mean, the vectors stay: the difference is in an entry's effects alone.
        """
        mean = self._mean_for(len(query.embedding)).to(query.embedding.device) / query.scale
        return replace(
            query,
            embedding=query.embedding.double() - mean,
            reference_embedding=query.reference_embedding.double() - mean,
        )

    def usual(self, embeddings: Float[Tensor, "entry joint"], rows: Sequence[int]) -> list[Usual]:
        """The usual similarity of the entries in these rows, its rank among all entries, and whether they are hubs."""
        values = self.similarities(embeddings).double()
        bound = float(values.mean() + HUB_DEVIATIONS * values.std(correction=0))
        return [
            Usual(value, int((values > value).sum()) + 1, len(values), value > bound) for value in values[rows].tolist()
        ]

    def _mean_for(self, joint: int) -> Tensor:
        if len(self.mean) != joint:
            raise InputError(
                f"the ordinary queries have {len(self.mean)} joint dimensions, the entries {joint}: use the entries' model"
            )
        return self.mean.double()


def embedding_sum(side: Side, inputs: Sequence[Any]) -> Float[Tensor, " joint"]:
    """The sum of embeddings times their scales, in double precision."""
    embeddings = side.embed(list(inputs), truncate=True).detach().cpu().double()
    return (torch.nn.functional.normalize(embeddings, dim=-1) if side.cosine else embeddings).sum(0)


@cache
def ordinary_captions() -> tuple[str, ...]:
    """The captions of everyday scenes that come with the package."""
    listed = json.loads((files("secondsight.data") / "ordinary_captions.json").read_text(encoding="utf-8"))
    return tuple(listed["captions"])


def ordinary_queries(store: Store, model: DualEncoder, queries: Sequence[Any] | None = None) -> OrdinaryQueries:
    """Ordinary queries for a store: texts or photographs of your own, by default the captions that come with the package.

    The mean of texts is kept in the store's folder, so that it is computed once. Raises `InputError` if `model` is not the
    store's.
    """
    inputs = list(ordinary_captions() if queries is None else queries)
    side = query_side(store, model, inputs[0] if inputs else "")
    if not inputs or not all(isinstance(raw, str) for raw in inputs):
        return OrdinaryQueries.of(side, inputs)
    digest = hashlib.sha256("\0".join([side.kind, *inputs]).encode()).hexdigest()[:16]
    path = store.folder / f"usual-{digest}.json"
    try:
        written = load_json(path) if path.exists() else {}
        return OrdinaryQueries(torch.tensor(written["mean"], dtype=torch.float64), int(written["count"]))
    except (InputError, KeyError, TypeError, ValueError, RuntimeError):
        computed = OrdinaryQueries.of(side, inputs)
    try:
        with atomic(path) as file:
            file.write(json.dumps({"count": computed.count, "mean": computed.mean.tolist()}).encode())
    except (OSError, InputError):
        pass  # A store that cannot be written to is searched all the same.
    return computed
