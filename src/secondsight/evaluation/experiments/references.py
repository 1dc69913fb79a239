"""References: how much maps depend on the reference image ([M25] Fig. 21)."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from itertools import combinations
from typing import Any, ClassVar

import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.base import Experiment, Record, check_count, groups
from secondsight.evaluation.setting import Setting
from secondsight.methods.base import for_side
from secondsight.support.errors import InputError
from secondsight.visual.charts import distributions

RANDOM = ("noise",)
"""References that are drawn at random."""


class References(Experiment):
    """How much maps depend on the reference: differences and correlations of the phrases' maps ([M25] Fig. 21).

    The image side takes each of its references in turn, and those that are drawn at random with `seeds` seeds. Any method
    that has a reference can be looked at.
    """

    name: ClassVar[str] = "references"
    needs: ClassVar[str] = "phrases"

    def __init__(self, *, seeds: int = 1, **options: Any) -> None:
        super().__init__(**options)
        check_count("seeds", seeds)
        self.seeds = seeds

    def wants(self, example: GroundedCaption) -> bool:
        """Captions with phrases."""
        return bool(example.phrases)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each phrase and pair of references of the image side, or of seeds of the same reference."""
        references = setting.model.left.encoder.references
        drawn = [(name, seed) for name in RANDOM if name in references for seed in range(1, self.seeds)]
        draws = [*((name, 0) for name in references), *drawn]
        maps = {draw: _maps(setting, *draw, example) for draw in draws}
        records = []
        for (first, seed), (second, second_seed) in combinations(draws, 2):
            if first != second and (seed or second_seed):
                continue
            for a, b in zip(maps[first, seed], maps[second, second_seed], strict=True):
                size = float((a.norm() + b.norm()) / 2)
                records.append(
                    {
                        "kind": "seeds" if first == second else "pair",
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


def _maps(setting: Setting, reference: str, seed: int, example: GroundedCaption) -> list[Float[Tensor, " feature"]]:
    """The maps of the phrases under one reference of the image, drawn with the method's own seed plus `seed`."""
    method: Any = setting.method
    names = {f.name for f in fields(method)} if is_dataclass(method) else set()
    if "reference" not in names:
        raise InputError(f"the method {method.name!r} has no reference that could be changed")
    (text_reference,) = for_side(setting.model.right, method.reference)
    method = replace(method, reference=(reference, text_reference))
    spec = {**setting.spec, "image reference": reference}
    if seed:
        method, spec = replace(method, seed=method.seed + seed), {**spec, "seed": method.seed + seed}
    changed = replace(setting, method=method, spec=spec)
    maps = []
    for phrase in example.phrases:
        try:
            e, selection = changed.explain_span(example, phrase.span)
        except InputError:
            continue  # the phrase was cut from a long caption
        maps.append(e.toward_left(selection)[e.left_layout.visible].double())
    return maps
