"""The chained Jacobian: every operation's mean Jacobian between reference and input, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.outcome import Outcome
from secondsight.methods.base import Layer, Sides, for_side, one_of
from secondsight.methods.integrated_jacobian import nothing_moved, verified_ends
from secondsight.methods.layer_input import LayerInput, LayerMethod
from secondsight.methods.path_factor import PathFactor
from secondsight.paths.line import LinePath
from secondsight.paths.linearisation import UnexplainedOperation
from secondsight.paths.quadrature import Rule
from secondsight.paths.tape import CannotRecord, record
from secondsight.support.errors import InputError
from secondsight.support.guard import differentiable, following

_LARGEST_RESIDUAL = 1e-3
"""Relative; a chain whose sums miss more than this has lost something."""

_ROUNDING = 1e3
"""Rounding errors of the embedding, in units of its precision, that count as nothing lost."""


@dataclass(frozen=True, eq=False)
class ChainedJacobian(LayerMethod):
    """Contributions U_i = J̄ δ_i, with J̄ the chain of all operations' mean Jacobians between reference and input.

    Each operation f of the network above the layer is replaced by J̄_f = ∫ f'(z_r + α Δz) dα on its own straight line, for
    which J̄_f Δz = Δf. The chain is linear, so contributions add up to g(a) − g(r) at every layer, with no nodes or
    tolerance to choose. For elementwise functions this is DeepLIFT's rescale rule (Shrikumar et al. 2017), for products the
    other factor's mean; for a network with a single nonlinear operation it is the integrated Jacobian.

    `layer`, `reference`, `normalize` and `seed` are those of `IntegratedJacobian`. `cells` cuts the straight path of the
    hidden states into so many equal parts with a chain each: sums are exact with any number, and with many cells the
    contributions become the integrated Jacobian's, at as many times the cost.

    Raises `InputError` where the model runs an operation that has no rule, or other operations for the reference than for
    the input, and where contributions miss the difference of embeddings by more than a thousandth.
    """

    layer: Sides[Layer] = -1
    reference: Sides[str | Tensor | None] = None
    normalize: str = "outside"
    seed: int = 0
    cells: Sides[int] = 1

    name: ClassVar[str] = "chained-jacobian"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("normalize", self.normalize, ("outside", "inside"))
        if isinstance(self.layer, tuple) and len(self.layer) != 2:
            raise InputError(f"layer={self.layer!r} must be one layer or a (left, right) pair of layers")
        counts = self.cells if isinstance(self.cells, tuple) else (self.cells,)
        if len(counts) > 2 or not all(type(count) is int and count >= 1 for count in counts):
            raise InputError(
                f"cells={self.cells!r} must be a whole number of at least 1, or a (left, right) pair of these"
            )

    def contribute(self, x: LayerInput) -> Contributions:
        """Contributions of one input, whose vectors are computed when they are needed."""
        mode: Literal["forward", "reverse"] = "forward" if len(x.hidden) <= x.states.embedding.numel() else "reverse"
        (count,) = for_side(x.side, self.cells)
        path, cells = LinePath(x.head, x.reference, x.hidden, mode, "all", x.grid), _cells(count)
        with differentiable():
            try:
                steps = path.total(cells).double()
            except UnexplainedOperation as problem:
                raise InputError(_in_words(problem, x)) from problem

            def ends() -> tuple[Tensor, Tensor]:
                first, last = (path.linearisation(cells, slice(cell, cell + 1)) for cell in (0, count - 1))
                return first.start_value[0], last.value[0]

            embedding, reference_embedding = verified_ends(x, LinePath, ends)
        if nothing_moved(embedding, reference_embedding):
            reference_embedding = embedding
        difference = (embedding - reference_embedding).double()
        total = cells.weights.to(steps) @ steps
        gap, size = float((difference - total).norm()), float(difference.norm())
        missed = gap / (size or 1.0)
        rounding = _ROUNDING * torch.finfo(embedding.dtype).eps * float(embedding.double().norm())
        if not gap <= _LARGEST_RESIDUAL * size + rounding:
            raise InputError(
                f"the chain of operations explains the {x.side.kind} embedding at layer {x.layer_label} with a residual of "
                f"{missed:.1e}, because {_possible_causes(embedding.dtype)}IntegratedJacobian or a later layer"
            )
        outcome = Outcome(self.name, x.layer_label, x.reference_label, missed, cost=2 * count)
        facts = {"layer": x.layer_label, "cells": count, "residual": missed, "passes": outcome.cost}
        factor = PathFactor(path, cells, total, x.encoder)
        return x.contributions(factor, embedding, reference_embedding, outcome, facts)

    def vectors(self, x: LayerInput) -> Float[Tensor, "position joint"]:
        """The vectors of one input's positions."""
        return self.contribute(x).vectors


def _cells(count: int) -> Rule:
    """Equal parts of [0, 1], each a cell around its middle."""
    weights = torch.full((count,), 1 / count, dtype=torch.float64)
    return Rule(weights.cumsum(0) - weights / 2, weights)


def _possible_causes(dtype: torch.dtype) -> str:
    """Why sums may miss in this precision, and the first remedy."""
    lost = "a value leaves torch on the way or a choice between numbers jumps"
    if dtype == torch.float64:
        return f"{lost}: use "
    precision = str(dtype).removeprefix("torch.")
    return f"parts far larger than their sum round its digits away in {precision}, {lost}: use model.double(), "


def _in_words(problem: UnexplainedOperation, x: LayerInput) -> str:
    """The operation, the module that runs it, and the remedy."""
    path: list[str] = []
    places: list[str] = []

    def look() -> None:
        places.append(path[-1] if path else "")

    for point in (x.reference, x.hidden):
        places.clear()
        try:
            with following(x.encoder.in_precision(x.hidden.dtype), path):
                record(x.head, point[None], lambda _: None, look)
        except CannotRecord:
            look()
        if len(places) > problem.number:
            break
    where = next((f" in {place}" for place in places[problem.number :] if place), "")
    return (
        f"the operation {problem.function}{where} {problem.reason}, so that the {x.side.kind} side has no chained "
        "Jacobian at this layer: use IntegratedJacobian or a later layer, or add a rule to secondsight.paths.rules"
    )
