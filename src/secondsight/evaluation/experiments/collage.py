"""Collage: pointing at the right one of four images, with one to four named objects (FIxLIP, Baniecki et al. 2025)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from secondsight.data.grounded import Box, GroundedCaption, GroundedDataset, Phrase
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.base import Record, check_count, groups
from secondsight.evaluation.experiments.grounding import Grounding
from secondsight.evaluation.maps import span_map
from secondsight.evaluation.setting import Setting
from secondsight.inputs.images import open_image
from secondsight.support.errors import InputError
from secondsight.visual.charts import histograms

RULE = "centre"
TILES = 4
CHANCE = 1 / TILES
"""Of the share and the hits of a map that knows nothing and is positive."""

TOO_FEW = "a collage needs three other images without the caption's objects"


class Collage(Grounding):
    """Four images in one: is a phrase's attribution in the quadrant that shows it? (FIxLIP's pointing game.)

    The caption is that of one image. With `named` it is a sentence that names one object each of so many of the four images, "a
    photo of a dog and a cat"; several numbers give a sentence each about the same collage. No image shows what another one is
    named after.
    """

    name: ClassVar[str] = "collage"

    def __init__(self, *, size: int = 448, named: int | Sequence[int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        check_count("size", size, 2)
        self.size = size
        self.named = None if named is None else tuple(named) if isinstance(named, Sequence) else (named,)
        if self.named is not None and not (self.named and all(count in range(1, TILES + 1) for count in self.named)):
            raise InputError(f"named={named!r} must be one or several numbers of objects, 1 … {TILES}")
        self._examples: list[GroundedCaption] = []

    def examples(self, data: GroundedDataset) -> Iterator[GroundedCaption]:
        """All captions; each is combined with three images of the data set that show none of its classes."""
        self._examples = list(data)
        return iter(self._examples)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each phrase, of every caption: the signed share of its quadrant and the highest cell.

        "recognition" is FIxLIP's, the same for all phrases of a caption.
        """
        records = []
        for collage in [self._collage(example)] if self.named is None else self.named_collages(example):
            cases, right, total = [], 0.0, 0.0
            for phrase in collage.phrases:
                try:
                    map_, layout = span_map(*setting.explain_span(collage, phrase.span))
                except InputError:
                    continue  # the phrase was cut from a long caption
                arguments = (map_, phrase.boxes, layout.image_size, layout.frame, RULE)
                values, within = measures.inside(*arguments)
                # Right are positive values inside the quadrant and negative ones outside.
                right += float(np.where(within, values, -values).clip(min=0).sum())
                total += float(np.abs(values).sum())
                cases.append(
                    {
                        "kind": "case",
                        "label": phrase.label,
                        "words": collage.words(phrase),
                        "share": measures.signed_share(*arguments),
                        "hit": measures.pointing(*arguments),
                        "energy": measures.energy(*arguments),
                    }
                )
            counted = {} if self.named is None else {"named": len(collage.phrases)}
            recognition = right / total if total > 0 else 0.0
            records += [{**case, **counted, "recognition": recognition} for case in cases]
        return records

    def _collage(self, example: GroundedCaption) -> GroundedCaption:
        """The caption with a collage around its image, whose quadrant is the box of every phrase."""
        rng = random.Random(f"{self.seed}/{example.image_key}/{example.key}")
        labels = {phrase.label for phrase in example.phrases}
        others = {
            candidate.image_key: candidate
            for candidate in self._examples
            if candidate.image_key != example.image_key and not labels & {r.label for r in candidate.regions}
        }
        if len(others) < TILES - 1:
            raise InputError(TOO_FEW)
        sample = rng.sample([others[key] for key in sorted(others)], TILES - 1)
        position = rng.randrange(TILES)
        tiles = [*sample[:position], example, *sample[position:]]
        picture, quadrants = draw_collage([tile.image for tile in tiles], self.size)
        phrases = tuple(replace(phrase, boxes=(quadrants[position],)) for phrase in example.phrases)
        key = f"collage {example.key}"
        return GroundedCaption(key, f"{key} {self.seed}", picture, example.caption, phrases)

    def named_collages(self, example: GroundedCaption) -> list[GroundedCaption]:
        """A collage in random order under captions that name the first objects, the example's own before the others."""
        rng = random.Random(f"{self.seed}/{example.image_key}/{example.key}/named")
        tiles = self._distinct_tiles(example, rng)
        # Names are not in the order of their quadrants, which position alone would tell.
        order = rng.sample(list(tiles), TILES)
        picture, quadrants = draw_collage([tiles[name].image for name in order], self.size)
        key = f"named collage {example.key}"
        collages = []
        for count in self.named or ():
            names = list(tiles)[:count]
            caption, spans = name_objects(names)
            phrases = tuple(
                Phrase(span, (quadrants[order.index(name)],), name) for name, span in zip(names, spans, strict=True)
            )
            collages.append(GroundedCaption(f"{key} {count}", f"{key} {self.seed}", picture, caption, phrases))
        return collages

    def _distinct_tiles(self, example: GroundedCaption, rng: random.Random) -> dict[str, GroundedCaption]:
        """Four images by the object that names each, which none of the others shows."""
        tiles = {example.phrases[0].label: example}
        shown = {region.label for region in example.regions}
        images = {candidate.image_key: candidate for candidate in self._examples}
        for key in rng.sample(sorted(images), len(images)):
            candidate = images[key]
            labels = {region.label for region in candidate.regions} | {phrase.label for phrase in candidate.phrases}
            name = next((phrase.label for phrase in candidate.phrases if phrase.label not in shown), None)
            if len(tiles) < TILES and name is not None and not labels & set(tiles):
                tiles[name] = candidate
                shown |= labels
        if len(tiles) < TILES:
            raise InputError(TOO_FEW)
        return tiles

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Mean signed share, hits and recognition, by the number of named objects where captions name them."""
        rows = []
        for keys, group in groups(frame, ["setting"] if self.named is None else ["setting", "named"]):
            row = dict(zip(("setting", "named"), keys, strict=False))
            row |= {"phrases": len(group), "signed share": group["share"].mean(), "hits": group.hit.mean()}
            rows.append(
                row | {"mean PGE": group.energy.mean(), "recognition": group.recognition.mean(), "chance": CHANCE}
            )
        return {"overall": pd.DataFrame(rows)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Distributions of the signed share."""
        shares = {str(setting): group["share"].to_numpy() for setting, group in groups(frame, "setting")}
        return {"share": histograms(shares, "signed share of attribution in the right quadrant", "")}


def name_objects(names: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """A sentence that names the objects, "a photo of a dog, a cat and an ox", and each name's characters in it."""
    caption, spans = "a photo of", []
    for index, name in enumerate(names):
        last = index == len(names) - 1
        caption += ("" if not index else " and" if last else ",") + (" an " if name[:1].lower() in "aeiou" else " a ")
        spans.append((len(caption), len(caption) + len(name)))
        caption += name
    return caption, spans


def draw_collage(images: Sequence[Path | Image.Image], size: int) -> tuple[Image.Image, list[Box]]:
    """Four images as a square of `size` pixels a side, and the boxes of the quadrants, row by row."""
    half = size // 2
    picture = Image.new("RGB", (2 * half, 2 * half))
    quadrants: list[Box] = []
    for i, image in enumerate(images):
        tile = open_image(image).resize((half, half), Image.Resampling.BICUBIC)
        x, y = half * (i % 2), half * (i // 2)
        picture.paste(tile, (x, y))
        quadrants.append((float(x), float(y), float(x + half), float(y + half)))
    return picture, quadrants
