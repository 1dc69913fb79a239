"""Every image's answer, and why: the margin of its class over the strongest other one, in parts that add up exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import GridLayout, Layout
from secondsight.answers.zero_shot.classes import Classifier, exact
from secondsight.data.grounded import Box
from secondsight.data.labelled import LabelledData
from secondsight.scale.lead import NINTHS, ninths
from secondsight.scale.store import Store
from secondsight.support.errors import InputError

BY_WORD = (
    "caption alone",
    "image alone",
    "template words",
    "right class's words",
    "other class's words",
    "special positions",
    "not attributed",
)
"""A margin's parts by word; they add up to it.

"caption alone" is what the prompts differ by against the image's reference, so whatever the picture; "image alone" what the
picture differs by against the prompts' references. The others are interactions of the picture with the words of the two
prompts; those with their special positions are told apart. "not attributed" is the method's measured error.
"""


@dataclass(frozen=True, eq=False)
class Margins:
    """`records` has a row per image; `similarities` (image, class) and `alone`, the part of them that is in the caption alone.

    `names` are the classes, in the order of the columns.
    """

    records: pd.DataFrame
    similarities: Float[np.ndarray, "image cls"]
    alone: Float[np.ndarray, "image cls"]
    names: Sequence[str]

    @property
    def labels(self) -> Int[np.ndarray, " image"]:
        """Every image's class as its number."""
        number = {name: index for index, name in enumerate(self.names)}
        return np.array([number[label] for label in self.records["label"]])

    @property
    def usual(self) -> Float[np.ndarray, " cls"]:
        """Every class's mean similarity to all images."""
        mean: np.ndarray = self.similarities.mean(0)
        return mean


def explain_margins(
    data: LabelledData,
    images: Store,
    classifier: Classifier,
    progress: Callable[[int, int], None] | None = None,
) -> Margins:
    """The answer for every image of `data` that is in the store; no encoder is needed."""
    weights = classifier.weights
    # Without the residual: a caption's reference and the sum of its vectors, as in the pair's base and effects.
    directions = torch.stack([part.reference_embedding + part.rows.total() for part in classifier.parts])
    scales = torch.tensor([part.scale for part in classifier.parts], dtype=torch.float64)
    rows, similarities, alone = [], [], []
    numbers = [number for number, key in enumerate(data.keys) if key in images]
    for count, number in enumerate(numbers, 1):
        image = exact(images[data.keys[number]])
        scores = weights @ image.embedding * image.scale
        rows.append(_record(data, number, image, scores, classifier))
        similarities.append(scores.numpy())
        alone.append((directions @ image.reference_embedding * scales * image.scale).numpy())
        if progress:
            progress(count, len(numbers))
    return Margins(pd.DataFrame(rows), np.stack(similarities), np.stack(alone), classifier.names)


def _record(
    data: LabelledData, number: int, image: Contributions, scores: Float[Tensor, " cls"], classifier: Classifier
) -> dict[str, Any]:
    names = classifier.names
    label = names.index(data.labels[number])
    order = scores.argsort(descending=True, stable=True).tolist()
    rival = order[0] if order[0] != label else order[1]
    pair = image @ (classifier.parts[label] - classifier.parts[rival])
    parts = margin_parts(pair)
    correct = order[0] == label
    cells = cell_values(pair)
    return {
        "key": data.keys[number],
        "label": names[label],
        "predicted": names[order[0]],
        "correct": correct,
        "rank": order.index(label) + 1,
        "similarity": float(scores[label]),
        "other class": names[rival],
        "margin": pair.similarity,
        **parts,
        "reason": max(BY_WORD[:-1], key=lambda name: parts[name] if correct else -parts[name]),
        **_regions(image.layout, cells),
        **_object_facts(image.layout, cells if correct else -cells, _boxes(data, number)),
    }


def margin_parts(pair: Interactions) -> dict[str, float]:
    """The margin of two classes of `Classifier.parts`, split into the parts of `BY_WORD`."""
    template, right, special = pair.matrix.sum(0).unflatten(0, (2, 3)).unbind(1)
    parts = dict(
        zip(
            BY_WORD[:-1],
            [
                pair.base + float(pair.right_effects.sum()),
                float(pair.left_effects.sum()),
                float(template.sum()),
                float(right[0]),
                float(right[1]),
                float(special.sum()),
            ],
            strict=True,
        )
    )
    return {**parts, "not attributed": pair.similarity - sum(parts.values())}


def cell_values(pair: Interactions) -> Float[Tensor, " feature"]:
    """What each feature of the image adds to the margin: with the prompts' words, and alone."""
    return pair.matrix.sum(1) + pair.left_effects


def _regions(layout: Layout, values: Float[Tensor, " feature"]) -> dict[str, float]:
    """The features' values by the picture's ninths, and the rest; with "caption alone" they make up the margin too."""
    if not isinstance(layout, GridLayout):
        return {}
    by_ninth = dict(zip(NINTHS, ninths(layout, values), strict=True))
    return {**by_ninth, "image's special positions": float(values.sum()) - sum(by_ninth.values())}


def _boxes(data: LabelledData, number: int) -> Sequence[Box]:
    return data[number].boxes if data.has_boxes else ()


def _object_facts(layout: Layout, values: Float[Tensor, " feature"], boxes: Sequence[Box]) -> Mapping[str, float]:
    """How much of the winner's positive attribution lies outside the object, and how much of the area does."""
    if not boxes or not isinstance(layout, GridLayout):
        return {}
    try:
        covered = torch.stack([layout.cover(box).double() for box in boxes]).amax(0)
    except InputError:
        # The model sees nothing of the object.
        return {}
    outside = (1 - covered)[layout.visible]
    positive = values[layout.visible].clamp(min=0)
    total = float(positive.sum())
    share = float((positive * outside).sum()) / total if total else float("nan")
    return {"outside the object": share, "area outside": float(outside.mean())}
