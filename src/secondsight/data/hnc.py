"""HNC: captions of Visual Genome images from scene graphs, with hard negatives (Dönmez et al. 2023)."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from secondsight.data.grounded import (
    Box,
    Broken,
    GroundedCaption,
    GroundedDataset,
    Negative,
    Phrase,
    Region,
    check_image,
    folder_of,
    read_json,
    usable_box,
)
from secondsight.support.errors import InputError


class Hnc(GroundedDataset):
    """Right captions (label 1) with their wrong ones (label 0, `cpt_p_id` names the right one).

    `file` is the JSON of HNC: image id → "captions" → caption id → caption, label, type, cpt_p_id, replaced, bboxes
    (object id → bbox as x, y, width, height and name). `images` is the folder of Visual Genome's (GQA's) ID.jpg.
    Phrases are where an object's name is written in the caption.
    """

    def __init__(self, file: str | Path, images: str | Path) -> None:
        data = read_json(Path(file))
        if not isinstance(data, dict):
            raise InputError(f"{str(file)!r} is no HNC file: it needs captions by image")
        self.images = folder_of(images, "HNC")
        super().__init__("HNC")
        self.entries: list[tuple[str, str, dict[str, Any], list[dict[str, Any]]]] = []
        for image, entry in data.items():
            captions = entry.get("captions", entry) if isinstance(entry, dict) else {}
            if not isinstance(captions, dict):
                self.problems[str(image)] = "no captions"
                continue
            wrong: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for key, caption in captions.items():
                if not isinstance(caption, dict) or str(caption.get("label")) not in ("0", "1"):
                    self.problems[f"{image}/{key}"] = "no caption with a label"
                elif str(caption["label"]) == "0":
                    parent = str(caption.get("cpt_p_id"))
                    if parent in captions:
                        wrong[parent].append(caption)
                    else:
                        self.problems[f"{image}/{key}"] = "negative of an unknown caption"
            for key, caption in captions.items():
                if isinstance(caption, dict) and str(caption.get("label")) == "1":
                    self.entries.append((str(image), str(key), caption, wrong[str(key)]))

    def _count(self) -> int:
        return len(self.entries)

    def _key(self, index: int) -> str:
        return "/".join(self.entries[index][:2])

    def _read(self, index: int) -> GroundedCaption:
        image, key, entry, wrong = self.entries[index]
        text = str(entry.get("caption") or "").strip()
        if not text:
            raise Broken("empty caption")
        file = self.images / (image if image.lower().endswith((".jpg", ".png")) else f"{image}.jpg")
        check_image(file)
        regions = tuple(Region(name, box) for name, box in _named_boxes(entry.get("bboxes")))
        phrases = []
        for name in dict.fromkeys(region.label for region in regions):
            span = _written(name, text)
            if span is not None:
                phrases.append(Phrase(span, tuple(r.box for r in regions if r.label == name), name))
        phrases.sort(key=lambda phrase: phrase.span)
        negatives = tuple(n for n in (_negative(text, other) for other in wrong) if n is not None)
        return GroundedCaption(f"{image}/{key}", image, file, text, tuple(phrases), regions, negatives)


def _named_boxes(given: Any) -> list[tuple[str, Box]]:
    found = []
    for one in (given or {}).values() if isinstance(given, dict) else given or []:
        if not isinstance(one, dict):
            continue
        place = one.get("bbox", one)
        numbers: Any = [place.get(k) for k in "xywh"] if isinstance(place, dict) else place
        try:
            x, y, w, h = (float(v) for v in numbers)
        except (TypeError, ValueError):
            continue
        box = usable_box((x, y, x + w, y + h))
        if box is not None and one.get("name"):
            found.append((str(one["name"]), box))
    return found


def _written(name: str, text: str) -> tuple[int, int] | None:
    """Where a name is written in a text, as whole words, plural allowed."""
    match = re.search(rf"(?<!\w){re.escape(name)}(?:es|s)?(?!\w)", text, re.IGNORECASE)
    return match.span() if match else None


def _negative(text: str, wrong: dict[str, Any]) -> Negative | None:
    other = str(wrong.get("caption") or "").strip()
    if not other:
        return None
    was, now = changed_words(text, other)
    return Negative(other, now, was, str(wrong.get("type") or ""))


def changed_words(right: str, wrong: str) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Character spans of the words that differ, in either text; None where a text only lacks words."""
    spans = [[m.span() for m in re.finditer(r"\S+", text)] for text in (right, wrong)]
    words = [
        [text[s:e].lower().strip(".,;!?") for s, e in own] for text, own in zip((right, wrong), spans, strict=True)
    ]
    shorter = min(len(words[0]), len(words[1]))
    same = next((i for i in range(shorter) if words[0][i] != words[1][i]), shorter)
    tail = next((i for i in range(shorter - same) if words[0][-1 - i] != words[1][-1 - i]), shorter - same)
    found = []
    for text, own in zip((right, wrong), spans, strict=True):
        changed = own[same : len(own) - tail]
        end = changed[-1][1] if changed else 0
        while changed and end - 1 > changed[0][0] and text[end - 1] in ".,;!?":
            end -= 1
        found.append((changed[0][0], end) if changed else None)
    return found[0], found[1]
