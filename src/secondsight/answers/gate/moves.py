"""Which classes and words moved from one model to another, with one bound on the chance of any false alarm."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from secondsight.answers.gate.measure import Advantages, Span
from secondsight.evaluation.statistics import holm, staged_sign_flip_p

KINDS = ("whole", "classes", "words", "pairs")

OUTLIER = 5.0
"""Robust standard deviations from which a single pair's change stands out from all others'."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is tested: its kind and name, and for each of its pairs the words (by their characters) that it is about.

    No words stand for the whole pair.
    """

    kind: str
    name: str
    spans: Mapping[int, Sequence[Span]]


@dataclass(frozen=True, eq=False)
class Move:
    """How a subject moved: the mean advantage over its images, before and after, in spreads.

    `carried` is what its own words carry of it, before and after. `p` is the chance of such a change where the true one is
    within the tolerance, `adjusted` the same for all tests together (Holm); `tested` is False for subjects with too few
    images to ever be significant. `explained` says why a significant change is not counted as this subject's own.
    `changes` are those of its pairs.
    """

    subject: Subject
    images: int
    before: float
    after: float
    carried: tuple[float, float]
    p: float
    adjusted: float
    tested: bool
    changes: Mapping[int, float]
    explained: str = ""

    @property
    def change(self) -> float:
        """After less before."""
        return self.after - self.before

    def verdict(self, alpha: float) -> str:
        """ "worse", "better" or "same"."""
        return "same" if self.explained or self.adjusted > alpha else "worse" if self.change < 0 else "better"


def subjects(
    captions: Sequence[str], phrases: Sequence[Sequence[tuple[Span, str]]], shared: Sequence[Sequence[Span]]
) -> list[Subject]:
    """The whole, every class, and every word outside the classes' phrases.

    `phrases` are the (span, class) of every caption; `shared` its words that both models have read.
    """
    classes: dict[str, dict[int, list[Span]]] = defaultdict(lambda: defaultdict(list))
    words: dict[str, dict[int, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for number, (caption, labelled, spans) in enumerate(zip(captions, phrases, shared, strict=True)):
        for start, end in spans:
            labels = {label for (low, high), label in labelled if low < end and start < high}
            for label in labels:
                classes[label][number].append((start, end))
            text = caption[start:end].lower()
            if not labels and any(map(str.isalnum, text)):
                words[text][number].append((start, end))
    whole = Subject("whole", "all pairs", dict.fromkeys(range(len(captions)), ()))
    return [
        whole,
        *(Subject("classes", name, classes[name]) for name in sorted(classes)),
        *(Subject("words", name, words[name]) for name in sorted(words)),
    ]


def find_moves(
    before: Advantages,
    after: Advantages,
    listed: Sequence[Subject],
    images: Sequence[str],
    alpha: float,
    tolerance: float,
    seed: int = 0,
) -> list[Move]:
    """The move of every subject; `images` name each pair's image, over which the tests are paired.

    The null hypothesis of a test is that the mean change lies within ± `tolerance`. What is significant for all tests
    together (Holm) may still be another subject's doing, and is then marked as explained; this takes away only.
    """
    codes = np.unique(np.asarray(images), return_inverse=True)[1]
    tested = can_be_significant([len(set(codes[list(subject.spans)])) for subject in listed], alpha)
    test = _Test(after.total - before.total, codes, alpha, tolerance, math.ceil(5 * max(sum(tested), 1) / alpha), seed)
    moves = []
    for subject, can_pass in zip(listed, tested, strict=True):
        pairs = np.array(sorted(subject.spans))
        means = [by_group(advantages.total[pairs], codes[pairs]) for advantages in (before, after)]
        carried = [
            by_group(_carried(advantages, subject, pairs), codes[pairs]).mean() for advantages in (before, after)
        ]
        move = Move(
            subject=subject,
            images=len(means[0]),
            before=float(means[0].mean()),
            after=float(means[1].mean()),
            carried=(float(carried[0]), float(carried[1])),
            p=test.p(pairs) if can_pass else 1.0,
            adjusted=1.0,
            tested=can_pass,
            changes=dict(zip(pairs.tolist(), test.changes[pairs].tolist(), strict=True)),
        )
        moves.append(move)
    adjusted = iter(holm([move.p for move in moves if move.tested]))
    return explain_away([replace(move, adjusted=next(adjusted)) if move.tested else move for move in moves], test)


@dataclass(frozen=True, eq=False)
class _Test:
    """The test of a set of pairs, by their changes and their images' codes."""

    changes: Float[np.ndarray, " pair"]
    codes: np.ndarray
    alpha: float
    tolerance: float
    draws: int
    seed: int

    def p(self, pairs: np.ndarray, beyond: float = 0.0) -> float:
        """p of "the mean change of these pairs, less `beyond`, lies within the tolerance"."""
        if not len(pairs):
            return 1.0
        changes = by_group(self.changes[pairs], self.codes[pairs]) - beyond
        return minimum_effect_p(changes, self.tolerance, self.alpha, self.draws, self.seed)

    def usual(self, left_out: set[int]) -> float:
        """The mean change of the images of all other pairs; 0 where there is none."""
        pairs = np.array(sorted(set(range(len(self.changes))) - left_out), dtype=int)
        return float(by_group(self.changes[pairs], self.codes[pairs]).mean()) if len(pairs) else 0.0

    def same_way(self, pairs: np.ndarray, sign: float, beyond: float = 0.0) -> bool:
        """Whether these pairs moved that way by more than the tolerance beyond `beyond`, at the level alpha."""
        return self.p(pairs, beyond) <= self.alpha and (float(self.changes[pairs].mean()) - beyond) * sign > 0


