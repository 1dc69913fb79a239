"""Perturbation: conditional insertion and deletion of image and text ([M25] Table 2)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.base import Record, check_count, groups
from secondsight.evaluation.experiments.masking import MaskingExperiment, input_games, order_masks, player_values
from secondsight.evaluation.setting import Setting
from secondsight.methods.game import Game
from secondsight.visual.charts import curves

MEASURES = {
    "CID": "conditional image deletion, the lower the better",
    "CII": "conditional image insertion, the higher the better",
    "CTD": "conditional text deletion, the lower the better",
    "CTI": "conditional text insertion, the higher the better",
}


class Perturbation(MaskingExperiment):
    """Do the strongest features matter most? CID, CII, CTD, CTI: similarity over the share taken away or put in.

    Features go in the order of their summed attribution while the other input stays unchanged; a random order is measured
    for comparison. `steps` is the number of shares.
    """

    name: ClassVar[str] = "perturbation"

    def __init__(self, *, steps: int = 10, **options: Any) -> None:
        super().__init__(**options)
        check_count("steps", steps)
        self.steps = steps

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each measure: the curve, its area, and the random order's area."""
        e = setting.explain(example)[0]
        left, right = input_games(setting, example, self.seed)
        image = player_values(e.left_layout, e.toward_left(None), left)
        text = player_values(e.right_layout, e.toward_right(None), right)
        whole_image, whole_text = left.end(True), right.end(True)
        return [
            *self._curves(left, image, whole_text, ("CID", "CII")),
            *self._curves(right, text, whole_image, ("CTD", "CTI")),
        ]

    def _curves(
        self, game: Game, values: Float[Tensor, " player"], fixed: Tensor, names: tuple[str, str]
    ) -> list[Record]:
        """Deletion and insertion of one input's features, with the other input's embedding `fixed`."""
        generator = torch.Generator().manual_seed(self.seed)
        chance = torch.rand(len(values), generator=generator, dtype=torch.float64)
        steps = min(self.steps, game.players)
        shares = [i / steps for i in range(steps + 1)]
        masks = torch.cat([order_masks(v, shares, insert=insert) for insert in (False, True) for v in (values, chance)])
        # All four curves start or end with all features and with none: each distinct mask is encoded once.
        distinct, places = torch.unique(masks, dim=0, return_inverse=True)
        similarities = (game.values(distinct) @ fixed)[places].reshape(4, -1).tolist()
        records = []
        for name, (ranked, random) in zip(names, (similarities[:2], similarities[2:]), strict=True):
            curve = np.interp(np.linspace(0, 1, self.steps + 1), shares, ranked).tolist()
            areas = {"area": measures.curve_area(ranked, shares), "random": measures.curve_area(random, shares)}
            records.append({"kind": name, **areas, "curve": curve})
        return records

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Areas under the curves, mean ± sd over pairs."""
        rows = []
        for setting, group in groups(frame, "setting"):
            row: dict[str, Any] = {"setting": setting, "pairs": int((group.kind == "CID").sum())}
            for name in MEASURES:
                records = group[group.kind == name]
                row[name] = records.area.mean()
                row[f"sd {name}"] = records.area.std(ddof=0)
                row[f"random {name}"] = records.random.mean()
            rows.append(row)
        return {"overall": pd.DataFrame(rows)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Mean curves of the four measures."""
        figures = {}
        for name, title in MEASURES.items():
            by_setting = {
                str(setting): np.asarray(group[group.kind == name]["curve"].tolist())
                for setting, group in groups(frame, "setting")
            }
            share = "inserted" if name.endswith("I") else "removed"
            figures[name] = curves(by_setting, f"share {share}", "similarity", f"{name}: {title}")
        return figures
