"""COCO: captions and instances in their official files, phrases found by a dictionary of class names."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from secondsight.data.grounded import (
    Broken,
    GroundedCaption,
    GroundedDataset,
    Phrase,
    Region,
    check_image,
    folder_of,
    read_json,
    usable_box,
)
from secondsight.support.errors import InputError
from secondsight.support.files import brief, reading

Synonyms = Mapping[str, list[str]]


@lru_cache(maxsize=1)
def coco_synonyms() -> dict[str, list[str]]:
    """Words for each of COCO's 80 classes, singular and irregular plural forms; "word!" has no other forms."""
    found: dict[str, list[str]] = json.loads(
        files("secondsight.data").joinpath("coco_synonyms.json").read_text(encoding="utf-8")
    )
    return found


class PhraseFinder:
    """Finds class names in captions: longest first, whole words, plurals included, no case, no overlap."""

    def __init__(self, synonyms: Synonyms) -> None:
        self.labels: dict[str, str] = {}
        for label, words in synonyms.items():
            for word in words:
                for form in [word[:-1]] if word.endswith("!") else [word, *plurals(word)]:
                    self.labels.setdefault(form.lower(), label)
        longest = sorted(self.labels, key=lambda form: (-len(form), form))
        spelled = "|".join(r"[\s-]+".join(re.escape(part) for part in form.split()) for form in longest)
        self.pattern = re.compile(rf"(?<![\w-])(?:{spelled})(?![\w-])", re.IGNORECASE) if longest else None

    def find(self, caption: str) -> list[tuple[tuple[int, int], str]]:
        """(span, label) in the order of the caption."""
        if self.pattern is None:
            return []
        found = []
        for match in self.pattern.finditer(caption):
            form = " ".join(re.split(r"[\s-]+", match.group().lower()))
            label = self.labels.get(form) or self.labels.get(match.group().lower())
            if label is not None and label != NOTHING:
                found.append((match.span(), label))
        return found


NOTHING = ""
"""The label of words that contain a class name and mean something else, such as "hot dog stand"."""


def plurals(word: str) -> list[str]:
    """Regular plurals of the last word."""
    if re.search(r"(s|x|z|ch|sh)$", word):
        return [word + "es"]
    if re.search(r"[^aeiou]y$", word):
        return [word[:-1] + "ies"]
    if word.endswith("fe"):
        return [word[:-2] + "ves"]
    if word.endswith("o"):
        return [word + "s", word + "es"]
    return [word + "s"]


class Coco(GroundedDataset):
    """COCO captions with the boxes of the objects that they name.

    `folder` holds annotations/captions_SPLIT.json and annotations/instances_SPLIT.json, and the images in SPLIT/ (or
    images/SPLIT/, images/, or beside); `split` such as "val2017" may be left out where there is one. `karpathy` is the
    file dataset_coco.json of Karpathy's splits, of which `part` ("test") is taken. `synonyms` maps class names to words;
    by default `coco_synonyms()`. A phrase's boxes are all instances of its class; crowds are regions only.
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
        self.folder = folder_of(folder, "COCO")
        annotations = self.folder / "annotations"
        known = sorted(f.stem.removeprefix("captions_") for f in annotations.glob("captions_*.json"))
        if not known:
            raise InputError(f"COCO: {str(annotations)!r} has no captions_*.json")
        if split is None and len(known) > 1 and karpathy is None:
            raise InputError(f"COCO: {str(folder)!r} has several splits; choose one of {', '.join(known)}")
        if split is not None and split not in known:
            raise InputError(f"COCO: unknown split {split!r}; known: {', '.join(known)}")
        splits = [split] if split else known
        super().__init__(f"COCO {', '.join(splits)}")
        self.images: dict[int, tuple[str, dict[str, Any]]] = {}
        self.objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self.categories: dict[int, dict[str, Any]] = {}
        self.captions: list[dict[str, Any]] = []
        for one in splits:
            self._add(annotations, one)
        if karpathy is not None:
            wanted = self._of_karpathy(Path(karpathy), part)
            self.captions = [c for c in self.captions if c.get("image_id") in wanted]
            self.name = f"COCO Karpathy {part}"
        if synonyms is None:
            # Files in this format may have classes of their own, whose names then mean nothing else.
            usual = coco_synonyms()
            named = [str(c["name"]) for c in self.categories.values() if c.get("name")]
            synonyms = {name: [name] for name in named if name not in usual} | usual
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

    @staticmethod
    def _of_karpathy(path: Path, part: str) -> set[int]:
        """COCO's image ids of a part; "restval" counts as "train", as is usual."""
        data = read_json(path)
        parts = {"train", "restval"} if part == "train" else {part}
        with reading(path, "Karpathy's splits"):
            chosen = {one["cocoid"] for one in data["images"] if one.get("split") in parts and "cocoid" in one}
        if not chosen:
            raise InputError(f"{str(path)!r} has no COCO images of part {part!r}; known: train, val, test")
        return chosen

    def _count(self) -> int:
        return len(self.captions)

    def _key(self, index: int) -> str:
        return f"caption {self.captions[index].get('id', index)}"

    def _read(self, index: int) -> GroundedCaption:
        annotation = self.captions[index]
        text = str(annotation.get("caption", "")).strip()
        if not text:
            raise Broken("empty caption")
        number = annotation.get("image_id")
        if number not in self.images:
            raise Broken(f"unknown image: {number}")
        split, image = self.images[number]
        file = self._file(split, image["file_name"])
        check_image(file)
        regions, boxes, crowded = [], defaultdict(list), set()
        for one in self.objects.get(number, []):
            category = self.categories.get(one.get("category_id", -1), {})
            x, y, w, h = (*one.get("bbox", ()), *[0.0] * 4)[:4]
            box = usable_box((x, y, x + w, y + h))
            if box is None or "name" not in category:
                continue
            crowd = bool(one.get("iscrowd"))
            seen = float(one.get("visible", 1.0))
            regions.append(Region(category["name"], box, category.get("supercategory", ""), crowd, seen))
            if crowd:
                crowded.add(category["name"])
            else:
                boxes[category["name"]].append(box)
        phrases = tuple(
            Phrase(span, tuple(boxes[label]), label) for span, label in self.finder.find(text) if label in boxes
        )
        key = str(annotation.get("id", index))
        return GroundedCaption(key, str(number), file, text, phrases, tuple(regions))

    def _file(self, split: str, name: str) -> Path:
        places = [self.folder / split, self.folder / "images" / split, self.folder / "images", self.folder]
        return next((place / name for place in places if (place / name).is_file()), places[0] / name)


def _coco_file(path: Path) -> dict[str, Any]:
    try:
        from pycocotools.coco import COCO
    except ModuleNotFoundError as problem:
        raise InputError("COCO needs the package 'pycocotools': pip install 'secondsight[eval]'") from problem
    if not path.is_file():
        raise InputError(f"{str(path)!r} does not exist")
    try:
        # It tells its progress on the standard output, which is not its own here.
        with contextlib.redirect_stdout(io.StringIO()):
            data: dict[str, Any] = COCO(str(path)).dataset
    except (ValueError, AssertionError, KeyError, TypeError, AttributeError, RecursionError, OSError) as problem:
        raise InputError(f"{str(path)!r} is no COCO annotation file ({brief(problem)})") from problem
    if not isinstance(data.get("annotations"), list) or not isinstance(data.get("images"), list):
        raise InputError(f"{str(path)!r} is no COCO annotation file: it needs images and annotations")
    data.setdefault("categories", [])
    return data
