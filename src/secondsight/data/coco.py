"""COCO: captions and instances from the official files; phrases are class names found in the captions."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secondsight.data.grounded import (
    Box,
    EntryError,
    GroundedCaption,
    GroundedDataset,
    Phrase,
    Region,
    check_image,
    existing_folder,
    parse_box,
    read_json,
)
from secondsight.data.masks import parse_mask
from secondsight.data.phrases import PhraseFinder, Synonyms, coco_synonyms
from secondsight.support.errors import InputError
from secondsight.support.files import brief, reading


class Coco(GroundedDataset):
    """COCO captions with the boxes of the objects that they name.

    `folder` holds annotations/captions_SPLIT.json and annotations/instances_SPLIT.json, and the images in SPLIT/,
    images/SPLIT/, images/ or `folder` itself; `split`, such as "val2017", can be left out if there is only one. `karpathy`
    is the file dataset_coco.json of Karpathy's splits, of which `part` ("test") is read. `synonyms` maps class names to
    words; the default is `coco_synonyms()`. A phrase's boxes are all instances of its class; crowds are regions only. An
    object whose segmentation cannot be used has no mask.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str | None = None,
        *,
        karpathy: str | Path | None = None,
        part: str = "test",
        synonyms: Synonyms | None = None,
    ) -> None:
        self.folder = existing_folder(folder, "COCO")
        annotations = self.folder / "annotations"
        splits = _splits(self.folder, split, karpathy is not None)
        super().__init__(f"COCO {', '.join(splits)}")
        self.images: dict[int, tuple[str, dict[str, Any]]] = {}
        self.objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self.categories: dict[int, dict[str, Any]] = {}
        self.captions: list[dict[str, Any]] = []
        for name in splits:
            self._add(annotations, name)
        if karpathy is not None:
            image_ids = _karpathy_images(Path(karpathy), part)
            self.captions = [caption for caption in self.captions if caption.get("image_id") in image_ids]
            self.name = f"COCO Karpathy {part}"
        if synonyms is None:
            # Other data in COCO's format may have classes of its own, whose names mean only themselves.
            official = coco_synonyms()
            names = [str(category["name"]) for category in self.categories.values() if category.get("name")]
            synonyms = {name: [name] for name in names if name not in official} | official
        self.finder = PhraseFinder(synonyms)

    def _add(self, annotations: Path, split: str) -> None:
        instances = _coco_file(annotations / f"instances_{split}.json")
        captions = _coco_file(annotations / f"captions_{split}.json")
        with reading(annotations / f"*_{split}.json", "COCO annotations"):
            for image in [*captions["images"], *instances["images"]]:
                self.images[image["id"]] = (split, image)
            for category in instances["categories"]:
                self.categories[category["id"]] = category
            for annotation in instances["annotations"]:
                self.objects[annotation["image_id"]].append(annotation)
            self.captions += [dict(caption) for caption in captions["annotations"]]

    def __len__(self) -> int:
        return len(self.captions)

    def key(self, index: int) -> str:
        """The caption's id."""
        return f"caption {self.captions[index].get('id', index)}"

    def read(self, index: int) -> GroundedCaption:
        """One caption with its image's objects."""
        annotation = self.captions[index]
        text = str(annotation.get("caption", "")).strip()
        if not text:
            raise EntryError("empty caption")
        image_id = annotation.get("image_id")
        if image_id not in self.images:
            raise EntryError(f"unknown image: {image_id}")
        split, image = self.images[image_id]
        file = self._file(split, image["file_name"])
        check_image(file)
        regions = object_regions(self.objects.get(image_id, []), self.categories, image_size(image))
        boxes: dict[str, list[Box]] = defaultdict(list)
        for region in regions:
            if not region.crowd:
                boxes[region.label].append(region.box)
        phrases = tuple(
            Phrase(span, tuple(boxes[label]), label) for span, label in self.finder.find(text) if label in boxes
        )
        return GroundedCaption(str(annotation.get("id", index)), str(image_id), file, text, phrases, regions)

    def _file(self, split: str, name: str) -> Path:
        folders = [self.folder / split, self.folder / "images" / split, self.folder / "images", self.folder]
        return next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)


def object_regions(
    annotations: Sequence[Mapping[str, Any]], categories: Mapping[int, Mapping[str, Any]], size: tuple[int, int] | None
) -> tuple[Region, ...]:
    """The objects of an image of `size` (width, height) that have a class and a box, with their masks if those can be used."""
    regions = []
    for annotation in annotations:
        category = categories.get(annotation.get("category_id", -1), {})
        x, y, width, height = (*annotation.get("bbox", ()), *[0.0] * 4)[:4]
        box = parse_box((x, y, x + width, y + height))
        if box is not None and "name" in category:
            crowd = bool(annotation.get("iscrowd"))
            visible = float(annotation.get("visible", 1.0))
            mask = parse_mask(annotation.get("segmentation"), size)
            regions.append(Region(category["name"], box, category.get("supercategory", ""), crowd, visible, mask))
    return tuple(regions)


def image_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """An image's width and height, where its entry says them."""
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _splits(folder: Path, split: str | None, allow_several: bool) -> list[str]:
    """The splits to read: the given one, or the only one, or all if `allow_several`."""
    annotations = folder / "annotations"
    available = sorted(file.stem.removeprefix("captions_") for file in annotations.glob("captions_*.json"))
    if not available:
        raise InputError(f"COCO: {str(annotations)!r} has no captions_*.json")
    if split is None and len(available) > 1 and not allow_several:
        raise InputError(f"COCO: {str(folder)!r} has several splits; choose one of {', '.join(available)}")
    if split is not None and split not in available:
        raise InputError(f"COCO: unknown split {split!r}; known: {', '.join(available)}")
    return [split] if split else available


def _karpathy_images(path: Path, part: str) -> set[int]:
    """COCO's image ids of a part; "restval" counts as "train", as is usual."""
    data = read_json(path)
    parts = {"train", "restval"} if part == "train" else {part}
    with reading(path, "Karpathy's splits"):
        image_ids = {image["cocoid"] for image in data["images"] if image.get("split") in parts and "cocoid" in image}
    if not image_ids:
        raise InputError(f"{str(path)!r} has no COCO images of part {part!r}; known: train, val, test")
    return image_ids


def _coco_file(path: Path) -> dict[str, Any]:
    try:
        from pycocotools.coco import COCO
    except ModuleNotFoundError as problem:
        raise InputError("COCO needs the package 'pycocotools': pip install 'secondsight[eval]'") from problem
    if not path.is_file():
        raise InputError(f"{str(path)!r} does not exist")
    try:
        # pycocotools prints its progress, and standard output belongs to the user.
        with contextlib.redirect_stdout(io.StringIO()):
            data: dict[str, Any] = COCO(str(path)).dataset
    except (ValueError, AssertionError, KeyError, TypeError, AttributeError, RecursionError, OSError) as problem:
        raise InputError(f"{str(path)!r} is not a COCO annotation file ({brief(problem)})") from problem
    if not isinstance(data.get("annotations"), list) or not isinstance(data.get("images"), list):
        raise InputError(f"{str(path)!r} is not a COCO annotation file: it needs images and annotations")
    data.setdefault("categories", [])
    return data
