"""Collage: pointing at the right one of four images (FIxLIP, Baniecki et al. 2025)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from secondsight.data.grounded import Box, GroundedCaption, GroundedDataset
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.base import Record, groups
from secondsight.evaluation.experiments.grounding import Grounding
from secondsight.evaluation.maps import span_map
from secondsight.evaluation.setting import Setting
from secondsight.inputs.images import open_image
from secondsight.support.errors import InputError
from secondsight.visual.charts import histograms

RULE = "centre"
CHANCE = 0.25


class Collage(Grounding):
    """Four images in one: is a phrase's attribution in the quadrant that shows it? (FIxLIP's game.)"""

    name: ClassVar[str] = "collage"

    def __init__(self, *, size: int = 448, **options: Any) -> None:
        super().__init__(**options)
        self.size = size
        self._examples: list[GroundedCaption] = []

    def examples(self, data: GroundedDataset) -> Iterator[GroundedCaption]:
        """All captions; each is combined with three images of the data set that show none of its classes."""
        self._examples = list(data)
        return iter(self._examples)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each phrase: the signed share of its quadrant, and whether the highest cell lies in it."""
        collage_example, quadrant = self._collage(example)
        records = []
        for phrase in example.phrases:
            try:
                map_, layout = span_map(*setting.explain_span(collage_example, phrase.span))
            except InputError:
                continue  # the phrase was cut from a long caption
            arguments = (map_, [quadrant], layout.image_size, layout.frame, RULE)
            records.append(
                {
                    "kind": "case",
                    "label": phrase.label,
                    "words": example.words(phrase),
                    "share": measures.signed_share(*arguments),
                    "hit": measures.pointing(*arguments),
                    "energy": measures.energy(*arguments),
                }
            )
        return records

    def _collage(self, example: GroundedCaption) -> tuple[GroundedCaption, Box]:
        """The caption with a collage around its image, and the image's quadrant."""
        rng = random.Random(f"{self.seed}/{example.image_key}/{example.key}")
        labels = {phrase.label for phrase in example.phrases}
        distractors = {
            candidate.image_key: candidate
            for candidate in self._examples
            if candidate.image_key != example.image_key and not labels & {r.label for r in candidate.regions}
        }
        if len(distractors) < 3:
            raise InputError("a collage needs three other images without the caption's objects")
        sample = rng.sample([distractors[key] for key in sorted(distractors)], 3)
        position = rng.randrange(4)
        tiles = [*sample[:position], example, *sample[position:]]
        picture, quadrants = draw_collage([tile.image for tile in tiles], self.size)
        key = f"collage {example.key}"
        return GroundedCaption(key, f"{key} {self.seed}", picture, example.caption), quadrants[position]

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Mean signed share and hits."""
        rows = [
            {
                "setting": setting,
                "phrases": len(group),
                "signed share": group["share"].mean(),
                "hits": group.hit.mean(),
                "mean PGE": group.energy.mean(),
                "chance": CHANCE,
            }
            for setting, group in groups(frame, "setting")
        ]
        return {"overall": pd.DataFrame(rows)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Distributions of the signed share."""
        shares = {str(setting): group["share"].to_numpy() for setting, group in groups(frame, "setting")}
        return {"share": histograms(shares, "signed share of attribution in the right quadrant", "")}


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
