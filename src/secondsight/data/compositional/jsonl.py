"""The schema as a file: a comparison a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from secondsight.data.compositional.schema import Comparison, Comparisons, read_rows
from secondsight.data.grounded import EntryError, existing_folder, parse_box
from secondsight.data.jsonl import parse_phrase, parse_region, phrase_to_json, region_to_json
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, brief, reading


def read_compositional(file: str | Path, images: str | Path | None = None) -> Comparisons:
    """One JSON object a line: "images" (paths relative to `images` or to the file), "captions", and optionally

    "fits" (for every image the numbers of the captions that fit; default: caption 0 fits image 0, 1 fits 1, …; for one
    image a list of numbers will do), "tag" (a text or several), "id", "group", "kinds", "crops", "phrases" and "regions"
    as `Jsonl` has them, a list for every caption and every image.
    """
    path = Path(file)
    folder = existing_folder(images, "compositional") if images else path.parent
    if not path.is_file():
        raise InputError(f"{str(file)!r} does not exist")

    def parse(key: str, line: str) -> Comparison:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise EntryError(f"not JSON: {brief(problem)}") from None
        return _comparison(key.removeprefix("line "), entry, folder, path.parent)

    with reading(path, "comparisons"):
        text = path.read_text(encoding="utf-8-sig")
    lines = ((f"line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    return read_rows(path.name, lines, parse)


def _comparison(key: str, entry: Any, folder: Path, masks: Path) -> Comparison:
    names = entry.get("images") if isinstance(entry, dict) else None
    captions = entry.get("captions") if isinstance(entry, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise EntryError('not an object with "images" and "captions"')
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise EntryError('not an object with "images" and "captions"')
    tags = entry.get("tag") or []
    crops = [parse_box(box) for box in entry.get("crops") or []]
    if None in crops:
        raise EntryError("crop without four numbers x0 < x1, y0 < y1")
    phrases = entry.get("phrases") or []
    return Comparison(
        str(entry.get("id", key)),
        tuple(names),
        tuple(folder / name for name in names),
        tuple(captions),
        _fits(entry.get("fits"), len(names)),
        tuple(map(str, [tags] if isinstance(tags, str) else tags)),
        tuple(map(str, entry.get("kinds") or [])),
        str(entry.get("group") or ""),
        tuple(box for box in crops if box is not None),
        tuple(
            tuple(parse_phrase(value, caption) for value in values)
            for values, caption in zip(phrases, captions, strict=bool(phrases))
        ),
        tuple(tuple(parse_region(value, masks) for value in values) for values in entry.get("regions") or []),
    )


def _fits(value: Any, images: int) -> tuple[tuple[int, ...], ...]:
    """Lists of numbers for every image; where there are none, a caption fits the image of its number."""
    if value is None:
        return tuple((image,) for image in range(images))
    if isinstance(value, list) and images == 1 and all(isinstance(number, int) for number in value):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(numbers, list) for numbers in value):
        raise EntryError('"fits" is not a list of numbers for every image')
    if not all(isinstance(number, int) for numbers in value for number in numbers):
        raise EntryError('"fits" is not a list of numbers for every image')
    return tuple(map(tuple, value))


def write_compositional(path: str | Path, comparisons: Iterable[Comparison]) -> None:
    """Write comparisons as a file that `read_compositional` reads; image paths are written unchanged."""
    with atomic(path) as file:
        for comparison in comparisons:
            file.write((json.dumps(_to_json(comparison), ensure_ascii=False) + "\n").encode())


def _to_json(comparison: Comparison) -> dict[str, Any]:
    if not all(isinstance(image, Path) for image in comparison.images):
        raise InputError(f"comparison {comparison.key!r} has no image file to refer to: save its images first")
    entry: dict[str, Any] = {
        "id": comparison.key,
        "images": [str(image) for image in comparison.images],
        "captions": comparison.captions,
        "fits": comparison.fits,
        "tag": comparison.tags,
        "kinds": comparison.kinds,
        "group": comparison.group,
        "crops": comparison.crops,
        "phrases": [[phrase_to_json(phrase) for phrase in phrases] for phrases in comparison.phrases],
        "regions": [[region_to_json(region) for region in regions] for regions in comparison.regions],
    }
    return {name: value for name, value in entry.items() if value}
