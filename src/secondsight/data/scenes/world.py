"""The scenes' world: classes with drawings in three styles, themes and places they belong to, colours."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from secondsight.support.errors import InputError
from secondsight.support.files import packaged

SPRITE = 64
"""The side of a drawing in pixels."""

_COLUMNS = 10

STYLES = {
    "noto": "e4b28ace047c925baaf9a7aa33c8cc1bf63641e203a3d1d64f538b28c868cdf9",
    "twemoji": "f21978e9214edf0a2e2201efd4c8d84644ff6c6116c94d7ad9a4a76ba021c070",
    "fluent": "502bcfa12d296ac618f7b911a153c4e06ab6ff5100165e248f3b3d4913cc3c59",
}
"""Styles of drawing and their sheets' SHA-256: Noto, on which the scenes model was trained, and two unseen domains."""

COLOURS = {
    "white": (238, 238, 238),
    "black": (28, 28, 30),
    "red": (196, 62, 62),
    "green": (72, 156, 84),
    "blue": (62, 100, 198),
    "yellow": (232, 212, 92),
    "purple": (138, 82, 168),
    "orange": (228, 138, 60),
    "pink": (232, 158, 180),
    "gray": (130, 130, 132),
}

PATTERNS = {"striped": "a striped background", "dotted": "a dotted background", "checkered": "a checkered background"}

PLACES = {
    "street": "on a street",
    "kitchen": "in a kitchen",
    "room": "in a room",
    "meadow": "on a meadow",
    "savanna": "in the savanna",
    "beach": "at the beach",
    "snow": "in the snow",
}
"""Backgrounds that are places, and their words in captions."""

HOME = {"office": "room", "sports": "meadow"}
"""The place of each theme that is not a place itself; "travel" has none."""


@dataclass(frozen=True)
class ObjectClass:
    """A class: its name (COCO's if COCO has it), plural, supercategory, and the themes it occurs in."""

    name: str
    plural: str
    group: str
    themes: tuple[str, ...]


@cache
def classes() -> dict[str, ObjectClass]:
    """All classes by name, in the order of the sheets."""
    lines = (files(__package__) / "classes.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    return {name: ObjectClass(name, plural, group, tuple(at.split(","))) for name, plural, _, group, at in rows}


@cache
def themes() -> dict[str, tuple[str, ...]]:
    """The classes of every theme."""
    names = sorted({theme for cls in classes().values() for theme in cls.themes})
    return {theme: tuple(cls.name for cls in classes().values() if theme in cls.themes) for theme in names}


@cache
def _sheet(style: str) -> dict[str, Image.Image]:
    if style not in STYLES:
        raise InputError(f"unknown style {style!r}; known: {', '.join(STYLES)}")
    data = packaged(files(__package__) / f"{style}.png", STYLES[style])
    sheet = Image.open(io.BytesIO(data)).convert("RGBA")
    corners = {name: (SPRITE * (i % _COLUMNS), SPRITE * (i // _COLUMNS)) for i, name in enumerate(classes())}
    return {name: sheet.crop((x, y, x + SPRITE, y + SPRITE)) for name, (x, y) in corners.items()}


@lru_cache(65536)
def sprite(style: str, name: str, side: int, angle: int, flipped: bool) -> UInt8[np.ndarray, "side side rgba"]:
    """A drawing of `side` pixels, rotated by `angle` degrees after flipping; colours are premultiplied by alpha."""
    drawing = _sheet(style)[name]
    if flipped:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if angle:
        drawing = drawing.rotate(angle, Image.Resampling.BICUBIC)
    pixels = np.array(drawing.resize((side, side), Image.Resampling.LANCZOS).convert("RGBa"))
    pixels.setflags(write=False)
    return pixels
