"""Inputs to decompose, by key; each is read when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from secondsight.data import KINDS, GroundedDataset, open_data, photographs
from secondsight.support.errors import InputError


@dataclass(frozen=True)
class Source:
    """Inputs of one kind: `keys` name them, and `read(i)` returns the i-th as a path, an image or a text.

    `entries` are the numbers of the data set's entries that they were taken from, where they come from one.
    """

    kind: str
    keys: Sequence[str]
    read: Callable[[int], Any]
    entries: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def first(self, count: int | None) -> Source:
        """The first `count` of them."""
        return self if count is None else Source(self.kind, self.keys[:count], self.read, self.entries[:count])


def open_source(spec: str | Path, side: str) -> Source:
    """Inputs of a side ("image" or "text") of `photos:FOLDER`, `texts:FILE` (a text a line; also FILE.txt) or any data set.

    Images are named by their path in the folder or the data set's name for them, texts by their line or the caption's
    name. Raises `InputError` where there is nothing of that side.
    """
    kind, colon, rest = str(spec).partition(":")
    if colon and kind == "photos":
        return photos(rest) if side == "image" else _refuse(spec, side)
    if colon and kind == "texts":
        return lines(rest) if side == "text" else _refuse(spec, side)
    if colon and kind not in KINDS and "/" not in kind:
        raise InputError(f"unknown kind of data {kind!r}; known: photos, texts, {', '.join(KINDS)}")
    if not colon and side == "text" and Path(spec).suffix == ".txt":
        return lines(spec)
    try:
        return of_data(open_data(spec), side)
    except InputError as problem:
        if colon:
            raise
        raise InputError(f"{problem}; or photos:FOLDER, or texts:FILE with a text a line") from problem


def _refuse(spec: str | Path, side: str) -> Source:
    raise InputError(f"{str(spec)!r} holds no {side}s")


def photos(folder: str | Path) -> Source:
    """The photographs of a folder and those below it."""
    paths = photographs(folder)
    return Source("image", list(paths), list(paths.values()).__getitem__)


def lines(file: str | Path) -> Source:
    """The non-empty lines of a text file, named by their number, counted from 1."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{str(file)!r} cannot be read as text ({problem})") from problem
    texts = [(str(i), line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not texts:
        raise InputError(f"{str(file)!r} holds no lines of text")
    return Source("text", [key for key, _ in texts], [line for _, line in texts].__getitem__)


def of_data(data: GroundedDataset, side: str) -> Source:
    """A data set's images, each once, or its captions."""
    if side not in ("image", "text"):
        raise InputError(f"unknown side {side!r}; known: image, text")
    places: dict[str, int] = {}
    captions: list[str] = []
    for index in range(len(data)):
        try:
            example = data[index]
        except InputError as problem:
            data.problems[str(index)] = str(problem)
            continue
        # Captions of different images may have the same name.
        key = example.image_key if side == "image" else f"{example.image_key}/{example.key}"
        if places.setdefault(key, index) == index and side == "text":
            captions.append(example.caption)
    if not places:
        raise InputError(f"{data.name} holds no {side}s that can be used: {data.summary()}")
    numbers = list(places.values())
    # Captions are read several times, and drawing or opening their image each time would cost more than keeping them.
    read = captions.__getitem__ if side == "text" else _Images(data, numbers)
    return Source(side, list(places), read, numbers)


@dataclass(frozen=True)
class _Images:
    """Reads the images of a data set; a class, so that it can be sent to other processes."""

    data: GroundedDataset
    numbers: list[int]

    def __call__(self, i: int) -> Path | Image.Image:
        image: Path | Image.Image = self.data[self.numbers[i]].image
        return image
