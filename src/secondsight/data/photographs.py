"""Photographs in a folder, without captions."""

from __future__ import annotations

from pathlib import Path

from secondsight.support.errors import InputError

PHOTOGRAPHS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""File name endings of photographs."""


def photographs(folder: str | Path) -> dict[str, Path]:
    """The image files in a folder and its subfolders, by their path in it; raises `InputError` if there are none."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder")
    paths = {
        str(path.relative_to(root)): path
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in PHOTOGRAPHS and path.is_file()
    }
    if not paths:
        raise InputError(f"{str(folder)!r} holds no photographs ({', '.join(PHOTOGRAPHS)})")
    return paths
