"""Cases of claims about words and regions: the photograph under the word's map, and the caption as the region sees it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from secondsight.answers.collection import Collection
from secondsight.answers.pictures import coloured_words, photograph
from secondsight.answers.report import Case
from secondsight.data.grounded import Box
from secondsight.evaluation.maps import image_layout


def map_case(
    collection: Collection,
    keys: tuple[str, str],
    span: tuple[int, int],
    region: Float[np.ndarray, " cell"],
    boxes: Sequence[Box],
    facts: str,
    others: Sequence[Box] = (),
) -> Case:
    """An image and a caption, which need not belong together, under the map of a span of the caption.

    Words are coloured by what they put into a region, which is given by the weights of its cells.
    """
    image, text = keys
    pair = collection.images[image] @ collection.texts[text]
    layout = image_layout(pair.left_layout)
    weights = torch.zeros(layout.size, dtype=torch.float64)
    weights[layout.visible] = torch.from_numpy(np.array(region, dtype=np.float64))
    tokens = pair.attributions.T @ weights.to(pair.right_effects)
    words = coloured_words(pair.right_layout, tokens)
    heat = pair.heatmap(span).double().numpy()
    return Case(photograph(collection, image), heat, boxes, words, facts, others)
