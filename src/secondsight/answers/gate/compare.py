"""The comparison behind a gate: two models' advantages on the same pairs, and the tests of what moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from secondsight.answers.collection import Collection, Progress
from secondsight.answers.gate.measure import Advantages, measure
from secondsight.answers.gate.moves import KINDS, Move, Subject, conspicuous, find_moves, subjects
from secondsight.answers.gate.pairs import class_phrases
from secondsight.answers.significance import check_alpha
from secondsight.support.errors import InputError

FAIL_ON = ("whole", "classes", "words")
"""What fails a gate when it got worse, unless it is told otherwise; "pairs" may be added."""

ALPHA = 0.01
TOLERANCE = 0.1


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models on the same pairs: their collections and advantages, what moved, and which single pairs stand out.

    `names` are the models' names, `alpha` and `tolerance` those of the tests.
    """

    names: tuple[str, str]
    collections: tuple[Collection, Collection]
    advantages: tuple[Advantages, Advantages]
    moves: Sequence[Move]
    pairs: Sequence[int]
    alpha: float
    tolerance: float
    fail_on: Sequence[str]
    problems: Mapping[str, str]

    @property
    def images(self) -> int:
        """The number of images."""
        return len({image for image, _ in self.collections[0].pairs})

    def moved(self, verdict: str) -> list[Move]:
        """The moves of a verdict ("worse", "better"): the whole, classes, words, each with the largest changes first."""
        moves = [move for move in self.moves if move.verdict(self.alpha) == verdict]
        return sorted(moves, key=lambda move: (KINDS.index(move.subject.kind), -abs(move.change)))

    @property
    def change(self) -> np.ndarray:
        """Every pair's change of its advantage."""
        return self.advantages[1].total - self.advantages[0].total

    @property
    def fallen(self) -> list[int]:
        """The conspicuous pairs that got worse."""
        return [number for number in self.pairs if self.change[number] < 0]

    @property
    def passed(self) -> bool:
        """Whether nothing got worse that fails the gate."""
        worse = {move.subject.kind for move in self.moved("worse")} | ({"pairs"} if self.fallen else set())
        return not worse & set(self.fail_on)


def compare(
    before: Collection,
    after: Collection,
    *,
    alpha: float = ALPHA,
    tolerance: float = TOLERANCE,
    fail_on: Sequence[str] = FAIL_ON,
    names: tuple[str, str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """The comparison behind `gate`, without a report; the same options and errors."""
    check_options(alpha, tolerance, fail_on)
    before, after, problems = _shared(before, after)
    images = [image for image, _ in before.pairs]
    if 2.0 ** (1 - len(set(images))) > alpha:
        least = int(np.ceil(1 - np.log2(alpha)))
        raise InputError(
            f"{len(set(images))} images can show nothing at alpha {alpha:g}, whatever changed: give at least {least}, "
            "better hundreds"
        )
    old = measure(before, before.pairs, _labelled(progress, "reading the words before"))
    new = measure(after, after.pairs, _labelled(progress, "reading the words after"))
    moves = find_moves(old, new, subjects_of(before, old, new), images, alpha, tolerance, seed)
    return Comparison(
        names=names or (str(before.images.facts["model"]), str(after.images.facts["model"])),
        collections=(before, after),
        advantages=(old, new),
        moves=moves,
        pairs=conspicuous(old, new, tolerance).tolist(),
        alpha=alpha,
        tolerance=tolerance,
        fail_on=tuple(fail_on),
        problems=problems,
    )


def check_options(alpha: float, tolerance: float, fail_on: Sequence[str]) -> None:
    """`InputError` for options out of range."""
    check_alpha(alpha)
    if not 0 <= tolerance < float("inf"):
        raise InputError(f"tolerance={tolerance!r} must be a number of spreads, 0 or more")
    unknown = [name for name in fail_on if name not in KINDS]
    if unknown or not fail_on:
        raise InputError(f"cannot fail on {', '.join(unknown) or 'nothing'}; known: {', '.join(KINDS)}")


def _shared(before: Collection, after: Collection) -> tuple[Collection, Collection, dict[str, str]]:
    """Both collections with the pairs that both have, in one order, and the problems of both."""
    there = set(after.pairs)
    pairs = [pair for pair in before.pairs if pair in there]
    if not pairs:
        raise InputError("the two collections have no pair in common: decompose the same pairs with both models")
    problems = {**before.problems, **after.problems}
    return replace(before, pairs=pairs), replace(after, pairs=pairs), problems


def subjects_of(collection: Collection, before: Advantages, after: Advantages) -> list[Subject]:
    """The whole, and the classes and words of the captions that both models have read."""
    shared = [
        [span for span in words if span in words_after]
        for words, words_after in zip(before.words, after.words, strict=True)
    ]
    return subjects(before.captions, class_phrases(collection), shared)


def _labelled(progress: Progress | None, label: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda count, whole: progress(label, count, whole)
