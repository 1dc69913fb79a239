"""What every data set yields: captions whose phrases are tied to boxes of their image."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from secondsight.data.masks import Mask
from secondsight.support.errors import InputError
from secondsight.support.files import brief, one_line

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the original image."""


class EntryError(Exception):
    """An entry of a data set cannot be used; the message says why."""


@dataclass(frozen=True)
class Phrase:
    """Characters `span` = (start, end) of a caption, and the boxes of what they name; `label` is its class or type."""

    span: tuple[int, int]
    boxes: tuple[Box, ...]
    label: str


@dataclass(frozen=True)
class Region:
    """An annotated object of an image, whether or not the caption names it.

    `group` is its supercategory; `crowd` marks a box around many instances; `visible` is the share of the object that
    other objects do not cover, and `mask` its visible pixels, where the data set knows them.
    """

    label: str
    box: Box
    group: str = ""
    crowd: bool = False
    visible: float = 1.0
    mask: Mask | None = None


@dataclass(frozen=True)
class Negative:
    """A caption with a small mistake; `span` is the mistake in it, `phrase` the span of the right caption it replaces.

    `kind` is the data set's name for the change, such as "replace_obj".
    """

    caption: str
    span: tuple[int, int] | None = None
    phrase: tuple[int, int] | None = None
    kind: str = ""


