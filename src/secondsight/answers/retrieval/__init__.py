"""Retrieval debugged: recall both ways, plain and above usual, and every miss explained by what the winner has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from secondsight.answers.collection import Collection, Progress, collect
from secondsight.answers.report import Answer, write_answer
from secondsight.answers.retrieval.alike import Likeness
from secondsight.answers.retrieval.misses import Miss, explain_miss
from secondsight.answers.retrieval.pairs import PREFIX, collect_pairs
from secondsight.answers.retrieval.ranks import ABOVE, PLAIN, Direction, Ranks, directions, ranks_of
from secondsight.answers.retrieval.sections import (
    class_section,
    miss_section,
    recall_section,
    winner_section,
    word_section,
)
from secondsight.answers.significance import check_alpha
from secondsight.data.grounded import GroundedDataset
from secondsight.methods import Method
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError

__all__ = ["retrieval"]


def retrieval(
    data: str | Path | GroundedDataset | Collection,
    model: DualEncoder | None,
    out: str | os.PathLike[str],
    *,
    k: Sequence[int] = (1, 5, 10),
    limit: int | None = None,
    method: Method | type[Method] | str | None = None,
    explained: int = 500,
    alpha: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Answer:
    """How well texts find their images and images their texts, and why each miss is one; written to the folder `out`.

    `data` is a data set, "pairs:FILE" with the columns query and document, or a `Collection` that is at hand, which needs no
    model. Every entry of the pairs is ranked for every query, by the similarity and with each entry's mean similarity to all
    queries taken off ("above usual"). An image's captions are all right: its rank is that of the first of them. `explained`
    bounds the misses of each direction that are explained, drawn at random with `seed`; ranks, recall and winners are of all.
    `alpha` is the level of intervals, tests and false discovery rates. Continues where an earlier call stopped. Raises
    `InputError` for data, stores and options that do not fit.
    """
    depths = _depths(k)
    check_alpha(alpha)
    if isinstance(explained, bool) or not isinstance(explained, int) or explained < 0:
        raise InputError(f"explained={explained!r} must be a number of misses, 0 or more")
    collection = _collected(data, model, Path(out) / "stores", method, limit, progress)
    likeness = Likeness(collection)
    ways = directions(collection)
    rankings: list[dict[str, Ranks]] = []
    misses: list[list[Miss]] = []
    for way in ways:
        by = {PLAIN: ranks_of(way)}
        if not way.late:
            by[ABOVE] = ranks_of(way, above_usual=True)
        rankings.append(by)
        misses.append(_explained(way, by, likeness, explained, seed, progress))
    sections = [recall_section(ways, rankings, depths, alpha, seed)]
    for way, by, of_way in zip(ways, rankings, misses, strict=True):
        sections.append(miss_section(way, by[PLAIN], of_way, collection))
    sections.append(word_section(misses, collection))
    sections.append(winner_section(ways, [by[PLAIN] for by in rankings], misses, alpha, collection))
    sections += class_section(ways, [by[PLAIN] for by in rankings], likeness.annotations, alpha, seed)
    return write_answer(
        Path(out),
        "retrieval",
        "How well texts find what belongs to them and the other way round, and why each miss is one. A lead is by how much the "
        "winner's similarity exceeds that of the right one; its parts add up to it. In every map and text red speaks for the "
        "winner and blue for the right one.",
        sections,
        _facts(data, collection, ways, rankings, misses, alpha, seed),
        collection.problems,
    )


def _collected(
    data: str | Path | GroundedDataset | Collection,
    model: DualEncoder | None,
    folder: Path,
    method: Method | type[Method] | str | None,
    limit: int | None,
    progress: Progress | None,
) -> Collection:
    if isinstance(data, Collection):
        if limit is not None or method is not None:
            raise InputError("stores have their method and all their entries: leave out method and limit")
        return data
    if model is None:
        raise InputError("data needs a model that decomposes it: give one, or stores of both sides")
    if isinstance(data, str) and data.startswith(PREFIX):
        return collect_pairs(data.removeprefix(PREFIX), model, folder, method, limit=limit, progress=progress)
    return collect(data, model, folder, method, limit=limit, progress=progress)


def _depths(k: Sequence[int]) -> list[int]:
    depths = list(k) if isinstance(k, Sequence) and not isinstance(k, str) else [k]
    if not depths or any(isinstance(depth, bool) or not isinstance(depth, int) or depth < 1 for depth in depths):
        raise InputError(f"k={k!r} must be whole numbers of at least 1, such as (1, 5, 10)")
    return sorted(set(depths))


def _explained(
    direction: Direction, by: dict[str, Ranks], likeness: Likeness, most: int, seed: int, progress: Progress | None
) -> list[Miss]:
    """The misses of a direction, or so many of them, drawn at random."""
    numbers = np.flatnonzero(by[PLAIN].rank > 1)
    if len(numbers) > most:
        numbers = np.sort(np.random.default_rng(seed).choice(numbers, most, replace=False))
    misses = []
    for count, number in enumerate(numbers.tolist(), 1):
        alike = likeness(direction, number, by[PLAIN])
        misses.append(explain_miss(direction, number, by[PLAIN], by.get(ABOVE), alike))
        if progress is not None:
            progress(f"explaining misses, {direction.name}", count, len(numbers))
    return misses


def _facts(
    data: object,
    collection: Collection,
    ways: Sequence[Direction],
    rankings: Sequence[dict[str, Ranks]],
    misses: Sequence[Sequence[Miss]],
    alpha: float,
    seed: int,
) -> dict[str, object]:
    facts = collection.images.facts
    name = (
        data
        if isinstance(data, str | Path)
        else getattr(data if collection.data is None else collection.data, "name", "")
    )
    explained = {
        way.name: f"{len(of_way)} of {int((by[PLAIN].rank > 1).sum())}"
        for way, by, of_way in zip(ways, rankings, misses, strict=True)
    }
    return {
        "data": str(name) or f"{collection.images.folder} and {collection.texts.folder}",
        "model": facts["model"],
        "method": facts["method"]["name"],
        "ranked": f"{len(ways[0].query_keys)} by {len(ways[0].entry_keys)}",
        "misses explained": ", ".join(f"{name} {count}" for name, count in explained.items()),
        "alpha": f"{alpha:g}: the chance of a false claim on recall, the false discovery rate of wrong winners, and what "
        "intervals leave out",
        "seed": seed,
    }
