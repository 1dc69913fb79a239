"""The same photographs explained by every setting, side by side: a page for a browser and one picture."""

from __future__ import annotations

import base64
import io
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from secondsight.evaluation.experiments.base import of_kind
from secondsight.evaluation.report import TEMPLATES, small_picture, thumbnail, write_bytes
from secondsight.evaluation.run import Run
from secondsight.evaluation.studies.columns import COLUMNS, paired_scores
from secondsight.inputs.photographs import open_image
from secondsight.visual.charts import picture_table
from secondsight.visual.saving import encode_figure

WIDTH = 110
"""Width of the page's pictures in pixels."""

JPEG_QUALITY = 85


@dataclass(frozen=True)
class Cell:
    """A picture, its PGE (None for the photograph itself), and whether that is the highest of its photograph."""

    picture: Image.Image
    energy: float | None = None
    best: bool = False

    @property
    def source(self) -> str:
        """The picture as a JPEG file in base64."""
        buffer = io.BytesIO()
        self.picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
        return base64.b64encode(buffer.getvalue()).decode()


def choose_cases(pointing: Run, count: int, seed: int) -> pd.DataFrame:
    """Records of `count` phrases that every setting judged, of different images, their classes as different as can be.

    A seeded choice; each record is that of the first setting.
    """
    common = set(paired_scores(COLUMNS[0], {"pointing": pointing}).values.index)
    cases = of_kind(pointing.frame, "case")
    cases = cases[cases["setting"] == pointing.settings[0].label]
    names = cases["key"] + " " + cases["span"].map(str) + " " + cases["words"]
    order = [index for index, name in names.items() if name in common]
    random.Random(seed).shuffle(order)
    chosen: list[Any] = []
    images: set[str] = set()
    used: dict[str, int] = {}
    while len(chosen) < count:
        free = [i for i in order if pointing.examples[cases.loc[i, "key"]].image_key not in images]
        if not free:
            break
        # The first of the least shown class.
        best = min(free, key=lambda i: used.get(cases.loc[i, "label"], 0))
        chosen.append(best)
        images.add(pointing.examples[cases.loc[best, "key"]].image_key)
        used[cases.loc[best, "label"]] = used.get(cases.loc[best, "label"], 0) + 1
    return cases.loc[chosen]


def write_photographs(folder: Path, pointing: Run, overall: pd.DataFrame, count: int, seed: int) -> None:
    """Write photographs.html and photographs.png: a row for every setting, a column for every photograph."""
    cases = choose_cases(pointing, count, seed)
    first = [_photograph(pointing, case) for _, case in cases.iterrows()]
    rows = [(setting.label, _row(pointing, setting.label, cases)) for setting in pointing.settings]
    highest = [max(row[i].energy or 0.0 for _, row in rows) for i in range(len(first))]
    rows = [
        (
            label,
            [Cell(cell.picture, cell.energy, cell.energy == top > 0) for cell, top in zip(row, highest, strict=True)],
        )
        for label, row in rows
    ]
    facts = {label: _facts(overall, label) for label, _ in rows}
    words = [str(case["words"]) for _, case in cases.iterrows()]
    captions = [pointing.examples[case["key"]].caption for _, case in cases.iterrows()]
    page = TEMPLATES.get_template("photographs.html.j2").render(
        title="the same photographs by every method",
        about=f"{pointing.data.summary()}. {len(first)} phrases with one box, drawn at random (seed {seed}). Red raises the "
        "similarity, blue lowers it; each map has its own scale. White and black: the object's box. The number is PGE, the "
        "share of positive attribution in the box; bold where it is the highest of its photograph.",
        width=WIDTH, words=words, captions=captions, photographs=first, rows=rows, facts=facts,
    )  # fmt: skip
    write_bytes(folder / "photographs.html", page.encode())
    table = [("", first, words)] + [
        (f"{label}\n{facts[label]}", row, [f"{cell.energy:.2f}" for cell in row]) for label, row in rows
    ]
    drawn = [(name, [np.asarray(cell.picture) for cell in row], texts) for name, row, texts in table]
    write_bytes(folder / "photographs.png", encode_figure(picture_table(drawn), "png", 150))


def _photograph(pointing: Run, case: Any) -> Cell:
    image = open_image(pointing.examples[case["key"]].image)
    return Cell(small_picture(image, None, [case["box"]], WIDTH).convert("RGB"))


def _row(pointing: Run, label: str, cases: pd.DataFrame) -> list[Cell]:
    """One setting's maps of the cases."""
    records = of_kind(pointing.frame, "case")
    records = records[records["setting"] == label]
    cells = []
    for _, case in cases.iterrows():
        same = (records["key"] == case["key"]) & (records["span"].map(str) == str(case["span"]))
        record = records[same].iloc[0].to_dict()
        picture = thumbnail(pointing, record, WIDTH)
        cells.append(
            Cell((picture or Image.new("RGB", (WIDTH, WIDTH), "white")).convert("RGB"), float(record["energy"]))
        )
    return cells


def _facts(overall: pd.DataFrame, label: str) -> str:
    """A setting's pointing and cost in a line."""
    row = overall[overall["setting"] == label].iloc[0]
    parts = [f"PGA {row['PGA']:.2f}", f"PGE {row['PGE']:.2f}"]
    if not np.isnan(row["passes"]):
        parts.append(f"{row['passes']:.1f} passes" if row["passes"] < 100 else f"{row['passes']:.0f} passes")
    if row["order"] == 1:
        parts.append("first order")
    if row["adds up"] == "no":
        parts.append("does not add up")
    return ", ".join(parts)
