"""One colour convention everywhere: red is positive, blue negative, the scale symmetric around zero."""

from __future__ import annotations

from typing import Any

import numpy as np

POSITIVE, NEGATIVE = (197, 32, 38), (33, 89, 187)
"""sRGB of the two ends."""


def overlay(values: np.ndarray, limit: float, strength: float = 0.82) -> np.ndarray:
    """RGBA in 0 … 1 for values in −limit … limit: hue by sign, opacity by size, so that zero shows what lies below."""
    share = np.clip(values / (limit or 1.0), -1, 1)
    rgba = np.empty((*values.shape, 4))
    rgba[..., :3] = np.where(share[..., None] >= 0, POSITIVE, NEGATIVE)
    rgba[..., :3] /= 255
    rgba[..., 3] = strength * np.abs(share) ** 0.85
    return rgba


def faded(pixels: np.ndarray, colour: float = 0.2) -> np.ndarray:
    """An RGB photograph (height, width, 3) in 0 … 255 with little of its colour left, so that the overlay's can be told."""
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    mixed = colour * pixels + (1 - colour) * grey[..., None]
    return (35 + 0.86 * mixed).round().astype(np.uint8)


def limit_of(values: Any) -> float:
    """The symmetric scale's end for these values: the largest size, 1 where all are zero."""
    return float(np.abs(np.asarray(values, dtype=float)).max(initial=0.0)) or 1.0
