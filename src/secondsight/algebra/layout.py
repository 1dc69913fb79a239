"""What each feature of an input is and where it lies: grid cells on the original image, tokens in the original text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from secondsight.support.errors import InputError

Span = str | int | tuple[int, int] | list[int] | slice
"""A substring, a token index, (start, end) character offsets, a list of token indices, or a slice of them."""

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the original image."""

_WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]+")


_MOST = 100_000_000
"""Features of the largest layout that is read from a file."""


@dataclass(frozen=True)
class Layout:
    """The features of one input, in the order of the rows of its contributions.

    `size` counts them all. `special` names those that are no patch or word (class token, start, end, padding, mean
    token): they keep their row so that sums stay exact, and views hide them.
    """

    size: int
    special: Mapping[int, str] = field(default_factory=dict)
    kind: ClassVar[str] = "features"

    def __post_init__(self) -> None:
        if any(not 0 <= i < self.size for i in self.special):
            raise InputError(f"special features {sorted(self.special)} do not fit a layout of {self.size} features")

    @cached_property
    def visible(self) -> list[int]:
        """Indices of the features that are no special ones, in order."""
        return [i for i in range(self.size) if i not in self.special]

    @property
    def modality(self) -> str:
        """What the features are parts of: "image", "text", "audio", or "features" where it is not known."""
        return self.kind

    def select(self, selection: Any) -> Float[Tensor, " feature"]:
        """0/1 weights over the features for token or cell indices, a slice, or None (all visible features).

        Raises `InputError` for an index outside the layout or a selection that this kind does not know.
        """
        if selection is None:
            return self._mask(self.visible)
        if isinstance(selection, slice):
            try:
                return self._mask(range(self.size)[selection])
            except (TypeError, ValueError) as problem:
                raise InputError(f"cannot select {selection!r}: a slice of whole numbers is needed") from problem
        if isinstance(selection, int):
            selection = [selection]
        if isinstance(selection, list) and all(isinstance(i, int) for i in selection) and selection:
            outside = [i for i in selection if not -self.size <= i < self.size]
            if outside:
                raise InputError(f"feature index {outside[0]} is outside 0 … {self.size - 1}")
            return self._mask([i % self.size for i in selection])
        raise InputError(f"cannot select {selection!r} from {self.kind}: use an index, a list of indices or a slice")

    def view(self, values: Tensor) -> Tensor:
        """Per-feature values as this kind shows them; here unchanged."""
        return values

    def _mask(self, indices: Sequence[int] | range) -> Tensor:
        mask = torch.zeros(self.size)
        mask[list(indices)] = 1.0
        return mask

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Layout.from_json` reads back."""
        return {
            "kind": self.kind,
            "size": self.size,
            "special": {str(i): name for i, name in self.special.items()},
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Layout:
        """The layout that `to_json` wrote; `InputError` for an unknown kind."""
        # A file may say anything; nothing is made of sizes that no file can hold.
        if not isinstance(data["size"], int) or not 0 <= data["size"] <= _MOST:
            raise InputError(f"a layout of {data['size']!r} features cannot be")
        special = {int(i): name for i, name in data["special"].items()}
        if data["kind"] == GridLayout.kind:
            return GridLayout(
                data["size"], special, tuple(data["grid"]), tuple(data["image_size"]), tuple(data["frame"])
            )
        if data["kind"] == TokenLayout.kind:
            offsets = tuple(None if o is None else (o[0], o[1]) for o in data["offsets"])
            return TokenLayout(data["size"], special, tuple(data["tokens"]), offsets, data["text"])
        if data["kind"] == SpectrogramLayout.kind:
            return SpectrogramLayout(data["size"], special, tuple(data["grid"]), tuple(data["cells"]), data["seconds"])
        if data["kind"] == JoinedLayout.kind:
            return JoinedLayout.of([Layout.from_json(part) for part in data["parts"]], data["signs"])
        if data["kind"] == Layout.kind:
            return Layout(data["size"], special)
        raise InputError(f"unknown layout kind {data['kind']!r}; known: features, image, text, audio, joined")


@dataclass(frozen=True)
class GridLayout(Layout):
    """Patches or cells of an image: the visible features fill `grid` (rows, columns) row by row.

    `image_size` is (width, height) of the original image, `frame` the box (x0, y0, x1, y1) in its pixels that the grid
    covers: resizing and centre cropping make it smaller than the image, padding larger.
    """

    grid: tuple[int, int] = (0, 0)
    image_size: tuple[int, int] = (0, 0)
    frame: Box = (0.0, 0.0, 0.0, 0.0)
    kind: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid[0] * self.grid[1] != len(self.visible):
            raise InputError(f"a grid of {self.grid[0]}×{self.grid[1]} does not hold {len(self.visible)} cells")

    def view(self, values: Float[Tensor, "... feature"]) -> Float[Tensor, "... row column"]:
        """Per-feature values as the grid, special features left out."""
        return values[..., self.visible].unflatten(-1, self.grid)

    def heatmap(self, values: Float[Tensor, " feature"]) -> Float[Tensor, "height width"]:
        """Per-feature values upsampled bilinearly to the original image's pixels; zero outside the frame."""
        width, height = self.image_size
        x0, y0, x1, y1 = self.frame
        cells = self.view(values)[None, None]
        # grid_sample wants, for every original pixel centre, its place in the frame on [-1, 1].
        xs = ((torch.arange(width, dtype=cells.dtype, device=cells.device) + 0.5) - x0) / (x1 - x0) * 2 - 1
        ys = ((torch.arange(height, dtype=cells.dtype, device=cells.device) + 0.5) - y0) / (y1 - y0) * 2 - 1
        where = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1)[None]
        up = F.grid_sample(cells, where, mode="bilinear", padding_mode="border", align_corners=False)[0, 0]
        inside = ((ys.abs() <= 1)[:, None] & (xs.abs() <= 1)[None]).to(up.dtype)
        return up * inside

    def cell_boxes(self) -> Float[Tensor, "cell 4"]:
        """x0, y0, x1, y1 of every cell in pixels of the original image, row by row."""
        x0, y0, x1, y1 = self.frame
        rows, columns = self.grid
        xs = torch.linspace(x0, x1, columns + 1, dtype=torch.float64)
        ys = torch.linspace(y0, y1, rows + 1, dtype=torch.float64)
        top, left = torch.meshgrid(ys[:-1], xs[:-1], indexing="ij")
        bottom, right = torch.meshgrid(ys[1:], xs[1:], indexing="ij")
        return torch.stack([left, top, right, bottom], -1).flatten(0, 1).float()

    def cover(self, box: Sequence[float]) -> Float[Tensor, " feature"]:
        """Share of every cell's area that lies in the box (original pixels), in 0 … 1; special features have 0.

        Fractions keep selections additive: two halves of a box add up to the box. Raises `InputError` for a box that is
        empty or outside the image or the part of it that the model sees.
        """
        named = f"box {','.join(f'{float(v):g}' for v in box)}" if len(box) == 4 else f"box {tuple(box)}"
        if len(box) != 4:
            raise InputError(f"{named} needs four numbers x0,y0,x1,y1")
        x0, y0, x1, y1 = (float(v) for v in box)
        width, height = self.image_size
        # Written so that not-a-number fails too.
        if not (x0 < x1 and y0 < y1):
            raise InputError(f"{named} is empty: x0 < x1 and y0 < y1 are needed")
        if not (x1 > 0 and y1 > 0 and x0 < width and y0 < height):
            raise InputError(f"{named} lies outside the image, which is {width}×{height} pixels")
        cells = self.cell_boxes().double()
        across = (cells[:, 2].clamp(max=x1) - cells[:, 0].clamp(min=x0)).clamp(min=0)
        down = (cells[:, 3].clamp(max=y1) - cells[:, 1].clamp(min=y0)).clamp(min=0)
        share = across * down / ((cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1]))
        if not bool(share.any()):
            seen = ",".join(f"{v:.0f}" for v in self.frame)
            raise InputError(f"{named} lies outside the part of the image that the model sees ({seen})")
        weights = torch.zeros(self.size)
        weights[self.visible] = share.float()
        return weights

    def select(self, selection: Any) -> Float[Tensor, " feature"]:
        """Weights over the features for a box (a tuple of four numbers), indices, a slice, or None (all cells)."""
        if isinstance(selection, tuple):
            return self.cover(selection)
        return super().select(selection)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Layout.from_json` reads back."""
        return {
            **super().to_json(),
            "grid": list(self.grid),
            "image_size": list(self.image_size),
            "frame": list(self.frame),
        }


@dataclass(frozen=True)
class SpectrogramLayout(Layout):
    """Cells of a spectrogram: `grid` is (bands, frames), low bands first; `cells` the place of every visible feature there.

    `seconds` is what the frames last together, as the model hears it: short clips may be repeated by its processor. It
    is 0 for model-ready spectrograms, whose time is not known.
    """

    grid: tuple[int, int] = (0, 0)
    cells: tuple[int, ...] = ()
    seconds: float = 0.0
    kind: ClassVar[str] = "audio"

    def __post_init__(self) -> None:
        super().__post_init__()
        if sorted(self.cells) != list(range(self.grid[0] * self.grid[1])) or len(self.cells) != len(self.visible):
            raise InputError(f"{len(self.cells)} cells do not fill a grid of {self.grid[0]}×{self.grid[1]}")

    def view(self, values: Float[Tensor, "... feature"]) -> Float[Tensor, "... band frame"]:
        """Per-feature values as bands × frames, special features left out."""
        shown = values[..., self.visible]
        ordered = torch.empty_like(shown)
        ordered[..., list(self.cells)] = shown
        return ordered.unflatten(-1, self.grid)

    def heatmap(self, values: Float[Tensor, " feature"], size: tuple[int, int]) -> Float[Tensor, "height width"]:
        """Per-feature values upsampled bilinearly to (height, width) pixels, the lowest band in the first row."""
        cells = self.view(values)[None, None]
        return F.interpolate(cells, size=size, mode="bilinear", align_corners=False)[0, 0]

    def select(self, selection: Any) -> Float[Tensor, " feature"]:
        """Weights for (start, end) in seconds, cells counting by their covered share; or indices, a slice, None."""
        if not isinstance(selection, tuple):
            return super().select(selection)
        if len(selection) != 2 or not selection[0] < selection[1]:
            raise InputError(f"{selection!r} is no stretch of time: (start, end) in seconds is needed, start < end")
        if not self.seconds:
            raise InputError("the spectrogram came without its time: select cells by their indices")
        start, end = float(selection[0]), float(selection[1])
        if end <= 0 or start >= self.seconds:
            raise InputError(f"{start:g}-{end:g} s lies outside the sound, which lasts {self.seconds:g} s")
        edges = torch.linspace(0, self.seconds, self.grid[1] + 1, dtype=torch.float64)
        share = (edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)).clamp(min=0) / (edges[1] - edges[0])
        weights = torch.zeros(self.size)
        weights[self.visible] = share.float()[torch.tensor(self.cells) % self.grid[1]]
        return weights

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Layout.from_json` reads back."""
        return {**super().to_json(), "grid": list(self.grid), "cells": list(self.cells), "seconds": self.seconds}


