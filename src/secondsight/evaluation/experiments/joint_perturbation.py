"""Joint perturbation: insertion and deletion of image and text in one ranking (FIxLIP, Baniecki et al. 2025)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.base import Record, check_count, groups, of_kind
from secondsight.evaluation.experiments.masking import (
    ExplainedGame,
    MaskingExperiment,
    actual_similarities,
    explained_game,
    input_games,
    order_masks,
)
from secondsight.evaluation.setting import Setting
from secondsight.visual.charts import curves

RANKINGS = ("summed", "greedy")
CURVES = {
    "insertion": "the best are kept, higher is better",
    "deletion": "the worst are kept, lower is better",
}


class JointPerturbation(MaskingExperiment):
    """Do the strongest features of both inputs together matter most? The area between insertion and deletion (AID).

    Features of image and text share one ranking. Insertion keeps the best of every size, deletion the worst. "summed" ranks
    single features by their value in the explanation, the effect and half the interactions; "greedy" looks for the set whose
    value, effects and interactions within it, is the highest or lowest, as interactions allow. `steps` is the number of sizes.
    """

    name: ClassVar[str] = "joint-perturbation"

    def __init__(self, *, steps: int = 20, **options: Any) -> None:
        super().__init__(**options)
        check_count("steps", steps)
        self.steps = steps

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each ranking: both curves, their areas, AID, and AID over the similarity that the features add."""
        games = input_games(setting, example, self.seed)
        explained = explained_game(setting.explain(example)[0], games)
        players = games[0].players + games[1].players
        steps = min(self.steps, players)
        sizes = [round(players * step / steps) for step in range(steps + 1)]
        kept = torch.cat([masks for ranking in RANKINGS for masks in kept_sets(explained, sizes, ranking)])
        masks = kept[:, : games[0].players], kept[:, games[0].players :]
        similarities = actual_similarities(games, masks).reshape(len(RANKINGS), len(CURVES), len(sizes))
        gained = float(similarities[0, 0, -1] - similarities[0, 0, 0])
        shares = [size / players for size in sizes]
        records: list[Record] = []
        for ranking, pair in zip(RANKINGS, similarities.tolist(), strict=True):
            record: Record = {"kind": ranking}
            for name, curve in zip(CURVES, pair, strict=True):
                record[name] = measures.curve_area(curve, shares)
                record[f"{name} curve"] = np.interp(np.linspace(0, 1, self.steps + 1), shares, curve).tolist()
            record["aid"] = record["insertion"] - record["deletion"]
            # Where all features together lower the similarity, a share of what they add means nothing.
            record["share"] = record["aid"] / gained if gained > 0 else None
            records.append(record)
        return records

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Areas for each setting and ranking; a random ranking's AID is 0."""
        rows = []
        for (setting, ranking), group in groups(frame, ["setting", "kind"]):
            row = {"setting": setting, "ranking": ranking, "pairs": len(group)}
            row |= {name: group[name].mean() for name in CURVES}
            row |= {"AID": group.aid.mean(), "sd AID": group.aid.std(ddof=0)}
            rows.append(row | {"normalised AID": group.share.astype(float).median()})
        return {"overall": pd.DataFrame(rows)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Mean curves for each ranking."""
        figures = {}
        for ranking in RANKINGS:
            for name, title in CURVES.items():
                by_setting = {
                    str(setting): np.asarray(group[f"{name} curve"].tolist())
                    for setting, group in groups(of_kind(frame, ranking), "setting")
                }
                figures[f"{ranking} {name}"] = curves(
                    by_setting, "share kept", "similarity", f"{ranking} {name}: {title}"
                )
        return figures


def kept_sets(
    explained: ExplainedGame, sizes: list[int], ranking: str
) -> tuple[Bool[Tensor, "size player"], Bool[Tensor, "size player"]]:
    """The sets of these sizes with the highest explained value, and those with the lowest, as masks of both sides."""
    left, right = len(explained.left), len(explained.right)
    effects = torch.cat([explained.left, explained.right])
    pairs = torch.zeros(left + right, left + right, dtype=torch.float64)
    pairs[:left, left:], pairs[left:, :left] = explained.matrix, explained.matrix.T
    if ranking == "greedy":
        return greedy_sets(effects, pairs)[sizes], greedy_sets(-effects, -pairs)[sizes]
    values = effects + pairs.sum(1) / 2
    shares = [size / len(values) for size in sizes]
    return order_masks(values, shares, insert=True), order_masks(-values, shares, insert=True)


def greedy_sets(
    effects: Float[Tensor, " player"], pairs: Float[Tensor, "player player"]
) -> Bool[Tensor, "size player"]:
    """For every size 0 … players a set of high value, Σ effects + Σ pairs within it.

    From every single player on, the player that adds most joins; of the sets of one size, the best is taken.
    """
    players = len(effects)
    sets = torch.eye(players, dtype=torch.bool)
    values, gains = effects.clone(), effects + pairs
    best = [torch.zeros(players, dtype=torch.bool), sets[values.argmax()]]
    rows = torch.arange(players)
    for _ in range(players - 1):
        gain, joining = gains.masked_fill(sets, -torch.inf).max(1)
        values = values + gain
        sets = sets.clone()
        sets[rows, joining] = True
        gains = gains + pairs[joining]
        best.append(sets[values.argmax()])
    return torch.stack(best)
