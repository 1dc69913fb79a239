"""Stores of vectors with a known structure, in which tests plant an ignored word, a hub or a word that rests on a region."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

import secondsight as ss
from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import GridLayout, TokenLayout
from secondsight.answers import open_collection
from secondsight.scale.store import create_store, write_part

NOUNS = ("cat", "dog", "boat", "tree", "house", "car", "bird", "cup")
GRID = (3, 3)


@cache
def _model():
    """Any model: a store names the one it was made by."""
    return ss.load("scenes")


@dataclass
class World:
    """`images` pictures of two nouns each, with `captions` captions "a NOUN and a NOUN TAIL".

    Word and cell vectors are a noun's direction plus noise; `tail` words have none of the picture's. With `exchangeable`
    all vectors are noise, so that nothing is to be found. `hubs` are images whose cells hold all nouns. Vectors miss the share
    `missed` of the way from the reference.
    """

    images: int = 40
    captions: int = 1
    seed: int = 0
    joint: int = 32
    noise: float = 0.1
    tail: str = ""
    exchangeable: bool = False
    hubs: tuple[int, ...] = ()
    missed: float = 0.01
    part: int = 16

    def write(self, folder):
        """Both stores, opened as a collection."""
        generator = np.random.default_rng(self.seed)
        directions = np.linalg.qr(generator.normal(size=(self.joint, self.joint)))[0][: len(NOUNS)]
        nouns = [generator.choice(len(NOUNS), 2, replace=False) for _ in range(self.images)]
        for side, kind in enumerate(("image", "text")):
            create_store(folder / kind, _model(), ss.IntegratedJacobian(), side, "float32")
        images = [self.image(generator, directions, nouns[i], i in self.hubs) for i in range(self.images)]
        texts = [self.text(generator, directions, nouns[i]) for i in range(self.images) for _ in range(self.captions)]
        self._write(folder / "image", [f"{i:04d}" for i in range(self.images)], images)
        keys = [f"{i:04d}/{j}" for i in range(self.images) for j in range(self.captions)]
        self._write(folder / "text", keys, texts)
        return open_collection(folder / "image", folder / "text")

    def _write(self, folder, keys, entries):
        for first in range(0, len(keys), self.part):
            group = slice(first, first + self.part)
            write_part(folder, first, keys[group], entries[group], "float32")

    def image(self, generator, directions, nouns, hub):
        """A class token and nine cells: one row of each noun, and one of noise."""
        vectors = generator.normal(0, self.noise, (10, self.joint)) / self.joint**0.5
        if not self.exchangeable:
            vectors[1:4] += directions[nouns[0]] / 3
            vectors[4:7] += directions[nouns[1]] / 3
        if hub:
            vectors[1:] += directions.sum(0) / 6
        return contributions(
            vectors, GridLayout(10, {0: "class"}, GRID, (90, 90), (0.0, 0.0, 90.0, 90.0)), generator, self.missed
        )

    def text(self, generator, directions, nouns):
        """The caption's tokens between a start and an end."""
        words = ["a", NOUNS[nouns[0]], "and", "a", NOUNS[nouns[1]], *self.tail.split()]
        vectors = generator.normal(0, self.noise, (len(words) + 2, self.joint)) / self.joint**0.5
        if not self.exchangeable:
            vectors[2] += directions[nouns[0]]
            vectors[5] += directions[nouns[1]]
        return contributions(vectors, text_layout(words), generator, self.missed)


def text_layout(words):
    """A token for each word, and a start and an end."""
    offsets, end = [], 0
    for word in words:
        offsets.append((end, end + len(word)))
        end += len(word) + 1
    size = len(words) + 2
    special = {0: "start", size - 1: "end"}
    return TokenLayout(size, special, ("<s>", *words, "</s>"), (None, *offsets, None), " ".join(words))


def contributions(vectors, layout, generator, missed):
    """Vectors that start at a small random reference and miss a share of the way; the similarity is a cosine."""
    reference = generator.normal(0, 0.1, vectors.shape[1]) / vectors.shape[1] ** 0.5
    embedding = reference + vectors.sum(0) * (1 + missed)
    tensors = [torch.tensor(values, dtype=torch.float32) for values in (vectors, embedding, reference)]
    return Contributions(*tensors, layout, 1 / float(np.linalg.norm(embedding)))
