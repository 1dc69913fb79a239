"""A model-ready input, and where its parts lie in what the user gave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from secondsight.algebra.layout import Box, TokenLayout
from secondsight.support.errors import InputError

Offsets = tuple[tuple[int, int] | None, ...]
"""Of every token its (start, end) in a text; None for tokens that stand for none of it."""


@dataclass(frozen=True)
class Placement:
    """Size (width, height) of the original image, and the box of it that the model sees, in its pixels."""

    image_size: tuple[int, int]
    frame: Box


@dataclass(frozen=True)
class Tokenized:
    """A text's tokens with their (start, end) in it, special ones named by position; the text is None if unknown."""

    text: str | None
    tokens: tuple[str, ...]
    offsets: Offsets
    special: dict[int, str]

    def layout(self, size: int) -> TokenLayout:
        """The layout of the first `size` positions."""
        part = self.cut(size)
        return TokenLayout(size, part.special, part.tokens, part.offsets, part.text)

    def cut(self, size: int) -> Tokenized:
        """The first `size` positions."""
        special = {i: name for i, name in self.special.items() if i < size}
        return Tokenized(self.text, self.tokens[:size], self.offsets[:size], special)


@dataclass(frozen=True)
class Duration:
    """The seconds that a spectrogram covers."""

    seconds: float


Source = Placement | Tokenized | Duration | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """One input, ready for the model.

    `tensor` has a batch axis of 1, `display` is what to show of the input, `source` says where its parts lie in the
    original; None where that is not known.
    """

    tensor: Tensor
    display: Image.Image | str | np.ndarray | None
    source: Source

    @property
    def placement(self) -> Placement:
        """Where an image's pixels lie in the original."""
        if not isinstance(self.source, Placement):
            raise TypeError(f"an input with {type(self.source).__name__} has no placement: it is not an image")
        return self.source

    @property
    def tokenized(self) -> Tokenized:
        """A text's tokens and where they lie in it."""
        if not isinstance(self.source, Tokenized):
            raise TypeError(f"an input with {type(self.source).__name__} has no tokens: it is not a text")
        return self.source


def matching_reference(reference: Tensor, tensor: Tensor) -> Tensor:
    """The user's reference in the device and precision of the input; `InputError` for another shape."""
    if reference.shape != tensor.shape:
        raise InputError(
            f"the reference {tuple(reference.shape)} does not have the input's shape {tuple(tensor.shape)}"
        )
    return reference.to(tensor)


def as_list(inputs: Any) -> list[Any]:
    """Several inputs as a list: an iterable of raw inputs, or a model-ready batch split along its first axis."""
    if isinstance(inputs, Tensor):
        return [inputs] if inputs.ndim == 1 else list(inputs.split(1))
    if isinstance(inputs, Mapping):
        # The output of a processor or tokenizer, one row per input.
        columns = {key: tensor.split(1) for key, tensor in inputs.items() if isinstance(tensor, Tensor)}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if isinstance(inputs, (str, bytes, np.ndarray)) or not isinstance(inputs, Iterable):
        raise InputError(f"contributions take several inputs: give a list, not {type(inputs).__name__}")
    return list(inputs)
