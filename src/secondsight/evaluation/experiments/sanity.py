"""Sanity: maps must change when the model's weights are randomised (Adebayo et al. 2018)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pandas as pd
import torch

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.base import Record, groups, of_kind
from secondsight.evaluation.experiments.pointing import Pointing
from secondsight.evaluation.maps import span_map
from secondsight.evaluation.setting import Setting
from secondsight.model import DualEncoder


class Sanity(Pointing):
    """Maps must change when weights are randomised: pointing of the model, and of it with random weights.

    Each setting also runs with the values of every parameter of both towers shuffled (`seed`), which keeps their
    distribution. Its maps' rank correlation with the trained model's says how much of a map does not come from the weights.
    """

    name: ClassVar[str] = "sanity"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._trained: dict[str, Setting] = {}
        self._shuffled: dict[int, DualEncoder] = {}

    def variants(self, setting: Setting) -> Iterator[Setting]:
        """The setting, and the setting with shuffled weights."""
        yield setting
        key = id(setting.model)
        if key not in self._shuffled:
            self._shuffled[key] = shuffle_weights(setting.model, self.seed)
        spec, label = {**setting.spec, "shuffled weights": self.seed}, f"{setting.label}, shuffled weights"
        self._trained[label] = setting
        yield replace(setting, model=self._shuffled[key], spec=spec, label=label)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """Pointing's records; those of shuffled weights have their maps' rank correlation with the trained model's."""
        records = super().records(setting, example)
        if setting.label in self._trained:
            for record in records:
                if record["kind"] == "case":
                    span = record["span"][0], record["span"][1]
                    both = (setting, self._trained[setting.label])
                    maps = [span_map(*weights.explain_span(example, span))[0] for weights in both]
                    record["rank_correlation"] = measures.rank_correlation(*maps)
        return records

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Pointing of both; shuffled weights should be near chance, and their maps unlike the trained model's."""
        cases = of_kind(frame, "case")
        table = self.summaries(cases)
        if "rank_correlation" in cases:
            table["rank correlation with trained"] = groups(cases, "setting").rank_correlation.median()
        return {"overall": table}


def shuffle_weights(model: DualEncoder, seed: int) -> DualEncoder:
    """A copy of the model with the values of each parameter shuffled; the model itself is unchanged."""
    copied = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    shuffled: set[int] = set()
    for side in (copied.left, copied.right):
        for parameter in side.encoder.module.parameters():
            if id(parameter) not in shuffled and parameter.ndim > 1:
                shuffled.add(id(parameter))
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                with torch.no_grad():
                    parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return copied
