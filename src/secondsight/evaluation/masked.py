"""Experiments that take features away: conditional insertion and deletion, faithfulness ([M25] Table 2; FIxLIP)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import GridLayout, Layout
from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.grounding import by
from secondsight.evaluation.run import Experiment, Record, Setting
from secondsight.methods.game import Game, game
from secondsight.methods.mask_regression import bernoulli_masks
from secondsight.support.errors import InputError

MEASURES = {
    "CID": "conditional image deletion, the lower the better",
    "CII": "conditional image insertion, the higher the better",
    "CTD": "conditional text deletion, the lower the better",
    "CTI": "conditional text insertion, the higher the better",
}


def players(own: Layout, values: Tensor, g: Game) -> Tensor:
    """Values of a layout's features as values of the game's players; cells are averaged where grids differ."""
    if own == g.layout:
        return values[g.layout.visible].double()
    if isinstance(own, GridLayout) and isinstance(g.layout, GridLayout):
        heat = own.heatmap(values).double()
        rows = []
        for x0, y0, x1, y1 in g.layout.cell_boxes().round().long().tolist():
            part = heat[max(y0, 0) : max(y1, y0 + 1), max(x0, 0) : max(x1, x0 + 1)]
            rows.append(part.mean() * (x1 - x0) * (y1 - y0) if part.numel() else torch.zeros((), dtype=torch.float64))
        cells = torch.stack(rows)
        full = torch.zeros(g.layout.size, dtype=torch.float64)
        full[g.layout.view(torch.arange(g.layout.size).double()).long().flatten()] = cells
        return full[g.layout.visible]
    shared = [i if i < own.size else None for i in g.layout.visible]
    if own.kind == g.layout.kind and None not in shared:
        return values[torch.tensor(shared)].double()
    raise InputError(f"features of {own.kind} cannot be taken away as those of {g.layout.kind}")


def games(setting: Setting, example: GroundedCaption, seed: int) -> tuple[Game, Game]:
    """Both inputs as games at the input, on the vectors that the similarity is made of."""
    a, b = setting.prepared(example)
    sides = (setting.model.left, a), (setting.model.right, b)
    left, right = (game(side, x, "input", None, seed, "inside") for side, x in sides)
    return left, right


def order_masks(values: Tensor, shares: list[float], *, insert: bool) -> Tensor:
    """Masks with the given shares of players, highest values first, taken away or put in; ties keep their order."""
    order = values.argsort(descending=True, stable=True)
    masks = torch.zeros(len(shares), len(values), dtype=torch.bool)
    for row, share in enumerate(shares):
        masks[row, order[: round(share * len(values))]] = True
    return masks if insert else ~masks


class Perturbation(Experiment):
    """Do the strongest features matter most? CID, CII, CTD, CTI: similarity over the share taken away or put in.

    Features go in the order of their summed attribution, the other input unchanged; a random order is measured beside.
    `steps` is the number of shares.
    """

    name: ClassVar[str] = "perturbation"

    def __init__(self, *, steps: int = 10, **options: Any) -> None:
        super().__init__(**options)
        if steps < 1:
            raise InputError(f"steps={steps!r}: at least 1 is needed")
        self.steps = steps

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record a measure: the curve, its area, and the random order's area."""
        e = setting.explain(example)[0]
        left, right = games(setting, example, self.seed)
        wholes = left.end(True), right.end(True)
        made = []
        for g, own, values, other, names in (
            (left, e.left_layout, e.toward_left(None), wholes[1], ("CID", "CII")),
            (right, e.right_layout, e.toward_right(None), wholes[0], ("CTD", "CTI")),
        ):
            ranked = players(own, values, g)
            generator = torch.Generator().manual_seed(self.seed)
            chance = torch.rand(len(ranked), generator=generator, dtype=torch.float64)
            steps = min(self.steps, g.players)
            shares = [i / steps for i in range(steps + 1)]
            runs = [(insert, v) for insert in (False, True) for v in (ranked, chance)]
            masks = torch.cat([order_masks(v, shares, insert=insert) for insert, v in runs])
            # All four begin or end with everything and with nothing: each is encoded once.
            distinct, places = torch.unique(masks, dim=0, return_inverse=True)
            found = (g.values(distinct) @ other)[places].reshape(len(runs), -1).tolist()
            for name, curves in zip(names, (found[:2], found[2:]), strict=True):
                areas = [measures.curve_area(curve, shares) for curve in curves]
                even = np.interp(np.linspace(0, 1, self.steps + 1), shares, curves[0]).tolist()
                made.append({"kind": name, "area": areas[0], "random": areas[1], "curve": even})
        return made

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Areas under the curves, mean ± sd over pairs."""
        rows = []
        for setting, group in by(frame, "setting"):
            one: dict[str, Any] = {"setting": setting, "pairs": int((group.kind == "CID").sum())}
            for name in MEASURES:
                part = group[group.kind == name]
                one |= {
                    name: part.area.mean(),
                    f"sd {name}": part.area.std(ddof=0),
                    f"random {name}": part.random.mean(),
                }
            rows.append(one)
        return {"overall": pd.DataFrame(rows)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Mean curves of the four measures."""
        from secondsight.visual.charts import curves

        made = {}
        for name, about in MEASURES.items():
            named = {
                str(setting): np.asarray(group[group.kind == name]["curve"].tolist())
                for setting, group in by(frame, "setting")
            }
            share = "inserted" if name.endswith("I") else "removed"
            made[name] = curves(named, f"share {share}", "similarity", f"{name}: {about}")
        return made


