"""Why one hit leads another: the difference of their scores, by words and by regions, in parts that add up exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import GridLayout, Layout, word_scores
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.scale.search import Hit

NINTHS = ("upper left", "top", "upper right", "left", "centre", "right", "lower left", "bottom", "lower right")
"""A picture's ninths, row by row."""

_SMALL = 0.1
"""Parts below this share of the largest are left out of a sentence."""


@dataclass(frozen=True)
class Part:
    """A part of a lead: a word, or a region of one of the two entries (0 or 1); `entry` is None where it is of neither."""

    name: str
    value: float
    entry: int | None = None


@dataclass(frozen=True, eq=False)
class Lead:
    """By how much `first` leads `second`, and why; both `by_word` and `by_region` add up to `value` exactly."""

    first: Hit
    second: Hit

    def __post_init__(self) -> None:
        same = self.first.query is self.second.query and self.first.taken_off is self.second.taken_off
        if not same:
            raise InputError("only hits of one search can be compared: search once, with a k that includes both")

    @cached_property
    def margin(self) -> Interactions:
        """The difference in four terms and a matrix: both entries' features, the second's negative, by the query's."""
        return self.first.above(self.second)

    @property
    def value(self) -> float:
        """The first score minus the second."""
        return self.first.score - self.second.score

    @cached_property
    def by_word(self) -> list[Part]:
        """What each word of the query adds, then the entries whatever the words, and the computation's error.

        A word's part is all of its column of the matrix and its effect alone. The part of the entries is what they would
        score with the query's reference; where the usual similarity is taken off, it is taken off here.
        """
        margin = self.margin
        columns = margin.matrix.double().sum(0) + margin.right_effects.double()
        alone = margin.base + float(margin.left_effects.double().sum())
        kinds = {"image": "photographs", "text": "texts"}
        themselves = f"the {kinds.get(self.first.entry.layout.modality, 'entries')} themselves"
        return self._completed([*_named_parts(margin.right_layout, columns, "the query"), Part(themselves, alone)])

    @cached_property
    def by_region(self) -> list[Part]:
        """What each region (a picture's ninths, a text's words) of either entry adds, then what belongs to none.

        A region's part is the score that its features carry: their rows of the matrix and their effects alone. The second
        entry's count negatively.
        """
        margin = self.margin
        rows = margin.left_layout.split(margin.matrix.double().sum(1) + margin.left_effects.double())
        parts: list[Part] = []
        for number, (hit, values) in enumerate(zip((self.first, self.second), rows, strict=True)):
            parts += _named_parts(hit.entry.layout, values, "the whole", number)
        parts.append(Part("the references", margin.base + float(margin.right_effects.double().sum())))
        return self._completed(parts)

    def _completed(self, parts: list[Part]) -> list[Part]:
        """The parts with what they miss of the lead: the computation's error, measured."""
        return [*parts, Part("not attributed", self.value - sum(part.value for part in parts))]

    def sentence(self, names: tuple[str, str] | None = None) -> str:
        """ "A leads B by 0.0200: because of “dog” +0.0150 …"; `names` of the two are their keys unless given."""
        first, second = names or (self.first.key, self.second.key)
        sign = -1 if self.value < 0 else 1
        if sign < 0:
            first, second = second, first
        words = {id(part) for part in self.by_word[: len(self.margin.right_layout.words)]}
        reasons = [
            Part(f"“{part.name}”" if id(part) in words else self._spoken(part.name), sign * part.value)
            for part in self.by_word
        ]
        because = largest([part for part in reasons if part.value > 0])
        against = largest([part for part in reasons if part.value < 0])
        text = f"{first} leads {second} by {abs(self.value):.4f}"
        if because:
            text += f", because of {listed(because)}"
        return f"{text}; against it {listed(against)}" if against else text

    def _spoken(self, name: str) -> str:
        special = self.margin.right_layout.special.values()
        return {
            "special positions": f"the text's {' and '.join(dict.fromkeys(special))}" if special else name,
            "not attributed": "what the explanation misses",
        }.get(name, name)

    def to_json(self) -> dict[str, Any]:
        """Plain data: both keys and scores, the lead, its sentence and both lists of parts."""

        def rows(parts: Sequence[Part]) -> list[dict[str, Any]]:
            return [{"name": part.name, "value": part.value, "entry": part.entry} for part in parts]

        return {
            "first": {"key": self.first.key, "score": self.first.score},
            "second": {"key": self.second.key, "score": self.second.score},
            "lead": self.value,
            "sentence": self.sentence(),
            "by_word": rows(self.by_word),
            "by_region": rows(self.by_region),
        }


def _named_parts(layout: Layout, values: Float[Tensor, " feature"], whole: str, entry: int | None = None) -> list[Part]:
    """Per-feature values by words or ninths, and what lies outside of these."""
    if layout.words:
        scores = word_scores(layout, values)
    elif isinstance(layout, GridLayout):
        scores = list(zip(NINTHS, ninths(layout, values), strict=True))
    else:
        scores = [(whole, float(values.sum()))]
    parts = [Part(name, value, entry) for name, value in scores]
    outside = float(values.sum()) - sum(part.value for part in parts)
    return [*parts, Part("special positions", outside, entry)]


def ninths(layout: GridLayout, values: Float[Tensor, " feature"]) -> list[float]:
    """Per-feature values summed by the ninth of the original picture in which a cell's centre lies."""
    boxes = layout.cell_boxes().double()
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    # Cells of a padded picture may lie outside of it.
    column, row = (centres / torch.tensor(layout.image_size) * 3).long().clamp(0, 2).unbind(1)
    sums = torch.zeros(9, dtype=torch.float64).index_add(0, 3 * row + column, values[layout.visible])
    return [float(v) for v in sums]


def largest(parts: Sequence[Part], most: int = 3) -> list[Part]:
    """The largest parts, largest first, without those that are small beside the first."""
    ordered = sorted(parts, key=lambda part: -abs(part.value))
    return [part for part in ordered[:most] if abs(part.value) >= max(_SMALL * abs(ordered[0].value), 5e-5)]


def listed(parts: Sequence[Part]) -> str:
    """Parts for a sentence: each with its name and signed value."""
    return ", ".join(f"{part.name} {part.value:+.4f}" for part in parts)
