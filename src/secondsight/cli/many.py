"""`secondsight explain` for many photographs: a folder with one caption, or a list of pairs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from secondsight.cli.common import err, out, print_written, progress_line
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.explanation import Explanation

LISTS = (".csv", ".jsonl")
_PHOTO_COLUMNS = ("photo", "image")


@dataclass(frozen=True)
class Pair:
    """A photograph's file and its caption."""

    photo: Path
    caption: str


def is_many(photo: str) -> bool:
    """Whether the argument names a folder or a list instead of one input."""
    return Path(photo).suffix.lower() in LISTS or Path(photo).is_dir()


def read_pairs(source: str, caption: str | None) -> list[Pair]:
    """A folder's images with the caption; or a list's rows, whose own captions come before it.

    A list is CSV or JSONL with the columns photo and caption; files in it count from its folder. Raises `InputError` for
    lists without photographs or captions.
    """
    from secondsight.data.grounded import read_table

    path = Path(source)
    if path.is_dir():
        pairs = [Pair(file, caption or "") for file in _images(path)]
        if caption is None:
            raise InputError(f"{source!r} is a folder: give one caption for its photographs, or a CSV file of pairs")
    else:
        pairs = [_pair(path, number, row, caption) for number, row in enumerate(read_table(path), 1)]
    if not pairs:
        raise InputError(f"{source!r} has no photographs")
    return pairs


def _images(folder: Path) -> list[Path]:
    from PIL import Image

    endings = Image.registered_extensions()
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in endings and file.is_file())


def _pair(path: Path, number: int, row: dict[str, Any], caption: str | None) -> Pair:
    photo = next((row[name] for name in _PHOTO_COLUMNS if row.get(name)), None)
    text = row.get("caption") or caption
    if not isinstance(photo, str) or not isinstance(text, str):
        missing = "caption" if isinstance(photo, str) else "photo"
        raise InputError(f"row {number} of {str(path)!r} has no {missing}: the columns are photo and caption")
    return Pair(path.parent / photo, text)


def explain_pairs(
    pairs: Sequence[Pair],
    explain: Callable[[str, str], Explanation],
    folder: Path,
    formats: Sequence[str],
    select: str | None,
    quiet: bool,
) -> int:
    """Write a file for every pair and format, and `summary.csv`; returns how many pairs could not be explained.

    Every file appears when it is whole, and the summary also where the run is stopped.
    """
    rows: list[dict[str, Any]] = []
    write, problems = progress_line(quiet), 0
    try:
        for number, pair in enumerate(pairs, 1):
            write(f"{number} of {len(pairs)}: {pair.photo.name[:40]:40}", number == len(pairs))
            stem = re.sub(r"[^\w.-]", "_", pair.photo.stem)[:60]
            name = f"{str(number).zfill(len(str(len(pairs))))}-{stem}"
            try:
                e = explain(str(pair.photo), pair.caption)
                e.right_layout.select(select)
                for ending in formats:
                    e.save(folder / f"{name}.{ending}", select)
            except InputError as problem:
                problems += 1
                err.print(Text.assemble(("left out: ", "yellow"), f"{pair.photo}: {problem}"), soft_wrap=True)
                continue
            rows.append(_summary(pair, e, f"{name}.{formats[0]}"))
    finally:
        if rows:
            _write_summary(rows, folder / "summary.csv")
    if rows and not quiet:
        _print_summary(rows)
        print_written(folder / "summary.csv")
    return problems


def _summary(pair: Pair, e: Explanation, file: str) -> dict[str, Any]:
    strongest = max(e.words, key=lambda scored: scored[1])[0] if e.right_layout.words else ""
    names = {"photo": str(pair.photo), "caption": pair.caption}
    return {
        **names,
        "similarity": e.similarity,
        **e.terms.by_name(),
        "error": e.error,
        "strongest_word": strongest,
        "file": file,
    }


def _write_summary(rows: list[dict[str, Any]], path: Path) -> None:
    from secondsight.support.files import atomic

    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    table.writeheader()
    table.writerows(rows)
    with atomic(path) as file:
        file.write(text.getvalue().encode())


def _print_summary(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for title in ("similarity", "photo", "caption", "strongest word", "file"):
        table.add_column(title, overflow="fold", justify="right" if title == "similarity" else "left")
    for row in sorted(rows, key=lambda row: -row["similarity"]):
        texts = (Text(text) for text in (Path(row["photo"]).name, row["caption"], row["strongest_word"]))
        table.add_row(f"{row['similarity']:+.4f}", *texts, row["file"])
    out.print(table)
