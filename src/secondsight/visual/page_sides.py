"""One side of an explanation as plain data for the view: a picture with its grid, a text with its words, or several."""

from __future__ import annotations

import base64
import io
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from secondsight.algebra.layout import GridLayout, Layout, SpectrogramLayout, owners_in
from secondsight.visual.colours import grey_levels
from secondsight.visual.passages import is_long, passages

Side = dict[str, Any]
"""What the view needs of a side: its `kind`, its picture or words, and the number of its `groups` (cells or words)."""

_MAX_CELLS = 64
"""Cells per side of the page's grid; the cells of finer maps, such as single pixels, are summed."""

_MAX_PIXELS = 1280
"""Pixels of the longer side of an embedded picture; boxes stay in original pixels."""


class Pictures:
    """The pictures of a page as data addresses; each is stored once, however many cases show it."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        # Holds the pictures as well, so that no later one can get the id of an earlier one.
        self._entries: dict[int, tuple[Image.Image, int]] = {}

    def add(self, picture: Image.Image) -> int:
        """Store a picture, unless an equal one is stored, and return its index in `sources`."""
        if id(picture) not in self._entries:
            source = _data_address(picture)
            if source not in self.sources:
                self.sources.append(source)
            self._entries[id(picture)] = picture, self.sources.index(source)
        return self._entries[id(picture)][1]


def _data_address(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((_MAX_PIXELS, _MAX_PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def side_data(layout: Layout, content: Any, pictures: Pictures) -> tuple[Side, Int[Tensor, " feature"]]:
    """A side as plain data, and the group of every feature; the number of groups for features that belong to none."""
    build = _joined_side if len(layout.parts) > 1 else _BUILDERS.get(layout.kind, _text_side)
    return build(layout, content, pictures)


def sum_groups(
    values: Float[Tensor, feature * rest], owners: Int[Tensor, " feature"], groups: int
) -> Float[Tensor, group * rest]:
    """Values summed within their group; features that belong to none are left out."""
    sums = values.new_zeros(groups + 1, *values.shape[1:])
    return sums.index_add(0, owners, values)[:groups]


def start_of(layout: Layout, side: Side, selection: Any) -> Any:
    """The view's initial pick for a selection: a box, indices of words, a list of these for joined inputs, or None."""
    if selection is None:
        return None
    weights = layout.select(selection)
    if layout.kind == "image" and isinstance(selection, tuple):
        return [float(v) for v in selection]
    return _start_of_weights(layout, side, weights)


def _start_of_weights(layout: Layout, side: Side, weights: Float[Tensor, " feature"]) -> Any:
    if len(layout.parts) > 1:
        parts = zip(layout.parts, side["parts"], layout.split(weights), strict=True)
        return [_start_of_weights(*part) if bool(part[2].any()) else None for part in parts]
    if side["kind"] == "text":
        return [i for i, features in enumerate(_word_features(layout)) if features and bool(weights[features].any())]
    return _box_around(layout, side, weights)


def _box_around(layout: Layout, side: Side, weights: Float[Tensor, " feature"]) -> list[float] | None:
    """The box around all cells with a weight, in pixels of the picture; None for special features, which have no place."""
    cells = layout.view(weights.detach().cpu())
    if layout.kind == "audio":
        # Pictures begin at the top, spectrograms at the lowest band.
        cells = cells.flip(0)
    rows, columns = cells.any(1).nonzero().flatten().tolist(), cells.any(0).nonzero().flatten().tolist()
    if not rows:
        return None
    (x0, y0, x1, y1), (down, across) = side["frame"], cells.shape
    width, height = (x1 - x0) / across, (y1 - y0) / down
    return [
        x0 + columns[0] * width,
        y0 + rows[0] * height,
        x0 + (columns[-1] + 1) * width,
        y0 + (rows[-1] + 1) * height,
    ]


def _image_side(layout: GridLayout, photo: Image.Image, pictures: Pictures) -> tuple[Side, Tensor]:
    # Every coarser cell sums equally many finer ones; a sum over more would look like a stronger one.
    coarse = layout.coarsen(_MAX_CELLS)
    side = _picture_side(coarse.grid, layout.image_size, layout.frame, pictures.add(photo), "the explained picture")
    return {**side, "groups": coarse.size}, owners_in(layout, coarse)


