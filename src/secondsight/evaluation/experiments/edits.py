"""Edits: whether explanations predict what really removing words, boxes and sets of cells does to the similarity."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from secondsight.algebra.edit import removed_weights
from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import GridLayout, Layout
from secondsight.data.grounded import GroundedCaption
from secondsight.edits import HOW, Removal, shortened_text
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.base import Experiment, Record, check_count, groups
from secondsight.evaluation.maps import image_layout
from secondsight.evaluation.setting import Setting
from secondsight.evaluation.statistics import bootstrap_interval, holm, sign_flip_p
from secondsight.methods.base import one_of
from secondsight.support.errors import InputError
from secondsight.visual.charts import calibration

_GRID = 8
"""Cells a side of the grid whose random sets are removed: the same for every model and layer."""


_ROUNDING = 1e-5
"""Predicted changes that vary by less than this share of the measured ones are all the same."""


class Edits(Experiment):
    """Does the explanation predict what really removing a part does? Predicted against measured change of the similarity.

    Of every caption up to `words` words, up to `boxes` annotated boxes and `cells` random sets of cells of an 8 × 8 grid are
    removed one at a time, and the pair is encoded again. `how` "replaced" puts the method's reference in their place, "layer"
    does so in the hidden states of the method's layer, and "deleted" strikes words from the caption. Settings with different
    references are asked different questions: give methods that are to be compared one reference.
    """

    name: ClassVar[str] = "edits"
    by_embeddings: ClassVar[bool] = True

    def __init__(
        self, *, words: int = 8, boxes: int = 4, cells: int = 4, how: str = "replaced", **options: Any
    ) -> None:
        super().__init__(**options)
        one_of("how", how, HOW)
        for option, count in (("words", words), ("boxes", boxes), ("cells", cells)):
            check_count(option, count, 0)
        if not words + boxes + cells:
            raise InputError("words, boxes and cells are all 0: at least one kind of edit is needed")
        self.words, self.boxes, self.cells, self.how = words, boxes, cells, how

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each edit: the similarity before it, predicted and measured."""
        # Pairs of the cache do not have the contributions.
        pair = replace(setting, cache=None).explain(example)[0]
        image, text = setting.prepared(example)
        removals = [
            Removal(side, prepared, outcome, "layer" if self.how == "layer" else "replaced", self.seed)
            for side, prepared, outcome in zip(
                (setting.model.left, setting.model.right), (image, text), pair.outcomes, strict=True
            )
        ]
        unit = setting.model.cosine

        def similarities(edited: Tensor, partner: Tensor) -> list[float]:
            partner = partner.double().cpu()
            if unit:
                edited, partner = F.normalize(edited, dim=-1), F.normalize(partner, dim=0)
            return [float(value) for value in edited @ partner]

        records: list[Record] = []
        first = _first_order(pair)
        draw = random.Random(f"{self.seed}/{example.image_key}/{example.key}")
        for index, layout, edits in (
            (1, pair.right_layout, self._words(pair.right_layout, draw)),
            (0, pair.left_layout, self._places(pair.left_layout, example, draw)),
        ):
            usable = _usable(layout, edits)
            if not usable:
                continue
            if index and self.how == "deleted":
                side = setting.model.right
                texts = [
                    side.encoder.prepare(shortened_text(layout, selection), truncate=True) for _, _, selection in usable
                ]
                embeddings = side.embed_prepared(texts).double().cpu()
            else:
                weights = [removals[index].weights(layout, selection) for _, _, selection in usable]
                embeddings = removals[index].embeddings(torch.stack(weights))
            measured = similarities(embeddings, removals[1 - index].embedding)
            for (kind, part, selection), value in zip(usable, measured, strict=True):
                change = float(removed_weights(layout, selection).double() @ first[index])
                numbers = {"before": pair.similarity, "predicted": pair.similarity - change, "measured": value}
                records.append({"kind": kind, "part": part, "image": example.image_key, **numbers})
        return records

    def _words(self, layout: Layout, draw: random.Random) -> list[tuple[str, str, Any]]:
        words = [word for word in layout.words if word.features]
        drawn = sorted(draw.sample(range(len(words)), min(self.words, len(words))))
        return [("word", f"{i} {words[i].text}", (words[i].start, words[i].end)) for i in drawn]

    def _places(self, layout: Layout, example: GroundedCaption, draw: random.Random) -> list[tuple[str, str, Any]]:
        boxes = [("box", f"{i} {region.label}", region.box) for i, region in enumerate(example.regions)][: self.boxes]
        grid = image_layout(layout)
        coarse = GridLayout(_GRID**2, {}, (_GRID, _GRID), grid.image_size, grid.frame).cell_boxes().tolist()
        sets = []
        for number in range(self.cells):
            count = draw.randint(_GRID**2 // 16, _GRID**2 // 2)
            sets.append(("cells", f"{number}", [tuple(box) for box in draw.sample(coarse, count)]))
        return [*boxes, *sets]

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Calibration for every setting and kind of edit, and how much worse each setting is than the best."""
        rows = []
        for (setting, kind), group in groups(_with_changes(frame), ["setting", "kind"]):
            predicted, measured = group.predicted_change.to_numpy(), group.change.to_numpy()
            low, high = bootstrap_interval(np.arange(len(group)), group.image, _of_rows(_slope, predicted, measured))
            error_low, error_high = bootstrap_interval(group.error, group.image)
            rows.append(
                {
                    "setting": setting,
                    "kind": kind,
                    "edits": len(group),
                    "images": group.image.nunique(),
                    "mean |change|": float(np.abs(measured).mean()),
                    "slope": _slope(predicted, measured),
                    "slope low": low,
                    "slope high": high,
                    "Pearson": measures.correlation(predicted, measured) if len(group) > 1 else float("nan"),
                    "Spearman": measures.rank_correlation(predicted, measured) if len(group) > 1 else float("nan"),
                    "mean |error|": float(group.error.mean()),
                    "error low": error_low,
                    "error high": error_high,
                }
            )
        tables = {"overall": pd.DataFrame(rows)}
        differences = _differences(_with_changes(frame))
        return tables if differences.empty else {**tables, "differences": differences}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Predicted against measured changes, a panel for every setting."""
        panels: dict[str, dict[str, tuple[Any, Any]]] = {}
        for (setting, kind), group in groups(_with_changes(frame), ["setting", "kind"]):
            panels.setdefault(str(setting), {})[str(kind)] = (
                group.predicted_change.to_numpy(),
                group.change.to_numpy(),
            )
        return {"calibration": calibration(panels, "predicted change of the similarity", "measured change")}


def _first_order(pair: Interactions) -> tuple[Tensor, Tensor]:
    """What every left and every right feature adds to the similarity while the other input stays."""
    a, b = pair.left_contributions, pair.right_contributions
    if a is None or b is None:
        matrix = pair.matrix.double()
        return pair.left_effects.double() + matrix.sum(1), pair.right_effects.double() + matrix.sum(0)
    scale = a.scale * b.scale
    left, right = (
        side.rows.pull(partner.embedding[None].to(side.embedding))[0].double().cpu() * scale
        for side, partner in ((a, b), (b, a))
    )
    return left, right


def _usable(layout: Layout, edits: list[tuple[str, str, Any]]) -> list[tuple[str, str, Any]]:
    """The edits of what the model sees: boxes outside its crop and words that were cut off are left out."""
    usable = []
    for edit in edits:
        try:
            removed_weights(layout, edit[2])
        except InputError:
            continue
        usable.append(edit)
    return usable


def _with_changes(frame: pd.DataFrame) -> pd.DataFrame:
    """The records with the predicted and measured changes and the size of their difference."""
    changes = {"predicted_change": frame.predicted - frame.before, "change": frame.measured - frame.before}
    return frame.assign(**changes, error=(frame.predicted - frame.measured).abs())


def _slope(predicted: np.ndarray, measured: np.ndarray) -> float:
    """The slope of the least-squares line of measured on predicted changes: 1 is calibrated.

    NaN where predictions differ by no more than rounding.
    """
    centred, changes = predicted - predicted.mean(), measured - measured.mean()
    spread = float(centred @ centred)
    return float(centred @ changes) / spread if spread > _ROUNDING**2 * float(changes @ changes) else float("nan")


def _of_rows(statistic: Callable[[np.ndarray, np.ndarray], float], *columns: np.ndarray) -> Callable[[Any], float]:
    """A statistic of columns as one of the numbers of their rows, which is what the bootstrap draws."""

    def of_rows(rows: Any) -> float:
        indices = rows.astype(int)
        return statistic(*(column[indices] for column in columns))

    return of_rows


def _differences(frame: pd.DataFrame) -> pd.DataFrame:
    """Of every kind the setting of least mean |error|, and by how much each other one is worse on the edits of both."""
    rows: list[dict[str, Any]] = []
    for kind, group in groups(frame, "kind"):
        errors = group.pivot_table(index=["key", "part"], columns="setting", values="error", sort=False)
        images = group.drop_duplicates(["key", "part"]).set_index(["key", "part"]).image
        best = errors.mean().idxmin()
        rivals = [setting for setting in errors.columns if setting != best]
        tested = []
        for setting in rivals:
            excess = (errors[setting] - errors[best]).dropna()
            tested.append((setting, float(excess.mean()), len(excess), sign_flip_p(excess, images.loc[excess.index])))
        corrected = holm([p for *_, p in tested])
        for (setting, difference, count, p), adjusted in zip(tested, corrected, strict=True):
            rows.append(
                {"kind": kind, "best": best, "setting": setting, "edits": count, "more |error|": difference, "p": p,
                 "p (Holm)": adjusted}
            )  # fmt: skip
    return pd.DataFrame(rows)
