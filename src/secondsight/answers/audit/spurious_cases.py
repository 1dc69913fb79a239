"""What words put on regions of other objects, beside what the words of absent objects put there.

An image's regions are the boxes of each annotated class, and the background outside all boxes. Words of objects that are not in
the image are taken from other captions, one of every class: n images and m captions give all maps without the model.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from secondsight.algebra.contributions import Contributions
from secondsight.answers.audit.regions import BACKGROUND, background_of, boxes_of, covered_share, positive_share
from secondsight.answers.collection import Collection, Progress
from secondsight.data.grounded import Box
from secondsight.evaluation.maps import image_layout
from secondsight.support.errors import InputError

MOST_WORDS = 50
"""Words of a class, from as many captions, that are laid over other images."""

MOST_CLASSES = 100
"""Absent classes whose words are laid over an image."""

FEWEST_ABSENT = 4
"""Absent classes below which an image has no usual share to compare with."""

Row = tuple[object, ...]
"""Values of the columns of `spurious_cases`."""

COLUMNS = [
    "reading", "image", "pair", "start", "end", "class", "region", "share", "usual", "rank",
]  # fmt: skip

WITH, WITHOUT = "with the object", "without the object"
"""Whether the word is one of the image's own caption, whose object is there, or one of an object that is not."""


@dataclass(frozen=True)
class Named:
    """A word for an object: the number of the pair whose caption it is in, its characters, and its class."""

    pair: int
    span: tuple[int, int]
    label: str


@dataclass(eq=False)
class Scene:
    """What the data knows of an image: its pairs, the boxes of each class, its background, and its captions' words."""

    pairs: list[int] = field(default_factory=list)
    boxes: Mapping[str, Sequence[Box]] = field(default_factory=dict)
    background: str = BACKGROUND
    words: list[Named] = field(default_factory=list)

    @property
    def classes(self) -> set[str]:
        """Every class that is annotated or named."""
        return {*self.boxes, *(word.label for word in self.words)}


def scenes_of(collection: Collection, progress: Progress | None = None) -> dict[str, Scene]:
    """Every image with its annotations."""
    scenes: dict[str, Scene] = {}
    for number, (image, _) in enumerate(collection.pairs):
        example = collection.example(number)
        scene = scenes.setdefault(image, Scene())
        scene.pairs.append(number)
        scene.boxes, scene.background = boxes_of(example), background_of(example.facts)
        scene.words += [Named(number, phrase.span, phrase.label) for phrase in example.phrases]
        if progress is not None:
            progress("reading annotations", number + 1, len(collection))
    return scenes


def spurious_cases(
    collection: Collection, scenes: Mapping[str, Scene], *, seed: int = 0, progress: Progress | None = None
) -> pd.DataFrame:
    """Every word on every region that is not its own object.

    Columns: `reading` (`WITH` or `WITHOUT`), `image`, `pair`, `start`, `end` (the word's caption and characters), `class`,
    `region`, `share` of the word's positive attribution in the region less its own boxes, `usual`, the mean share of the words
    of other absent objects, and `rank`, the share's mid-rank among theirs in 0 … 1, which is uniform where all words are alike.
    """
    bank = _Bank(collection, scenes, seed)
    tables = []
    for done, (image, scene) in enumerate(scenes.items(), 1):
        tables.append(pd.DataFrame(_image_rows(collection, bank, image, scene), columns=COLUMNS))
        if progress is not None:
            progress("measuring words on other objects", done, len(scenes))
    cases = pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
    return cases.astype({"reading": "category", "class": "category", "region": "category"})


