"""Data sets in plain files: JSONL that anyone can write, SugarCrepe's JSON, STS-B's pairs of sentences."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secondsight.data.grounded import (
    Broken,
    GroundedCaption,
    GroundedDataset,
    ListedDataset,
    Negative,
    Phrase,
    Region,
    check_image,
    folder_of,
    read_json,
    usable_box,
)
from secondsight.data.hnc import changed_words
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, brief, reading

PHOTOGRAPHS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of image files that are looked for in folders."""


def photographs(folder: str | Path) -> dict[str, Path]:
    """The image files of a folder and those below it, by their path in the folder; raises `InputError` for none."""
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"{str(folder)!r} is no folder")
    found = {str(p.relative_to(place)): p for p in sorted(place.rglob("*")) if p.suffix.lower() in PHOTOGRAPHS}
    found = {name: path for name, path in found.items() if path.is_file()}
    if not found:
        raise InputError(f"{str(folder)!r} holds no photographs ({', '.join(PHOTOGRAPHS)})")
    return found


class Jsonl(GroundedDataset):
    """One JSON object a line: "image" (path, relative to `images` or the file) and "caption", and where there are any:

    "phrases": [{"span": [start, end] or the words, "boxes": [[x0, y0, x1, y1], …], "label": …}],
    "regions": [{"label": …, "box": […], "group": …, "crowd": false, "visible": 1}] (all objects; the phrases' by default),
    "negatives": [{"caption": …, "span": …, "phrase": …, "kind": …}] or plain captions, "key", and "facts" {name: text}.
    """

    def __init__(self, file: str | Path, images: str | Path | None = None) -> None:
        path = Path(file)
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            raise InputError(f"{str(file)!r} does not exist") from None
        except (OSError, UnicodeDecodeError) as problem:
            raise InputError(f"{str(file)!r} is no readable text file ({brief(problem)})") from None
        self.images = folder_of(images, "JSONL") if images else path.parent
        super().__init__(path.name)
        self.lines = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]

    def _count(self) -> int:
        return len(self.lines)

    def _key(self, index: int) -> str:
        return f"line {self.lines[index][0]}"

    def _read(self, index: int) -> GroundedCaption:
        number, line = self.lines[index]
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise Broken(f"no JSON: {brief(problem)}") from None
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise Broken('no object with an "image" and a "caption"')
        caption = entry.get("caption")
        if not isinstance(caption, str) or not caption.strip():
            raise Broken("empty caption")
        image = self.images / entry["image"]
        check_image(image)
        phrases = tuple(_phrase(one, caption) for one in entry.get("phrases", []))
        given = entry.get("regions")
        if given is None:
            regions = tuple(Region(p.label, box) for p in phrases for box in p.boxes)
        else:
            regions = tuple(_region(one) for one in given)
        negatives = tuple(_wrong(one, caption) for one in entry.get("negatives", []))
        key = str(entry.get("key", number))
        facts = {str(name): str(value) for name, value in dict(entry.get("facts") or {}).items()}
        return GroundedCaption(key, entry["image"], image, caption, phrases, regions, negatives, facts)


def _span(given: Any, text: str) -> tuple[int, int] | None:
    """A pair of numbers within the text, or words that are in it."""
    if given is None:
        return None
    if isinstance(given, str):
        start = text.find(given)
        if start < 0 or not given:
            raise Broken(f"span not in the caption: {given!r}")
        return start, start + len(given)
    try:
        start, end = (int(v) for v in given)
    except (TypeError, ValueError):
        raise Broken(f"no span: {given!r}") from None
    if not 0 <= start < end <= len(text):
        raise Broken(f"span outside the caption: {given!r}")
    return start, end


def _phrase(one: Any, caption: str) -> Phrase:
    span = _span(one.get("span") if isinstance(one, dict) else None, caption)
    if span is None:
        raise Broken("phrase without a span")
    boxes = [usable_box(box) for box in one.get("boxes", [])]
    if None in boxes:
        raise Broken("box without four numbers x0 < x1, y0 < y1")
    label = str(one.get("label") or caption[span[0] : span[1]].lower())
    return Phrase(span, tuple(box for box in boxes if box is not None), label)


def _region(one: Any) -> Region:
    box = usable_box(one.get("box", ())) if isinstance(one, dict) else None
    if box is None:
        raise Broken("region without four numbers x0 < x1, y0 < y1")
    seen = one.get("visible", 1.0)
    if isinstance(seen, bool) or not isinstance(seen, int | float) or not 0 <= seen <= 1:
        raise Broken("region whose visible share is no number in 0 … 1")
    crowd = bool(one.get("crowd", False))
    return Region(str(one.get("label", "")), box, str(one.get("group", "")), crowd, float(seen))


