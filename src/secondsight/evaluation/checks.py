"""Experiments on the method itself: approximation, references, sanity ([M25] Fig. 16-21; Adebayo et al. 2018)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any, ClassVar

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.grounding import Pointing, by, only, whole
from secondsight.evaluation.run import Experiment, Record, Setting
from secondsight.methods import IntegratedJacobian
from secondsight.model import DualEncoder
from secondsight.paths.quadrature import QUADRATURES
from secondsight.support.errors import ConvergenceWarning, InputError


class Approximation(Experiment):
    """How fast sums become exact: relative residual of either side over nodes and quadratures ([M25] Fig. 20).

    `nodes` is the list of numbers of nodes; the setting's method must be `IntegratedJacobian`.
    """

    name: ClassVar[str] = "approximation"

    def __init__(self, *, nodes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64), **options: Any) -> None:
        super().__init__(**options)
        self.nodes = tuple(nodes)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record a side, quadrature and number of nodes."""
        method = _path(setting)
        made = []
        for side, prepared in zip((setting.model.left, setting.model.right), setting.prepared(example), strict=True):
            for quadrature in QUADRATURES:
                for nodes in self.nodes:
                    try:
                        one = replace(method, quadrature=quadrature, steps=nodes, strategy="auto")
                    except InputError:
                        continue  # a rule that does not have this many nodes
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", ConvergenceWarning)
                        c = one.contributions(side, [prepared])[0]
                    made.append(
                        {"kind": side.kind, "quadrature": quadrature, "nodes": nodes, "residual": c.relative_residual}
                    )
        return made

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Median relative residuals."""
        table = frame.groupby(["setting", "kind", "quadrature", "nodes"], sort=False).residual.median()
        return {"overall": table.unstack("nodes").reset_index()}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Residuals over nodes, a line a quadrature."""
        from secondsight.visual.charts import lines

        made = {}
        for i, ((setting, kind), group) in enumerate(by(frame, ["setting", "kind"]), 1):
            median = group.groupby(["quadrature", "nodes"], sort=False).residual.median().unstack("nodes")
            named = {str(name): (list(median.columns), row.to_numpy()) for name, row in median.iterrows()}
            made[f"residual {i}"] = lines(named, "nodes", "relative residual", f"{setting}, {kind}", log=True)
        return made


class References(Experiment):
    """How much maps depend on the reference: differences and correlations of the phrases' maps ([M25] Fig. 21)."""

    name: ClassVar[str] = "references"

    def wants(self, example: GroundedCaption) -> bool:
        """Captions with phrases."""
        return bool(example.phrases)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record a phrase and pair of references of the image side."""
        known = list(setting.model.left.encoder.references)
        maps: dict[str, list[torch.Tensor]] = {}
        for which in known:
            method = replace(_path(setting), reference=(which, None))
            spec = {**setting.spec, "image reference": which}
            e = replace(setting, method=method, spec=spec).explain(example)[0]
            maps[which] = []
            for phrase in example.phrases:
                try:
                    maps[which].append(e.toward_left(phrase.span)[e.left_layout.visible].double())
                except InputError:
                    continue  # cut off with the end of a long caption
        made = []
        for one, other in combinations(known, 2):
            for a, b in zip(maps[one], maps[other], strict=True):
                size = float((a.norm() + b.norm()) / 2)
                record = {"kind": "pair", "one": one, "other": other, "correlation": measures.correlation(a, b)}
                made.append({**record, "difference": float((a - b).norm()) / size if size else 0.0})
        return made

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Median correlation and relative difference of every pair of references."""
        table = frame.groupby(["setting", "one", "other"], sort=False)[["correlation", "difference"]].median()
        return {"overall": table.reset_index()}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Distributions of the correlation."""
        from secondsight.visual.charts import distributions

        named = {f"{a} – {b}": group.correlation.dropna().to_numpy() for (a, b), group in by(frame, ["one", "other"])}
        return {"references": distributions(named, "correlation of maps under two references", low=-1.0)}


class Sanity(Pointing):
    """Maps must change when weights are randomised: pointing of the model, and of it with random weights.

    Each setting is run as it is and with every parameter of both towers shuffled (`seed`), which keeps their sizes.
    """

    name: ClassVar[str] = "sanity"

    def tuned(self, setting: Setting) -> Iterator[Setting]:
        """The setting and its shuffled twin."""
        yield setting
        spec = {**setting.spec, "shuffled weights": self.seed}
        model = shuffled(setting.model, self.seed)
        yield replace(setting, model=model, spec=spec, label=f"{setting.label}, shuffled weights")

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Pointing of both; the twin should be near chance."""
        found = only(frame, "case")
        return {"overall": whole([self.row(group).rename(setting) for setting, group in by(found, "setting")])}


def shuffled(model: DualEncoder, seed: int) -> DualEncoder:
    """A copy of the model whose parameters are shuffled within each tensor; the model itself is left as it is."""
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    seen: set[int] = set()
    for side in (twin.left, twin.right):
        module: nn.Module = side.encoder.module
        for parameter in module.parameters():
            if id(parameter) not in seen and parameter.ndim > 1:
                seen.add(id(parameter))
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                with torch.no_grad():
                    parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return twin


def _path(setting: Setting) -> IntegratedJacobian:
    if not isinstance(setting.method, IntegratedJacobian):
        raise InputError(
            f"this experiment is about paths; the method is {setting.method.name!r}, not integrated-jacobian"
        )
    return setting.method
