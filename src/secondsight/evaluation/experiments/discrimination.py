"""Discrimination: whether phrases tell two objects of an image apart ([M25] Fig. 7)."""

from __future__ import annotations

from itertools import permutations
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.base import Record, groups
from secondsight.evaluation.experiments.grounding import Grounding
from secondsight.evaluation.maps import box_sum
from secondsight.evaluation.setting import Setting
from secondsight.visual.charts import histograms


class Discrimination(Grounding):
    """Do phrases tell two objects of one image apart? Own-box and other-box attribution ([M25] Fig. 7)."""

    name: ClassVar[str] = "discrimination"
    needs: ClassVar[str] = "two objects of different classes with one box each"

    def wants(self, example: GroundedCaption) -> bool:
        """Captions that name two classes."""
        return len({phrase.label for phrase in example.phrases if len(phrase.boxes) == 1}) > 1

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """Every ordered pair of phrases: the attribution of the first to its own box and to the second's."""
        cases, _ = self.judged_cases(setting, example)
        maps = {case.phrase.span: setting.explain_span(example, case.phrase.span) for case in cases}
        return [
            {
                "kind": "pair",
                "label": case.phrase.label,
                "other": rival.phrase.label,
                "own": box_sum(*maps[case.phrase.span], case.box),
                "cross": box_sum(*maps[case.phrase.span], rival.box),
                "overlap": measures.overlap(rival.box, case.box),
            }
            for case, rival in permutations(cases, 2)
            if case.phrase.label != rival.phrase.label
        ]

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Shares of signs, over all pairs and over those whose boxes do not overlap."""
        rows = []
        for setting, group in groups(frame, "setting"):
            for name, pairs in (("all", group), ("boxes apart", group[group.overlap == 0])):
                if len(pairs):
                    rows.append(
                        {
                            "setting": setting,
                            "pairs": name,
                            "count": len(pairs),
                            "own positive": (pairs.own > 0).mean(),
                            "cross negative": (pairs.cross < 0).mean(),
                            "own above cross": (pairs.own > pairs.cross).mean(),
                            "mean own": pairs.own.mean(),
                            "mean cross": pairs.cross.mean(),
                        }
                    )
        return {"overall": pd.DataFrame(rows)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Distributions of own-box and other-box attribution."""
        return {
            f"attribution {i}": histograms(
                {"own box": group.own.to_numpy(), "other object's box": group.cross.to_numpy()},
                "attribution of a phrase to a box",
                str(setting),
            )
            for i, (setting, group) in enumerate(groups(frame, "setting"), 1)
        }
