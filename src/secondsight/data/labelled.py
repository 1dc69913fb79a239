"""Images with one class each: folders of classes, lists of files, and grounded data whose images show one class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from secondsight.data.coco import Coco
from secondsight.data.grounded import (
    Box,
    EntryError,
    GroundedDataset,
    check_image,
    existing_folder,
    parse_box,
    read_table,
)
from secondsight.data.kinds import KINDS, open_data
from secondsight.data.photographs import PHOTOGRAPHS
from secondsight.data.scenes import Scenes, classes
from secondsight.support.errors import InputError
from secondsight.support.files import one_line

_FORMS = (
    "folder:DIR with a folder per class, labels:FILE.csv or .jsonl with image and label, or any data set with objects"
)


@dataclass(frozen=True)
class LabelledImage:
    """An image and its class; `boxes` are where its object is, in pixels of the image, where that is known."""

    key: str
    image: Path | Image.Image
    label: str
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class LabelledData:
    """Images with one class each, read on access: `data[i]` is the `LabelledImage` of the key and label at the same place.

    `class_names` are the classes that the data knows, in its order, whether or not an image has them. `has_boxes` says that
    objects' boxes may be known. `problems` are entries that cannot be used, by their name.
    """

    name: str
    keys: Sequence[str]
    labels: Sequence[str]
    read: Callable[[int], LabelledImage]
    class_names: Sequence[str]
    has_boxes: bool = False
    problems: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> LabelledImage:
        return self.read(index)

    def first(self, count: int | None) -> LabelledData:
        """The first `count` images."""
        if count is None:
            return self
        return replace(self, keys=self.keys[:count], labels=self.labels[:count])

    @classmethod
    def of(cls, name: str, images: Sequence[LabelledImage], problems: Mapping[str, str] = {}) -> LabelledData:
        """Images that are at hand; their labels in alphabetical order are the classes."""
        labels = [image.label for image in images]
        has_boxes = any(image.boxes for image in images)
        keys = [image.key for image in images]
        return cls(name, keys, labels, images.__getitem__, sorted(set(labels)), has_boxes, dict(problems))


def open_labelled(data: str | Path | GroundedDataset | LabelledData) -> LabelledData:
    """The labelled images of `folder:DIR`, `labels:FILE`, a path of either, or a data set whose objects are annotated.

    Of a data set those images are taken that show objects of one class, with the objects' boxes. Raises `InputError` where
    there are no such images.
    """
    if isinstance(data, LabelledData):
        return data
    if isinstance(data, GroundedDataset):
        return of_grounded(data)
    kind, colon, path = str(data).partition(":")
    if colon and kind == "folder":
        return class_folders(path)
    if colon and kind == "labels":
        return label_file(path)
    if colon and kind not in KINDS and not Path(data).exists():
        raise InputError(f"unknown kind of labelled images {kind!r}: give {_FORMS}")
    if Path(data).suffix.lower() == ".csv":
        return label_file(data)
    return of_grounded(open_data(data))


def class_folders(folder: str | Path) -> LabelledData:
    """A folder with a folder of images per class, as torchvision's ImageFolder has it; underscores in names are spaces.

    Images may lie deeper inside a class's folder.
    """
    root = existing_folder(folder, "labelled images")
    inner = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    images, problems = [], {}
    for place in inner:
        files = [path for path in sorted(place.rglob("*")) if path.suffix.lower() in PHOTOGRAPHS and path.is_file()]
        label = place.name.replace("_", " ").strip()
        images += [LabelledImage(path.relative_to(root).as_posix(), path, label) for path in files]
        if not files:
            problems[place.name] = "a folder without photographs"
    if not images:
        raise InputError(f"{str(folder)!r} holds no photographs in folders of its classes: give {_FORMS}")
    return LabelledData.of(root.name, images, problems)


def label_file(file: str | Path) -> LabelledData:
    """A CSV or JSONL file with "image" (a path relative to the file) and "label", and in JSONL optionally "boxes"."""
    path = Path(file)
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise InputError(f"{str(file)!r} ends in neither .csv nor .jsonl: give {_FORMS}")
    images, problems = [], {}
    for number, row in enumerate(read_table(path), 1):
        try:
            images.append(_labelled_row(row, path.parent))
        except EntryError as problem:
            problems[f"entry {number}"] = one_line(problem, 300)
    if not images:
        reason = f"; {next(iter(problems.values()))}" if problems else ""
        raise InputError(f"{str(file)!r} holds no labelled images, with image and label{reason}")
    # An image that is listed twice is one image; with two labels it has no single class.
    unique: dict[str, LabelledImage] = {}
    for image in images:
        if unique.setdefault(image.key, image).label != image.label:
            problems[image.key] = f"two labels: {unique[image.key].label!r} and {image.label!r}"
    usable = [image for key, image in unique.items() if key not in problems]
    if not usable:
        raise InputError(f"every image of {str(file)!r} has several labels: give one label an image")
    return LabelledData.of(path.name, usable, problems)


def _labelled_row(row: Mapping[str, Any], folder: Path) -> LabelledImage:
    name, label = row.get("image"), row.get("label")
    if not isinstance(name, str) or not name.strip() or not isinstance(label, str) or not label.strip():
        raise EntryError("without an image and a label as texts")
    check_image(folder / name)
    boxes = row.get("boxes") or []
    parsed = [parse_box(box) for box in boxes] if isinstance(boxes, list) else [None]
    if any(box is None for box in parsed):
        raise EntryError(f"boxes that are not [[x0, y0, x1, y1], …]: {one_line(boxes)}")
    return LabelledImage(name, folder / name, label.strip(), tuple(box for box in parsed if box is not None))


def of_grounded(data: GroundedDataset) -> LabelledData:
    """The images of a data set that show objects of exactly one class, each once, with the boxes of these objects."""
    places: dict[str, int] = {}
    labels: list[str] = []
    seen: set[str] = set()
    for index in range(len(data)):
        try:
            example = data[index]
        except InputError as problem:
            data.problems[data.key(index)] = str(problem)
            continue
        names = {region.label for region in example.regions}
        if example.image_key not in seen and len(names) == 1:
            places[example.image_key] = index
            labels.append(names.pop())
        seen.add(example.image_key)
    if not places:
        raise InputError(f"{data.name} has no image with annotated objects of exactly one class: give {_FORMS}")
    entries = _Entries(data, list(places.values()))
    return LabelledData(data.name, list(places), labels, entries, _class_names(data, labels), True, data.problems)


def _class_names(data: GroundedDataset, labels: Sequence[str]) -> list[str]:
    """The data set's classes, or those that occur where it has no list of them."""
    if isinstance(data, Coco):
        return list(
            dict.fromkeys(str(category["name"]) for category in data.categories.values() if category.get("name"))
        )
    return list(classes()) if isinstance(data, Scenes) else sorted(set(labels))


@dataclass(frozen=True)
class _Entries:
    """Reads images of a data set; a class, so that it can be sent to other processes."""

    data: GroundedDataset
    numbers: Sequence[int]

    def __call__(self, index: int) -> LabelledImage:
        example = self.data[self.numbers[index]]
        label, boxes = example.regions[0].label, tuple(region.box for region in example.regions)
        return LabelledImage(example.image_key, example.image, label, boxes)
