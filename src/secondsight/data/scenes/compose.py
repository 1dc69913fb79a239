"""Scenes: their objects and background, composed at random and drawn identically on every machine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from secondsight.data.scenes.world import COLOURS, HOME, PATTERNS, PLACES, classes, sprite, themes

UNITS = 48
"""Sides and corners of objects are multiples of 1/48 of the image, so that scenes look alike at every size."""

SIDES = {1: (14, 30), 2: (12, 25), 3: (11, 21), 4: (10, 18)}
"""Smallest and largest side by number of objects."""

BIG, SMALL = 21, 13
"""Captions may call an object big from the first side on, and small up to the second."""

ANGLES = (-20, -10, 0, 0, 0, 10, 20)

VARIANTS = 48
"""The number of textures of each kind of background."""

OVERLAPPING = 0.5
"""The share of scenes whose objects may cover each other."""

COVERED = 0.55
"""The largest share of an object's square that the square of a later object may cover."""

ATTEMPTS = 60
"""Tries to place an object before it is left out."""


@dataclass(frozen=True)
class SceneObject:
    """An object: its class, the corner and side of its square in `UNITS`, its rotation and reflection."""

    name: str
    x: int
    y: int
    side: int
    angle: int
    flipped: bool

    @property
    def centre(self) -> tuple[float, float]:
        """The centre of its square, in `UNITS`."""
        return self.x + self.side / 2, self.y + self.side / 2


@dataclass(frozen=True)
class Background:
    """A colour ("plain"), a pattern or texture of colours, or a place; `variant` selects its texture."""

    kind: str
    colours: tuple[str, ...]
    variant: int


@dataclass(frozen=True)
class Scene:
    """The content of an image; later objects lie in front of earlier ones. `theme` is what the objects share, or empty."""

    objects: tuple[SceneObject, ...]
    background: Background
    theme: str = ""


@dataclass(frozen=True)
class Drawing:
    """A scene's pixels, a mask of every object's visible pixels, and the share of the object that is visible."""

    pixels: UInt8[np.ndarray, "size size 3"]
    masks: list[Bool[np.ndarray, "size size"]]
    visible: list[float]


def random_scene(rng: random.Random, count: int | None = None, *, most: int = 4, correlated: float = 0.6) -> Scene:
    """A scene with `count` objects, by default 1 to `most`; with probability `correlated` they share a theme and its place."""
    count = count or rng.randint(1, most)
    theme = rng.choice(sorted(themes())) if rng.random() < correlated else ""
    names = rng.sample(themes()[theme] if theme else sorted(classes()), count)
    if count > 1 and rng.random() < 0.15:
        names[1] = names[0]
    background = _background(rng, theme)
    return Scene(_place_objects(rng, names), background, theme)


def _background(rng: random.Random, theme: str) -> Background:
    variant = rng.randrange(VARIANTS)
    if rng.random() < (0.6 if theme else 0.2):
        home = HOME.get(theme, theme)
        return Background(home if home in PLACES else rng.choice(sorted(PLACES)), (), variant)
    first, second = rng.sample(sorted(COLOURS), 2)
    kind = rng.choice(("plain", "plain", "clouded", "fading", *sorted(PATTERNS)))
    return Background(kind, (first,) if kind == "plain" else (first, second), variant)


