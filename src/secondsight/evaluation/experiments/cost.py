"""Cost: how long an explanation takes, beside a forward pass of the same pair."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, ClassVar

import pandas as pd

from secondsight.algebra.outcome import Outcome
from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation.experiments.base import Experiment, Record, check_count, groups
from secondsight.evaluation.setting import Setting
from secondsight.support.memory import peak_memory


class Cost(Experiment):
    """What does an explanation cost? Seconds for each pair, how many forward passes of the pair that is, and memory.

    Both times are measured in turn, `repeats` times after a first time that does not count, for inputs that are prepared
    already. Memory is the peak of the first time, beyond what was in use before (`peak_memory`). "computations" are what the
    method itself counts (`Outcome.cost`). Times differ from run to run; a resumed run keeps those it has.
    """

    name: ClassVar[str] = "cost"

    def __init__(self, *, repeats: int = 2, **options: Any) -> None:
        super().__init__(**options)
        check_count("repeats", repeats)
        self.repeats = repeats

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each pair: median seconds of both."""
        model, (image, text) = setting.model, setting.prepared(example)

        # Plain numbers, so that a device has finished.
        def forward() -> float:
            return float(model.similarities(image, [text])[0])

        def explain() -> float:
            e = model.interactions(setting.method, image, [text])[0]
            outcomes.append(e.outcomes)
            return float(e.matrix.sum())

        outcomes: list[Sequence[Outcome | None]] = []
        forward()
        peak = peak_memory(explain, image.tensor.device)
        rounds = [(seconds(forward), seconds(explain)) for _ in range(self.repeats)]
        passes, explanations = (median(times) for times in zip(*rounds, strict=True))
        counted = [outcome.cost for outcome in outcomes[0] if outcome is not None]
        return [
            {
                "kind": "pair",
                "forward": passes,
                "seconds": explanations,
                "passes": explanations / passes,
                "computations": sum(counted) if counted else None,
                "mebibytes": None if peak is None else peak / 2**20,
            }
        ]

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Median seconds of a forward pass and of an explanation, the median ratio, and the medians of what is counted."""
        by_setting = groups(frame, "setting")
        names = {
            "forward": "seconds of a forward pass",
            "seconds": "seconds of an explanation",
            "passes": "forward passes",
            "computations": "computations",
            "mebibytes": "MiB at the peak",
        }
        # Records of earlier versions have times only.
        measured = [name for name in names if name in frame]
        table = frame[measured].astype(float).groupby(frame["setting"], sort=False).median().rename(columns=names)
        table.insert(0, "pairs", by_setting.size())
        return {"overall": table.reset_index()}


def seconds(work: Callable[[], float]) -> float:
    """How long a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
