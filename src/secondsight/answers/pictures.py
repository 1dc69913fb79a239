"""What cases show: the photograph of an image where the data is at hand, and a caption in pieces with their scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from secondsight.algebra.layout import Layout
from secondsight.answers.collection import Collection
from secondsight.inputs.photographs import open_image
from secondsight.support.errors import InputError

Pieces = list[tuple[str, float | None]]
"""Parts of a text, each with the number that colours it, or None."""


def photograph(collection: Collection, image: str) -> Image.Image | None:
    """The photograph with this key; None where the data is not at hand or the file cannot be read any more."""
    number = next((number for number, (key, _) in enumerate(collection.pairs) if key == image), None)
    if number is None or collection.data is None:
        return None
    try:
        return open_image(collection.example(number).image)
    except InputError:
        return None


def text_of(layout: Layout) -> str:
    """The caption, or its tokens where its wording is unknown."""
    return layout.text if layout.text is not None else " ".join(word.text for word in layout.words)


def coloured_words(layout: Layout, values: Float[Tensor, " feature"] | Float[np.ndarray, " feature"]) -> Pieces:
    """A text in pieces, each word with the sum of its features' values, and None for what stands between words."""
    sums = {word: float(values[list(word.features)].sum()) for word in layout.words}
    if layout.text is None:
        return [(f"{word.text} ", value) for word, value in sums.items()]
    return coloured_spans(layout.text, {(word.start, word.end): value for word, value in sums.items()})


def coloured_spans(text: str, scores: Mapping[tuple[int, int], float]) -> Pieces:
    """A text in pieces that give it when they are joined: each (start, end) with its score, the text between with None."""
    pieces: Pieces = []
    end = 0
    for (start, stop), score in sorted(scores.items()):
        pieces += [(text[end:start], None), (text[start:stop], score)]
        end = stop
    return [piece for piece in [*pieces, (text[end:], None)] if piece[0]]
