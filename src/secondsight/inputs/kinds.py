"""Which kinds of input a raw input can be, judged by its type and name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from secondsight.support.errors import InputError

_ALL = frozenset({"image", "text", "audio"})
_NAMES = {"input_ids": "text", "pixel_values": "image", "input_features": "audio"}
_ADDRESS = re.compile(r"(?i)(https?|ftp|s3|gs|data|file):")
_SOUNDS = {".wav", ".flac", ".ogg", ".oga", ".mp3", ".aiff", ".aif", ".au", ".opus", ".w64", ".caf"}


def possible_kinds(raw: object) -> frozenset[str]:
    """The kinds, of "image", "text", "audio", that a raw input can be; all of them where nothing tells.

    A string is a file when it ends like a file name, exists, or has a slash and no space; otherwise it is a text.
    """
    if isinstance(raw, str):
        return _of_string(raw)
    if isinstance(raw, os.PathLike):
        return _of_string(os.fspath(raw)) & {"image", "audio"} or frozenset({"image", "audio"})
    if isinstance(raw, Image.Image):
        return frozenset({"image"})
    if isinstance(raw, np.ndarray):
        return frozenset({"audio"} if raw.ndim == 1 else {"image", "audio"})
    from torch import Tensor  # imported late: strings are judged before torch is loaded

    if isinstance(raw, Tensor):
        if raw.is_floating_point():
            return frozenset({"image", "audio"}) if raw.ndim > 2 else _ALL
        return frozenset({"text"}) if raw.ndim <= 2 else _ALL
    if isinstance(raw, Mapping):
        return frozenset(kind for name, kind in _NAMES.items() if name in raw) or _ALL
    if isinstance(raw, tuple):
        return frozenset({"audio"})
    return _ALL


def check_no_file(raw: object) -> None:
    """`InputError` for a string that names a file, where a text is meant; never for inputs that strangers send."""
    if isinstance(raw, str) and Path(raw).suffix and os.path.isfile(raw):
        readable = "text" in possible_kinds(raw)
        remedy = f"give what it says, Path({raw!r}).read_text()" if readable else "it has no side for files"
        raise InputError(f"{raw!r} is a file, where the model reads a text: {remedy}")


def missing(path: str) -> str:
    """The message for a file that is not there."""
    if _ADDRESS.match(path):
        return f"{path!r} is an address, and nothing is fetched from the network: download it first, then give the file"
    return f"{path!r} does not exist"


def _of_string(raw: str) -> frozenset[str]:
    if _ADDRESS.match(raw) and not any(c.isspace() for c in raw):
        return frozenset({"image", "audio"})
    ending = Path(raw).suffix.lower()
    if " " in raw and not os.path.exists(raw) and len(raw.split()) > 3:
        # A sentence that ends with the name of a file.
        return frozenset({"text"})
    if ending in Image.registered_extensions():
        return frozenset({"image"})
    if ending in _SOUNDS:
        return frozenset({"audio"})
    if os.path.exists(raw) or (os.sep in raw and not any(c.isspace() for c in raw)):
        return _ALL
    return frozenset({"text"})
