"""Scenes: what is where, drawn exactly the same on every machine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from secondsight.data.scenes.world import COLOURS, HOME, PATTERNS, PLACES, sprite, themes, things

UNITS = 48
"""Sides and places of objects are whole numbers of 48ths of the image, so that scenes look alike at every size."""

SIDES = {1: (14, 30), 2: (12, 25), 3: (11, 21), 4: (10, 18)}
"""Smallest and largest side by number of objects."""

BIG, SMALL = 21, 13
"""From and up to which side captions may call an object big or small."""

ANGLES = (-20, -10, 0, 0, 0, 10, 20)
VARIANTS = 48
"""How many different textures every kind of background has."""

OVERLAPPING = 0.5
"""Share of scenes whose objects may cover each other."""

COVERED = 0.55
"""Most of an object's square that another one's may cover."""


@dataclass(frozen=True)
class Placed:
    """An object: its class, the corner and side of its square in `UNITS`, and how it is turned."""

    name: str
    x: int
    y: int
    side: int
    angle: int
    flipped: bool

    @property
    def centre(self) -> tuple[float, float]:
        """Of its square, in `UNITS`."""
        return self.x + self.side / 2, self.y + self.side / 2


@dataclass(frozen=True)
class Background:
    """A colour ("plain"), a pattern or texture of colours, or a place; `variant` chooses its texture."""

    kind: str
    colours: tuple[str, ...]
    variant: int


@dataclass(frozen=True)
class Scene:
    """What an image shows; later objects lie in front of earlier ones. `theme` is where they belong, or empty."""

    objects: tuple[Placed, ...]
    background: Background
    theme: str = ""


@dataclass(frozen=True)
class Drawn:
    """A scene as pixels, the visible pixels of every object, and which share of its own each object shows."""

    pixels: UInt8[np.ndarray, "size size 3"]
    masks: list[Bool[np.ndarray, "size size"]]
    visible: list[float]


def make(rng: random.Random, count: int | None = None, *, most: int = 4, correlated: float = 0.6) -> Scene:
    """A scene with `count` objects, or 1 to `most`; with probability `correlated` they share a theme and its place."""
    count = count or rng.randint(1, most)
    theme = rng.choice(sorted(themes())) if rng.random() < correlated else ""
    names = rng.sample(themes()[theme] if theme else sorted(things()), count)
    if count > 1 and rng.random() < 0.15:
        names[1] = names[0]
    background = _background(rng, theme)
    return Scene(_placed(rng, names), background, theme)


def _background(rng: random.Random, theme: str) -> Background:
    variant = rng.randrange(VARIANTS)
    if rng.random() < (0.6 if theme else 0.2):
        home = HOME.get(theme, theme)
        return Background(home if home in PLACES else rng.choice(sorted(PLACES)), (), variant)
    first, second = rng.sample(sorted(COLOURS), 2)
    kind = rng.choice(("plain", "plain", "clouded", "fading", *sorted(PATTERNS)))
    return Background(kind, (first,) if kind == "plain" else (first, second), variant)


def _placed(rng: random.Random, names: Sequence[str]) -> tuple[Placed, ...]:
    low, high = SIDES[min(max(len(names), 1), 4)]
    covering = rng.random() < OVERLAPPING
    placed: list[Placed] = []
    for name in names:
        for attempt in range(60):
            # Big objects in a full image find no place; trying smaller ones ends the search.
            side = rng.randint(low, max(low, high - attempt // 4))
            x, y = rng.randint(0, UNITS - side), rng.randint(0, UNITS - side)
            if covering and placed and rng.random() < 0.6:
                # Chance alone hardly ever puts two objects at one place.
                old = rng.choice(placed)
                x = min(max(old.x + rng.randint(-side * 3 // 4, old.side * 3 // 4), 0), UNITS - side)
                y = min(max(old.y + rng.randint(-side * 3 // 4, old.side * 3 // 4), 0), UNITS - side)
            one = Placed(name, x, y, side, rng.choice(ANGLES), rng.random() < 0.5)
            if all(_fits(one, other, covering) for other in placed):
                placed.append(one)
                break
    return tuple(placed)


def _fits(new: Placed, old: Placed, covering: bool) -> bool:
    across = min(new.x + new.side, old.x + old.side) - max(new.x, old.x)
    down = min(new.y + new.side, old.y + old.side) - max(new.y, old.y)
    if across <= 0 or down <= 0:
        return True
    return covering and across * down <= COVERED * old.side**2


def draw(scene: Scene, style: str, size: int) -> Drawn:
    """The scene in a style of drawing, `size` pixels square."""
    pixels = background(scene.background, size).copy()
    own: list[np.ndarray] = []
    squares: list[tuple[slice, slice]] = []
    for one in scene.objects:
        x, y, end_x, end_y = (v * size // UNITS for v in (one.x, one.y, one.x + one.side, one.y + one.side))
        side = min(end_x - x, end_y - y)
        drawing = sprite(style, one.name, side, one.angle, one.flipped)
        where = (slice(y, y + side), slice(x, x + side))
        alpha = drawing[..., 3:].astype(np.uint16)
        under = pixels[where] * (255 - alpha)
        pixels[where] = np.minimum((under + 127) // 255 + drawing[..., :3], 255)
        own.append(drawing[..., 3] > 127)
        squares.append(where)
    masks, visible = [], []
    covered = np.zeros((size, size), bool)
    for shape, where in zip(reversed(own), reversed(squares), strict=True):
        mask = np.zeros((size, size), bool)
        mask[where] = shape & ~covered[where]
        covered[where] |= shape
        masks.append(mask)
        visible.append(float(mask.sum() / max(shape.sum(), 1)))
    return Drawn(pixels, masks[::-1], visible[::-1])


@lru_cache(4096)
def background(what: Background, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The pixels of a background."""
    seed = f"{what.kind}/{'/'.join(what.colours)}/{what.variant}"
    rng = random.Random(seed)
    made = _place(what.kind, rng, size) if what.kind in PLACES else _surface(what, rng, size)
    grain = 4.0 * (_noise(rng, size, size) - 0.5)
    pixels = np.clip(np.rint(made + grain[..., None]), 0, 255).astype(np.uint8)
    pixels.setflags(write=False)
    return pixels