@dataclass(frozen=True)
class Word:
    """A word of the caption: its text, its character offsets, and the features (tokens) that make it up."""

    text: str
    start: int
    end: int
    features: tuple[int, ...]


@dataclass(frozen=True)
class TokenLayout(Layout):
    """Tokens of a text: every feature's token, its (start, end) in the original text or None, and the text itself.

    The text is None for model-ready token ids, whose wording is not known; then only token indices can be selected.
    """

    tokens: tuple[str, ...] = ()
    offsets: tuple[tuple[int, int] | None, ...] = ()
    text: str | None = None
    kind: ClassVar[str] = "text"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.tokens) == len(self.offsets) == self.size:
            raise InputError(f"{self.size} features, {len(self.tokens)} tokens and {len(self.offsets)} offsets differ")

    @cached_property
    def words(self) -> list[Word]:
        """The words and punctuation marks of the text with their tokens; tokens by themselves where it is unknown.

        A word that truncation cut away has no tokens.
        """
        if self.text is None:
            return [Word(self.tokens[i], 0, 0, (i,)) for i in self.visible]
        found = [(m.group(), m.start(), m.end()) for m in _WORD.finditer(self.text)]
        owner: dict[int, int] = {}
        for feature in self.visible:
            offset = self.offsets[feature]
            if offset is None:
                continue
            shared = [min(offset[1], end) - max(offset[0], start) for _, start, end in found]
            if shared and max(shared) > 0:
                owner[feature] = shared.index(max(shared))
        return [
            Word(text, start, end, tuple(f for f, o in owner.items() if o == w))
            for w, (text, start, end) in enumerate(found)
        ]

    def span(self, text: str) -> tuple[int, int]:
        """Character offsets of a substring: whole words before parts of words, exact case before any case.

        Raises `InputError`, listing the words, where it is missing or occurs more than once.
        """
        if self.text is None:
            raise InputError(f"{text!r} cannot be looked up: the tokens came without their text, use token indices")
        whole = rf"(?<!\w){re.escape(text)}(?!\w)"
        for pattern, flags in ((whole, 0), (whole, re.I), (re.escape(text), 0), (re.escape(text), re.I)):
            found = [m.span() for m in re.finditer(pattern, self.text, flags)] if text.strip() else []
            if len(found) == 1:
                return found[0]
            if found:
                places = ", ".join(f"{s}-{e}" for s, e in found)
                raise InputError(
                    f"{text!r} occurs {len(found)} times in {self.text!r} (characters {places}): give offsets"
                )
        words = ", ".join(repr(w.text) for w in self.words)
        raise InputError(f"{text!r} is not in the caption; its words are {words}")

    def select(self, selection: Any) -> Float[Tensor, " feature"]:
        """0/1 weights over the tokens for a substring, (start, end) character offsets, indices, a slice, or None.

        A span selects every token that it overlaps. Raises `InputError` where nothing or no single place is meant.
        """
        if isinstance(selection, str):
            selection = self.span(selection)
        if not isinstance(selection, tuple):
            return super().select(selection)
        if self.text is None:
            raise InputError(f"offsets {selection} cannot be used: the tokens came without their text, use indices")
        if len(selection) != 2 or not all(isinstance(v, int) for v in selection):
            raise InputError(f"{selection!r} is no span: (start, end) character offsets are two whole numbers")
        start, end = selection
        if not 0 <= start < end <= len(self.text):
            raise InputError(f"characters {start}-{end} are no span of the caption, which has {len(self.text)}")
        features = [i for i in self.visible if (o := self.offsets[i]) is not None and o[0] < end and start < o[1]]
        if not features:
            cut = start >= max((o[1] for o in self.offsets if o is not None), default=0)
            why = "was cut off: the caption is longer than the model's context" if cut else "covers no token"
            raise InputError(f"{self.text[start:end]!r} (characters {start}-{end}) {why}")
        return self._mask(features)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Layout.from_json` reads back."""
        offsets = [None if o is None else list(o) for o in self.offsets]
        return {**super().to_json(), "tokens": list(self.tokens), "offsets": offsets, "text": self.text}


@dataclass(frozen=True)
class JoinedLayout(Layout):
    """Features of several inputs one after another, as in a margin between two captions.

    `parts` are the inputs' layouts; `signs` say whether each adds to the similarity (1) or is subtracted (−1).
    """

    parts: tuple[Layout, ...] = ()
    signs: tuple[int, ...] = ()
    kind: ClassVar[str] = "joined"

    @classmethod
    def of(cls, layouts: Sequence[Layout], signs: Sequence[int]) -> JoinedLayout:
        """Layouts one after another; joined ones among them are taken apart first."""
        parts: list[tuple[Layout, int]] = []
        for layout, sign in zip(layouts, signs, strict=True):
            inner = zip(layout.parts, layout.signs, strict=True) if isinstance(layout, JoinedLayout) else [(layout, 1)]
            parts += [(part, own * sign) for part, own in inner]
        special: dict[int, str] = {}
        size = 0
        for part, _ in parts:
            special |= {size + i: name for i, name in part.special.items()}
            size += part.size
        return cls(size, special, tuple(part for part, _ in parts), tuple(sign for _, sign in parts))

    @property
    def modality(self) -> str:
        """What all parts have in common, or "features"."""
        kinds = {part.modality for part in self.parts}
        return kinds.pop() if len(kinds) == 1 else Layout.kind

    def each(self, shown: Any) -> tuple[Any, ...]:
        """What to show of every part: the inputs themselves, or None for each where they are not at hand."""
        return shown if isinstance(shown, tuple) else (None,) * len(self.parts)

    def split(self, values: Float[Tensor, "... feature"]) -> list[Tensor]:
        """Per-feature values of every part."""
        return list(values.split([part.size for part in self.parts], dim=-1))

    @cached_property
    def words(self) -> list[Word]:
        """The words of all parts that are texts."""
        found, first = [], 0
        for part in self.parts:
            if isinstance(part, TokenLayout):
                found += [Word(w.text, w.start, w.end, tuple(first + f for f in w.features)) for w in part.words]
            first += part.size
        return found

    def select(self, selection: Any) -> Float[Tensor, " feature"]:
        """Weights for a substring in every part that has it, (part, selection) in one part, indices, a slice, or None.

        Raises `InputError` where no part has the substring.
        """
        if isinstance(selection, str):
            return self._everywhere(selection)
        if not isinstance(selection, tuple):
            return super().select(selection)
        if len(selection) != 2 or not isinstance(selection[0], int) or not 0 <= selection[0] < len(self.parts):
            raise InputError(
                f"{selection!r} could be in any of {len(self.parts)} inputs: give (n, selection), n in "
                f"0 … {len(self.parts) - 1}"
            )
        return torch.cat(
            [
                part.select(selection[1]) if i == selection[0] else torch.zeros(part.size)
                for i, part in enumerate(self.parts)
            ]
        )

    def _everywhere(self, text: str) -> Tensor:
        # Only a part that does not have it at all is left out: one that has it twice does not say which is meant.
        having = [isinstance(p, TokenLayout) and text.lower() in (p.text or "").lower() for p in self.parts]
        if not any(having):
            words = ", ".join(repr(word.text) for word in self.words)
            raise InputError(f"{text!r} is in none of the {len(self.parts)} inputs; their words are {words}")
        return torch.cat(
            [p.select(text) if has else torch.zeros(p.size) for p, has in zip(self.parts, having, strict=True)]
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Layout.from_json` reads back."""
        return {**super().to_json(), "parts": [part.to_json() for part in self.parts], "signs": list(self.signs)}


def parts_of(layout: Layout) -> tuple[Layout, ...]:
    """The layouts that a joined one consists of; any other layout by itself."""
    return layout.parts if isinstance(layout, JoinedLayout) else (layout,)


def words_of(layout: Layout) -> list[Word]:
    """The words of a layout's texts; none for images and sound."""
    return layout.words if isinstance(layout, (TokenLayout, JoinedLayout)) else []


def word_scores(layout: Layout, values: Float[Tensor, " feature"]) -> list[tuple[str, float]]:
    """Per-feature values summed over the tokens of each word, in reading order; `InputError` without a text."""
    if not words_of(layout):
        raise InputError(f"words need a text, not {layout.modality}")
    return [(word.text, float(values[list(word.features)].sum())) for word in words_of(layout)]
