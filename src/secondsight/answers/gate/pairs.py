"""The pairs that a gate looks at: a data set, a list of photographs and captions, or a list of two texts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from secondsight.answers.collection import Collection, Progress, collect, decompose_texts, storable_method
from secondsight.data import GroundedCaption, GroundedDataset, ListedDataset, PhraseFinder, coco_synonyms, open_data
from secondsight.data.grounded import read_table
from secondsight.methods import Method
from secondsight.model import DualEncoder
from secondsight.scale.store import store_facts
from secondsight.support.errors import InputError

PHOTO_COLUMNS = ("photo", "image")
"""Names of the column that names photographs; their captions stand in the column caption."""

ENDINGS = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True, eq=False)
class TextPairs:
    """Texts that belong together: `left[i]` with `right[i]`, such as a query and its document."""

    name: str
    left: Sequence[str]
    right: Sequence[str]
    problems: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.left)


Pairs = GroundedDataset | TextPairs


def open_pairs(spec: str | Path) -> Pairs:
    """The pairs in a file, or of any data set that `open_data` opens.

    A CSV, TSV or JSONL file has the columns photo (or image) and caption, whose files count from its folder, or exactly two
    columns of texts. Raises `InputError` for anything else.
    """
    path = Path(spec)
    if path.suffix.lower() not in ENDINGS:
        return open_data(spec)
    rows = read_table(path)
    columns = list(rows[0]) if rows else []
    if "image" in columns and path.suffix.lower() == ".jsonl":
        return open_data(spec)
    photo = next((name for name in PHOTO_COLUMNS if name in columns), None)
    if photo is not None and "caption" in columns:
        return _captioned(path, rows, photo)
    if len(columns) != 2:
        raise InputError(
            f"{str(spec)!r} has the columns {', '.join(map(str, columns)) or '(none)'}: "
            "give photo and caption, or exactly two columns of texts"
        )
    usable = {i: texts for i, row in enumerate(rows, 1) if (texts := _texts(row, columns)) is not None}
    if not usable:
        raise InputError(f"{str(spec)!r} has no row with two texts")
    problems = {str(i): "no two texts" for i in range(1, len(rows) + 1) if i not in usable}
    return TextPairs(path.name, [a for a, _ in usable.values()], [b for _, b in usable.values()], problems)


def _texts(row: dict[str, Any], columns: Sequence[str]) -> tuple[str, str] | None:
    first, second = (row.get(name) for name in columns)
    if isinstance(first, str) and isinstance(second, str) and first.strip() and second.strip():
        return first, second
    return None


def _captioned(path: Path, rows: Sequence[dict[str, Any]], photo: str) -> ListedDataset:
    entries = [
        GroundedCaption(str(number), str(row[photo]), path.parent / str(row[photo]), str(row["caption"]))
        for number, row in enumerate(rows, 1)
        if row.get(photo) and row.get("caption")
    ]
    if not entries:
        raise InputError(f"{str(path)!r} has no row with a photo and a caption")
    usable = {int(entry.key) for entry in entries}
    problems = {str(i): "no photo or no caption" for i in range(1, len(rows) + 1) if i not in usable}
    return ListedDataset(path.name, entries, problems)


def collect_pairs(
    pairs: Pairs,
    model: DualEncoder,
    out: str | os.PathLike[str],
    method: Method | type[Method] | str | None = None,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Collection:
    """The pairs decomposed by a model, in a folder of `out` that is named by the pairs' content, the model and the method.

    The default method is "collection". What an earlier run has decomposed is used again, so a checkpoint that serves as the
    standard costs nothing the second time.
    """
    used = storable_method(model, method)
    if isinstance(pairs, TextPairs) and (model.left.kind, model.right.kind) != ("text", "text"):
        model = model.pair("text", "text")
    facts = store_facts(model, used, 1, "float16")
    # The name too: a store refuses a model of another name, even with the same weights.
    origin = hashlib.sha256(f"{facts['model']} {facts['space']}".encode()).hexdigest()[:12]
    folder = Path(out) / f"{_digest(pairs, limit)}-{origin}"
    if isinstance(pairs, TextPairs):
        return _collect_texts(pairs, model, folder, used, limit, progress)
    return collect(pairs, model, folder, used, limit=limit, progress=progress)


def _collect_texts(
    pairs: TextPairs, model: DualEncoder, folder: Path, method: Method, limit: int | None, progress: Progress | None
) -> Collection:
    keys = [str(number) for number in range(len(pairs.left[:limit]))]
    texts = [("left", model.left, keys, pairs.left), ("right", model.right, keys, pairs.right)]
    stores, problems = decompose_texts(texts, model, folder, method, progress)
    usable = [(key, key) for key in keys if key in stores[0] and key in stores[1]]
    return Collection(stores[0], stores[1], usable, problems={**pairs.problems, **problems})


def _digest(pairs: Pairs, limit: int | None) -> str:
    """Twelve characters that change with any text or picture."""
    digest = hashlib.sha256()
    if isinstance(pairs, TextPairs):
        digest.update(json.dumps([list(pairs.left[:limit]), list(pairs.right[:limit])]).encode())
        return digest.hexdigest()[:12]
    seen: set[str] = set()
    for entry, _ in zip(pairs, range(len(pairs) if limit is None else limit), strict=False):
        digest.update(json.dumps([entry.image_key, entry.key, entry.caption]).encode())
        if entry.image_key not in seen:
            seen.add(entry.image_key)
            digest.update(entry.image.tobytes() if isinstance(entry.image, Image.Image) else entry.image.read_bytes())
    return digest.hexdigest()[:12]


def class_phrases(collection: Collection) -> list[list[tuple[tuple[int, int], str]]]:
    """The (span, class) of every caption: the data set's own phrases, or else COCO's class names in the captions."""
    if collection.data is None:
        return [[] for _ in collection.pairs]
    captions, annotated = [], []
    for number in range(len(collection)):
        example = collection.example(number)
        captions.append(example.caption)
        annotated.append([(phrase.span, phrase.label) for phrase in example.phrases])
    if any(annotated):
        return annotated
    finder = PhraseFinder(coco_synonyms())
    return [finder.find(caption) for caption in captions]
