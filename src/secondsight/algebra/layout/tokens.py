"""The layout of a text: tokens, grouped into words."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.layout.base import Layout, Word
from secondsight.support.errors import InputError
from secondsight.support.files import one_line

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, kana and Han: written without spaces between words."""

_WORD = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]+")

_NAMED = 80
"""Words that a sentence about a missing one names."""


@dataclass(frozen=True)
class TokenLayout(Layout):
    """Tokens of a text: every feature's token, its (start, end) in the original text or None, and the text itself.

    The text is None for model-ready token ids, whose wording is unknown; then only token indices can be selected.
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
        """The words and punctuation marks of the text with their tokens; every token is a word if the text is unknown.

        A word that was truncated has no tokens.
        """
        if self.text is None:
            return [Word(self.tokens[i], 0, 0, (i,)) for i in self.visible]
        spans = [(m.group(), m.start(), m.end()) for m in _WORD.finditer(self.text)]
        ends = [end for _, _, end in spans]
        members: list[list[int]] = [[] for _ in spans]
        for feature in self.visible:
            offset = self.offsets[feature]
            if offset is None or offset[0] == offset[1]:
                continue
            # Only words that end behind the token's start and begin before its end overlap it.
            overlaps = {}
            for index in range(bisect_right(ends, offset[0]), len(spans)):
                _, start, end = spans[index]
                if start >= offset[1]:
                    break
                overlaps[index] = min(offset[1], end) - max(offset[0], start)
            if overlaps:
                members[max(overlaps, key=overlaps.__getitem__)].append(feature)
        return [
            Word(text, start, end, tuple(features)) for (text, start, end), features in zip(spans, members, strict=True)
        ]

    def span(self, text: str) -> tuple[int, int]:
        """Character offsets of a substring that is no part of a word, exact case before any case.

        In scripts that are written without spaces it may begin and end anywhere. Raises `InputError`, listing the words, if
        it is missing, occurs more than once, or is a part of a word, whose number would be taken for its own.
        """
        if self.text is None:
            raise InputError(f"{text!r} cannot be looked up in tokens without their text: use token indices")
        for spans in self._places(text):
            if len(spans) == 1:
                return spans[0]
            if spans:
                places = ", ".join(f"{s}-{e}" for s, e in spans)
                raise InputError(
                    f"{text!r} occurs {len(spans)} times in {one_line(self.text, 200)!r} (characters {places}): give offsets"
                )
        words = ", ".join(repr(w.text) for w in self.words[:_NAMED]) + (", …" if len(self.words) > _NAMED else "")
        part = re.search(re.escape(text), self.text, re.I) if text.strip() else None
        if part is not None:
            holder = next((w.text for w in self.words if w.start < part.end() and part.start() < w.end), self.text)
            raise InputError(f"{text!r} is a part of the word {holder!r}: select whole words; they are {words}")
        raise InputError(f"{text!r} is not in the text; its words are {words}")

    def has(self, text: str) -> bool:
        """Whether a substring that is no part of a word occurs."""
        return any(self._places(text))

    def _places(self, text: str) -> Iterator[list[tuple[int, int]]]:
        """The (start, end) of a substring that cuts no word, in exact case, then in any."""
        for flags in (0, re.I):
            matches = re.finditer(re.escape(text), self.text or "", flags) if text.strip() else ()
            yield [m.span() for m in matches if not (self._cuts(m.start()) or self._cuts(m.end()))]

    def _cuts(self, position: int) -> bool:
        """Whether a word of a script with spaces goes on across a position."""
        around = (self.text or "")[max(position - 1, 0) : position + 1]
        return (
            position > 0 and len(around) == 2 and bool(re.fullmatch(r"\w\w", around)) and not _UNSPACED.search(around)
        )

    def select(self, selection: Any) -> Float[Tensor, " feature"]:
        """0/1 weights over the tokens for a substring, (start, end) character offsets, indices, a slice, or None.

        A span selects every token that it overlaps. Raises `InputError` for a span that is missing or ambiguous.
        """
        if isinstance(selection, str):
            selection = self.span(selection)
        if not isinstance(selection, tuple):
            return super().select(selection)
        if self.text is None:
            raise InputError(f"offsets {selection} cannot be used for tokens without their text: use token indices")
        if len(selection) != 2 or not all(isinstance(v, int) for v in selection):
            raise InputError(f"cannot select {selection!r}: character offsets (start, end) must be two whole numbers")
        start, end = selection
        if not 0 <= start < end <= len(self.text):
            raise InputError(f"characters {start}-{end} are not a span of the text, which has {len(self.text)}")
        features = [i for i in self.visible if (o := self.offsets[i]) is not None and o[0] < end and start < o[1]]
        if not features:
            cut = start >= max((o[1] for o in self.offsets if o is not None), default=0)
            why = "was cut off: the text is longer than the model's context" if cut else "covers no token"
            raise InputError(f"{self.text[start:end]!r} (characters {start}-{end}) {why}")
        return self.indicator(features)

    def with_special(self, names: Sequence[str]) -> TokenLayout:
        """The layout with more special tokens, of these names, behind its own tokens."""
        size = self.size + len(names)
        special = {**self.special, **{self.size + i: name for i, name in enumerate(names)}}
        return TokenLayout(size, special, (*self.tokens, *names), (*self.offsets, *[None] * len(names)), self.text)

    def common_layout(self, target: Layout) -> TokenLayout:
        """The words of the text, and a last feature for special tokens and characters that are in no word."""
        if self.text is None or target.text is None:
            raise InputError("token ids without their text cannot be compared across tokenizers: give the text itself")
        if self.text != target.text:
            raise InputError(f"the two explanations are of different texts, {self.text!r} and {target.text!r}")
        tokens, offsets = (*(w.text for w in self.words), "…"), (*((w.start, w.end) for w in self.words), None)
        return TokenLayout(len(tokens), {len(tokens) - 1: "special"}, tokens, offsets, self.text)

    def shares_in(self, target: Layout) -> Float[Tensor, "other feature"]:
        """1 where a token belongs to a word that is a feature of the other layout."""
        if not isinstance(target, TokenLayout):
            return super().shares_in(target)
        shares = torch.zeros(target.size, self.size, dtype=torch.float64)
        features = {offset: i for i, offset in enumerate(target.offsets) if offset is not None}
        for word in self.words:
            if (word.start, word.end) in features:
                shares[features[word.start, word.end], list(word.features)] = 1.0
        return shares

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Layout.from_json` reads back."""
        offsets = [None if o is None else list(o) for o in self.offsets]
        return {**super().to_json(), "tokens": list(self.tokens), "offsets": offsets, "text": self.text}

    @classmethod
    def from_fields(cls, size: int, special: dict[int, str], data: Mapping[str, Any]) -> TokenLayout:
        """The layout whose fields `to_json` wrote."""
        offsets = tuple(None if offset is None else (offset[0], offset[1]) for offset in data["offsets"])
        return cls(size, special, tuple(data["tokens"]), offsets, data["text"])
