"""Cost: how long an explanation takes, beside a forward pass of the same pair."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any, ClassVar

import pandas as pd

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation.experiments.base import Experiment, Record, groups
from secondsight.evaluation.setting import Setting
from secondsight.support.errors import InputError


class Cost(Experiment):
    """How long does an explanation take? Seconds for each pair, and how many forward passes of the pair that is.

    Both are measured in turn, `repeats` times after a first time that does not count, for inputs that are prepared already.
    Times differ from run to run; a resumed run keeps those it has.
    """

    name: ClassVar[str] = "cost"

    def __init__(self, *, repeats: int = 2, **options: Any) -> None:
        super().__init__(**options)
        if repeats < 1:
            raise InputError(f"repeats={repeats!r}: at least 1 is needed")
        self.repeats = repeats

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each pair: median seconds of both."""
        model, (image, text) = setting.model, setting.prepared(example)

        # Plain numbers, so that a device has finished.
        def forward() -> float:
            return float(model.similarities(image, [text])[0])

        def explain() -> float:
            return float(model.interactions(setting.method, image, [text])[0].matrix.sum())

        rounds = [(seconds(forward), seconds(explain)) for _ in range(self.repeats + 1)]
        passes, explanations = (median(times) for times in zip(*rounds[1:], strict=True))
        return [{"kind": "pair", "forward": passes, "seconds": explanations, "passes": explanations / passes}]

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Median seconds of a forward pass and of an explanation, and the median ratio."""
        by_setting = groups(frame, "setting")
        table = by_setting[["forward", "seconds", "passes"]].median()
        table.columns = ["seconds of a forward pass", "seconds of an explanation", "forward passes"]
        table.insert(0, "pairs", by_setting.size())
        return {"overall": table.reset_index()}


def seconds(work: Callable[[], float]) -> float:
    """How long a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
