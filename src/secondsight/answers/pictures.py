"""What cases show: the photograph of an image where the data is at hand, and a caption in pieces with their scores."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from secondsight.algebra.layout import Layout, Word
from secondsight.answers.collection import Collection
from secondsight.inputs.photographs import open_image
from secondsight.support.errors import InputError


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


def scored_pieces(layout: Layout, scores: Mapping[Word, float]) -> list[tuple[str, float | None]]:
    """The caption in pieces that give it when they are joined, each word with its score, the text between with None."""
    if layout.text is None:
        return [(f"{word.text} ", scores.get(word)) for word in layout.words]
    pieces: list[tuple[str, float | None]] = []
    end = 0
    for word in layout.words:
        if word.start > end:
            pieces.append((layout.text[end : word.start], None))
        pieces.append((layout.text[word.start : word.end], scores.get(word)))
        end = word.end
    rest = layout.text[end:]
    return [*pieces, (rest, None)] if rest else pieces
