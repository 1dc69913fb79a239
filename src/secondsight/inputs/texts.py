"""Texts as token ids, with every token's place in the original text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import Tensor

from secondsight.algebra.layout import TokenLayout
from secondsight.inputs.prepared import Prepared, own_reference
from secondsight.support.errors import InputError

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
        kept = self.cut(size)
        return TokenLayout(size, kept.special, kept.tokens, kept.offsets, kept.text)

    def cut(self, size: int) -> Tokenized:
        """The first `size` positions."""
        special = {i: name for i, name in self.special.items() if i < size}
        return Tokenized(self.text, self.tokens[:size], self.offsets[:size], special)


def check_text(raw: Any) -> str:
    """The raw input as a text that has words; `InputError` otherwise."""
    if not isinstance(raw, str):
        raise InputError(
            f"cannot use {type(raw).__name__} as a text: give a string, or token ids as a (1, length) tensor"
        )
    if not raw.strip():
        raise InputError(f"the caption {raw!r} is empty: give at least one word")
    if any("\ud800" <= c <= "\udfff" for c in raw):
        raise InputError("the caption holds half a character (a lone surrogate): give whole ones")
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


_MARKS = ("▁", "Ġ", "##", "</w>")
"""What tokenizers write for a space, the middle of a word, or its end."""


def spelled_offsets(text: str, tokens: Sequence[str], special: Mapping[int, str]) -> Offsets:
    """Offsets of tokens that only spell themselves, as slow tokenizers' do, by aligning what they spell with the text."""
    pieces: list[bytes] = []
    for i, token in enumerate(tokens):
        byte = re.fullmatch(r"<0x([0-9A-F]{2})>", token)
        for mark in _MARKS:
            token = token.replace(mark, "")
        pieces.append(b"" if i in special else bytes([int(byte[1], 16)]) if byte else "".join(token.split()).encode())
    spelled = b"".join(pieces).decode("utf-8", errors="replace")
    return byte_offsets(text, spelled, pieces)


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


def text_reference(ids: Tensor, which: str | Tensor | None, *, keep: Sequence[int], padding: int) -> Tensor:
    """Padding between start and end (default), start and end only, or the given ids; (1, length) as the input.

    `keep` are the positions of the input's start and end tokens and whatever else is no word.
    """
    if isinstance(which, Tensor):
        return own_reference(which[None] if which.ndim == 1 else which, ids)
    if which not in (None, *TEXT_REFERENCES):
        known = ", ".join(TEXT_REFERENCES)
        raise InputError(f"unknown text reference {which!r}; known: {known}, or a tensor of token ids")
    reference = torch.full_like(ids, padding)
    places = range(len(keep)) if which == "empty" else keep
    for place, position in zip(places, keep, strict=True):
        reference[0, place] = ids[0, position]
    return reference


