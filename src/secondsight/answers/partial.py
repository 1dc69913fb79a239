"""Tables that are computed part by part of a store and kept on disk, so that a killed run goes on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from secondsight.answers.collection import Collection, Progress
from secondsight.evaluation.report import parquet
from secondsight.support.errors import InputError
from secondsight.support.files import atomic

Measure = Callable[[Sequence[str]], pd.DataFrame]
"""The table of the captions with these keys."""


def partial_folder(collection: Collection, name: str, options: Any = None) -> Path:
    """The folder, in that of the captions' store, of the partial tables of one collection, measure and its options."""
    facts = [collection.images.facts["space"], collection.images.keys(), list(collection.pairs), options]
    digest = hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:16]
    return collection.texts.folder / f"audit-{name}-{digest}"


def partial_table(folder: Path, part: str, keys: Sequence[str], measure: Measure) -> pd.DataFrame:
    """The table of a part file's captions, read where an earlier run wrote it, else measured and written.

    A folder that cannot be written to costs the chance to continue, and nothing else.
    """
    path = folder / f"{Path(part).stem}.parquet"
    if path.is_file():
        # A damaged file is measured again.
        with contextlib.suppress(OSError, ValueError):
            return pd.read_parquet(path)
    table = measure(keys)
    with contextlib.suppress(OSError, InputError):
        folder.mkdir(exist_ok=True)
        with atomic(path) as file:
            file.write(parquet(table))
    return table


def by_part(
    collection: Collection, folder: Path, measure: Measure, doing: str, progress: Progress | None = None
) -> pd.DataFrame:
    """The tables of all part files of the captions' store, one below the other; `doing` is what `progress` is told."""
    parts = collection.texts.parts()
    tables, done = [], 0
    for part, keys in parts.items():
        tables.append(partial_table(folder, part, keys, measure))
        done += len(keys)
        if progress is not None:
            progress(doing, done, len(collection.texts))
    return pd.concat(tables, ignore_index=True)
