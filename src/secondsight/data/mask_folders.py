"""Folders of masks in their published forms: ImageNet-S, Pascal VOC, PartImageNet. Captions name the classes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from secondsight.data.coco import image_size, object_regions
from secondsight.data.grounded import (
    EntryError,
    GroundedCaption,
    GroundedDataset,
    Phrase,
    Region,
    check_image,
    existing_folder,
    read_json,
)
from secondsight.data.masks import MaskFile, box_of, read_numbers
from secondsight.data.photographs import photographs
from secondsight.support.errors import InputError
from secondsight.support.files import reading

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog", "horse",
    "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip
"""Pascal VOC's classes 1 to 20."""

VOC_IGNORED = 255
IMAGENET_S_IGNORED = 1000
"""The numbers of pixels that are not annotated."""

SPLITS = ("validation", "val", "test", "train")
"""The parts of a data set of which the first that is there is read."""

Names = Mapping[str, str]
"""Names of classes by their number, or by ImageNet's id, such as n02084071."""


class MaskFolder(GroundedDataset):
    """Images with masks: one caption an image, "a photo of a dog and a sofa", whose phrases are the names of its classes.

    Every object with a mask and a name is a region. Raises `InputError` for a folder that has another form.
    """

    def __init__(self, name: str, images: Sequence[tuple[str, Path]]) -> None:
        super().__init__(name)
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def key(self, index: int) -> str:
        """The image's name."""
        return self.images[index][0]

    def regions(self, key: str, image: Path) -> tuple[Region, ...]:
        """The objects of an image that have a name; raises `EntryError` without any."""
        raise NotImplementedError

    def read(self, index: int) -> GroundedCaption:
        """One image with its caption."""
        key, image = self.images[index]
        check_image(image)
        regions = self.regions(key, image)
        caption, spans = describe_classes(dict.fromkeys(region.label for region in regions))
        phrases = tuple(
            Phrase(span, tuple(region.box for region in regions if region.label == label), label)
            for label, span in spans.items()
        )
        return GroundedCaption(key, key, image, caption, phrases, regions)


class ImageNetS(MaskFolder):
    """ImageNet-S: images in validation/CLASS/ and masks in validation-segmentation/CLASS/, whose class is red + 256 · green.

    0 is everything else and 1000 is not annotated. Names are those that CLIP's authors gave ImageNet's classes.
    """

    def __init__(self, folder: Path, names: Names) -> None:
        images, self.masks = _imagenet_s_folders(folder) or (folder, folder)
        files = photographs(images)
        super().__init__(
            f"ImageNet-S {images.name}", [(Path(name).with_suffix("").as_posix(), files[name]) for name in files]
        )
        self.names = names

    def regions(self, key: str, image: Path) -> tuple[Region, ...]:
        """The pixels of the class of the image's folder."""
        file = _mask_file(self.masks / f"{key}.png")
        numbers = _numbers(file, image)
        inside = [int(number) for number in np.unique(numbers) if number not in (0, IMAGENET_S_IGNORED)]
        if len(inside) != 1:
            raise EntryError(f"mask with {len(inside)} classes in place of one")
        folder = image.parent.name
        name = self.names.get(folder) or self.names.get(str(inside[0])) or imagenet_names().get(folder)
        if name is None:
            raise EntryError(f"class without a name: {folder}")
        return (_region(name, numbers == inside[0], MaskFile(file, inside[0], IMAGENET_S_IGNORED)),)