def _place_objects(rng: random.Random, names: Sequence[str]) -> tuple[SceneObject, ...]:
    low, high = SIDES[min(max(len(names), 1), 4)]
    covering = rng.random() < OVERLAPPING
    objects: list[SceneObject] = []
    for name in names:
        for attempt in range(ATTEMPTS):
            # Large objects do not fit into a full image, so later attempts try smaller ones.
            side = rng.randint(low, max(low, high - attempt // 4))
            x, y = rng.randint(0, UNITS - side), rng.randint(0, UNITS - side)
            if covering and objects and rng.random() < 0.6:
                # Objects rarely overlap by chance, so this one is placed near another.
                old = rng.choice(objects)
                x = min(max(old.x + rng.randint(-side * 3 // 4, old.side * 3 // 4), 0), UNITS - side)
                y = min(max(old.y + rng.randint(-side * 3 // 4, old.side * 3 // 4), 0), UNITS - side)
            candidate = SceneObject(name, x, y, side, rng.choice(ANGLES), rng.random() < 0.5)
            if all(_fits(candidate, earlier, covering) for earlier in objects):
                objects.append(candidate)
                break
    return tuple(objects)


def _fits(new: SceneObject, old: SceneObject, covering: bool) -> bool:
    across = min(new.x + new.side, old.x + old.side) - max(new.x, old.x)
    down = min(new.y + new.side, old.y + old.side) - max(new.y, old.y)
    if across <= 0 or down <= 0:
        return True
    return covering and across * down <= COVERED * old.side**2


def draw(scene: Scene, style: str, size: int) -> Drawing:
    """The scene in a style of drawing, `size` pixels square."""
    pixels = draw_background(scene.background, size).copy()
    shapes: list[np.ndarray] = []
    squares: list[tuple[slice, slice]] = []
    for item in scene.objects:
        corners = item.x, item.y, item.x + item.side, item.y + item.side
        x, y, end_x, end_y = (corner * size // UNITS for corner in corners)
        side = min(end_x - x, end_y - y)
        drawing = sprite(style, item.name, side, item.angle, item.flipped)
        square = (slice(y, y + side), slice(x, x + side))
        alpha = drawing[..., 3:].astype(np.uint16)
        under = pixels[square] * (255 - alpha)
        pixels[square] = np.minimum((under + 127) // 255 + drawing[..., :3], 255)
        shapes.append(drawing[..., 3] > 127)
        squares.append(square)
    masks, visible = [], []
    covered = np.zeros((size, size), bool)
    for shape, square in zip(reversed(shapes), reversed(squares), strict=True):
        mask = np.zeros((size, size), bool)
        mask[square] = shape & ~covered[square]
        covered[square] |= shape
        masks.append(mask)
        visible.append(float(mask.sum() / max(shape.sum(), 1)))
    return Drawing(pixels, masks[::-1], visible[::-1])


@lru_cache(4096)
def draw_background(background: Background, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The pixels of a background."""
    seed = f"{background.kind}/{'/'.join(background.colours)}/{background.variant}"
    rng = random.Random(seed)
    colours = _place(background.kind, rng, size) if background.kind in PLACES else _surface(background, rng, size)
    grain = 4.0 * (_noise(rng, size, size) - 0.5)
    pixels = np.clip(np.rint(colours + grain[..., None]), 0, 255).astype(np.uint8)
    pixels.setflags(write=False)
    return pixels


def _noise(rng: random.Random, size: int, cells: int) -> np.ndarray:
    """Smooth noise in 0 … 1 with about `cells` waves across the image; Pillow's integer resizing keeps it exact."""
    coarse = np.frombuffer(rng.randbytes(cells * cells), np.uint8).reshape(cells, cells)
    fine = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(fine, dtype=np.float64) / 255


def _surface(background: Background, rng: random.Random, size: int) -> np.ndarray:
    first, second = (np.array(COLOURS[c], float) for c in (background.colours[0], background.colours[-1]))
    down, across = np.mgrid[:size, :size] / size
    if background.kind == "plain":
        share = np.zeros((size, size))
    elif background.kind == "clouded":
        share = 0.75 * _noise(rng, size, 4) + 0.25 * _noise(rng, size, 12)
    elif background.kind == "fading":
        share = down if rng.random() < 0.5 else across
    elif background.kind == "striped":
        waves = rng.randint(4, 8)
        along = (down, across, down + across)[rng.randrange(3)]
        share = ((along * waves) % 1 < 0.5).astype(float)
    elif background.kind == "dotted":
        waves = rng.randint(4, 7)
        share = (((down * waves) % 1 - 0.5) ** 2 + ((across * waves) % 1 - 0.5) ** 2 < 0.06).astype(float)
    else:
        waves = rng.randint(3, 6)
        share = (np.floor(down * waves) + np.floor(across * waves)) % 2
    # A pale second colour keeps patterns from hiding the objects.
    depth = 1.0 if background.kind in ("clouded", "fading") else 0.45
    mixed = first + depth * share[..., None] * (second - first)
    return mixed + 24 * (_noise(rng, size, 5)[..., None] - 0.5)


# Colours above and below the horizon (sky or wall, ground), and the roughness of the ground.
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
    # Ground and sky change with distance, as in photographs.
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
