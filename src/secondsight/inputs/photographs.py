"""Photographs from whatever the user has, as upright RGB images; needs no torch, so bad files are refused at once."""

from __future__ import annotations

import io
import os
import threading
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from secondsight.inputs.kinds import missing
from secondsight.support.errors import InputError

LARGEST = 210_000_000
"""Pixels of the largest image file that is opened: more than any camera of a phone has."""

_USUAL = 89_478_485
"""Pixels, Pillow's own limit; images beyond it are explained at half their size or less."""

_limit_lock = threading.Lock()

UPLOADED = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The formats that are read from files of strangers: none that is, or runs, a program."""


def open_image(raw: object) -> Image.Image:
    """A path, PIL image, or array as an upright 8-bit RGB image.

    Rotations noted by the camera are applied, alpha is laid over white, 16-bit and CMYK are converted, and an animation
    gives its first frame with a warning. Raises `InputError` naming what cannot be read.
    """
    if isinstance(raw, (str, os.PathLike)):
        return _upright(_read(os.fspath(raw)), repr(os.fspath(raw)))
    if isinstance(raw, Image.Image):
        return _upright(raw, "the image")
    if isinstance(raw, np.ndarray):
        return _from_array(raw)
    raise InputError(
        f"cannot use {type(raw).__name__} as an image: give a path, a PIL image, an array or a tensor of model-ready pixels"
    )


def _read(path: str) -> Image.Image:
    if not os.path.exists(path):
        raise InputError(missing(path))
    if os.path.isdir(path):
        raise InputError(f"{path!r} is a folder: give an image file")
    return _decoded(path, repr(path))


def image_of_bytes(content: bytes, name: str = "the image", *, most: int | None = None) -> Image.Image:
    """`open_image` for an image file's content; `most` bounds its pixels, which are counted before they are decoded."""
    return _upright(_decoded(io.BytesIO(content), name, most, UPLOADED), name)


def _decoded(
    source: str | io.BytesIO, name: str, most: int | None = None, formats: tuple[str, ...] | None = None
) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = _opened(source, formats)
            if most is not None and image.width * image.height > most:
                size = f"{image.width}×{image.height}"
                raise InputError(f"{name} has {size} pixels, more than {most / 1e6:g} million: scale it down first")
            image, full = _loaded(image)
    except InputError:
        raise
    except Image.DecompressionBombError as problem:
        raise InputError(f"{name} is too large to open safely ({problem}): scale it down first") from problem
    except UnidentifiedImageError as problem:
        raise InputError(f"{name} is not a photograph that can be read: use JPEG, PNG or WebP") from problem
    except MemoryError:
        raise
    except Exception as problem:  # damaged files raise all kinds of exceptions
        raise InputError(f"{name} cannot be read, it seems damaged ({problem})") from problem

    if full is not None:
        size = f"{image.width}×{image.height}"
        warnings.warn(
            f"{name} has {full[0]}×{full[1]} pixels; it is explained at {size}, and boxes count in those", stacklevel=2
        )
    return image


def _opened(source: str | io.BytesIO, formats: tuple[str, ...] | None) -> Image.Image:
    """The image file with its header read; Pillow refuses more than `LARGEST` pixels, where it would refuse 179 million."""
    with _limit_lock:
        usual = Image.MAX_IMAGE_PIXELS
        try:
            if usual == _USUAL:
                Image.MAX_IMAGE_PIXELS = LARGEST // 2
            return Image.open(source, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = usual


def _loaded(image: Image.Image) -> tuple[Image.Image, tuple[int, int] | None]:
    """The image with its pixels; a huge one halved until it is of a usual size, with the size that it had."""
    full, factor = image.size, 1
    while full[0] * full[1] > _USUAL * factor**2:
        factor *= 2
    if factor > 1:
        # JPEG files can be decoded at a fraction of their size, which never takes the memory of the whole.
        image.draft("RGB", (full[0] // factor, full[1] // factor))
    image.load()
    if factor > 1 and image.size == full:
        # Palettes have no means.
        image = (image.convert("RGBA") if image.mode in ("P", "1", "PA") else image).reduce(factor)
    return image, full if factor > 1 else None


def _upright(image: Image.Image, name: str) -> Image.Image:
    try:
        return _rgb(image, name)
    except (InputError, MemoryError):
        raise
    except Exception as problem:  # some formats decode their pixels only here
        raise InputError(f"{name} cannot be converted, it seems damaged ({problem})") from problem


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if getattr(image, "n_frames", 1) > 1 and getattr(image, "is_animated", False):
        warnings.warn(f"{name} has {image.n_frames} frames; the first one is explained", stacklevel=4)  # type: ignore[attr-defined]  # only sequences have it
        image.seek(0)
    try:
        image = ImageOps.exif_transpose(image) or image
    except Exception:
        warnings.warn(
            f"{name} carries camera data that cannot be read; its pixels are used without rotation", stacklevel=4
        )
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        # Pillow clips 16-bit values when it converts; scale them instead.
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise InputError(f"{name} holds floating-point pixels of unknown range: convert it to 8 bits first")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if min(image.size) < 2:
        raise InputError(f"{name} is {image.width}×{image.height} pixels: too small to explain")
    return image.convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.ndim != 3 or array.shape[-1] not in (3, 4):
        raise InputError(f"an image array of shape {array.shape} is not (height, width), (h, w, 3) or (h, w, 4)")
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise InputError(f"an image array of {array.dtype} is not uint8 or finite floats in 0 … 1")
        if array.min() < 0 or array.max() > 1:
            raise InputError(
                f"an image array of floats must lie in 0 … 1, not {array.min():g} … {array.max():g}; "
                "model-ready pixels are a tensor of shape (1, 3, height, width)"
            )
        array = (array * 255).round().astype(np.uint8)
    return _rgb(Image.fromarray(array), "the array")
