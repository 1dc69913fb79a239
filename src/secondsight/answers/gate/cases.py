"""The pairs that show what moved: both models' maps, words and the change of the four terms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from secondsight.algebra.interactions import Interactions, Terms
from secondsight.answers.gate.compare import Comparison
from secondsight.answers.gate.measure import Span
from secondsight.answers.gate.moves import Move
from secondsight.answers.pictures import coloured_spans, photograph, text_of
from secondsight.answers.report import Case
from secondsight.support.files import one_line

TERM_PAIRS = 64
"""Pairs of a move over which the change of the four terms is averaged."""


class Cases:
    """Makes cases and sentences about pairs of a comparison; four terms are looked up once a pair."""

    def __init__(self, compared: Comparison) -> None:
        self.compared = compared
        self._terms = cache(self._terms_of)

    def of_move(self, move: Move, count: int) -> list[Case]:
        """The pairs that moved most in the move's direction, each before and after."""
        return [case for number in self.strongest(move)[:count] for case in self.of_pair(number, move)]

    def strongest(self, move: Move) -> list[int]:
        """The move's pairs, those that changed most in its direction first, one of each image."""
        direction = 1 if move.change > 0 else -1
        ordered = sorted(move.changes, key=lambda number: -direction * move.changes[number])
        of_image: dict[str, int] = {}
        for number in ordered:
            of_image.setdefault(self.compared.collections[0].pairs[number][0], number)
        return list(of_image.values())

    def of_pair(self, number: int, move: Move | None = None) -> list[Case]:
        """A pair with either model: the map of the move's words, or of the whole caption."""
        spans = () if move is None else move.subject.spans[number]
        name = "" if move is None else move.subject.name
        return [self._case(number, after, spans, name) for after in (0, 1)]

    def _case(self, number: int, after: int, spans: Sequence[Span], name: str) -> Case:
        collection, advantages = self.compared.collections[after], self.compared.advantages[after]
        image = collection.pairs[number][0]
        photo, heat, boxes, left = photograph(collection, image), None, [], ""
        if collection.data is None:
            left = f"“{one_line(text_of(collection.images[image].layout), 120)}”, "
        else:
            example = collection.example(number)
            heat = _heat(collection.interactions(number), spans)
            boxes = [box for phrase in example.phrases if phrase.label == name for box in phrase.boxes]
        carried = f", “{name}” carries {sum(advantages.words[number][s] for s in spans):.2f}" if spans else ""
        facts = (
            f"{('before', 'after')[after]}: {left}similarity {advantages.similarity[number]:.3f}, advantage "
            f"{advantages.total[number]:.2f}{carried}"
        )
        if after:
            facts += f"; {self.terms_text([number])}{self._rival_text(number)}"
        return Case(photo, heat, boxes, coloured_spans(advantages.captions[number], advantages.words[number]), facts)

    def pair_sentence(self, number: int) -> str:
        """A single pair's change in words."""
        before, after = self.compared.advantages
        verb = "fell" if self.compared.change[number] < 0 else "rose"
        return (
            f"“{one_line(before.captions[number], 100)}” with image {one_line(self.compared.collections[0].pairs[number][0])}: "
            f"the advantage {verb} from {before.total[number]:.2f} to {after.total[number]:.2f}"
            f"{self._rival_text(number)}; {self.terms_text([number])}."
        )

    def terms_sentence(self, move: Move) -> str:
        """Which of the four terms moved, on average over the move's pairs."""
        numbers = self.strongest(move)[:TERM_PAIRS]
        which = "these pairs" if len(numbers) == move.images else f"the {len(numbers)} that moved most"
        return f"On average over {which}, {self.terms_text(numbers)}."

    def terms_text(self, numbers: Sequence[int]) -> str:
        """The mean change of the similarity and its four terms."""
        changes = np.array([self._terms(number) for number in numbers]).mean(0)
        kinds = self._terms_names()
        parts = ", ".join(f"{name} {value:+.3f}" for name, value in zip(kinds, changes, strict=True))
        return f"the similarity changed by {changes.sum():+.3f} ({parts})"

    def _rival_text(self, number: int) -> str:
        before, after = self.compared.advantages
        if not (before.first_caption[number] and not after.first_caption[number]):
            return ""
        return f"; its image is now closer to “{one_line(after.captions[after.rival_caption[number]], 100)}”"

    def _terms_names(self) -> list[str]:
        sides = [self.compared.collections[0].images, self.compared.collections[0].texts]
        kinds = tuple(str(side.facts["side"]) for side in sides)
        return [name for name, _ in Terms(0.0, 0.0, 0.0, 0.0, (kinds[0], kinds[1])).labels()]

    def _terms_of(self, number: int) -> tuple[float, ...]:
        before, after = (collection.interactions(number).terms for collection in self.compared.collections)
        return tuple(b - a for (_, a), (_, b) in zip(before.labels(), after.labels(), strict=True))


def _heat(pair: Interactions, spans: Sequence[Span]) -> np.ndarray:
    maps = [pair.toward_left(span) for span in spans] or [pair.toward_left(None)]
    return pair.left_layout.heatmap(sum(maps[1:], maps[0])).double().numpy()
