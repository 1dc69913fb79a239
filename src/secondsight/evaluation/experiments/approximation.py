"""Approximation: how fast path integrals converge ([M25] Fig. 20)."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation.experiments.base import Experiment, Record, groups
from secondsight.evaluation.setting import Setting
from secondsight.methods import IntegratedJacobian
from secondsight.paths.quadrature import QUADRATURES
from secondsight.support.errors import ConvergenceWarning, InputError
from secondsight.visual.charts import lines


class Approximation(Experiment):
    """How fast sums become exact: relative residual of either side over nodes and quadratures ([M25] Fig. 20).

    `nodes` lists numbers of nodes; the setting's method must be `IntegratedJacobian`.
    """

    name: ClassVar[str] = "approximation"

    def __init__(self, *, nodes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64), **options: Any) -> None:
        super().__init__(**options)
        self.nodes = tuple(nodes)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each side, quadrature and number of nodes."""
        method = path_method(setting)
        records = []
        for side, prepared in zip((setting.model.left, setting.model.right), setting.prepared(example), strict=True):
            for quadrature in QUADRATURES:
                for nodes in self.nodes:
                    try:
                        variant = replace(method, quadrature=quadrature, steps=nodes, strategy="auto")
                    except InputError:
                        continue  # a quadrature that does not exist with this number of nodes
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", ConvergenceWarning)
                        residual = variant.contributions(side, [prepared])[0].relative_residual
                    rule = {"kind": side.kind, "quadrature": quadrature, "nodes": nodes}
                    records.append({**rule, "residual": residual})
        return records

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Median relative residuals."""
        table = groups(frame, ["setting", "kind", "quadrature", "nodes"]).residual.median()
        return {"overall": table.unstack("nodes").reset_index()}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Residuals over nodes, one line for each quadrature."""
        figures = {}
        for i, ((setting, kind), group) in enumerate(groups(frame, ["setting", "kind"]), 1):
            median = groups(group, ["quadrature", "nodes"]).residual.median().unstack("nodes")
            curves = {str(name): (list(median.columns), row.to_numpy()) for name, row in median.iterrows()}
            title = f"{setting}, {kind}"
            figures[f"residual {i}"] = lines(curves, "nodes", "relative residual", title, log=True)
        return figures


def path_method(setting: Setting) -> IntegratedJacobian:
    """The setting's method; `InputError` if it is not `IntegratedJacobian`."""
    if not isinstance(setting.method, IntegratedJacobian):
        raise InputError(
            f"this experiment is about paths; the method is {setting.method.name!r}, not integrated-jacobian"
        )
    return setting.method
