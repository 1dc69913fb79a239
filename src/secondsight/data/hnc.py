"""HNC: captions of Visual Genome images from scene graphs, with hard negatives (Dönmez et al. 2023)."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from secondsight.data.grounded import (
    Box,
    EntryError,
    GroundedCaption,
    GroundedDataset,
    Negative,
    Phrase,
    Region,
    check_image,
    image_folder,
    parse_box,
    read_json,
)
from secondsight.data.negatives import changed_words
from secondsight.support.errors import InputError


class _Entry(NamedTuple):
    image_id: str
    caption_id: str
    caption: dict[str, Any]
    negatives: list[dict[str, Any]]


class Hnc(GroundedDataset):
    """Right captions (label 1) with their wrong ones (label 0, whose `cpt_p_id` is the right one).

    `file` is the JSON of HNC: image id → "captions" → caption id → caption, label, type, cpt_p_id, replaced, bboxes
    (object id → bbox as x, y, width, height and name). `images` is the folder of Visual Genome's (GQA's) ID.jpg.
    A phrase is an object's name where the caption contains it.
    """

    def __init__(self, file: str | Path, images: str | Path | None = None) -> None:
        self.images = image_folder(images, "HNC")
        data = read_json(Path(file))
        if not isinstance(data, dict):
            raise InputError(f"{str(file)!r} is not an HNC file: it needs captions by image")
        super().__init__("HNC")
        self.entries: list[_Entry] = []
        for image_id, image in data.items():
            captions = image.get("captions", image) if isinstance(image, dict) else {}
            if isinstance(captions, dict):
                self._add(str(image_id), captions)
            else:
                self.problems[str(image_id)] = "no captions"

    def _add(self, image_id: str, captions: dict[str, Any]) -> None:
        """The right captions of an image, each with its wrong ones."""
        negatives: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for key, caption in captions.items():
            if not isinstance(caption, dict) or str(caption.get("label")) not in ("0", "1"):
                self.problems[f"{image_id}/{key}"] = "no caption with a label"
            elif str(caption["label"]) == "0":
                parent = str(caption.get("cpt_p_id"))
                if parent in captions:
                    negatives[parent].append(caption)
                else:
                    self.problems[f"{image_id}/{key}"] = "negative of an unknown caption"
        for key, caption in captions.items():
            if isinstance(caption, dict) and str(caption.get("label")) == "1":
                self.entries.append(_Entry(image_id, str(key), caption, negatives[str(key)]))

    def __len__(self) -> int:
        return len(self.entries)

    def key(self, index: int) -> str:
        """IMAGE/CAPTION."""
        entry = self.entries[index]
        return f"{entry.image_id}/{entry.caption_id}"

    def read(self, index: int) -> GroundedCaption:
        """One right caption."""
        image_id, _, caption, wrong = self.entries[index]
        text = str(caption.get("caption") or "").strip()
        if not text:
            raise EntryError("empty caption")
        file = self.images / (image_id if image_id.lower().endswith((".jpg", ".png")) else f"{image_id}.jpg")
        check_image(file)
        regions = tuple(Region(name, box) for name, box in _named_boxes(caption.get("bboxes")))
        phrases = []
        for name in dict.fromkeys(region.label for region in regions):
            span = _find_name(name, text)
            if span is not None:
                phrases.append(Phrase(span, tuple(r.box for r in regions if r.label == name), name))
        phrases.sort(key=lambda phrase: phrase.span)
        negatives = tuple(n for n in (_negative(text, entry) for entry in wrong) if n is not None)
        return GroundedCaption(self.key(index), image_id, file, text, tuple(phrases), regions, negatives)


def _named_boxes(objects: Any) -> list[tuple[str, Box]]:
    boxes = []
    for value in (objects or {}).values() if isinstance(objects, dict) else objects or []:
        if not isinstance(value, dict):
            continue
        bbox = value.get("bbox", value)
        numbers: Any = [bbox.get(key) for key in "xywh"] if isinstance(bbox, dict) else bbox
        try:
            x, y, width, height = (float(number) for number in numbers)
        except (TypeError, ValueError):
            continue
        box = parse_box((x, y, x + width, y + height))
        if box is not None and value.get("name"):
            boxes.append((str(value["name"]), box))
    return boxes


def _find_name(name: str, text: str) -> tuple[int, int] | None:
    """The span of a name in a text, as whole words, plural allowed."""
    match = re.search(rf"(?<!\w){re.escape(name)}(?:es|s)?(?!\w)", text, re.IGNORECASE)
    return match.span() if match else None


def _negative(text: str, entry: dict[str, Any]) -> Negative | None:
    wrong = str(entry.get("caption") or "").strip()
    if not wrong:
        return None
    before, after = changed_words(text, wrong)
    return Negative(wrong, after, before, str(entry.get("type") or ""))
