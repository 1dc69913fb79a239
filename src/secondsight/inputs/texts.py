"""Texts as token ids, with every token's place in the original text."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from secondsight.inputs.offsets import align, spelled_offsets
from secondsight.inputs.prepared import Offsets, Prepared, Tokenized, matching_reference
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT_REFERENCES = ("padding", "empty")


def check_text(raw: object) -> str:
    """The raw input as a text that has words; `InputError` otherwise."""
    if not isinstance(raw, str):
        raise InputError(
            f"cannot use {type(raw).__name__} as a text: give a string, or token ids as a (1, length) tensor"
        )
    if not raw.strip():
        raise InputError(f"the text {raw!r} is empty: give at least one word")
    if any("\ud800" <= c <= "\udfff" for c in raw):
        raise InputError("the text holds half a character (a lone surrogate): give whole ones")
    return raw


def check_ids(raw: Tensor) -> Tensor:
    """A tensor (1, length) or (length,) of integers as (1, length); `InputError` for anything else."""
    ids = raw[None] if raw.ndim == 1 else raw
    if ids.ndim != 2 or len(ids) != 1 or ids.is_floating_point() or ids.shape[1] == 0:
        raise InputError(
            f"a tensor {tuple(raw.shape)} of {raw.dtype} is not a model-ready text: (1, length) token ids are needed"
        )
    return ids


def check_range(ids: Tensor, vocabulary: int) -> None:
    """`InputError` for a token id outside the vocabulary."""
    top, low = int(ids.max()), int(ids.min())
    if top >= vocabulary or low < 0:
        raise InputError(f"token id {low if low < 0 else top} is outside this model's vocabulary of {vocabulary}")


def check_length(name: str, needed: int, context: int) -> None:
    """`InputError` for a text that does not fit the model's context."""
    if needed > context:
        raise InputError(
            f"{name} takes {needed} tokens, the model reads {context}: "
            "shorten it, or allow the cut with truncate=True (--truncate)"
        )


def quoted(text: str) -> str:
    """A text as error messages name it."""
    return f"the text {text[:40]!r}…"


def unpadded(encoding: Mapping[str, Any]) -> Tensor:
    """The token ids of a tokenizer's output for one text, without the padding that its attention mask names."""
    ids = encoding.get("input_ids")
    if not isinstance(ids, Tensor):
        raise InputError(f"a tokenizer's output needs 'input_ids' as a tensor, not {type(ids).__name__}")
    parts = encoding.get("token_type_ids")
    if isinstance(parts, Tensor) and bool(parts.eq(1).any()):
        raise InputError("a tokenizer's output for a pair of texts is no single text: join them into one")
    ids, mask = check_ids(ids), encoding.get("attention_mask")
    return ids if not isinstance(mask, Tensor) else ids[:, mask.reshape(-1).bool()]


def text_reference(ids: Tensor, choice: str | Tensor | None, *, keep: Sequence[int], padding: int) -> Tensor:
    """Padding between start and end (default), start and end only, or the given ids; (1, length) as the input.

    `keep` are the positions of the input's start and end tokens and of every other special token but padding.
    """
    if isinstance(choice, Tensor):
        return matching_reference(choice[None] if choice.ndim == 1 else choice, ids)
    if choice not in (None, *TEXT_REFERENCES):
        names = ", ".join(TEXT_REFERENCES)
        raise InputError(f"unknown text reference {choice!r}; known: {names}, or a tensor of token ids")
    reference = torch.full_like(ids, padding)
    places = range(len(keep)) if choice == "empty" else keep
    for place, position in zip(places, keep, strict=True):
        reference[0, place] = ids[0, position]
    return reference


