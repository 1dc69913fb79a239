"""One colour convention everywhere: red is positive, blue negative, the scale symmetric around zero."""

from __future__ import annotations

from typing import Any

import numpy as np

SCALES = {
    "red and blue": ((197, 32, 38), (44, 103, 202)),
    "orange and blue": ((190, 84, 0), (0, 110, 190)),
    "orange and purple": ((190, 84, 0), (110, 80, 200)),
}
"""sRGB of the positive and the negative end: equally light, and distinguishable with every kind of colour blindness."""

POSITIVE, NEGATIVE = SCALES["red and blue"]
"""The ends of the default scale."""


def overlay(values: np.ndarray, limit: float, strength: float = 0.82) -> np.ndarray:
    """RGBA in 0 … 1 for values in −limit … limit: the sign gives the hue, the size the opacity; zero is transparent."""
    share = np.clip(values / (limit or 1.0), -1, 1)
    rgba = np.empty((*values.shape, 4))
    rgba[..., :3] = np.where(share[..., None] >= 0, POSITIVE, NEGATIVE)
    rgba[..., :3] /= 255
    rgba[..., 3] = strength * np.abs(share) ** 0.85
    return rgba


def fade(pixels: np.ndarray) -> np.ndarray:
    """An RGB photograph (height, width, 3) in 0 … 255 as light grey: a red object must not look like a positive value."""
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    return (35 + 0.86 * np.repeat(grey[..., None], 3, -1)).round().astype(np.uint8)


def grey_levels(levels: np.ndarray) -> np.ndarray:
    """Levels of a spectrogram as greys in 0 … 255, the lowest black and the highest white."""
    low, high = float(levels.min()), float(levels.max())
    return np.asarray((levels - low) / ((high - low) or 1.0) * 255)


def map_over_photo(photo: Any, heat: np.ndarray, limit: float | None = None) -> np.ndarray:
    """A photograph in grey under the colours of a map of its size: (height, width, 3) in 0 … 255.

    `limit` is the end of the colour scale, by default the map's largest absolute value.
    """
    colour = overlay(heat, limit_of(heat) if limit is None else limit)
    opacity = colour[..., 3:]
    grey = fade(np.asarray(photo, dtype=float))
    return ((1 - opacity) * grey + opacity * 255 * colour[..., :3]).round().clip(0, 255).astype(np.uint8)


def on_white(value: float, limit: float) -> tuple[tuple[float, float, float], float]:
    """The colour behind a word on white paper, as RGB in 0 … 1, and the opacity that gave it."""
    red, green, blue, alpha = (float(c) for c in overlay(np.array(value), limit, 0.75))
    return (1 - alpha + alpha * red, 1 - alpha + alpha * green, 1 - alpha + alpha * blue), alpha


def limit_of(values: Any) -> float:
    """The end of a symmetric scale for these values: their largest absolute value, 1 if all are zero."""
    return float(np.abs(np.asarray(values, dtype=float)).max(initial=0.0)) or 1.0
