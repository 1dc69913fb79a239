"""Collections in memory with annotated objects, in which tests plant words that rest on the wrong region."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import GridLayout, TokenLayout
from secondsight.answers import Collection
from secondsight.data.grounded import GroundedCaption, ListedDataset, Phrase, Region

NAMES = ("cat", "dog", "boat", "tree", "house", "car", "bird", "cup")
BACKGROUNDS = ("snow", "grass", "sea")
SIDE = 80
PLACES = ((0, 0, 40, 40), (40, 0, 80, 40), (0, 40, 40, 80))


class MemoryStore(dict):
    """What a collection reads of a store, without a folder."""

    def __init__(self, entries, side):
        super().__init__(entries)
        self.facts = {"model": "planted", "method": {"name": "none", "options": {}}, "space": "planted", "side": side}
        self.folder = Path("/nonexistent", side)

    @property
    def embeddings(self):
        return torch.stack([entry.embedding * entry.scale for entry in self.values()])

    def keys(self):
        return list(super().keys())

    def parts(self):
        return {"part": self.keys()}


@dataclass
class ObjectWorld:
    """`count` pictures of two objects in two of three quarters; each has a caption of one of them, "a NAME here".

    Cells of an object, and those of no object, point along a direction of their class or background, words along that of
    their class. `rests` maps a class to the only other region, class or background, that its words point at besides their
    own; words of `lost` classes point nowhere, and with `exchangeable` nothing does. Two classes that are given `together`
    are in every fifth picture. `grid` is the side of the grid.
    """

    count: int = 60
    seed: int = 0
    noise: float = 0.05
    rests: dict = field(default_factory=dict)
    lost: tuple = ()
    together: tuple = ()
    exchangeable: bool = False
    grid: int = 4
    joint: int = 24

    def collection(self):
        # The same pictures at every grid.
        content, generator = np.random.default_rng(self.seed), np.random.default_rng([self.seed, 1])
        regions = (*NAMES, *BACKGROUNDS)
        basis = np.linalg.qr(content.normal(size=(self.joint, self.joint)))[0]
        directions = dict(zip(regions, basis, strict=False))
        images, texts, pairs, examples = {}, {}, [], []
        for number in range(self.count):
            names = [str(name) for name in content.choice(NAMES, 2, replace=False)]
            if self.together and number % 5 == 0:
                names = list(self.together)
            places = [PLACES[place] for place in content.choice(3, 2, replace=False)]
            background = str(content.choice(BACKGROUNDS))
            image, key = f"{number:03d}", f"{number:03d}/0"
            images[image] = self.image(generator, directions, names, places, background)
            texts[key] = self.text(generator, directions, names[0])
            pairs.append((image, key))
            examples.append(example(number, names, places, background))
        data = ListedDataset("planted", examples)
        entries = {key: number for number, key in enumerate(texts)}
        return Collection(MemoryStore(images, "image"), MemoryStore(texts, "text"), pairs, data, _entries=entries)

    def image(self, generator, directions, names, places, background):
        vectors = generator.normal(0, self.noise, (self.grid**2, self.joint))
        layout = GridLayout(self.grid**2, {}, (self.grid, self.grid), (SIDE, SIDE), (0.0, 0.0, SIDE, SIDE))
        if not self.exchangeable:
            centres = (layout.cell_boxes()[:, :2] + layout.cell_boxes()[:, 2:]).numpy() / 2
            for cell, (x, y) in enumerate(centres):
                name = next(
                    (name for name, (x0, y0, x1, y1) in zip(names, places, strict=True) if x0 < x < x1 and y0 < y < y1),
                    background,
                )
                vectors[cell] += directions[name]
        return contributions(vectors, layout)

    def text(self, generator, directions, name):
        words = ("a", name, "here")
        vectors = generator.normal(0, self.noise, (5, self.joint))
        if not self.exchangeable and name not in self.lost:
            vectors[2] += directions[name]
            if name in self.rests:
                vectors[2] += directions[self.rests[name]]
        starts = [0, 2, 3 + len(name)]
        offsets = [(start, start + len(word)) for start, word in zip(starts, words, strict=True)]
        special = {0: "start", 4: "end"}
        return contributions(
            vectors, TokenLayout(5, special, ("<s>", *words, "</s>"), (None, *offsets, None), " ".join(words))
        )


def contributions(vectors, layout):
    """Vectors that add up to the embedding, from a reference of zero; the similarity is a cosine."""
    embedding = torch.tensor(vectors.sum(0), dtype=torch.float32)
    return Contributions(
        torch.tensor(vectors, dtype=torch.float32),
        embedding,
        torch.zeros_like(embedding),
        layout,
        1 / float(embedding.norm()),
    )


def example(number, names, places, background):
    """What the data set knows: both objects, of which the caption names the first."""
    boxes = [tuple(float(corner) for corner in place) for place in places]
    regions = tuple(Region(name, box) for name, box in zip(names, boxes, strict=True))
    phrase = Phrase((2, 2 + len(names[0])), (boxes[0],), names[0])
    photo = Image.new("RGB", (SIDE, SIDE), (90, 120, 150))
    caption = f"a {names[0]} here"
    return GroundedCaption("0", f"{number:03d}", photo, caption, (phrase,), regions, facts={"background": background})
