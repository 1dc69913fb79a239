"""Pairs of a query and its document, from a table of two columns, decomposed into two stores."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from secondsight.answers.collection import Collection, Progress, decompose_texts, storable_method
from secondsight.data.grounded import read_table
from secondsight.methods import Method
from secondsight.model import DualEncoder, Side
from secondsight.support.errors import InputError

PREFIX = "pairs:"


def collect_pairs(
    file: str | Path,
    model: DualEncoder,
    out: str | os.PathLike[str],
    method: Method | type[Method] | str | None = None,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Collection:
    """Decompose a file's queries and documents into the stores OUT/query and OUT/document, and open them together.

    FILE is JSONL, CSV or TSV with the columns "query" and "document"; equal documents are one document, which then has
    several queries, and equal queries one query. In the collection documents take the place of images. `limit` bounds the
    number of pairs; the default method is "collection", of each word alone. Raises `InputError` for a file of another form
    and for models that have no side for both.
    """
    rows = _read(Path(file))[:limit]
    document_side, query_side = sides(model)
    documents, queries = (_named([row[column] for row in rows], column[0]) for column in ("document", "query"))
    texts = [
        (name, side, list(keys.values()), list(keys))
        for name, side, keys in (("document", document_side, documents), ("query", query_side, queries))
    ]
    stores, problems = decompose_texts(texts, model, Path(out), storable_method(model, method), progress)
    pairs = [(documents[row["document"]], queries[row["query"]]) for row in rows]
    usable = [pair for pair in dict.fromkeys(pairs) if pair[0] in stores[0] and pair[1] in stores[1]]
    if not usable:
        raise InputError(f"no pair of {str(file)!r} could be used: {next(iter(problems.values()), 'it has none')}")
    return Collection(stores[0], stores[1], usable, problems=problems)


def sides(model: DualEncoder) -> tuple[Side, Side]:
    """The side of documents and the side of queries; `InputError` unless both take texts."""
    texts = [side for side in (model.left, model.right) if side.kind == "text"]
    if not texts or (not model.factorises and len(texts) < 2):
        raise InputError(f"{model.name!r} does not compare two texts: pairs of texts need a model of texts")
    document = model.collection_side("text")
    return document, next((side for side in texts if side.index != document.index), document)


def _read(path: Path) -> list[dict[str, str]]:
    usable = [
        row
        for row in read_table(path)
        if all(isinstance(row.get(c), str) and row[c].strip() for c in ("query", "document"))
    ]
    if not usable:
        raise InputError(f"{str(path)!r} has no row with a query and a document: it needs columns of these names")
    return usable


def _named(texts: list[str], letter: str) -> dict[str, str]:
    """Every text once, with its key: the letter, the row in which it comes first, from 1, and a digest of the text.

    With the digest a store is not taken for that of an edited file.
    """
    keys: dict[str, str] = {}
    for number, text in enumerate(texts, 1):
        keys.setdefault(text, f"{letter}{number}-{hashlib.sha256(text.encode()).hexdigest()[:6]}")
    return keys