class Faithfulness(Experiment):
    """Does the explanation predict similarities of masked inputs? Correlation under random masks of both sides.

    Of `masks` pairs that keep each feature with probability `p`, the predicted similarity is base + Σ_S left + Σ_T right
    + Σ_S×T A, special features always present.
    """

    name: ClassVar[str] = "faithfulness"

    def __init__(self, *, p: float = 0.5, masks: int = 100, **options: Any) -> None:
        super().__init__(**options)
        if not 0 < p < 1 or masks < 3:
            raise InputError("faithfulness needs 0 < p < 1 and at least 3 masks")
        self.p, self.masks = p, masks

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record a pair."""
        e = setting.explain(example)[0]
        sides = games(setting, example, self.seed)
        masks = [
            bernoulli_masks(g.players, self.masks, self.p, self.seed + 7919 * (k + 1)) for k, g in enumerate(sides)
        ]
        actual = (sides[0].values(masks[0]) * sides[1].values(masks[1])).sum(-1)
        predicted = predicted_similarities(e, sides, masks)
        value = measures.correlation(predicted, actual)
        if value != value:
            return [{"problem": "similarity or prediction does not move under masks"}]
        return [{"kind": "pair", "correlation": value, "similarity": e.similarity, "spread": float(actual.std())}]

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Median and spread of the correlation."""
        rows = []
        for setting, group in by(frame, "setting"):
            c = group.correlation
            one = {"setting": setting, "pairs": len(group), "median": c.median(), "mean": c.mean(), "sd": c.std(ddof=0)}
            rows.append({**one, "least": c.min(), "largest": c.max()})
        return {"overall": pd.DataFrame(rows)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Cumulative distributions of the correlation."""
        from secondsight.visual.charts import distributions

        named = {str(setting): group.correlation.to_numpy() for setting, group in by(frame, "setting")}
        return {"faithfulness": distributions(named, "correlation of predicted with actual similarity", low=-1.0)}


def predicted_similarities(e: Interactions, sides: tuple[Game, Game], masks: list[Tensor]) -> Tensor:
    """What the explanation says of the similarity under pairs of masks; features of other layers are spread on players."""
    kept = []
    for own, g, mask in zip((e.left_layout, e.right_layout), sides, masks, strict=True):
        present = torch.ones(len(mask), own.size, dtype=torch.float64)
        if own == g.layout:
            present[:, g.layout.visible] = mask.double()
        elif (
            isinstance(own, GridLayout)
            and isinstance(g.layout, GridLayout)
            and not any(fine % coarse for fine, coarse in zip(own.grid, g.layout.grid, strict=True))
        ):
            rows = torch.arange(own.grid[0]) * g.layout.grid[0] // own.grid[0]
            columns = torch.arange(own.grid[1]) * g.layout.grid[1] // own.grid[1]
            full = torch.ones(len(mask), g.layout.size, dtype=torch.float64)
            full[:, g.layout.visible] = mask.double()
            fine = g.layout.view(full)[:, rows][:, :, columns]
            cells = own.view(torch.arange(own.size).double()).long().flatten()
            present[:, cells] = fine.flatten(1)
        elif own.kind == g.layout.kind and max(g.layout.visible) < own.size:
            present[:, g.layout.visible] = mask.double()
        else:
            raise InputError(f"features of {own.kind} cannot be masked as those of {g.layout.kind}")
        kept.append(present)
    s, t = kept
    matrix = e.matrix.double()
    effects = s @ e.left_effects.double() + t @ e.right_effects.double()
    return e.base + effects + ((s @ matrix) * t).sum(-1)
