"""Misses as cases of a report: the photographs under the lead's map, and texts with what each word adds to the lead."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

from secondsight.answers.collection import Collection
from secondsight.answers.pictures import coloured_words, photograph
from secondsight.answers.report import Case
from secondsight.answers.retrieval.misses import Miss

HEIGHT = 240
"""The height of two photographs beside each other, in pixels."""

GAP = 6


def case_of(miss: Miss, collection: Collection) -> Case:
    """A miss as a case. Red speaks for the winner and blue for the right one, in every picture and word."""
    margin = miss.lead.margin
    first, second = (hit.entry.layout for hit in (miss.lead.first, miss.lead.second))
    values = margin.left_layout.split(margin.matrix.double().sum(1))
    facts = (
        f"winner {miss.winner} {miss.lead.first.score:.4f}, right {miss.right} {miss.lead.second.score:.4f} "
        f"(rank {miss.rank}); {miss.reason}: {miss.sentence()}"
    )
    if first.modality == "image":
        photos = photograph(collection, miss.winner), photograph(collection, miss.right)
        columns = margin.matrix.double().sum(0) + margin.right_effects.double()
        words = coloured_words(margin.right_layout, columns)
        if photos[0] is None or photos[1] is None:
            return Case(words=words, facts=facts)
        heats = [layout.heatmap(part).numpy() for layout, part in zip((first, second), values, strict=True)]
        photo, heat = beside([photos[0], photos[1]], heats)
        return Case(photo, heat, words=words, facts=f"On the left the {facts}", width=2 * HEIGHT)
    words = [
        ("winner: ", None),
        *coloured_words(first, values[0]),
        (" · right: ", None),
        *coloured_words(second, values[1]),
    ]
    if miss.by_query_words:
        columns = margin.matrix.double().sum(0) + margin.right_effects.double()
        words = [("query: ", None), *coloured_words(margin.right_layout, columns), (" · ", None), *words]
        return Case(words=words, facts=facts)
    query = photograph(collection, miss.query)
    shown = None if query is None else margin.right_layout.heatmap(margin.toward_right(None)).double().numpy()
    return Case(query, shown, words=words, facts=facts, width=HEIGHT)


def beside(photos: Iterable[Image.Image], heats: Iterable[np.ndarray]) -> tuple[Image.Image, np.ndarray]:
    """Photographs and their maps beside each other, of one height."""
    pictures, maps = [], []
    for photo, heat in zip(photos, heats, strict=True):
        size = max(round(photo.width * HEIGHT / photo.height), 1), HEIGHT
        pictures.append(np.asarray(photo.convert("RGB").resize(size, Image.Resampling.LANCZOS)))
        maps.append(np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)))
        pictures.append(np.full((HEIGHT, GAP, 3), 255, np.uint8))
        maps.append(np.zeros((HEIGHT, GAP), np.float32))
    return Image.fromarray(np.concatenate(pictures[:-1], 1)), np.concatenate(maps[:-1], 1).astype(np.float64)