class VocSegmentation(MaskFolder):
    """Pascal VOC: JPEGImages, SegmentationClass, SegmentationObject, and the images that ImageSets/Segmentation/val.txt lists.

    255 is not annotated. Regions are objects, or classes where an image has no picture of its objects.
    """

    def __init__(self, folder: Path, names: Names) -> None:
        root = _voc_folder(folder) or folder
        self.classes, self.objects = root / "SegmentationClass", root / "SegmentationObject"
        lists = [root / "ImageSets" / "Segmentation" / f"{split}.txt" for split in SPLITS]
        listed = next((file for file in lists if file.is_file()), None)
        if listed is None:
            keys = sorted(file.stem for file in self.classes.glob("*.png"))
        else:
            with reading(listed, "list of images"):
                keys = listed.read_text(encoding="utf-8-sig").split()
        super().__init__(f"{root.name} segmentation", [(key, root / "JPEGImages" / f"{key}.jpg") for key in keys])
        self.names = {**{str(number): name for number, name in enumerate(VOC_CLASSES, 1)}, **names}

    def regions(self, key: str, image: Path) -> tuple[Region, ...]:
        """The image's objects, or its classes."""
        class_file = _mask_file(self.classes / f"{key}.png")
        classes = _numbers(class_file, image)
        object_file = self.objects / f"{key}.png"
        file = object_file if object_file.is_file() else class_file
        numbers = _numbers(file, image)
        regions, unnamed = [], set()
        for number in np.unique(numbers[(numbers != 0) & (numbers != VOC_IGNORED)]):
            mask = numbers == number
            inside = classes[mask & (classes != VOC_IGNORED)]
            label = str(np.bincount(inside).argmax()) if len(inside) else "0"
            if label in self.names:
                regions.append(_region(self.names[label], mask, MaskFile(file, int(number), VOC_IGNORED)))
            else:
                unnamed.add(label)
        if not regions:
            raise EntryError(f"no class with a name{': numbers ' + ', '.join(sorted(unnamed)) if unnamed else ''}")
        return tuple(regions)


class PartImageNet(MaskFolder):
    """PartImageNet: a JSON file of parts in COCO's form, annotations/val/val.json, and the images, images/val/.

    `annotations` is the file; its images are looked for beside it, in val/, in images/val/ and in folders by class.
    """

    def __init__(self, annotations: Path, names: Names) -> None:
        data = read_json(annotations)
        with reading(annotations, "annotations of parts"):
            images = {image["id"]: image for image in data["images"]}
            self.categories = {category["id"]: dict(category) for category in data["categories"]}
            self.parts: dict[Any, list[dict[str, Any]]] = defaultdict(list)
            for part in data["annotations"]:
                self.parts[part["image_id"]].append(part)
            files = [(image, str(image["file_name"])) for image in images.values()]
        for identity, category in self.categories.items():
            category["name"] = names.get(str(identity)) or str(category.get("name", "")).lower()
        self.entries = {name: image for image, name in files}
        super().__init__(f"{annotations.stem} parts", [(name, _part_image(annotations, name)) for name in self.entries])

    def regions(self, key: str, image: Path) -> tuple[Region, ...]:
        """The image's parts with a mask and a name."""
        entry = self.entries[key]
        categories = {identity: category for identity, category in self.categories.items() if category["name"]}
        regions = object_regions(self.parts.get(entry["id"], []), categories, image_size(entry))
        regions = tuple(region for region in regions if region.mask is not None)
        if not regions:
            raise EntryError("no part with a mask and a name")
        return regions


def open_mask_folder(path: str, classes: str | None = None) -> MaskFolder:
    """The data set of a folder of masks, or of a JSON file of parts; `classes` is a file of class names.

    Its lines are names of the classes 1, 2, …, or each begins with the class's number or ImageNet's id; of several names
    separated by commas the first counts. Raises `InputError` for a folder of another form.
    """
    names = read_names(Path(classes)) if classes else {}
    if path.endswith(".json"):
        return PartImageNet(Path(path), names)
    folder = existing_folder(path, "masks")
    parts = _part_annotations(folder)
    if _imagenet_s_folders(folder):
        return ImageNetS(folder, names)
    if _voc_folder(folder):
        return VocSegmentation(folder, names)
    if parts:
        return PartImageNet(parts, names)
    raise InputError(
        f"masks: {path!r} has none of these: validation and validation-segmentation (ImageNet-S), JPEGImages and "
        "SegmentationClass (Pascal VOC), annotations/val/val.json (PartImageNet)"
    )