def _wrong(one: Any, caption: str) -> Negative:
    entry = {"caption": one} if isinstance(one, str) else one
    text = entry.get("caption") if isinstance(entry, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise Broken("negative without a caption")
    was, now = changed_words(caption, text)
    span = _span(entry.get("span"), text) or now
    return Negative(text, span, _span(entry.get("phrase"), caption) or was, str(entry.get("kind", "")))


def write_jsonl(path: str | Path, captions: Any) -> None:
    """Write grounded captions as a file that `Jsonl` reads; image paths are written as they are."""
    with atomic(path) as file:
        for one in captions:
            if not isinstance(one.image, Path):
                raise InputError(f"caption {one.key!r} has no image file to refer to: save its image first")
            entry = {
                "key": one.key,
                "image": str(one.image),
                "caption": one.caption,
                "phrases": [{"span": p.span, "boxes": p.boxes, "label": p.label} for p in one.phrases],
                "regions": [
                    {"label": r.label, "box": r.box, "group": r.group, "crowd": r.crowd, "visible": r.visible}
                    for r in one.regions
                ],
                "negatives": [
                    {"caption": n.caption, "span": n.span, "phrase": n.phrase, "kind": n.kind} for n in one.negatives
                ],
                "facts": dict(one.facts),
            }
            file.write((json.dumps(entry, ensure_ascii=False) + "\n").encode())


def sugarcrepe(file: str | Path, images: str | Path) -> ListedDataset:
    """SugarCrepe's JSON: "0": {"filename", "caption", "negative_caption"}; `images` is the folder of COCO val2017."""
    data, folder, path = read_json(Path(file)), folder_of(images, "SugarCrepe"), Path(file)
    rows = list(data.items()) if isinstance(data, dict) else list(enumerate(data)) if isinstance(data, list) else None
    if rows is None:
        raise InputError(f"{str(file)!r} is no SugarCrepe file")
    entries, problems = [], {}
    for key, row in rows:
        found = [row.get(k) if isinstance(row, dict) else None for k in _SUGARCREPE]
        right, wrong, name = (v if isinstance(v, str) and v.strip() else None for v in found)
        if right is None or wrong is None or name is None:
            problems[str(key)] = "no filename, caption and negative_caption"
            continue
        was, now = changed_words(right, wrong)
        negative = Negative(wrong, now, was, path.stem)
        entries.append(GroundedCaption(str(key), name, folder / name, right, negatives=(negative,)))
    return ListedDataset(f"SugarCrepe {path.stem}", entries, problems)


_SUGARCREPE = ("caption", "negative_caption", "filename")


@dataclass(frozen=True)
class SentencePair:
    """Two sentences and how alike people found them, 0 to 1."""

    key: str
    first: str
    second: str
    score: float


def stsb(file: str | Path) -> list[SentencePair]:
    """STS-B: the original sts-test.csv (tab-separated: genre, file, year, id, score 0-5, sentences), or a .jsonl.

    JSONL has "sentence1", "sentence2" and "score" (0-5, or 0-1 where none is larger). Lines that are short are left out.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{str(file)!r} does not exist")
    rows: list[tuple[str, str, str, float]] = []
    with reading(path, "pairs of sentences"), path.open(encoding="utf-8-sig", newline="") as stream:
        if path.suffix == ".jsonl":
            for number, line in enumerate(stream):
                one = json.loads(line) if line.strip() else {}
                if {"sentence1", "sentence2", "score"} <= set(one):
                    rows.append((str(number), str(one["sentence1"]), str(one["sentence2"]), float(one["score"])))
        else:
            for number, cells in enumerate(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)):
                if len(cells) >= 7 and cells[4].replace(".", "", 1).isdigit():
                    rows.append((str(number), cells[5], cells[6], float(cells[4])))
    if not rows:
        raise InputError(f"{str(file)!r} has no pairs of sentences with a score")
    beyond = next((row for row in rows if not 0 <= row[3] <= 5), None)
    if beyond is not None:
        raise InputError(f"{str(file)!r}, pair {beyond[0]}: the score {beyond[3]} does not lie in 0 … 5")
    top = 5.0 if max(row[3] for row in rows) > 1 else 1.0
    return [SentencePair(key, a, b, score / top) for key, a, b, score in rows]
