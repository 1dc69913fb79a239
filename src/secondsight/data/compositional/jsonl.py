"""The schema as a file: a comparison a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from secondsight.data.compositional.schema import Comparison, Comparisons, read_comparisons
from secondsight.data.grounded import EntryError, existing_folder, parse_box
from secondsight.data.jsonl import parse_phrase, parse_region, phrase_to_json, region_to_json
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, brief, reading


def read_compositional(file: str | Path, images: str | Path | None = None) -> Comparisons:
    """The comparisons of a file with one JSON object a line; lines that cannot be used become problems.

    An object has "images" (paths relative to `images` or to the file), "captions", and optionally "fits" (for every image
    the numbers of the captions that fit it, from 0; a plain list of numbers for a single image; by default caption 0 fits
    image 0, caption 1 fits image 1, …), "tag" (a text or several), "id", "group", "kinds" and "crops" as `Comparison` has
    them, and "phrases" for every caption and "regions" for every image, each a list as `Jsonl` has it. Raises `InputError`
    for a file that does not exist or is no text.
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
    return read_comparisons(path.name, lines, parse)


def _comparison(key: str, entry: Any, folder: Path, masks: Path) -> Comparison:
    fields = entry if isinstance(entry, dict) else {}
    names: Any = fields.get("images")
    captions: Any = fields.get("captions")
    if not _are_texts(names) or not _are_texts(captions) or "" in names:
        raise EntryError('not an object with "images" and "captions", lists of texts')
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


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _fits(value: Any, images: int) -> tuple[tuple[int, ...], ...]:
    """Lists of numbers for every image; where there are none, a caption fits the image of its number."""
    if value is None:
        return tuple((image,) for image in range(images))
    if images == 1 and _are_numbers(value):
        value = [value]
    if not isinstance(value, list) or not all(_are_numbers(numbers) for numbers in value):
        raise EntryError('"fits" is not a list of numbers for every image')
    return tuple(map(tuple, value))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(number, int) for number in value)


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
