"""Masks of objects: kept as data sets write them, decoded when their pixels are asked for."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int
from PIL import Image

from secondsight.support.errors import InputError
from secondsight.support.files import reading

if TYPE_CHECKING:
    from secondsight.data.grounded import Box

MAX_PIXELS = 2**28
"""Masks of more pixels are refused as damaged."""


class Mask(ABC):
    """The pixels of an object in its original image."""

    @abstractmethod
    def array(self) -> Bool[np.ndarray, "height width"]:
        """Which pixels belong to the object; raises `InputError` if the mask cannot be read."""

    def valid(self) -> Bool[np.ndarray, "height width"]:
        """Which pixels are annotated at all: measures leave out the others, such as an object's uncertain edge."""
        return np.ones_like(self.array())

    @property
    def area(self) -> int:
        """The number of the object's pixels."""
        return int(self.array().sum())

    @property
    def box(self) -> Box | None:
        """The smallest box around the object's pixels; None without any."""
        mask = self.array()
        return box_of(mask) if mask.any() else None


@dataclass(frozen=True)
class RunLengths(Mask):
    """Lengths of runs of pixels, column by column and background first, as COCO has them; `size` is (width, height)."""

    size: tuple[int, int]
    counts: tuple[int, ...]

    def array(self) -> Bool[np.ndarray, "height width"]:
        """Which pixels belong to the object."""
        values = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts)
        return values.reshape(self.size).T

    @property
    def area(self) -> int:
        """The number of the object's pixels."""
        return sum(self.counts[1::2])


@dataclass(frozen=True)
class Polygons(Mask):
    """Polygons x0, y0, x1, y1, … that cover the object together; pycocotools decides which pixels they cover."""

    size: tuple[int, int]
    polygons: tuple[tuple[float, ...], ...]

    def array(self) -> Bool[np.ndarray, "height width"]:
        """Which pixels belong to the object."""
        try:
            from pycocotools.mask import decode, frPyObjects, merge
        except ImportError as problem:
            raise InputError("masks that are polygons need pycocotools: pip install 'secondsight[eval]'") from problem
        width, height = self.size
        parts = frPyObjects([list(polygon) for polygon in self.polygons], height, width)
        return decode(merge(parts)).astype(bool)


@dataclass(frozen=True)
class MaskFile(Mask):
    """A picture of numbers, one for each class or object: this object has the number `value`, or any but 0.

    A palette's numbers are its indices, and a colour's number is red + 256 · green, as in ImageNet-S. Pixels with the
    number `ignored` are not annotated.
    """

    file: Path
    value: int | None = None
    ignored: int | None = None

    def array(self) -> Bool[np.ndarray, "height width"]:
        """Which pixels belong to the object."""
        numbers = read_numbers(self.file)
        return numbers == self.value if self.value is not None else (numbers != 0) & (numbers != self.ignored)

    def valid(self) -> Bool[np.ndarray, "height width"]:
        """Which pixels are annotated at all."""
        return read_numbers(self.file) != self.ignored if self.ignored is not None else super().valid()


def read_numbers(file: Path) -> Int[np.ndarray, "height width"]:
    """The number of every pixel: its index in a palette, its grey value, or red + 256 · green.

    Raises `InputError` if the file is no such picture.
    """
    with reading(file, "mask"), Image.open(file) as picture:
        if picture.mode in ("LA", "PA", "RGBA"):
            # What is transparent is background.
            return np.asarray(picture.getchannel("A")).astype(np.int64) // 128
        numbers = np.asarray(picture).astype(np.int64)
        return numbers[..., 0] + 256 * numbers[..., 1] if numbers.ndim == 3 else numbers


def mask_of(array: Any) -> RunLengths:
    """The mask of a matrix (height, width), true where the object is."""
    values = np.asarray(array).astype(bool)
    if values.ndim != 2:
        raise InputError(f"a mask needs rows and columns; this one has the shape {values.shape}")
    flat = values.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0] if flat[:1].any() else [], [0], changes, [len(flat)]])
    return RunLengths((values.shape[1], values.shape[0]), tuple(np.diff(edges).astype(int).tolist()))


def parse_mask(segmentation: Any, size: tuple[int, int] | None) -> Mask | None:
    """COCO's "segmentation" (polygons, run lengths, compressed run lengths) of an image of `size` (width, height).

    None for anything else: nothing, polygons of fewer than three points or far outside the image, or run lengths of
    another size or that do not fill it. Without `size` that of the run lengths is taken.
    """
    if isinstance(segmentation, Mapping):
        return _parse_run_lengths(segmentation, size)
    if size is None or not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        return None
    polygons = tuple(polygon for polygon in map(_parse_polygon, segmentation) if polygon is not None)
    # The pixels between two points far away from each other would fill the memory.
    far = 2 * max(size)
    if not polygons or not _is_size(*size) or any(max(p) > far or min(p) < -far for p in polygons):
        return None
    return Polygons(size, polygons)


def mask_to_json(mask: Mask) -> dict[str, Any]:
    """The mask as COCO's run lengths in numbers, which `parse_mask` reads."""
    runs = mask if isinstance(mask, RunLengths) else mask_of(mask.array())
    return {"size": [runs.size[1], runs.size[0]], "counts": list(runs.counts)}


def box_of(mask: Bool[np.ndarray, "height width"]) -> Box:
    """The smallest box around a mask's pixels, of which there must be some."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _parse_polygon(numbers: Any) -> tuple[float, ...] | None:
    try:
        polygon = tuple(map(float, numbers))
    except (TypeError, ValueError, OverflowError):
        return None
    return polygon if len(polygon) >= 6 and len(polygon) % 2 == 0 and math.isfinite(sum(polygon)) else None


def _parse_run_lengths(segmentation: Mapping[str, Any], size: tuple[int, int] | None) -> RunLengths | None:
    counts = segmentation.get("counts")
    try:
        height, width = (int(number) for number in segmentation["size"])
        if isinstance(counts, str | bytes):
            counts = _decompress(counts.encode() if isinstance(counts, str) else counts)
        lengths = tuple(map(int, counts or ()))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if size not in (None, (width, height)) or not _is_size(width, height):
        return None
    return (
        RunLengths((width, height), lengths)
        if min(lengths, default=-1) >= 0 and sum(lengths) == width * height
        else None
    )


def _is_size(width: int, height: int) -> bool:
    return width > 0 and height > 0 and width * height <= MAX_PIXELS


def _decompress(code: bytes) -> list[int]:
    """COCO's compressed run lengths as numbers.

    Characters hold five bits each, lowest first, and a sixth that says whether more follow; from the fourth length on it
    is the difference from the last but one. pycocotools writes beyond its memory for a damaged code.
    """
    parts = np.frombuffer(code, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((parts & 32) == 0) + 1
    if not len(parts) or parts.min() < 0 or parts.max() > 63 or not len(ends) or ends[-1] != len(parts):
        raise ValueError("not a code of run lengths")
    starts = np.concatenate([[0], ends[:-1]])
    digits = np.arange(len(parts)) - np.repeat(starts, ends - starts)
    if digits.max() > 10:
        raise ValueError("a run longer than any image")
    lengths = np.add.reduceat((parts & 31) << (5 * digits), starts)
    lengths -= np.where(parts[ends - 1] & 16, 1 << (5 * (ends - starts)), 0)
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    return [int(length) for length in lengths]
