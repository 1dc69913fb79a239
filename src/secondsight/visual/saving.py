"""Figures as files, and names that figures can show."""

from __future__ import annotations

import io
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from secondsight.support.errors import InputError
from secondsight.support.files import atomic


@contextmanager
def shown_figure(**options: Any) -> Iterator[Figure]:
    """A figure of pyplot to draw into and return, closed after an error."""
    import matplotlib.pyplot as plt

    figure = plt.figure(**options)
    try:
        yield figure
    except BaseException:
        plt.close(figure)
        raise
    if "inline" in str(rcParams["backend"]):
        # The notebook shows the returned figure; an open figure would be shown a second time.
        plt.close(figure)


def printable(name: Any) -> str:
    """A name as figures can show it, without control characters, which are invisible and break matplotlib's PDF writer."""
    text = "".join(c for c in str(name) if unicodedata.category(c) not in ("Cc", "Cf", "Cs")) or "·"
    # matplotlib's legends omit names that begin with an underscore.
    return f" {text}" if text.startswith("_") else text


def with_names(text: str) -> str:
    """A text whose symbols that matplotlib's fonts have not are replaced by their names, in brackets."""
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in rcParams["font.family"]]
    return "".join(
        f"[{unicodedata.name(c, 'unknown symbol').lower()}]"
        if unicodedata.category(c) in ("So", "Cn") and not any(font.get_char_index(ord(c)) for font in fonts)
        else c
        for c in text
    )


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as .pdf, .svg or .png: fonts embedded as TrueType, SVG's text as text, the same bytes every time."""
    kind = Path(path).suffix[1:].lower()
    if kind not in ("pdf", "svg", "png"):
        raise InputError(f"cannot write {str(path)!r}: the name must end in .pdf, .svg or .png")
    with atomic(path) as file:
        file.write(encode_figure(figure, kind))


def encode_figure(figure: Figure, kind: str, dpi: int = 200) -> bytes:
    """A figure as the bytes of a file of type `kind`: pdf, svg or png."""
    buffer = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[kind]
    settings: Any = {
        "svg.hashsalt": "secondsight",
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "text.parse_math": False,
    }
    with rc_context(settings):
        figure.savefig(buffer, format=kind, metadata=metadata, dpi=dpi)
    return buffer.getvalue()
