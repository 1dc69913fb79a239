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

from secondsight.data.grounded import GroundedCaption, GroundedDataset, Negative, Phrase, Region
from secondsight.data.masks import box_of, mask_of
from secondsight.data.scenes import compose
from secondsight.data.scenes.captions import Caption, describe, wrong_captions
from secondsight.data.scenes.world import STYLES, classes
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, ensure_folder

FULLY = 0.8
"""An object of which a smaller share is visible counts as covered."""


class Scenes(GroundedDataset):
    """`count` scenes with `captions` captions each, drawn in a style; the same arguments give the same on any machine.

    `size` is the images' side in pixels; `most` bounds the number of objects; `correlated` is the probability that a
    scene's objects share a theme and its place; with `every`, captions name all objects. The negatives are one wrong
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
            raise InputError(f"count={count!r} and captions={captions!r} must both be at least 1")
        if not 24 <= size <= 1024:
            raise InputError(f"size={size!r} must lie between 24 and 1024 pixels")
        if not 1 <= most <= 4 or not 0 <= correlated <= 1:
            raise InputError(f"most={most!r} must lie in 1 … 4, correlated={correlated!r} in 0 … 1")
        super().__init__(f"scenes ({style}, seed {seed})")
        self.count, self.style, self.seed, self.captions, self.size = count, style, seed, captions, size
        self.most, self.correlated, self.every = most, correlated, every
        self._last: tuple[int, compose.Scene, compose.Drawing] | None = None

    def __len__(self) -> int:
        return self.count * self.captions

    def key(self, index: int) -> str:
        """SCENE-CAPTION."""
        return f"{index // self.captions:05d}-{index % self.captions}"

    def scene(self, index: int) -> tuple[compose.Scene, compose.Drawing]:
        """Scene number `index`, and its pixels and masks."""
        if self._last is None or self._last[0] != index:
            rng = random.Random(f"scene/{self.seed}/{index}")
            scene = self.random_scene(rng)
            self._last = (index, scene, compose.draw(scene, self.style, self.size))
        return self._last[1:]

    def random_scene(self, rng: random.Random) -> compose.Scene:
        """A scene drawn by a generator of random numbers."""
        return compose.random_scene(rng, most=self.most, correlated=self.correlated)

    def random_caption(self, scene: compose.Scene, rng: random.Random) -> Caption:
        """A caption of a scene, drawn by a generator of random numbers."""
        return describe(scene, rng, every=self.every)

    def read(self, index: int) -> GroundedCaption:
        """One caption of a scene."""
        scene_number, caption_number = divmod(index, self.captions)
        scene, drawing = self.scene(scene_number)
        rng = random.Random(f"caption/{self.seed}/{scene_number}/{caption_number}")
        caption = self.random_caption(scene, rng)
        boxes = [box_of(mask) for mask in drawing.masks]
        phrases = tuple(
            Phrase(span, tuple(boxes[i] for i in noun.objects), noun.name) for noun, span in caption.spans()
        )
        regions = tuple(
            Region(item.name, box, classes()[item.name].group, visible=share, mask=mask_of(mask))
            for item, box, share, mask in zip(scene.objects, boxes, drawing.visible, drawing.masks, strict=True)
        )
        negatives = tuple(
            Negative(wrong.caption.text(), wrong.span, wrong.replaced, wrong.kind)
            for wrong in wrong_captions(scene, caption, rng)
        )
        return GroundedCaption(
            self.key(index),
            f"{self.style}-{self.seed}-{self.size}-{scene_number:05d}",
            Image.fromarray(drawing.pixels),
            caption.text(),
            phrases,
            regions,
            negatives,
            {"theme": scene.theme, "background": scene.background.kind},
        )


def open_scenes(style_count: str, seed: str | None = None) -> Scenes:
    """The data set of a name `STYLE[/COUNT]` ("noto", "twemoji/500") and a seed."""
    style, _, count = style_count.partition("/")
    try:
        return Scenes(int(count or 200), style=style or "noto", seed=int(seed or 0))
    except InputError:
        raise
    except ValueError:
        name = style_count + (f"#{seed}" if seed else "")
        raise InputError(f"'scenes:{name}' is not of the form scenes:STYLE[/COUNT][#SEED]") from None


def export_coco(scenes: Scenes, folder: str | os.PathLike[str], split: str = "val") -> Path:
    """Write scenes as COCO does: images in SPLIT/, annotations/captions_SPLIT.json and instances_SPLIT.json with masks.

    Segmentations are run-length encoded; "visible" and "theme" are not part of COCO's format. Refuses a folder that
    already has this split. Returns the folder.
    """
    try:
        from pycocotools.mask import encode
    except ImportError as problem:
        raise InputError("writing COCO's format needs pycocotools: pip install 'secondsight[eval]'") from problem
    root = Path(folder)
    files = {kind: root / "annotations" / f"{kind}_{split}.json" for kind in ("captions", "instances")}
    for file in files.values():
        if file.exists():
            raise InputError(f"{str(file)!r} exists: choose another folder or split")
    ensure_folder(root / "annotations")
    ensure_folder(root / split)
    category_ids = {name: i for i, name in enumerate(classes(), 1)}
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for number in range(scenes.count):
        scene, drawing = scenes.scene(number)
        name = f"{number:06d}.png"
        with atomic(root / split / name) as stream:
            Image.fromarray(drawing.pixels).save(stream, format="PNG")
        size = {"width": scenes.size, "height": scenes.size}
        images.append({"id": number, "file_name": name, **size, "theme": scene.theme})
        for item, mask, share in zip(scene.objects, drawing.masks, drawing.visible, strict=True):
            code = encode(np.asfortranarray(mask.astype(np.uint8)))
            segmentation = {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}
            instances.append(
                {"id": len(instances) + 1, "image_id": number, "iscrowd": 0}
                | {"category_id": category_ids[item.name], **_mask_facts(mask), "visible": round(share, 4)}
                | {"segmentation": segmentation}
            )
        for index in range(number * scenes.captions, (number + 1) * scenes.captions):
            captions.append({"id": len(captions) + 1, "image_id": number, "caption": scenes[index].caption})
    info = {"description": scenes.name, "version": "1"}
    categories = [{"id": category_ids[c.name], "name": c.name, "supercategory": c.group} for c in classes().values()]
    contents = {
        "captions": {"info": info, "images": images, "annotations": captions},
        "instances": {"info": info, "images": images, "annotations": instances, "categories": categories},
    }
    for kind, content in contents.items():
        with atomic(files[kind]) as stream:
            stream.write(json.dumps(content).encode())
    return root


def _mask_facts(mask: Bool[np.ndarray, "height width"]) -> dict[str, Any]:
    x0, y0, x1, y1 = box_of(mask)
    return {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": int(mask.sum())}
