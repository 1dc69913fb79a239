"""Hard negatives: what one wrong word changes ([M25] Fig. 8)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure

from secondsight.algebra.layout import GridLayout
from secondsight.data.grounded import GroundedCaption, GroundedDataset, Negative
from secondsight.data.negatives import hard_negatives
from secondsight.evaluation.cases import Case, find_cases
from secondsight.evaluation.changed_words import overlap
from secondsight.evaluation.experiments.base import Experiment, Record, groups
from secondsight.evaluation.maps import box_sum
from secondsight.evaluation.setting import Setting
from secondsight.support.errors import InputError
from secondsight.visual.charts import histograms


class HardNegatives(Experiment):
    """What a wrong word changes: δS of the similarity, δA of the attribution to the object's box ([M25] Fig. 8).

    Data without wrong captions gets generated ones: an object's name is replaced by a plausible other's.
    """

    name: ClassVar[str] = "hard-negatives"
    needs: ClassVar[str] = "a wrong caption beside it, or an object whose name can be replaced"

    def examples(self, data: GroundedDataset) -> Iterable[GroundedCaption]:
        """The data set's captions, with generated negatives if it has none."""
        return with_negatives(data, self.seed)

    def wants(self, example: GroundedCaption) -> bool:
        """Captions with wrong ones."""
        return bool(example.negatives)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each wrong caption; δA only if the replaced phrase has one box."""
        captions = [example.caption, *(negative.caption for negative in example.negatives)]
        right, *wrong = setting.explain(example, captions)
        cases = find_cases(example, right.left_layout)[0] if isinstance(right.left_layout, GridLayout) else []
        return [
            {
                "kind": negative.kind or "negative",
                "caption": negative.caption,
                "delta_similarity": e.similarity - right.similarity,
                "delta_attribution": None,
                **_attribution_change(setting, example, cases, negative),
            }
            for negative, e in zip(example.negatives, wrong, strict=True)
        ]

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Shares of falling similarity and attribution, by kind of change."""
        rows = []
        for (setting, kind), group in groups(frame, ["setting", "kind"]):
            change = group.delta_attribution.astype(float).dropna()
            rows.append(
                {
                    "setting": setting,
                    "kind": kind,
                    "captions": len(group),
                    "δS negative": (group.delta_similarity < 0).mean(),
                    "mean δS": group.delta_similarity.mean(),
                    "with a box": len(change),
                    "δA negative": (change < 0).mean() if len(change) else float("nan"),
                    "mean δA": change.mean() if len(change) else float("nan"),
                }
            )
        return {"overall": pd.DataFrame(rows)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Distributions of δS and δA."""
        figures = {}
        for i, (setting, group) in enumerate(groups(frame, "setting"), 1):
            change = group.delta_attribution.astype(float).dropna().to_numpy()
            values = {"δS, similarity": group.delta_similarity.to_numpy()}
            if len(change):
                values["δA, attribution to the box"] = change
            figures[f"change {i}"] = histograms(values, "wrong caption less right caption", str(setting))
        return figures


def _attribution_change(setting: Setting, example: GroundedCaption, cases: list[Case], negative: Negative) -> Record:
    """δA and the class of the replaced phrase; nothing if it is not a case or was cut from a long caption."""
    case = next((case for case in cases if overlap(case.phrase.span, negative.phrase)), None)
    if case is None or negative.span is None:
        return {}
    wrong = replace(example, caption=negative.caption)
    try:
        before = box_sum(*setting.explain_span(example, case.phrase.span), case.box)
        after = box_sum(*setting.explain_span(wrong, negative.span), case.box)
    except InputError:
        return {}
    return {"delta_attribution": after - before, "label": case.phrase.label}


def with_negatives(data: GroundedDataset, seed: int) -> Iterable[GroundedCaption]:
    """The data set's captions, with generated negatives if it has none."""
    examples = list(data)
    return examples if any(e.negatives for e in examples) else hard_negatives(examples, seed)
