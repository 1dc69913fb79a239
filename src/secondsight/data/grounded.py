"""What every data set gives: captions whose phrases are tied to boxes of their image."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from secondsight.support.errors import InputError
from secondsight.support.files import brief, one_line

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the original image."""


class Broken(Exception):
    """One entry of a data set cannot be used; its message says why."""


@dataclass(frozen=True)
class Phrase:
    """Characters `span` = (start, end) of a caption, and the boxes of what they name; `label` is its class or type."""

    span: tuple[int, int]
    boxes: tuple[Box, ...]
    label: str


@dataclass(frozen=True)
class Region:
    """An object annotated in an image, named in the caption or not; `group` is its supercategory, `crowd` many in one.

    `visible` is the share of it that other objects leave to be seen, where the data set knows it.
    """

    label: str
    box: Box
    group: str = ""
    crowd: bool = False
    visible: float = 1.0


@dataclass(frozen=True)
class Negative:
    """A caption that is wrong by little; `span` is what is wrong in it, `phrase` the span it replaces in the right one.

    `kind` is the data set's name for the change, such as "replace_obj".
    """

    caption: str
    span: tuple[int, int] | None = None
    phrase: tuple[int, int] | None = None
    kind: str = ""


@dataclass(frozen=True)
class GroundedCaption:
    """An image, a caption of it, its phrases with their boxes, all annotated objects, and captions that are wrong.

    `key` names it in its data set, `image_key` the image, which several captions share; `facts` is what else the data
    set knows of the image.
    """

    key: str
    image_key: str
    image: Path | Image.Image
    caption: str
    phrases: tuple[Phrase, ...] = ()
    regions: tuple[Region, ...] = ()
    negatives: tuple[Negative, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    def words(self, phrase: Phrase) -> str:
        """The phrase's characters."""
        return self.caption[phrase.span[0] : phrase.span[1]]


@dataclass
class GroundedDataset:
    """A data set read entry by entry. Entries that cannot be used are left out and listed in `problems`.

    Iterating gives the usable entries in order; `dataset[i]` raises `InputError` for one that is not. A subclass has
    `_count` and `_read(i)`, which raises `Broken`.
    """

    name: str
    problems: dict[str, str] = field(default_factory=dict)

    def _count(self) -> int:
        raise NotImplementedError

    def _read(self, index: int) -> GroundedCaption:
        raise NotImplementedError

    def _key(self, index: int) -> str:
        return str(index)

    def __len__(self) -> int:
        return self._count()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} captions")
        try:
            return self._entry(index % len(self))
        except Broken as problem:
            raise InputError(
                f"{self.name}, {one_line(self._key(index % len(self)))}: {one_line(problem, 300)}"
            ) from None

    def __iter__(self) -> Iterator[GroundedCaption]:
        for index in range(len(self)):
            try:
                one = self._entry(index)
            except Broken as problem:
                self.problems[self._key(index)] = one_line(problem, 300)
            else:
                yield one

    def _entry(self, index: int) -> GroundedCaption:
        """An entry whose fields have the types that they are said to have; whatever else it holds makes it `Broken`."""
        try:
            return _checked(self._read(index))
        except (Broken, InputError, MemoryError):
            raise
        except Exception as problem:
            raise Broken(f"entry of another form: {brief(problem)}") from problem

    def summary(self) -> str:
        """How many captions there are and what was left out so far, by reason."""
        parts = [f"{self.name}: {len(self)} captions"]
        reasons = Counter(reason.split(":")[0] for reason in self.problems.values())
        parts += [f"{count} left out ({reason})" for reason, count in sorted(reasons.items())]
        return ", ".join(parts)


class ListedDataset(GroundedDataset):
    """A data set whose entries are known from the start; entries may be made when they are asked for."""

    def __init__(self, name: str, entries: Sequence[Any], problems: dict[str, str] | None = None) -> None:
        super().__init__(name, dict(problems or {}))
        self.entries = entries

    def _count(self) -> int:
        return len(self.entries)

    def _key(self, index: int) -> str:
        entry = self.entries[index]
        return entry.key if isinstance(entry, GroundedCaption) else str(index)

    def _read(self, index: int) -> GroundedCaption:
        entry: GroundedCaption = self.entries[index]
        check_image(entry.image)
        return entry


def _checked(one: GroundedCaption) -> GroundedCaption:
    """The entry, `Broken` where a name is no text or a span does not lie in its text: files say what they like."""
    spans = [(p.span, one.caption) for p in one.phrases]
    for n in one.negatives:
        spans += [(span, text) for span, text in ((n.span, n.caption), (n.phrase, one.caption)) if span is not None]
    if any(not 0 <= start < end <= len(text) for (start, end), text in spans):
        raise Broken("span outside its text")
    names = [one.key, one.image_key, one.caption, *(n.caption for n in one.negatives)]
    names += [name for r in one.regions for name in (r.label, r.group)] + [p.label for p in one.phrases]
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        raise Broken(f"name that is no text: {one_line(wrong)}")
    return one


def check_image(image: Path | Image.Image) -> None:
    """`Broken` when the file is not there."""
    if isinstance(image, Path) and not image.is_file():
        raise Broken(f"missing image: {one_line(image.name)}")


def usable_box(box: Sequence[Any]) -> Box | None:
    """Four finite numbers with x0 < x1 and y0 < y1 as a box; None for anything else."""
    try:
        x0, y0, x1, y1 = (float(v) for v in box)
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
        raise InputError(f"{str(path)!r} is no readable JSON file ({brief(problem)})") from None


def folder_of(path: str | Path, what: str) -> Path:
    """An existing folder; `InputError` otherwise."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{what}: the folder {str(path)!r} does not exist")
    return folder
