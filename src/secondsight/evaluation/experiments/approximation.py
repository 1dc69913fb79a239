"""Approximation: how fast path integrals converge, and how much references matter meanwhile ([M25] App. D, Figs. 20, 21)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from secondsight.algebra.contributions import Contributions
from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation.experiments.base import Experiment, Record, check_count, groups, of_kind
from secondsight.evaluation.setting import Setting
from secondsight.inputs.prepared import Prepared
from secondsight.methods import IntegratedJacobian
from secondsight.methods.base import one_of
from secondsight.model import Side
from secondsight.paths.quadrature import QUADRATURES, rule
from secondsight.support.errors import ConvergenceWarning, InputError
from secondsight.visual.charts import bands

IMAGE_REFERENCES = ("black", "noise")
TEXT_REFERENCES = ("padding", "empty")
"""The paper's references of either side; "noise" is its Gaussian one."""

COMPARED = (("black", "padding"), ("noise", "empty"))
"""The two combinations whose attributions are subtracted."""

Totals = dict[tuple[str, int], Contributions]
"""One side's contributions by its reference and the number of nodes."""


class Approximation(Experiment):
    """How fast sums become exact, and how much references matter ([M25] App. D, Figs. 20, 21).

    The error is |f(a, b) − f(r_a, b) − f(a, r_b) + f(r_a, r_b) − Σ A| with N `nodes`, for every combination of a black or
    noise image with padding or an empty text, by each of `quadratures` (the paper's is the right Riemann sum). Beside it
    stands the mean absolute difference of attributions between black with padding and noise with an empty text. The
    setting's method must be `IntegratedJacobian`.
    """

    name: ClassVar[str] = "approximation"
    by_embeddings: ClassVar[bool] = True

    def __init__(
        self,
        *,
        nodes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64),
        quadratures: tuple[str, ...] = ("riemann",),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.nodes = _each(nodes)
        for count in self.nodes:
            check_count("nodes", count)
        self.quadratures = _each(quadratures)
        for quadrature in self.quadratures:
            one_of("quadrature", quadrature, QUADRATURES)
        if not any(_exists(quadrature, n) for quadrature in self.quadratures for n in self.nodes):
            raise InputError(f"none of the quadratures {self.quadratures} exists with any of {self.nodes} nodes")

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each quadrature, number of nodes and combination of references, and one for each difference."""
        method, model = path_method(setting), setting.model
        image, text = setting.prepared(example)
        records: list[Record] = []
        for quadrature in self.quadratures:
            nodes = [n for n in self.nodes if _exists(quadrature, n)]
            variant = replace(method, quadrature=quadrature, strategy="auto")
            left = _totals(variant, model.left, image, IMAGE_REFERENCES, nodes)
            right = _totals(variant, model.right, text, TEXT_REFERENCES, nodes)
            pairs = list(product(dict.fromkeys(name for name, _ in left), dict.fromkeys(name for name, _ in right)))
            for n in nodes:
                facts = {"quadrature": quadrature, "nodes": n}
                for a, b in pairs:
                    error = pair_error(left[a, n], right[b, n])
                    records.append({"kind": "error", **facts, "references": f"{a}, {b}", "value": error})
                if all(names in pairs for names in COMPARED):
                    first, second = ((left[a, n] @ right[b, n]).matrix.double() for a, b in COMPARED)
                    value = float((first - second).abs().mean())
                    names = " less ".join(f"{a}, {b}" for a, b in COMPARED)
                    records.append({"kind": "difference", **facts, "references": names, "value": value})
        return records

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Mean errors by references, quadrature and nodes; mean differences of attributions between two references."""
        tables = {}
        for name, kind in (("overall", "error"), ("differences", "difference")):
            records = of_kind(frame, kind)
            if len(records):
                means = groups(records, ["setting", "quadrature", "references", "nodes"]).value.mean()
                tables[name] = means.unstack("nodes").reset_index()
        return tables

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Errors over nodes, a line with a band for each combination of references; and differences over nodes."""
        figures = {}
        for i, (setting, group) in enumerate(groups(frame, "setting"), 1):
            figures[f"error {i}"] = error_chart(group, str(setting))
            if len(of_kind(group, "difference")):
                figures[f"difference {i}"] = difference_chart(group, str(setting))
        return figures


def error_chart(records: pd.DataFrame, title: str) -> Figure:
    """Errors over nodes as mean and standard deviation, one line for each combination of references ([M25] Fig. 20)."""
    return bands(_curves(of_kind(records, "error")), "number of steps N", "error", title, log=True)


def difference_chart(records: pd.DataFrame, title: str) -> Figure:
    """Mean absolute differences of attributions over nodes as mean and standard deviation ([M25] Fig. 21)."""
    curves = _curves(of_kind(records, "difference"))
    return bands(curves, "number of steps N", "mean absolute difference", title)


def pair_error(left: Contributions, right: Contributions) -> float:
    """|f(a, b) − f(r_a, b) − f(a, r_b) + f(r_a, r_b) − Σ A|, where f multiplies embeddings and Σ A their sums of vectors."""
    moves = [c.embedding.double() - c.reference_embedding.double() for c in (left, right)]
    totals = [c.rows.total().to(c.embedding.device).double() for c in (left, right)]
    exact, summed = float(moves[0] @ moves[1]), float(totals[0] @ totals[1])
    return abs(left.scale * right.scale * (exact - summed))


def path_method(setting: Setting) -> IntegratedJacobian:
    """The setting's method; `InputError` if it is not `IntegratedJacobian`."""
    if not isinstance(setting.method, IntegratedJacobian):
        raise InputError(
            f"this experiment is about paths; the method is {setting.method.name!r}, not integrated-jacobian"
        )
    return setting.method


def _curves(records: pd.DataFrame) -> dict[Any, Any]:
    """Positions, means and standard deviations by references, and by quadrature where there are several."""
    several = records.quadrature.nunique() > 1
    curves = {}
    for (references, quadrature), group in groups(records, ["references", "quadrature"]):
        values = groups(group, "nodes").value
        name = (references, quadrature) if several else references
        curves[name] = (list(values.mean().index), values.mean().to_numpy(), values.std(ddof=0).to_numpy())
    return curves


def _totals(
    method: IntegratedJacobian, side: Side, prepared: Prepared, references: Sequence[str], nodes: Sequence[int]
) -> Totals:
    """One side's contributions under each of the references that it knows, with each number of nodes."""
    totals = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for reference in (name for name in references if name in side.encoder.references):
            for n in nodes:
                variant = replace(method, reference=reference, steps=n)
                totals[reference, n] = variant.contributions(side, [prepared])[0]
    if not totals:
        raise InputError(f"the {side.kind} side knows none of the references {', '.join(references)}")
    return totals


def _exists(quadrature: str, nodes: int) -> bool:
    """Whether a quadrature has a rule with this number of nodes."""
    try:
        rule(quadrature, nodes)
    except InputError:
        return False
    return True


def _each(value: Any) -> tuple[Any, ...]:
    """A tuple of one or more values."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)
