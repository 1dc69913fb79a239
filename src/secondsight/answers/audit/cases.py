"""Cases of claims about words and regions: the photograph under the word's map, and the caption as the region sees it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from secondsight.algebra.interactions import Interactions
from secondsight.answers.collection import Collection
from secondsight.answers.pictures import scored_pieces
from secondsight.answers.report import Case
from secondsight.data.grounded import Box
from secondsight.evaluation.maps import image_layout
from secondsight.inputs.photographs import open_image
from secondsight.support.errors import InputError


def map_case(
    collection: Collection,
    number: int,
    span: tuple[int, int],
    region: Float[np.ndarray, " cell"],
    boxes: Sequence[Box],
    facts: str,
    others: Sequence[Box] = (),
) -> Case:
    """Pair `number` under the map of a span; words are coloured by what they put into a region, given by its cells' weights."""
    pair, example = collection.interactions(number), collection.example(number)
    try:
        photo = open_image(example.image)
    except InputError:
        photo = None
    heat = pair.heatmap(span).double().numpy()
    return Case(photo, heat, boxes, _words(pair, region), facts, others)


def _words(pair: Interactions, region: Float[np.ndarray, " cell"]) -> list[tuple[str, float | None]]:
    layout = image_layout(pair.left_layout)
    weights = torch.zeros(layout.size, dtype=torch.float64)
    weights[layout.visible] = torch.from_numpy(np.array(region, dtype=np.float64))
    tokens = pair.attributions.T @ weights.to(pair.right_effects)
    text = pair.right_layout
    return scored_pieces(text, {word: float(tokens[list(word.features)].sum()) for word in text.words})