@dataclass(frozen=True)
class GroundedCaption:
    """An image, a caption of it, its phrases with their boxes, all annotated objects, and wrong captions.

    `key` names the caption in its data set and `image_key` the image, which several captions may share; `facts` holds
    whatever else the data set knows about the image.
    """

    key: str
    image_key: str
    image: Path | Image.Image
    caption: str
    phrases: tuple[Phrase, ...] = ()
    regions: tuple[Region, ...] = ()
    negatives: tuple[Negative, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def left(self) -> Path | Image.Image | str:
        """What the model's left side reads: the image."""
        return self.image

    def words(self, phrase: Phrase) -> str:
        """The phrase's characters."""
        return self.caption[phrase.span[0] : phrase.span[1]]


@dataclass
class GroundedDataset:
    """A data set that is read entry by entry. Unusable entries are left out and listed in `problems`.

    Iterating gives the usable entries in order; `dataset[i]` raises `InputError` for an unusable one. A subclass defines
    `__len__` and `read`.
    """

    name: str
    problems: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of entries, usable or not."""
        raise NotImplementedError

    def read(self, index: int) -> GroundedCaption:
        """Entry number `index`; raises `EntryError` if it cannot be used."""
        raise NotImplementedError

    def key(self, index: int) -> str:
        """The name of an entry in `problems`."""
        return str(index)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} captions")
        try:
            return self._entry(index % len(self))
        except EntryError as problem:
            key = one_line(self.key(index % len(self)))
            raise InputError(f"{self.name}, {key}: {one_line(problem, 300)}") from None

    def __iter__(self) -> Iterator[GroundedCaption]:
        for index in range(len(self)):
            try:
                entry = self._entry(index)
            except EntryError as problem:
                self.problems[self.key(index)] = one_line(problem, 300)
            else:
                yield entry

    def _entry(self, index: int) -> GroundedCaption:
        """An entry whose fields have their declared types; a file's unexpected content ends as an `EntryError`."""
        try:
            return _checked(self.read(index))
        except (EntryError, InputError, MemoryError):
            raise
        except Exception as problem:
            raise EntryError(f"entry of another form: {brief(problem)}") from problem

    def summary(self) -> str:
        """The number of captions, and how many were left out so far, by reason."""
        parts = [f"{self.name}: {len(self)} captions"]
        reasons = Counter(reason.split(":")[0] for reason in self.problems.values())
        parts += [f"{count} left out ({reason})" for reason, count in sorted(reasons.items())]
        return ", ".join(parts)


class ListedDataset(GroundedDataset):
    """A data set of entries that are already in memory, or in a sequence that makes them on access."""

    def __init__(self, name: str, entries: Sequence[Any], problems: dict[str, str] | None = None) -> None:
        super().__init__(name, dict(problems or {}))
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    def key(self, index: int) -> str:
        """The entry's own key."""
        entry = self.entries[index]
        return entry.key if isinstance(entry, GroundedCaption) else str(index)

    def read(self, index: int) -> GroundedCaption:
        """The entry; its image file must exist."""
        entry: GroundedCaption = self.entries[index]
        check_image(entry.image)
        return entry


def _checked(entry: GroundedCaption) -> GroundedCaption:
    """The entry itself; raises `EntryError` if a name is not text or a span lies outside its text."""
    spans = [(phrase.span, entry.caption) for phrase in entry.phrases]
    for negative in entry.negatives:
        pairs = (negative.span, negative.caption), (negative.phrase, entry.caption)
        spans += [(span, text) for span, text in pairs if span is not None]
    if any(not 0 <= start < end <= len(text) for (start, end), text in spans):
        raise EntryError("span outside its text")
    texts = [entry.key, entry.image_key, entry.caption, *(negative.caption for negative in entry.negatives)]
    texts += [text for region in entry.regions for text in (region.label, region.group)]
    texts += [phrase.label for phrase in entry.phrases]
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise EntryError(f"name that is not text: {one_line(wrong)}")
    return entry


def check_image(image: Path | Image.Image) -> None:
    """Raise `EntryError` if the image is a file that does not exist."""
    if isinstance(image, Path) and not image.is_file():
        raise EntryError(f"missing image: {one_line(image.name)}")


def parse_box(numbers: Sequence[Any]) -> Box | None:
    """Four finite numbers with x0 < x1 and y0 < y1 as a box; None for anything else."""
    try:
        x0, y0, x1, y1 = (float(number) for number in numbers)
    except (TypeError, ValueError):
        return None
    return (x0, y0, x1, y1) if 0 <= x1 - x0 < 1e9 and 0 <= y1 - y0 < 1e9 and x1 > x0 and y1 > y0 else None


def read_json(path: Path) -> Any:
    """A JSON file's content; `InputError` names the file and what is wrong with it."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{str(path)!r} does not exist") from None
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(f"{str(path)!r} cannot be read as JSON ({brief(problem)})") from None


def read_rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    """The rows of a CSV file with a header; `InputError` names the file and what is wrong with it."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            return list(csv.DictReader(lines, delimiter=delimiter))
    except FileNotFoundError:
        raise InputError(f"{str(path)!r} does not exist") from None
    except (OSError, ValueError, csv.Error) as problem:
        raise InputError(f"{str(path)!r} cannot be read as CSV ({brief(problem)})") from None


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV, TSV or JSONL file, which its ending tells apart.

    A line of JSON that is no object is a row without columns. `InputError` names the file and what is wrong with it.
    """
    if path.suffix.lower() != ".jsonl":
        return read_rows(path, "\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        # Text in JSON may hold other separators of lines.
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except FileNotFoundError:
        raise InputError(f"{str(path)!r} does not exist") from None
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(f"{str(path)!r} cannot be read as JSON, an object a line ({brief(problem)})") from None
    return [row if isinstance(row, dict) else {} for row in rows]


def existing_folder(path: str | Path, kind: str) -> Path:
    """The folder of a data set of this kind; `InputError` if it does not exist."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{kind}: the folder {str(path)!r} does not exist")
    return folder


def image_folder(path: str | Path | None, kind: str, usual: Path | None = None) -> Path:
    """The folder of a data set's images: the one given, or the usual one if it exists; else `InputError`."""
    if path is not None:
        return existing_folder(path, kind)
    if usual is not None and usual.is_dir():
        return usual
    where = f"; {str(usual)!r} does not exist" if usual else ""
    raise InputError(f"{kind} does not say where the images are: add #IMAGES, their folder{where}")