def _sound_side(layout: SpectrogramLayout, levels: np.ndarray, pictures: Pictures) -> tuple[Side, Tensor]:
    """Sound as the picture of its spectrogram, high bands at the top, and the seconds that its width covers."""
    coarse = layout.coarsen(_MAX_CELLS)
    # Pictures begin at the top, spectrograms at the lowest band.
    groups = torch.full((coarse.size + 1,), coarse.size)
    groups[coarse.cells.flip(0).flatten()] = torch.arange(coarse.size)
    grey = grey_levels(levels[::-1]).astype(np.uint8)
    picture = Image.fromarray(grey).resize((960, 320), Image.Resampling.BILINEAR).convert("RGB")
    frame = (0.0, 0.0, *picture.size)
    side = _picture_side(coarse.grid, picture.size, frame, pictures.add(picture), "the sound's spectrogram")
    return {**side, "seconds": layout.seconds, "groups": coarse.size}, groups[owners_in(layout, coarse)]


def _picture_side(
    grid: tuple[int, int], size: tuple[int, int], frame: tuple[float, ...], source: int, alt: str
) -> Side:
    return {
        "kind": "image",
        "grid": list(grid),
        "size": list(size),
        "frame": list(frame),
        "source": source,
        "alt": alt,
    }


def _joined_side(layout: Layout, contents: Any, pictures: Pictures) -> tuple[Side, Tensor]:
    """The sides of all parts, their groups numbered one part after another."""
    parts = [
        side_data(part, content, pictures) for part, content in zip(layout.parts, layout.each(contents), strict=True)
    ]
    sides = [{**side, "sign": sign} for (side, _), sign in zip(parts, layout.signs, strict=True)]
    count, first = sum(side["groups"] for side in sides), 0
    owners = torch.full((layout.size,), count)
    for (side, groups), features in zip(parts, layout.split(torch.arange(layout.size)), strict=True):
        owners[features] = torch.where(groups < side["groups"], groups + first, count)
        first += side["groups"]
    return {"kind": "joined", "parts": sides, "groups": count}, owners


def _text_side(layout: Layout, content: Any, pictures: Pictures) -> tuple[Side, Tensor]:
    """A text with its words; for features without words, their indices stand for them."""
    del content, pictures
    members, text = _word_features(layout), layout.text
    spans = [(w.text, w.start, w.end) for w in layout.words] or [(str(i), 0, 0) for i in layout.visible]
    # The end of what the model reads, in characters.
    end_of_tokens = max((offset[1] for offset in layout.offsets if offset is not None), default=0)
    owners = torch.full((layout.size,), len(members))
    for group, features in enumerate(members):
        owners[features] = group
    words = [
        {
            "text": word,
            "start": _utf16(text, start),
            "end": _utf16(text, end),
            "cut": not features,
            # A word without a token of its own shares its neighbour's, unless it lies behind the last token.
            "shared": not features and start < end_of_tokens,
            **_symbol_names(word),
        }
        for (word, start, end), features in zip(spans, members, strict=True)
    ]
    side = {"kind": "text", "text": text, "words": words, "groups": len(members)}
    # Of a long text the passages as well, each by its first word.
    return side | ({"passages": [passage.first for passage in passages(layout)]} if is_long(layout) else {}), owners


def _symbol_names(word: str) -> dict[str, list[list[str]]]:
    """Unicode's names of a word's symbols, which the view shows where the reader's fonts have none of them."""
    symbols = [
        [c, unicodedata.name(c, "unknown symbol").lower()] for c in word if unicodedata.category(c) in ("So", "Cn")
    ]
    return {"symbols": symbols} if symbols else {}


def _word_features(layout: Layout) -> list[list[int]]:
    """The features of every word; without words, every visible feature by itself."""
    return [list(word.features) for word in layout.words] or [[i] for i in layout.visible]


def _utf16(text: str | None, offset: int) -> int:
    """An offset in characters as JavaScript counts it, in UTF-16 units."""
    return offset if text is None else len(text[:offset].encode("utf-16-le")) // 2


_BUILDERS: dict[str, Callable[..., tuple[Side, Tensor]]] = {"image": _image_side, "audio": _sound_side}
"""How the side of a single input is built, by the kind of its layout; other kinds are shown as texts."""
