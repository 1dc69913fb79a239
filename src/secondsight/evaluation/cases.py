"""Which phrases of a caption can be judged by a box ([M25] §4.2)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from secondsight.algebra.layout import GridLayout
from secondsight.data.grounded import Box, GroundedCaption, Phrase
from secondsight.data.masks import Mask
from secondsight.evaluation import measures


@dataclass(frozen=True)
class Case:
    """A phrase with one box: the part of the box that the model sees, and the share of the visible image it fills.

    `share` is the chance level of pointing; `mask` has the object's pixels, where the data set knows them.
    """

    phrase: Phrase
    box: Box
    share: float
    mask: Mask | None = None


def find_cases(example: GroundedCaption, layout: GridLayout) -> tuple[list[Case], Counter[str]]:
    """The phrases that can be judged, and how many were skipped for which reason.

    A phrase can be judged if the image has one instance of its class, whose box lies within the model's crop and is larger
    than a patch. A class counts once.
    """
    patch = measures.area(layout.frame) / (layout.grid[0] * layout.grid[1])
    cases: list[Case] = []
    skipped: Counter[str] = Counter()
    for phrase in example.phrases:
        instances = [region for region in example.regions if region.label == phrase.label]
        if len(phrase.boxes) != 1 or len(instances) > 1:
            skipped["several instances"] += 1
            continue
        box = measures.clip_box(phrase.boxes[0], layout.frame)
        if box is None:
            skipped["outside the crop"] += 1
        elif measures.area(box) <= patch:
            skipped["smaller than a patch"] += 1
        elif len(instances) == 1 and any(case.phrase.label == phrase.label for case in cases):
            skipped["named again"] += 1
        else:
            mask = instances[0].mask if instances else None
            cases.append(Case(phrase, box, measures.area(box) / measures.area(layout.frame), mask))
    return cases, skipped