def _warn_unknown(text: str, tokens: Sequence[str], offsets: Offsets, unknown: Sequence[bool]) -> None:
    """Warn of the parts of a text that the model does not know, and reads as one and the same unknown token."""
    parts = []
    for token, offset, is_unknown in zip(tokens, offsets, unknown, strict=True):
        if is_unknown:
            parts.append(repr(token if offset is None else text[slice(*offset)]))
    if parts:
        names = ", ".join(dict.fromkeys(parts))
        warnings.warn(
            f"the model does not know {names} of the text: it reads each as an unknown word, so scores of it mean little",
            stacklevel=2,
        )


class Tokens(ABC):
    """How texts become token ids for one model.

    `vocabulary` is the number of ids, `context` the longest input in tokens, `padding` the id that fills the rest.
    Without a tokenizer only model-ready ids can be prepared.
    """

    tokenizer: Any

    def __init__(self, *, vocabulary: int, context: int, padding: int) -> None:
        self.vocabulary, self.context, self.padding = vocabulary, context, padding

    @abstractmethod
    def tokenize(self, text: str, truncate: bool) -> Prepared:
        """A checked text through the tokenizer."""

    @abstractmethod
    def spell(self, token: int) -> str:
        """A token as text."""

    @abstractmethod
    def special_tokens(self, ids: Sequence[int]) -> dict[int, str]:
        """Start, end, padding and the like by position."""

    def prompt_tokens(self) -> int:
        """How many tokens of every input, a start token included, belong to a prompt; 0 without one."""
        return 0

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A text, or model-ready token ids (1, length)."""
        if isinstance(raw, Tensor):
            return self.prepare_ids(check_ids(raw))
        text = check_text(raw)
        if self.tokenizer is None:
            raise InputError(
                "this model came without a tokenizer: pass tokenizer=, or token ids as a (1, length) tensor"
            )
        return self.tokenize(text, truncate)

    def prepare_ids(self, ids: Tensor) -> Prepared:
        """Model-ready token ids (1, length) with the spelling of the tokens but no text."""
        check_range(ids, self.vocabulary)
        check_length("the model-ready text", ids.shape[1], self.context)
        numbers = [int(i) for i in ids[0]]
        tokens = tuple(map(self.spell, numbers))
        return Prepared(ids, None, Tokenized(None, tokens, (None,) * len(tokens), self.special_tokens(numbers)))

    def reference(self, prepared: Prepared, choice: str | Tensor | None) -> Tensor:
        """Padding between start and end, or see `text_reference`."""
        keep = [i for i, name in sorted(prepared.tokenized.special.items()) if name != "padding"]
        return text_reference(prepared.tensor, choice, keep=keep, padding=self.padding)


def longest_text(tokenizer: Any, positions: int) -> int:
    """How many tokens a model of so many positions reads: no more than its tokenizer says."""
    limit = getattr(tokenizer, "model_max_length", None)
    return min(positions, limit) if isinstance(limit, int) else positions


class HubTokens(Tokens):
    """Texts as a tokenizer of transformers makes them: ids, offsets in the original, special tokens by name.

    `pad_to` is the length to which the model wants every input padded, `prompt` precedes every text, `clean` changes both
    before the tokenizer sees them, `bare` leaves out start and end tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        vocabulary: int,
        context: int,
        pad_to: int | None = None,
        padding: int | None = None,
        prompt: str = "",
        clean: Callable[[str], str] | None = None,
        bare: bool = False,
    ) -> None:
        candidates = (padding, getattr(tokenizer, "pad_token_id", None), getattr(tokenizer, "eos_token_id", None))
        fill = next((token for token in candidates if token is not None), 0)
        super().__init__(vocabulary=vocabulary, context=context, padding=fill)
        self.tokenizer, self.pad_to, self.clean, self.bare = tokenizer, pad_to, clean, bare
        self.prompt = clean(prompt) if clean else prompt

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A text, model-ready ids (1, length), or a dictionary with "input_ids" and perhaps "attention_mask"."""
        if isinstance(raw, Mapping):
            # A model that wants all inputs padded to one length reads that padding.
            raw = unpadded(raw if self.pad_to is None else {"input_ids": raw.get("input_ids")})
        return super().prepare(raw, truncate=truncate)

    def prompt_tokens(self) -> int:
        """See `Tokens.prompt_tokens`."""
        if not self.prompt:
            return 0
        ids: list[int] = self.tokenizer(self.prompt, add_special_tokens=not self.bare)["input_ids"]
        return len(ids) - (ids[-1] in self.tokenizer.all_special_ids)

    def tokenize(self, text: str, truncate: bool) -> Prepared:
        """See `Tokens.tokenize`."""
        cleaned = self.prompt + (self.clean(text) if self.clean else text)
        fast = bool(getattr(self.tokenizer, "is_fast", False))
        options = dict(verbose=False, return_offsets_mapping=fast, add_special_tokens=not self.bare)
        encoding = self.tokenizer(cleaned, truncation=False, **options)
        if not truncate:
            check_length(quoted(text), len(encoding["input_ids"]), self.context)
        elif len(encoding["input_ids"]) > self.context:
            # The tokenizer's own way to cut keeps its special tokens where they belong.
            encoding = self.tokenizer(cleaned, truncation=True, max_length=self.context, **options)
        ids: list[int] = encoding["input_ids"]
        spans: list[tuple[int, int]] = encoding["offset_mapping"] if fast else [(0, 0)] * len(ids)
        ids = ids + [self.padding] * ((self.pad_to or 0) - len(ids))
        special = self.special_tokens(ids)
        for i, (_, end) in enumerate(spans):
            if i not in special and fast and end <= len(self.prompt):
                special[i] = "prompt"
        tokens = tuple(map(self.spell, ids))
        offsets: Offsets | None
        if fast:
            offsets = self._offsets(text, cleaned[len(self.prompt) :], spans, special, len(ids))
        else:
            offsets = None if self.prompt else spelled_offsets(text, tokens, special)
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        _warn_unknown(
            text,
            tokens,
            offsets or (None,) * len(ids),
            [i not in special and ids[i] == unknown for i in range(len(ids))],
        )
        source = Tokenized(None if offsets is None else text, tokens, offsets or (None,) * len(ids), special)
        return Prepared(torch.tensor([ids]), text, source)

    def _offsets(
        self, text: str, cleaned: str, spans: list[tuple[int, int]], special: dict[int, str], size: int
    ) -> Offsets:
        """Places in the text, without the prompt and without the space that some tokenizers count to a word."""
        places = None if cleaned == text else align(text, cleaned)
        offsets: list[tuple[int, int] | None] = []
        for i, (start, end) in enumerate(spans):
            start, end = max(start - len(self.prompt), 0), end - len(self.prompt)
            while start < end and cleaned[start].isspace():
                start += 1
            if i in special or start >= end:
                offsets.append(None)
            elif places is None:
                offsets.append((start, end))
            else:
                offsets.append((min(places[start:end]), max(places[start:end]) + 1))
        return (*offsets, *[None] * (size - len(offsets)))

    def spell(self, token: int) -> str:
        """See `Tokens.spell`."""
        return str(token) if self.tokenizer is None else str(self.tokenizer.convert_ids_to_tokens(token))

    def special_tokens(self, ids: Sequence[int]) -> dict[int, str]:
        """See `Tokens.special_tokens`; without a tokenizer, start and end are the first and last id but padding."""
        tokenizer = self.tokenizer
        if tokenizer is None:
            last = max((i for i, token in enumerate(ids) if token != self.padding), default=len(ids) - 1)
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

    def reference(self, prepared: Prepared, choice: str | Tensor | Mapping[str, Any] | None) -> Tensor:
        """See `Tokens.reference`; a prompt is kept, and a tokenizer's output is taken without its padding."""
        return super().reference(prepared, unpadded(choice) if isinstance(choice, Mapping) else choice)
