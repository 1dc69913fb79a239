"""The gate: compare two models on the same pairs, and write down what moved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from secondsight.answers.collection import Collection, Progress
from secondsight.answers.gate.compare import ALPHA, FAIL_ON, TOLERANCE, compare
from secondsight.answers.gate.report import Gate, report


def gate(
    before: Collection,
    after: Collection,
    out: str | os.PathLike[str],
    *,
    alpha: float = ALPHA,
    tolerance: float = TOLERANCE,
    fail_on: Sequence[str] = FAIL_ON,
    names: tuple[str, str] | None = None,
    command: str = "",
    seed: int = 0,
    progress: Progress | None = None,
) -> Gate:
    """Compare two models on the same pairs, decomposed with each by `collect_pairs`, and write a report to the folder `out`.

    A pair's advantage is its similarity less what its image and its caption have with everything else, in standard
    deviations of the same quantity over the wrong pairs ("spreads"), so that neither a shift nor a scale of all similarities
    counts. The gate fails where the mean advantage, or that of a class or word, fell by more than `tolerance` spreads; the
    chance of any false alarm among all these tests is at most `alpha`. `names` are the models' names in the report,
    `command` is what it says to reproduce it with. Raises `InputError` for options out of range, and for pairs too few to
    ever be significant.
    """
    compared = compare(
        before, after, alpha=alpha, tolerance=tolerance, fail_on=fail_on, names=names, seed=seed, progress=progress
    )
    return report(compared, Path(out), command)