def is_mask_folder(folder: Path) -> bool:
    """Whether a folder has one of the forms that `open_mask_folder` reads."""
    return bool(_imagenet_s_folders(folder) or _voc_folder(folder) or _part_annotations(folder))


def describe_classes(names: Iterable[str]) -> tuple[str, dict[str, tuple[int, int]]]:
    """ "a photo of a dog, an apple and a cup" with each name's characters, without its article."""
    ordered = list(names)
    text, spans = "a photo of ", {}
    for place, name in enumerate(ordered):
        link = "" if place == 0 else " and " if place == len(ordered) - 1 else ", "
        text += link + ("an " if name[:1].lower() in "aeiou" else "a ")
        spans[name] = (len(text), len(text) + len(name))
        text += name
    return text, spans


def read_names(file: Path) -> dict[str, str]:
    """Names of classes from a file: a name a line, or a number or ImageNet's id before it."""
    with reading(file, "class names"):
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    names = {}
    for number, line in enumerate(lines, 1):
        match = re.match(r"(n\d{8}|\d+)[\s,:;]+(\S.*)", line)
        identity, name = match.groups() if match else (str(number), line)
        names[identity] = name.split(",")[0].strip()
    return names


@cache
def imagenet_names() -> dict[str, str]:
    """Names of ImageNet's 1,000 classes by their ids, as CLIP's authors chose them; empty where timm is missing."""
    try:
        from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
        from timm.data import ImageNetInfo
    except ImportError:
        return {}
    return dict(zip(ImageNetInfo().label_names(), IMAGENET_CLASSNAMES, strict=True))


def _imagenet_s_folders(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and masks, in a folder or where it is that of the images."""
    pairs = [(folder / split, folder / f"{split}-segmentation") for split in (*SPLITS, "train-semi")]
    pairs.append((folder, folder.parent / f"{folder.name}-segmentation"))
    return next(((images, masks) for images, masks in pairs if images.is_dir() and masks.is_dir()), None)


def _voc_folder(folder: Path) -> Path | None:
    """The folder itself or VOC2012 below it."""
    below = [*sorted(folder.glob("VOC2*"), reverse=True), *sorted(folder.glob("VOCdevkit/VOC2*"), reverse=True)]
    needed = ("JPEGImages", "SegmentationClass")
    return next((root for root in (folder, *below) if all((root / name).is_dir() for name in needed)), None)


def _part_annotations(folder: Path) -> Path | None:
    """The JSON file of parts of a folder."""
    for split in SPLITS[1:]:
        places = (folder / "annotations" / split, folder / "annotations", folder)
        file = next((place / f"{split}.json" for place in places if (place / f"{split}.json").is_file()), None)
        if file is not None:
            return file
    return None


def _part_image(annotations: Path, name: str) -> Path:
    """Where an image of PartImageNet is."""
    split, class_folder = annotations.stem, name.rpartition("/")[2].partition("_")[0]
    roots = list(annotations.parents)[:3]
    folders = [root / part for root in roots for part in (f"images/{split}", split, "images", "")]
    places = [folder / part / name for folder in folders for part in ("", class_folder)]
    return next((place for place in places if place.is_file()), places[0])


def _mask_file(file: Path) -> Path:
    """The file of a mask; `EntryError` if it does not exist."""
    if not file.is_file():
        raise EntryError(f"missing mask: {file.name}")
    return file


def _numbers(file: Path, image: Path) -> np.ndarray:
    """The numbers of a mask's pixels; `EntryError` if it is damaged or of another size than its image."""
    try:
        numbers = read_numbers(file)
        with Image.open(image) as picture:
            size = picture.size
    except (InputError, OSError) as problem:
        raise EntryError(f"unreadable mask or image: {file.name}") from problem
    if numbers.shape != size[::-1]:
        raise EntryError(f"mask of another size than its image: {file.name}")
    return numbers


def _region(name: str, mask: np.ndarray, file: MaskFile) -> Region:
    return Region(name, box_of(mask), mask=file)