class HubTokens:
    """Texts as a transformers tokenizer makes them: ids, offsets in the original, special tokens by name.

    `context` is the longest input in tokens, `pad_to` the length that the model wants every input padded to, `prompt`
    what precedes every text; None for `tokenizer` leaves only model-ready ids.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        vocabulary: int,
        context: int,
        pad_to: int | None = None,
        padding: int | None = None,
        prompt: str = "",
        clean: Callable[[str], str] | None = None,
    ) -> None:
        self.tokenizer, self.vocabulary, self.context, self.pad_to = tokenizer, vocabulary, context, pad_to
        self.prompt, self.clean = prompt, clean
        own = getattr(tokenizer, "pad_token_id", None)
        self.padding: int = next(
            (p for p in (padding, own, getattr(tokenizer, "eos_token_id", None)) if p is not None), 0
        )

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A text, or model-ready ids (1, length) or a dictionary with "input_ids" and perhaps "attention_mask"."""
        if isinstance(raw, Mapping):
            # A model that wants all inputs padded to one length reads that padding.
            raw = unpadded(raw if self.pad_to is None else {"input_ids": raw.get("input_ids")})
        if isinstance(raw, Tensor):
            return self._ready(check_ids(raw))
        text = check_text(raw)
        if self.tokenizer is None:
            raise InputError(
                "this model came without a tokenizer: pass tokenizer=, or token ids as a (1, length) tensor"
            )
        return self._prepared(text, truncate)

    def prompt_tokens(self) -> int:
        """How many tokens of every input, the start included, are the prompt's."""
        if not self.prompt:
            return 0
        ids: list[int] = self.tokenizer(self.prompt)["input_ids"]
        ends = {self.tokenizer.sep_token_id, self.tokenizer.eos_token_id}
        return len(ids) - (ids[-1] in ends)

    def _prepared(self, text: str, truncate: bool) -> Prepared:
        cleaned = self.prompt + (self.clean(text) if self.clean else text)
        fast = bool(getattr(self.tokenizer, "is_fast", False))
        made = self.tokenizer(cleaned, truncation=False, verbose=False, return_offsets_mapping=fast)
        ids: list[int] = made["input_ids"]
        whole = len(ids)
        if whole > self.context:
            if not truncate:
                raise too_long(text, whole, self.context)
            # The tokenizer's own way to cut keeps its special tokens where they belong.
            made = self.tokenizer(
                cleaned, truncation=True, max_length=self.context, verbose=False, return_offsets_mapping=fast
            )
            ids = made["input_ids"]
        found: list[tuple[int, int]] = made["offset_mapping"] if fast else [(0, 0)] * len(ids)
        ids = ids + [self.padding] * ((self.pad_to or 0) - len(ids))
        special = self.named(ids)
        for i, (_, end) in enumerate(found):
            if i not in special and fast and end <= len(self.prompt):
                special[i] = "prompt"
        tokens = tuple(self._spell(i) for i in ids)
        if fast:
            offsets: Offsets | None = self._offsets(text, cleaned[len(self.prompt) :], found, special, len(ids))
        else:
            offsets = None if self.prompt else spelled_offsets(text, tokens, special)
        known = Tokenized(None if offsets is None else text, tokens, offsets or (None,) * len(ids), special)
        return Prepared(torch.tensor([ids]), text, known)

    def _offsets(
        self, text: str, cleaned: str, found: list[tuple[int, int]], special: dict[int, str], size: int
    ) -> Offsets:
        """Places in the text, without the prompt and the space that some tokenizers count to a word."""
        places = None if cleaned == text else align(text, cleaned)
        offsets: list[tuple[int, int] | None] = []
        for i, (start, end) in enumerate(found):
            start, end = max(start - len(self.prompt), 0), end - len(self.prompt)
            while start < end and cleaned[start].isspace():
                start += 1
            if i in special or start >= end:
                offsets.append(None)
            elif places is None:
                offsets.append((start, end))
            else:
                own = places[start:end]
                offsets.append((min(own), max(own) + 1))
        return (*offsets, *[None] * (size - len(offsets)))

    def _ready(self, ids: Tensor) -> Prepared:
        check_range(ids, self.vocabulary)
        if ids.shape[1] > self.context:
            raise too_long("ids", ids.shape[1], self.context)
        return ready_ids(ids, self._spell, self.named([int(i) for i in ids[0]]))

    def _spell(self, token: int) -> str:
        return str(token) if self.tokenizer is None else str(self.tokenizer.convert_ids_to_tokens(token))

    def named(self, ids: Sequence[int]) -> dict[int, str]:
        """Start, end and padding by position; without a tokenizer the first and last tokens that are no padding."""
        last = max((i for i, token in enumerate(ids) if token != self.padding), default=len(ids) - 1)
        tokenizer = self.tokenizer
        if tokenizer is None:
            return {**dict.fromkeys(range(last + 1, len(ids)), "padding"), 0: "start", last: "end"}
        names = {tokenizer.pad_token_id: "padding", self.padding: "padding"}
        names |= {tokenizer.mask_token_id: "mask", tokenizer.bos_token_id: "start", tokenizer.cls_token_id: "start"}
        names |= {tokenizer.sep_token_id: "end", tokenizer.eos_token_id: "end"}
        special: dict[int, str] = {}
        ended = False
        for i, token in enumerate(ids):
            if token in names and token is not None:
                # CLIP pads with its end token: only the first one ends the text.
                special[i] = "padding" if ended and names[token] == "end" else names[token]
                ended = ended or names[token] == "end"
        return special

    def reference(self, prepared: Prepared, which: str | Tensor | None) -> Tensor:
        """Padding between start and end, or see `text_reference`; a prompt is kept."""
        if isinstance(which, Mapping):
            which = unpadded(which)
        special: dict[int, str] = prepared.place.special
        keep = [i for i, name in sorted(special.items()) if name != "padding"]
        return text_reference(prepared.tensor, which, keep=keep, padding=self.padding)


def check_range(ids: Tensor, vocabulary: int) -> None:
    """`InputError` for a token id outside the vocabulary."""
    top, low = int(ids.max()), int(ids.min())
    if top >= vocabulary or low < 0:
        raise InputError(f"token id {low if low < 0 else top} is outside this model's vocabulary of {vocabulary}")


def unpadded(made: Mapping[str, Any]) -> Tensor:
    """The token ids of a tokenizer's output for one text, without the padding that its attention mask names."""
    ids = made.get("input_ids")
    if not isinstance(ids, Tensor):
        raise InputError(f"a tokenizer's output needs 'input_ids' as a tensor, not {type(ids).__name__}")
    ids, mask = check_ids(ids), made.get("attention_mask")
    return ids if not isinstance(mask, Tensor) else ids[:, mask.reshape(-1).bool()]
