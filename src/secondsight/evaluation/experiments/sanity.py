"""Sanity: maps must change when the model's weights are randomised (Adebayo et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.base import Record, check_count, groups, of_kind
from secondsight.evaluation.experiments.pointing import Pointing
from secondsight.evaluation.maps import span_map
from secondsight.evaluation.randomisation import cascade, shuffle_weights
from secondsight.evaluation.setting import Setting
from secondsight.model import DualEncoder
from secondsight.visual.charts import lines

SHUFFLED = ", shuffled weights"
"""What is added to a setting's label for its model with shuffled weights."""


class Sanity(Pointing):
    """Maps must change when weights are randomised: pointing of the model, and of it with random weights.

    Each setting also runs with the values of every weight matrix of both towers shuffled (`seed`), which keeps their
    distribution; vectors such as biases stay. Its maps' rank correlation with the trained model's says how much of a map does
    not come from the weights.
    With `cascade`, a number of stages, both towers are shuffled from the output down to the input in as many steps: a map that
    stays while the last blocks change does not show what they compute (Sixt et al. 2020).
    """

    name: ClassVar[str] = "sanity"

    def __init__(self, *, cascade: int = 0, **options: Any) -> None:
        super().__init__(**options)
        check_count("cascade", cascade, 0)
        self.cascade = cascade
        self._trained: dict[str, tuple[Setting, float]] = {}
        self._shuffled: dict[int, list[DualEncoder]] = {}

    def variants(self, setting: Setting) -> Iterator[Setting]:
        """The setting, and the setting with shuffled weights, or with those of each stage of the cascade."""
        yield setting
        key, stages = id(setting.model), self.cascade
        if key not in self._shuffled:
            copies = (
                cascade(setting.model, self.seed, stages) if stages else [shuffle_weights(setting.model, self.seed)]
            )
            self._shuffled[key] = copies
        for stage, model in enumerate(self._shuffled[key], 1):
            spec, label = {**setting.spec, "shuffled weights": self.seed}, setting.label + SHUFFLED
            if stages:
                spec, label = {**spec, "stage": [stage, stages]}, f"{setting.label}, stage {stage} of {stages}"
            self._trained[label] = setting, stage / max(stages, 1)
            yield replace(setting, model=model, spec=spec, label=label)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """Pointing's records; those of shuffled weights have their maps' rank correlation with the trained model's."""
        records = super().records(setting, example)
        if setting.label in self._trained:
            trained, share = self._trained[setting.label]
            for record in records:
                if record["kind"] == "case":
                    span = record["span"][0], record["span"][1]
                    maps = [span_map(*weights.explain_span(example, span))[0] for weights in (setting, trained)]
                    record["rank_correlation"] = measures.rank_correlation(*maps)
                    record |= {"trained": trained.label, "share_shuffled": share} if self.cascade else {}
        return records

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Pointing of both; shuffled weights should be near chance, and their maps unlike the trained model's."""
        cases = of_kind(frame, "case")
        table = self.summaries(cases)
        if "share_shuffled" in cases:
            table["share shuffled"] = groups(cases, "setting").share_shuffled.first().fillna(0.0)
        if "rank_correlation" in cases:
            table["rank correlation with trained"] = groups(cases, "setting").rank_correlation.median()
        return {"overall": table}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Pointing's figures, and of a cascade the maps' rank correlation with the trained model's over its stages."""
        figures, cases = super().figures(frame), of_kind(frame, "case")
        if "share_shuffled" in cases:
            series = {}
            for label, group in groups(cases.dropna(subset=["share_shuffled"]), "trained"):
                medians = group.groupby("share_shuffled").rank_correlation.median()
                series[str(label)] = [0.0, *medians.index], [1.0, *medians]
            figures["cascade"] = lines(
                series,
                "share of both towers shuffled, from the output down",
                "median rank correlation with trained",
                "",
            )
        return figures
