"""The measures as torchmetrics: they aggregate over batches and processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from secondsight.evaluation import measures


class Samples(Metric):
    """Keeps one number a case; `compute` gives count, mean, standard deviation and median."""

    full_state_update = False
    higher_is_better = True
    values: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def add(self, value: float) -> None:
        """One more case."""
        self.values.append(torch.tensor([value], dtype=torch.float64, device=self.device))

    def update(self, values: Any) -> None:
        """Cases that were measured elsewhere."""
        for value in torch.as_tensor(values, dtype=torch.float64).flatten().tolist():
            self.add(value)

    def all(self) -> Tensor:
        """Every case's number; empty before the first."""
        return dim_zero_cat(self.values) if len(self.values) else torch.zeros(0, dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        """The summary; NaN without a case."""
        v = self.all()
        if not len(v):
            return {"count": 0, "mean": float("nan"), "sd": float("nan"), "median": float("nan")}
        sd = float(v.std()) if len(v) > 1 else 0.0
        return {"count": len(v), "mean": float(v.mean()), "sd": sd, "median": float(v.quantile(0.5))}


class _MapMetric(Samples):
    """Scores maps by boxes; `rule` as in `measures.inside`."""

    def __init__(self, rule: str = "pixel", **options: Any) -> None:
        super().__init__(**options)
        self.rule = rule

    def update(  # type: ignore[override]  # torchmetrics' update takes what a metric needs
        self, map_: Any, boxes: Sequence[Sequence[float]], size: tuple[int, int], frame: Any = None
    ) -> None:
        """One (rows, columns) map over `frame` of an image of `size` (width, height), and its object's boxes."""
        self.add(self._score(map_, boxes, size, frame))

    def _score(self, map_: Any, boxes: Any, size: Any, frame: Any) -> float:
        raise NotImplementedError


class PointingAccuracy(_MapMetric):
    """PGA: share of maps whose highest value lies in the object's box; `compute` is that share."""

    def _score(self, map_: Any, boxes: Any, size: Any, frame: Any) -> float:
        return measures.pointing(map_, boxes, size, frame, self.rule)

    def compute(self) -> Any:
        """The share, 0 … 1."""
        return super().compute()["mean"]


class PointingEnergy(_MapMetric):
    """PGE: positive attribution in the box over all positive attribution; median, share above 0.8 and distribution."""

    def _score(self, map_: Any, boxes: Any, size: Any, frame: Any) -> float:
        return measures.energy(map_, boxes, size, frame, self.rule)

    def compute(self) -> dict[str, float]:
        """The summary, with the share of cases above 0.8."""
        v = self.all()
        return {**super().compute(), "above 0.8": float((v > 0.8).double().mean()) if len(v) else float("nan")}

    def distribution(self, points: int = 101) -> tuple[Tensor, Tensor]:
        """Values 0 … 1 and the share of cases at or below each."""
        v = self.all()
        at = torch.linspace(0, 1, points, dtype=torch.float64)
        return at, (v[None] <= at[:, None]).double().mean(1)


class CollagePointing(_MapMetric):
    """Signed share of a span's attribution in the quadrant of a collage that shows it."""

    def __init__(self, rule: str = "centre", **options: Any) -> None:
        super().__init__(rule, **options)

    def _score(self, map_: Any, boxes: Any, size: Any, frame: Any) -> float:
        return measures.signed_share(map_, boxes, size, frame, self.rule)


class CurveArea(Samples):
    """Area under curves of similarity over the share removed or inserted: CID, CII, CTD, CTI."""

    def update(self, similarities: Any, shares: Any = None) -> None:
        """One curve."""
        self.add(measures.curve_area(similarities, shares))


class Faithfulness(Samples):
    """Correlation of predicted with actual similarities under masks, one a pair; constant rows are left out."""

    def update(self, predicted: Any, actual: Any) -> None:  # type: ignore[override]  # as above
        """One pair's masks."""
        value = measures.correlation(predicted, actual)
        if value == value:
            self.add(value)


class SignShare(Samples):
    """Share of positive numbers: own-box attributions; of negative ones: cross-attributions, δS and δA."""

    def __init__(self, sign: str = "positive", **options: Any) -> None:
        super().__init__(**options)
        self.sign = 1.0 if sign == "positive" else -1.0

    def compute(self) -> dict[str, float]:
        """The summary, with the share of the wanted sign."""
        v = self.all()
        share = float((v * self.sign > 0).double().mean()) if len(v) else float("nan")
        return {**super().compute(), "share": share}


class Additivity(Samples):
    """Absolute errors of explanations; the smaller, the better."""

    higher_is_better = False
