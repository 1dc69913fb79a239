"""Faithfulness: whether explanations predict the similarities of masked inputs (FIxLIP, Baniecki et al. 2025)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.base import Record, groups
from secondsight.evaluation.experiments.masking import MaskingExperiment, input_games, predicted_similarities
from secondsight.evaluation.setting import Setting
from secondsight.methods.mask_regression import bernoulli_masks
from secondsight.support.errors import InputError
from secondsight.visual.charts import distributions

SEED_STEP = 7919
"""Separates the seeds of the two sides' masks, which must be independent."""


class Faithfulness(MaskingExperiment):
    """Does the explanation predict similarities of masked inputs? Correlation under random masks of both sides.

    Of `masks` pairs of masks that keep each feature with probability `p`, the predicted similarity is base + Σ_S left +
    Σ_T right + Σ_S×T A; special features are always present.
    """

    name: ClassVar[str] = "faithfulness"

    def __init__(self, *, p: float = 0.5, masks: int = 100, **options: Any) -> None:
        super().__init__(**options)
        if not 0 < p < 1 or masks < 3:
            raise InputError("faithfulness needs 0 < p < 1 and at least 3 masks")
        self.p, self.masks = p, masks

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each pair."""
        e = setting.explain(example)[0]
        left, right = input_games(setting, example, self.seed)
        left_masks = bernoulli_masks(left.players, self.masks, self.p, self.seed + SEED_STEP)
        right_masks = bernoulli_masks(right.players, self.masks, self.p, self.seed + 2 * SEED_STEP)
        actual = (left.values(left_masks) * right.values(right_masks)).sum(-1)
        predicted = predicted_similarities(e, (left, right), (left_masks, right_masks))
        correlation = measures.correlation(predicted, actual)
        if math.isnan(correlation):
            return [{"problem": "similarity or prediction does not change under masks"}]
        pair = {"kind": "pair", "correlation": correlation, "similarity": e.similarity}
        return [{**pair, "spread": float(actual.std())}]

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Median and spread of the correlation."""
        rows = [
            {
                "setting": setting,
                "pairs": len(group),
                "median": group.correlation.median(),
                "mean": group.correlation.mean(),
                "sd": group.correlation.std(ddof=0),
                "least": group.correlation.min(),
                "largest": group.correlation.max(),
            }
            for setting, group in groups(frame, "setting")
        ]
        return {"overall": pd.DataFrame(rows)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Cumulative distributions of the correlation."""
        values = {str(setting): group.correlation.to_numpy() for setting, group in groups(frame, "setting")}
        return {"faithfulness": distributions(values, "correlation of predicted with actual similarity", low=-1.0)}