def _noise(rng: random.Random, size: int, cells: int) -> np.ndarray:
    """Smooth noise in 0 … 1 with about `cells` waves across the image; Pillow's integer resizing keeps it exact."""
    coarse = np.frombuffer(rng.randbytes(cells * cells), np.uint8).reshape(cells, cells)
    fine = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(fine, dtype=np.float64) / 255


def _surface(what: Background, rng: random.Random, size: int) -> np.ndarray:
    first, second = (np.array(COLOURS[c], float) for c in (what.colours[0], what.colours[-1]))
    down, across = np.mgrid[:size, :size] / size
    if what.kind == "plain":
        share = np.zeros((size, size))
    elif what.kind == "clouded":
        share = 0.75 * _noise(rng, size, 4) + 0.25 * _noise(rng, size, 12)
    elif what.kind == "fading":
        share = down if rng.random() < 0.5 else across
    elif what.kind == "striped":
        waves = rng.randint(4, 8)
        along = (down, across, down + across)[rng.randrange(3)]
        share = ((along * waves) % 1 < 0.5).astype(float)
    elif what.kind == "dotted":
        waves = rng.randint(4, 7)
        share = (((down * waves) % 1 - 0.5) ** 2 + ((across * waves) % 1 - 0.5) ** 2 < 0.06).astype(float)
    else:
        waves = rng.randint(3, 6)
        share = (np.floor(down * waves) + np.floor(across * waves)) % 2
    # The second colour stays pale in patterns, so that they do not drown the objects.
    depth = 1.0 if what.kind in ("clouded", "fading") else 0.45
    mixed = first + depth * share[..., None] * (second - first)
    return mixed + 24 * (_noise(rng, size, 5)[..., None] - 0.5)


# Colours of what is above and below the horizon (sky or wall, ground), and how rough the ground is.
_GROUNDS = {
    "street": ((186, 200, 214), (110, 112, 118), 16),
    "kitchen": ((226, 214, 190), (168, 126, 88), 6),
    "room": ((206, 196, 214), (150, 108, 76), 8),
    "meadow": ((150, 200, 236), (104, 168, 70), 24),
    "savanna": ((238, 214, 150), (196, 160, 84), 20),
    "beach": ((158, 212, 240), (234, 214, 164), 14),
    "snow": ((176, 196, 220), (240, 244, 250), 8),
}


def _place(kind: str, rng: random.Random, size: int) -> np.ndarray:
    above, below, rough = _GROUNDS[kind]
    light = rng.uniform(0.85, 1.1)
    horizon = rng.uniform(0.35, 0.65)
    down, across = np.mgrid[:size, :size] / size
    # Grounds and skies fade with distance, as in photographs.
    top = np.array(above, float) * (0.88 + 0.2 * down)[..., None]
    ground = np.array(below, float) * (0.72 + 0.34 * down)[..., None]
    ground += 2 * rough * (_noise(rng, size, 16)[..., None] - 0.5) + rough * (_noise(rng, size, 5)[..., None] - 0.5)
    edge = horizon + (0.06 * (_noise(rng, size, 5)[:1] - 0.5) if kind in ("meadow", "savanna", "snow") else 0)
    is_ground = (down > edge)[..., None]
    if kind == "kitchen":
        tiles = ((down * 10) % 1 < 0.08) | ((across * 10) % 1 < 0.08)
        top -= 26 * tiles[..., None]
    elif kind == "room":
        top += 12 * ((across * 9) % 1 < 0.5)[..., None]
        ground -= 20 * (((down - horizon) * 12) % 1 < 0.12)[..., None]
    elif kind == "street":
        ground += 90 * ((np.abs(across - 0.5) < 0.02) & ((down * 8) % 1 < 0.5))[..., None]
    elif kind == "beach":
        sea = (down > horizon - 0.16)[..., None]
        top = np.where(sea, np.array((62, 142, 192), float) + 26 * (_noise(rng, size, 10)[..., None] - 0.5), top)
    if kind not in ("kitchen", "room"):
        top += 26 * (_noise(rng, size, 4)[..., None] - 0.4)
    return light * np.where(is_ground, ground, top)