class _Bank:
    """Up to `MOST_WORDS` words of every class, drawn by the seed, with their vectors times the caption's scale."""

    def __init__(self, collection: Collection, scenes: Mapping[str, Scene], seed: int) -> None:
        self.collection, self.seed = collection, seed
        words: dict[str, list[Named]] = {}
        for scene in scenes.values():
            for word in scene.words:
                words.setdefault(word.label, []).append(word)
        generator = np.random.default_rng(seed)
        self.words = {
            label: [listed[i] for i in sorted(generator.permutation(len(listed))[:MOST_WORDS])]
            for label, listed in sorted(words.items())
        }
        self._vectors: dict[Named, Float[np.ndarray, " joint"] | None] = {}

    def absent(self, image: str, scene: Scene) -> list[Named]:
        """A word of every class that is not in the image, drawn anew for each image."""
        generator = np.random.default_rng([self.seed, zlib.crc32(image.encode())])
        labels = [label for label in self.words if label not in scene.classes]
        labels = [labels[i] for i in sorted(generator.permutation(len(labels))[:MOST_CLASSES])]
        words = [self.words[label][generator.integers(len(self.words[label]))] for label in labels]
        return [word for word in words if self.vector(word) is not None]

    def vector(self, word: Named) -> Float[np.ndarray, " joint"] | None:
        """The sum of the word's token vectors, scaled; None where the model has cut it off."""
        if word not in self._vectors:
            self._vectors[word] = self._read(word)
        return self._vectors[word]

    def _read(self, word: Named) -> Float[np.ndarray, " joint"] | None:
        text = self.collection.texts[self.collection.pairs[word.pair][1]]
        try:
            weights = text.layout.select(word.span)
        except InputError:
            return None
        return (weights.to(text.vectors) @ text.vectors).numpy() * text.scale

    def maps(self, image: Contributions, words: Sequence[Named]) -> Float[np.ndarray, "word cell"]:
        """The attribution of every word to the image's visible cells."""
        visible = image.layout.visible
        if image.pairing is None:
            vectors = np.stack([vector for word in words if (vector := self.vector(word)) is not None])
            maps = vectors @ image.vectors[visible].numpy().T * image.scale
            return np.asarray(maps, dtype=np.float64)
        pairs = [image @ self.collection.texts[self.collection.pairs[word.pair][1]] for word in words]
        return np.stack(
            [pair.toward_left(word.span)[visible].double().numpy() for pair, word in zip(pairs, words, strict=True)]
        )


def _image_rows(collection: Collection, bank: _Bank, image: str, scene: Scene) -> list[Row]:
    absent = bank.absent(image, scene)
    if len(absent) < FEWEST_ABSENT or not scene.boxes:
        return []
    entry = collection.images[image]
    layout = image_layout(entry.layout)
    maps = bank.maps(entry, absent)
    everything = [box for boxes in scene.boxes.values() for box in boxes]
    regions = {region: covered_share(layout, boxes) for region, boxes in scene.boxes.items()}
    background = covered_share(layout, [layout.frame], everything)
    # Without a name, one background is as any other.
    background_region = {} if scene.background == BACKGROUND else {scene.background: background}
    rows: list[Row] = []
    for region, inside in {**regions, **background_region}.items():
        if inside.sum() >= 1:
            rows += _absent_rows(image, absent, region, np.nan_to_num(positive_share(maps, inside)))
    for word in scene.words:
        if word.label not in scene.boxes or bank.vector(word) is None:
            continue
        word_map, boxes = bank.maps(entry, [word])[0], scene.boxes[word.label]
        beside = {
            region: covered_share(layout, region_boxes, boxes)
            for region, region_boxes in scene.boxes.items()
            if region != word.label
        }
        for region, inside in {**beside, scene.background: background}.items():
            if inside.sum() >= 1:
                shares = np.nan_to_num(positive_share(np.stack([word_map, *maps]), inside))
                rows.append(_own_row(image, word, region, float(shares[0]), shares[1:]))
    return rows


def _absent_rows(image: str, words: Sequence[Named], region: str, shares: Float[np.ndarray, " word"]) -> list[Row]:
    """The words of absent objects on a region, each beside the others."""
    usual = (shares.sum() - shares) / (len(words) - 1)
    ranks = (stats.rankdata(shares) - 0.5) / len(words)
    return [
        (WITHOUT, image, word.pair, *word.span, word.label, region, float(share), float(mean), float(rank))
        for word, share, mean, rank in zip(words, shares, usual, ranks, strict=True)
    ]


def _own_row(image: str, word: Named, region: str, share: float, others: Float[np.ndarray, " word"]) -> Row:
    """A word of the image's own caption on a region of another object, beside the words of absent objects."""
    rank = ((others < share).sum() + (others == share).sum() / 2 + 0.5) / (len(others) + 1)
    return (WITH, image, word.pair, *word.span, word.label, region, share, float(others.mean()), float(rank))
