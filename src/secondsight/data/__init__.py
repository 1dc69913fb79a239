"""Data sets of images, captions and boxes, read from their official files on disk."""

from __future__ import annotations

from pathlib import Path

from secondsight.data.coco import Coco, PhraseFinder, coco_synonyms
from secondsight.data.files import Jsonl, SentencePair, photographs, stsb, sugarcrepe, write_jsonl
from secondsight.data.flickr30k import Flickr30k
from secondsight.data.grounded import (
    GroundedCaption,
    GroundedDataset,
    ListedDataset,
    Negative,
    Phrase,
    Region,
)
from secondsight.data.hnc import Hnc
from secondsight.data.negatives import hard_negatives
from secondsight.data.scenes import Scenes, export_coco, open_scenes
from secondsight.support.errors import InputError

KINDS = {
    "coco": "coco:FOLDER[#SPLIT]: annotations/captions_SPLIT.json, instances_SPLIT.json and the images",
    "flickr30k": "flickr30k:FOLDER[#SPLIT]: Sentences, Annotations, flickr30k-images",
    "hnc": "hnc:FILE.json#IMAGES: HNC's captions and the folder of Visual Genome's images",
    "jsonl": "jsonl:FILE.jsonl[#IMAGES]: a JSON object a line",
    "scenes": "scenes:STYLE[/COUNT][#SEED]: the package's own world, drawn as it is read; noto, twemoji or fluent",
    "sugarcrepe": "sugarcrepe:FILE.json#IMAGES: SugarCrepe and the folder of COCO's val2017",
}
"""Kinds of data sets and how to name them."""


def open_data(spec: str | Path) -> GroundedDataset:
    """The data set that `KIND:PATH[#PART]` names; a path alone is recognised by what lies there."""
    kind, found, rest = str(spec).partition(":")
    if not found or kind not in KINDS:
        if found and "/" not in kind and "\\" not in kind and not Path(spec).exists():
            raise InputError(f"unknown kind of data {kind!r}; known: {', '.join(KINDS)}")
        kind, rest = _recognised(str(spec)), str(spec)
    if kind == "scenes":
        return open_scenes(rest)
    where, _, part = rest.partition("#")
    if kind == "coco":
        return Coco(where, part or None)
    if kind == "flickr30k":
        return Flickr30k(where, part or None)
    if kind == "jsonl":
        return Jsonl(where, part or None)
    if not part:
        raise InputError(f"{spec!r} does not say where the images are: {KINDS[kind]}")
    return Hnc(where, part) if kind == "hnc" else sugarcrepe(where, part)


def _recognised(spec: str) -> str:
    place = Path(spec.partition("#")[0])
    if not place.exists():
        raise InputError(f"data {str(place)!r} does not exist")
    if place.suffix == ".jsonl":
        return "jsonl"
    if (place / "annotations").is_dir():
        return "coco"
    if (place / "Sentences").is_dir():
        return "flickr30k"
    raise InputError(f"{str(place)!r} is no data set known by its files; name its kind: {', '.join(KINDS.values())}")


__all__ = [
    "KINDS",
    "Coco",
    "Flickr30k",
    "GroundedCaption",
    "GroundedDataset",
    "Hnc",
    "Jsonl",
    "ListedDataset",
    "Negative",
    "Phrase",
    "PhraseFinder",
    "Region",
    "Scenes",
    "SentencePair",
    "coco_synonyms",
    "export_coco",
    "hard_negatives",
    "open_data",
    "photographs",
    "stsb",
    "sugarcrepe",
    "write_jsonl",
]