def explain_away(moves: Sequence[Move], test: _Test) -> list[Move]:
    """Mark classes and words whose change is another's.

    Strongest first, a class is named only where its pairs that name none of the classes named before moved the same way;
    a word only where, in such pairs, it moved more than the pairs without it.
    """
    marked = list(moves)
    candidates = [
        i for i, move in enumerate(moves) if move.subject.kind != "whole" and move.verdict(test.alpha) != "same"
    ]
    candidates.sort(key=lambda i: (KINDS.index(moves[i].subject.kind), -abs(moves[i].change)))
    named_pairs: dict[float, dict[str, set[int]]] = {1.0: {}, -1.0: {}}
    for index in candidates:
        move = moves[index]
        sign, pairs = math.copysign(1.0, move.change), set(move.subject.spans)
        named_before = set().union(*named_pairs[sign].values())
        rest = np.array(sorted(pairs - named_before), dtype=int)
        usual = test.usual(pairs | named_before) if move.subject.kind == "words" else 0.0
        if not test.same_way(np.array(sorted(pairs)), sign, usual):
            marked[index] = replace(move, explained="as other pairs")
        elif pairs & named_before and not test.same_way(rest, sign, usual):
            culprit = max(named_pairs[sign], key=lambda name: len(named_pairs[sign][name] & pairs))
            marked[index] = replace(move, explained=f"through {culprit}")
        elif move.subject.kind == "classes":
            named_pairs[sign][move.subject.name] = pairs
    return marked


def _carried(advantages: Advantages, subject: Subject, pairs: np.ndarray) -> Float[np.ndarray, " pair"]:
    """What the subject's words carry of each pair's advantage."""
    if subject.kind == "whole":
        return np.array([sum(advantages.words[number].values()) for number in pairs])
    return np.array([sum(advantages.words[number][span] for span in subject.spans[number]) for number in pairs])


def by_group(values: Float[np.ndarray, " pair"], groups: np.ndarray) -> Float[np.ndarray, " group"]:
    """The mean of every group's values."""
    codes = np.unique(groups, return_inverse=True)[1]
    return np.bincount(codes, weights=values) / np.bincount(codes)


def can_be_significant(counts: Sequence[int], alpha: float) -> list[bool]:
    """Which tests of so many images could be significant at all (Tarone 1990).

    n signs give no p below 2^(1 − n). Tests that can never pass need no share of alpha.
    """
    for share in range(1, len(counts) + 1):
        testable = [2.0 ** (1 - count) <= alpha / share for count in counts]
        if sum(testable) <= share:
            return testable
    return [False] * len(counts)


def minimum_effect_p(
    changes: Float[np.ndarray, " image"], tolerance: float, alpha: float, draws: int, seed: int
) -> float:
    """p of "the mean change lies within ± tolerance", by flipping signs; 1 where the observed mean does.

    Changes are moved towards zero by the tolerance, the least favourable mean of the hypothesis. `draws` patterns are
    looked at only where a few say that the result matters.
    """
    mean = float(changes.mean())
    if abs(mean) <= tolerance:
        return 1.0
    rest = changes - math.copysign(tolerance, mean)
    return staged_sign_flip_p(rest, np.arange(len(rest)), draws=draws, promising=10 * alpha, seed=seed)


def conspicuous(before: Advantages, after: Advantages, tolerance: float) -> Int[np.ndarray, " chosen"]:
    """Pairs that lost their first rank, or moved unlike all others, and by more than the tolerance; largest fall first."""
    change = after.total - before.total
    centre = np.median(change)
    spread = 1.4826 * np.median(np.abs(change - centre))
    lost = (before.first_caption & ~after.first_caption) | (before.first_image & ~after.first_image)
    unusual = np.abs(change - centre) > OUTLIER * spread
    flagged = np.flatnonzero((lost | unusual) & (np.abs(change) > tolerance))
    return flagged[np.argsort(change[flagged], kind="stable")]
