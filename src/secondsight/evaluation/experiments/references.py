"""References: how much maps depend on the reference image ([M25] Fig. 21)."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import ClassVar

import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.approximation import path_method
from secondsight.evaluation.experiments.base import Experiment, Record, groups
from secondsight.evaluation.setting import Setting
from secondsight.support.errors import InputError
from secondsight.visual.charts import distributions


class References(Experiment):
    """How much maps depend on the reference: differences and correlations of the phrases' maps ([M25] Fig. 21)."""

    name: ClassVar[str] = "references"

    def wants(self, example: GroundedCaption) -> bool:
        """Captions with phrases."""
        return bool(example.phrases)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each phrase and pair of references of the image side."""
        references = list(setting.model.left.encoder.references)
        maps = {reference: _maps(setting, reference, example) for reference in references}
        records = []
        for first, second in combinations(references, 2):
            for a, b in zip(maps[first], maps[second], strict=True):
                size = float((a.norm() + b.norm()) / 2)
                records.append(
                    {
                        "kind": "pair",
                        "one": first,
                        "other": second,
                        "correlation": measures.correlation(a, b),
                        "difference": float((a - b).norm()) / size if size else 0.0,
                    }
                )
        return records

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Median correlation and relative difference of every pair of references."""
        table = groups(frame, ["setting", "one", "other"])[["correlation", "difference"]].median()
        return {"overall": table.reset_index()}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Distributions of the correlation."""
        values = {
            f"{a} – {b}": group.correlation.dropna().to_numpy() for (a, b), group in groups(frame, ["one", "other"])
        }
        return {"references": distributions(values, "correlation of maps under two references", low=-1.0)}


def _maps(setting: Setting, reference: str, example: GroundedCaption) -> list[Float[Tensor, " feature"]]:
    """The maps of the phrases under one reference of the image."""
    method = replace(path_method(setting), reference=(reference, None))
    spec = {**setting.spec, "image reference": reference}
    e = replace(setting, method=method, spec=spec).explain(example)[0]
    maps = []
    for phrase in example.phrases:
        try:
            maps.append(e.toward_left(phrase.span)[e.left_layout.visible].double())
        except InputError:
            continue  # the phrase was cut from a long caption
    return maps
