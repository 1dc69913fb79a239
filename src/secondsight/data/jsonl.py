"""JSONL: a line of JSON for each caption, the format for your own data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from secondsight.data.grounded import (
    EntryError,
    GroundedCaption,
    GroundedDataset,
    Negative,
    Phrase,
    Region,
    check_image,
    existing_folder,
    parse_box,
)
from secondsight.data.masks import Mask, MaskFile, mask_to_json, parse_mask
from secondsight.data.negatives import changed_words
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, brief, one_line


class Jsonl(GroundedDataset):
    """One JSON object a line: "image" (a path relative to `images` or to the file), "caption", and optionally

    "phrases": [{"span": [start, end] or the words, "boxes": [[x0, y0, x1, y1], …], "label": …}],
    "regions": [{"label": …, "box": […], "group": …, "crowd": false, "visible": 1, "mask": …}] (all objects; default: the
    phrases'), whose mask is COCO's {"size": [height, width], "counts": …} or the path of a picture that is not 0 on the
    object, relative to the file,
    "negatives": [{"caption": …, "span": …, "phrase": …, "kind": …}] or plain captions, "key", and "facts" {name: text}.
    """

    def __init__(self, file: str | Path, images: str | Path | None = None) -> None:
        path = Path(file)
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            raise InputError(f"{str(file)!r} does not exist") from None
        except (OSError, UnicodeDecodeError) as problem:
            raise InputError(f"{str(file)!r} cannot be read as text ({brief(problem)})") from None
        self.folder = path.parent
        self.images = existing_folder(images, "JSONL") if images else path.parent
        super().__init__(path.name)
        self.lines = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]

    def __len__(self) -> int:
        return len(self.lines)

    def key(self, index: int) -> str:
        """The line's number."""
        return f"line {self.lines[index][0]}"

    def read(self, index: int) -> GroundedCaption:
        """The caption of one line."""
        number, line = self.lines[index]
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise EntryError(f"not JSON: {brief(problem)}") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise EntryError('not an object with an "image" and a "caption"')
        caption = entry.get("caption")
        if not isinstance(caption, str) or not caption.strip():
            raise EntryError("empty caption")
        image = self.images / entry["image"]
        check_image(image)
        phrases = tuple(parse_phrase(value, caption) for value in entry.get("phrases", []))
        if entry.get("regions") is None:
            regions = tuple(Region(phrase.label, box) for phrase in phrases for box in phrase.boxes)
        else:
            regions = tuple(parse_region(value, self.folder) for value in entry["regions"])
        negatives = tuple(_negative(value, caption) for value in entry.get("negatives", []))
        key = str(entry.get("key", number))
        facts = {str(name): str(value) for name, value in dict(entry.get("facts") or {}).items()}
        return GroundedCaption(key, entry["image"], image, caption, phrases, regions, negatives, facts)


def _span(value: Any, text: str) -> tuple[int, int] | None:
    """A pair of numbers within the text, or words that occur in it."""
    if value is None:
        return None
    if isinstance(value, str):
        start = text.find(value)
        if start < 0 or not value:
            raise EntryError(f"span not in the caption: {value!r}")
        return start, start + len(value)
    try:
        start, end = (int(number) for number in value)
    except (TypeError, ValueError):
        raise EntryError(f"not a span: {value!r}") from None
    if not 0 <= start < end <= len(text):
        raise EntryError(f"span outside the caption: {value!r}")
    return start, end


def parse_phrase(value: Any, caption: str) -> Phrase:
    """A phrase of a caption from its JSON; raises `EntryError` for anything else."""
    span = _span(value.get("span") if isinstance(value, dict) else None, caption)
    if span is None:
        raise EntryError("phrase without a span")
    boxes = [parse_box(numbers) for numbers in value.get("boxes", [])]
    if None in boxes:
        raise EntryError("box without four numbers x0 < x1, y0 < y1")
    label = str(value.get("label") or caption[span[0] : span[1]].lower())
    return Phrase(span, tuple(box for box in boxes if box is not None), label)


def parse_region(value: Any, folder: Path) -> Region:
    """A region from its JSON, a mask's file relative to `folder`; raises `EntryError` for anything else."""
    box = parse_box(value.get("box", ())) if isinstance(value, dict) else None
    if box is None:
        raise EntryError("region without four numbers x0 < x1, y0 < y1")
    visible = value.get("visible", 1.0)
    if isinstance(visible, bool) or not isinstance(visible, int | float) or not 0 <= visible <= 1:
        raise EntryError("region whose visible share is not a number in 0 … 1")
    crowd = bool(value.get("crowd", False))
    mask = _mask(value.get("mask"), folder)
    return Region(str(value.get("label", "")), box, str(value.get("group", "")), crowd, float(visible), mask)


def _mask(value: Any, folder: Path) -> Mask | None:
    """Run lengths, or a picture's path relative to `folder`."""
    if value is None:
        return None
    if isinstance(value, str):
        file = folder / value
        if not file.is_file():
            raise EntryError(f"missing mask: {one_line(value)}")
        return MaskFile(file)
    mask = parse_mask(value, None)
    if mask is None:
        raise EntryError("mask that is neither a picture's path nor run lengths that fill its size")
    return mask


def _negative(value: Any, caption: str) -> Negative:
    entry = {"caption": value} if isinstance(value, str) else value
    text = entry.get("caption") if isinstance(entry, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise EntryError("negative without a caption")
    before, after = changed_words(caption, text)
    span = _span(entry.get("span"), text) or after
    return Negative(text, span, _span(entry.get("phrase"), caption) or before, str(entry.get("kind", "")))


def write_jsonl(path: str | Path, captions: Iterable[GroundedCaption]) -> None:
    """Write grounded captions as a file that `Jsonl` reads; image paths are written unchanged."""
    with atomic(path) as file:
        for example in captions:
            file.write((json.dumps(_to_json(example), ensure_ascii=False) + "\n").encode())


def _to_json(example: GroundedCaption) -> dict[str, Any]:
    if not isinstance(example.image, Path):
        raise InputError(f"caption {example.key!r} has no image file to refer to: save its image first")
    return {
        "key": example.key,
        "image": str(example.image),
        "caption": example.caption,
        "phrases": [phrase_to_json(phrase) for phrase in example.phrases],
        "regions": [region_to_json(region) for region in example.regions],
        "negatives": [
            {"caption": n.caption, "span": n.span, "phrase": n.phrase, "kind": n.kind} for n in example.negatives
        ],
        "facts": dict(example.facts),
    }


def phrase_to_json(phrase: Phrase) -> dict[str, Any]:
    """A phrase as `parse_phrase` reads it."""
    return {"span": phrase.span, "boxes": phrase.boxes, "label": phrase.label}


def region_to_json(region: Region) -> dict[str, Any]:
    """A region as `parse_region` reads it."""
    entry = {name: getattr(region, name) for name in ("label", "box", "group", "crowd", "visible")}
    return entry if region.mask is None else {**entry, "mask": mask_to_json(region.mask)}
