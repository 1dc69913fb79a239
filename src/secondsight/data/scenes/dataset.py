"""Scenes as a grounded data set, and as files in COCO's format."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from secondsight.data.grounded import Box, GroundedCaption, GroundedDataset, Negative, Phrase, Region
from secondsight.data.scenes import compose
from secondsight.data.scenes.captions import describe, wrong
from secondsight.data.scenes.world import STYLES, things
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, ensure_folder

FULLY = 0.8
"""An object that shows less than this share of itself counts as covered."""


class Scenes(GroundedDataset):
    """`count` scenes, each with `captions` captions, drawn in a style; the same for the same arguments on every machine.

    `size` is the images' side in pixels; `most` bounds the number of objects; `correlated` is the probability that a
    scene's objects share a theme and its place; with `every`, captions leave no object out. Negatives are one wrong
    caption of each kind that a caption allows. Raises `InputError` for an unknown style or numbers out of range.
    """

    def __init__(
        self,
        count: int = 200,
        *,
        style: str = "noto",
        seed: int = 0,
        captions: int = 1,
        size: int = 96,
        most: int = 4,
        correlated: float = 0.6,
        every: bool = False,
    ) -> None:
        if style not in STYLES:
            raise InputError(f"unknown style {style!r}; known: {', '.join(STYLES)}")
        if count < 1 or captions < 1:
            raise InputError(f"{count} scenes with {captions} captions each: at least one of both is needed")
        if not 24 <= size <= 1024:
            raise InputError(f"size={size!r} must lie between 24 and 1024 pixels")
        if not 1 <= most <= 4 or not 0 <= correlated <= 1:
            raise InputError(f"most={most!r} must lie in 1 … 4, correlated={correlated!r} in 0 … 1")
        super().__init__(f"scenes ({style}, seed {seed})")
        self.count, self.style, self.seed, self.captions, self.size = count, style, seed, captions, size
        self.most, self.correlated, self.every = most, correlated, every
        self._drawn: tuple[int, compose.Scene, compose.Drawn] | None = None

    def _count(self) -> int:
        return self.count * self.captions

    def _key(self, index: int) -> str:
        return f"{index // self.captions:05d}-{index % self.captions}"

    def scene(self, index: int) -> tuple[compose.Scene, compose.Drawn]:
        """What scene number `index` shows, and its pixels and masks."""
        if self._drawn is None or self._drawn[0] != index:
            rng = random.Random(f"scene/{self.seed}/{index}")
            made = compose.make(rng, most=self.most, correlated=self.correlated)
            self._drawn = (index, made, compose.draw(made, self.style, self.size))
        return self._drawn[1:]

    def _read(self, index: int) -> GroundedCaption:
        number, which = divmod(index, self.captions)
        scene, drawn = self.scene(number)
        rng = random.Random(f"caption/{self.seed}/{number}/{which}")
        caption = describe(scene, rng, every=self.every)
        boxes = [box_of(mask) for mask in drawn.masks]
        phrases = tuple(Phrase(span, tuple(boxes[i] for i in noun.of), noun.name) for noun, span in caption.spans())
        regions = tuple(
            Region(one.name, box, things()[one.name].group, visible=share)
            for one, box, share in zip(scene.objects, boxes, drawn.visible, strict=True)
        )
        negatives = tuple(Negative(w.caption.text(), w.now, w.was, w.kind) for w in wrong(scene, caption, rng))
        return GroundedCaption(
            self._key(index),
            f"{self.style}-{self.seed}-{self.size}-{number:05d}",
            Image.fromarray(drawn.pixels),
            caption.text(),
            phrases,
            regions,
            negatives,
            {"theme": scene.theme, "background": scene.background.kind},
        )


def box_of(mask: Bool[np.ndarray, "height width"]) -> Box:
    """The smallest box around a mask's pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def open_scenes(spec: str) -> Scenes:
    """The data set that `STYLE[/COUNT][#SEED]` names: "noto", "twemoji/500", "fluent/100#3"."""
    named, _, seed = spec.partition("#")
    style, _, count = named.partition("/")
    try:
        return Scenes(int(count or 200), style=style or "noto", seed=int(seed or 0))
    except ValueError:
        raise InputError(f"'scenes:{spec}' is not of the form scenes:STYLE[/COUNT][#SEED]") from None


def export_coco(scenes: Scenes, folder: str | os.PathLike[str], split: str = "val") -> Path:
    """Write scenes as COCO does: images/, annotations/captions_SPLIT.json and instances_SPLIT.json with masks.

    Segmentations are run-length encoded; "visible" and "theme" say what COCO does not know. The folder must be new or
    hold no such split. Returns it.
    """
    try:
        from pycocotools.mask import encode
    except ImportError as problem:
        raise InputError("writing COCO's format needs pycocotools: pip install 'secondsight[eval]'") from problem
    place = Path(folder)
    files = {kind: place / "annotations" / f"{kind}_{split}.json" for kind in ("captions", "instances")}
    for file in files.values():
        if file.exists():
            raise InputError(f"{str(file)!r} exists: choose another folder or split")
    ensure_folder(place / "annotations")
    ensure_folder(place / split)
    ids = {name: i for i, name in enumerate(things(), 1)}
    categories = [{"id": ids[t.name], "name": t.name, "supercategory": t.group} for t in things().values()]
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for number in range(scenes.count):
        scene, drawn = scenes.scene(number)
        name = f"{number:06d}.png"
        with atomic(place / split / name) as stream:
            Image.fromarray(drawn.pixels).save(stream, format="PNG")
        about = {"id": number, "file_name": name, "width": scenes.size, "height": scenes.size, "theme": scene.theme}
        images.append(about)
        for one, mask, share in zip(scene.objects, drawn.masks, drawn.visible, strict=True):
            x0, y0, x1, y1 = box_of(mask)
            code = encode(np.asfortranarray(mask.astype(np.uint8)))
            found: dict[str, Any] = {"id": len(instances) + 1, "image_id": number, "iscrowd": 0}
            found |= {
                "category_id": ids[one.name],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(mask.sum()),
                "visible": round(share, 4),
            }
            segmentation = {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}
            instances.append({**found, "segmentation": segmentation})
        for which in range(scenes.captions):
            caption = scenes[number * scenes.captions + which].caption
            texts.append({"id": len(texts) + 1, "image_id": number, "caption": caption})
    info = {"description": scenes.name, "version": "1"}
    written = {
        "captions": {"info": info, "images": images, "annotations": texts},
        "instances": {"info": info, "images": images, "annotations": instances, "categories": categories},
    }
    for kind, content in written.items():
        with atomic(files[kind]) as stream:
            stream.write(json.dumps(content).encode())
    return place
