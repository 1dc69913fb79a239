"""The layout of several inputs one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from secondsight.algebra.layout.base import Layout, Word
from secondsight.algebra.layout.tokens import TokenLayout
from secondsight.support.errors import InputError


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
        """Layouts one after another; joined ones are replaced by their parts."""
        parts: list[tuple[Layout, int]] = []
        for layout, sign in zip(layouts, signs, strict=True):
            inner = zip(layout.parts, layout.signs, strict=True) if isinstance(layout, JoinedLayout) else [(layout, 1)]
            parts += [(part, part_sign * sign) for part, part_sign in inner]
        special: dict[int, str] = {}
        size = 0
        for part, _ in parts:
            special |= {size + i: name for i, name in part.special.items()}
            size += part.size
        return cls(size, special, tuple(part for part, _ in parts), tuple(sign for _, sign in parts))

    @property
    def modality(self) -> str:
        """The modality that all parts share, or "features"."""
        kinds = {part.modality for part in self.parts}
        return kinds.pop() if len(kinds) == 1 else Layout.kind

    def each(self, inputs: Any) -> tuple[Any, ...]:
        """The input of every part; None for each if they are not available."""
        return inputs if isinstance(inputs, tuple) else (None,) * len(self.parts)

    def split(self, values: Shaped[Tensor, "... feature"]) -> list[Tensor]:
        """Per-feature values of every part."""
        return list(values.split([part.size for part in self.parts], dim=-1))

    @cached_property
    def words(self) -> list[Word]:
        """The words of all parts that are texts."""
        words, first = [], 0
        for part in self.parts:
            words += [Word(w.text, w.start, w.end, tuple(first + f for f in w.features)) for w in part.words]
            first += part.size
        return words

    def select(self, selection: Any) -> Float[Tensor, " feature"]:
        """Weights for a substring in every part that has it, (part, selection) in one part, indices, a slice, or None.

        Raises `InputError` if no part has the substring.
        """
        if isinstance(selection, str):
            return self._select_text(selection)
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

    def _select_text(self, text: str) -> Tensor:
        # Parts without the substring are left out; a part that has it twice is ambiguous and raises.
        contains = [isinstance(part, TokenLayout) and part.has(text) for part in self.parts]
        if not any(contains) and any(text.strip().lower() in (part.text or "").lower() for part in self.parts):
            contains = [part.text is not None and text.lower() in part.text.lower() for part in self.parts]
        if not any(contains):
            words = ", ".join(repr(word.text) for word in self.words)
            raise InputError(f"{text!r} is in none of the {len(self.parts)} inputs; their words are {words}")
        return torch.cat(
            [p.select(text) if has else torch.zeros(p.size) for p, has in zip(self.parts, contains, strict=True)]
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Layout.from_json` reads back."""
        return {**super().to_json(), "parts": [part.to_json() for part in self.parts], "signs": list(self.signs)}

    @classmethod
    def from_fields(cls, size: int, special: dict[int, str], data: Mapping[str, Any]) -> JoinedLayout:
        """The layout whose fields `to_json` wrote."""
        return cls.of([Layout.from_json(part) for part in data["parts"]], data["signs"])
