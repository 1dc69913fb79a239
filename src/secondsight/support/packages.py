"""Packages that only some uses need."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from secondsight.support.errors import InputError

Loaded = TypeVar("Loaded")


def require(package: str, extra: str, load: Callable[[], Loaded]) -> Loaded:
    """What `load` imports; `InputError` with the remedy where the package is missing."""
    try:
        return load()
    except ImportError as problem:
        raise InputError(
            f"this model needs the package {package}, which is not installed: pip install 'secondsight[{extra}]'"
        ) from problem
