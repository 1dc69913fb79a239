"""Faithfulness: whether explanations predict the similarities of masked inputs (FIxLIP, Baniecki et al. 2025)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.base import Record, check_count, groups
from secondsight.evaluation.experiments.masking import (
    MaskingExperiment,
    actual_similarities,
    explained_game,
    input_games,
)
from secondsight.evaluation.setting import Setting
from secondsight.methods.game import Game
from secondsight.methods.mask_regression import bernoulli_masks, shapley_masks
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.visual.charts import distributions

SEED_STEP = 7919
"""Separates the seeds of masks that must be independent."""

SHAPLEY = "shapley"
"""The name of the Shapley kernel; the others are called p=0.5 and so on."""

MEASURES = {
    "correlation": measures.correlation,
    "spearman": measures.rank_correlation,
    "kendall": measures.kendall_correlation,
    "r2": measures.r_squared,
}
"""What is computed from predicted and actual similarities, by the name of its column."""


class Faithfulness(MaskingExperiment):
    """Does the explanation predict similarities of masked inputs? Correlations and R² under random masks of both sides.

    Of `masks` pairs of masks, drawn by each kernel, the predicted similarity is base + Σ_S left + Σ_T right + Σ_S×T A; special
    features are always present. The kernels are those of weighted Banzhaf values, which keep each feature with probability
    `p`, one or several, and that of Shapley values, which draws how many features of both sides together are present. As masks
    are drawn by a kernel, plain averages over them are averages weighted by it.
    """

    name: ClassVar[str] = "faithfulness"

    def __init__(self, *, p: float | Sequence[float] = (0.5, 0.3, 0.7), masks: int = 100, **options: Any) -> None:
        super().__init__(**options)
        self.p = tuple(p) if isinstance(p, list | tuple) else (p,)
        self.masks = masks
        check_count("masks", masks, 3)
        if not self.p or not all(isinstance(share, float) and 0 < share < 1 for share in self.p):
            raise InputError(f"p={p!r} must be one or several numbers between 0 and 1")
        self._kernels: dict[str, float | None] = {**{f"p={share:g}": share for share in self.p}, SHAPLEY: None}
        # The similarities under masks are the same for every method.
        self._actual: dict[tuple[DualEncoder, str | None, str, str], Tensor] = {}

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each pair; the first kernel's measures have plain names, the others' end with the kernel."""
        e = setting.explain(example)[0]
        games = input_games(setting, example, self.seed)
        explained = explained_game(e, games)
        record: Record = {"kind": "pair", "similarity": e.similarity}
        for kernel in self._kernels:
            masks = self.draw(kernel, games)
            key = (setting.model, setting.filling, f"{example.image_key}/{example.key}", kernel)
            if key not in self._actual:
                self._actual[key] = actual_similarities(games, masks)
            actual, predicted = self._actual[key], explained.similarities(masks)
            for name, measure in MEASURES.items():
                value = measure(predicted, actual)
                record[self._column(name, kernel)] = None if math.isnan(value) else value
            record.setdefault("spread", float(actual.std()))
        if record["correlation"] is None:
            return [{"problem": "similarity or prediction does not change under masks"}]
        return [record]

    def draw(self, kernel: str, games: tuple[Game, Game]) -> tuple[Tensor, Tensor]:
        """Pairs of masks of both sides, drawn by a kernel."""
        left, right = (game.players for game in games)
        p = self._kernels[kernel]
        if p is None:
            joint = shapley_masks(left + right, self.masks, self.seed + 3 * SEED_STEP)
            return joint[:, :left], joint[:, left:]
        return (
            bernoulli_masks(left, self.masks, p, self.seed + SEED_STEP),
            bernoulli_masks(right, self.masks, p, self.seed + 2 * SEED_STEP),
        )

    def _column(self, measure: str, kernel: str) -> str:
        return measure if kernel == next(iter(self._kernels)) else f"{measure} {kernel}"

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Median and spread of the first kernel's correlation; medians of every measure under every kernel."""
        overall, kernels = [], []
        for setting, group in groups(frame, "setting"):
            correlation = group.correlation.astype(float)
            overall.append(
                {
                    "setting": setting,
                    "pairs": len(group),
                    "median": correlation.median(),
                    "mean": correlation.mean(),
                    "sd": correlation.std(ddof=0),
                    "least": correlation.min(),
                    "largest": correlation.max(),
                }
            )
            for kernel in self._kernels:
                values = {name: group[self._column(name, kernel)].astype(float) for name in MEASURES}
                row = {"setting": setting, "kernel": kernel, "pairs": int(values["r2"].count())}
                row |= {name: column.median() for name, column in values.items()}
                low, high = values["r2"].quantile([0.25, 0.75])
                kernels.append(row | {"r2 lower quartile": low, "r2 upper quartile": high})
        return {"overall": pd.DataFrame(overall), "kernels": pd.DataFrame(kernels)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Cumulative distributions of the first kernel's correlation."""
        values = {str(setting): group.correlation.to_numpy() for setting, group in groups(frame, "setting")}
        return {"faithfulness": distributions(values, "correlation of predicted with actual similarity", low=-1.0)}
