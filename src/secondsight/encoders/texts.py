"""Texts as token ids, with every token's place in the original text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import Tensor

from secondsight.encoders.base import Prepared
from secondsight.errors import InputError
from secondsight.layout import TokenLayout

TEXT_REFERENCES = ("padding", "empty")

Offsets = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class Tokenized:
    """A text's tokens with their (start, end) in it, special ones named by position; the text is None if unknown."""

    text: str | None
    tokens: tuple[str, ...]
    offsets: Offsets
    special: dict[int, str]

    def layout(self, size: int) -> TokenLayout:
        """The layout of the first `size` positions."""
        special = {i: name for i, name in self.special.items() if i < size}
        return TokenLayout(size, special, self.tokens[:size], self.offsets[:size], self.text)


def check_text(raw: Any) -> str:
    """The raw input as a text that has words; `InputError` otherwise."""
    if not isinstance(raw, str):
        raise InputError(
            f"cannot use {type(raw).__name__} as a text: give a string, or token ids as a (1, length) tensor"
        )
    if not raw.strip():
        raise InputError(f"the caption {raw!r} is empty: give at least one word")
    return raw


def too_long(text: str, needed: int, context: int) -> InputError:
    """The error for a caption that does not fit the model's context."""
    return InputError(
        f"the caption {text[:40]!r}… takes {needed} tokens, the model reads {context}: "
        "shorten it, or allow the cut with truncate=True (--truncate)"
    )


def align(original: str, cleaned: str) -> list[int]:
    """For every character of a cleaned text the character of the original that it came from.

    Cleaning lowers case, collapses spaces, straightens quotes and mends encodings; what was replaced maps in order.
    """
    # Lowering may lengthen a character; compare per character so that positions stay those of the original.
    lowered = [c.lower()[:1] or c for c in original]
    matcher = SequenceMatcher(None, lowered, [c.lower()[:1] or c for c in cleaned], autojunk=False)
    places = []
    for _, i0, i1, j0, j1 in matcher.get_opcodes():
        # Equal stretches map one to one; of unequal ones every character takes its share, an insertion what precedes it.
        places += [i0 + k * (i1 - i0) // (j1 - j0) if i1 > i0 else max(i0 - 1, 0) for k in range(j1 - j0)]
    return places


def byte_offsets(original: str, cleaned: str, pieces: list[bytes]) -> Offsets:
    """Offsets in the original of byte-level tokens that together spell the cleaned text without its white space."""
    places = align(original, cleaned)
    owners = [places[j] for j, c in enumerate(cleaned) if not c.isspace() for _ in c.encode()]
    offsets: list[tuple[int, int] | None] = []
    position = 0
    for piece in pieces:
        own = owners[position : position + len(piece)]
        position += len(piece)
        offsets.append((min(own), max(own) + 1) if own else None)
    return tuple(offsets)


def ready_ids(ids: Tensor, spell: Callable[[int], str], special: dict[int, str]) -> Prepared:
    """Model-ready token ids (1, length) with the tokens' spelling but no text."""
    tokens = tuple(spell(int(i)) for i in ids[0])
    return Prepared(ids, None, Tokenized(None, tokens, (None,) * len(tokens), special))


def check_ids(raw: Tensor) -> Tensor:
    """A tensor (1, length) or (length,) of integers as (1, length); `InputError` for anything else."""
    ids = raw[None] if raw.ndim == 1 else raw
    if ids.ndim != 2 or len(ids) != 1 or ids.is_floating_point() or ids.shape[1] == 0:
        raise InputError(
            f"a tensor {tuple(raw.shape)} of {raw.dtype} is no model-ready text: (1, length) token ids are needed"
        )
    return ids


def text_reference(ids: Tensor, which: str | Tensor | None, *, start: int | None, end: int, padding: int) -> Tensor:
    """Padding between start and end (default), start and end only, or the given ids; (1, length) as the input.

    `start` and `end` are the positions of the input's start and end tokens; `start` is None for models without one.
    """
    if isinstance(which, Tensor):
        own = which[None] if which.ndim == 1 else which
        if own.shape != ids.shape:
            raise InputError(f"the reference {tuple(own.shape)} does not have the input's shape {tuple(ids.shape)}")
        return own.to(ids)
    reference = torch.full_like(ids, padding)
    kept = [] if start is None else [start]
    if which is None or which == "padding":
        for position in [*kept, end]:
            reference[0, position] = ids[0, position]
        return reference
    if which == "empty":
        for place, position in enumerate([*kept, end]):
            reference[0, place] = ids[0, position]
        return reference
    raise InputError(f"unknown text reference {which!r}; known: {', '.join(TEXT_REFERENCES)}, or a tensor of token ids")
