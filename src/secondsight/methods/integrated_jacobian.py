"""The integrated Jacobian: path-integrated derivatives of both encoders ([M25] Eq. 6-10)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.outcome import LARGE_ERROR, Outcome
from secondsight.encoders.base import Encoder
from secondsight.methods.base import Layer, Sides, one_of
from secondsight.methods.layer_input import LayerInput, LayerMethod
from secondsight.methods.path_factor import PathFactor
from secondsight.paths.kinks import has_kinks
from secondsight.paths.line import LinePath, Path
from secondsight.paths.pooled import PooledPath
from secondsight.paths.quadrature import QUADRATURES, Integral, adapt, rule
from secondsight.paths.tails import Chain, Unit
from secondsight.support.errors import AdapterError, ConvergenceWarning, InputError
from secondsight.support.guard import differentiable

STRATEGIES = ("auto", "pooled", "forward", "reverse", "paired")

SMALLEST_TOLERANCE = 1e-15
"""The smallest relative residual that anybody can ask for."""


@dataclass(frozen=True, eq=False)
class IntegratedJacobian(LayerMethod):
    """Contributions U_i = Σ_d δ_id ∫ ∂g/∂x_id (x_r + α δ) dα, with δ the hidden states less the reference's ([M25] Eq. 6-9).

    `layer`: block whose input is attributed, 0 … depth − 1 or from the end; −1 is the paper's second-last hidden
    representation; "input" attributes pixels, spectrogram bins or token embeddings.
    `reference`: "black", "mean", "noise", "blur", "local-mean" for images, "padding", "empty" for texts, or the
    model-ready tensor; None takes the kind's usual one. Both take one value or a (left, right) pair; a single name of a
    reference goes to the sides that know it.

    `quadrature` is one of gauss-legendre, clenshaw-curtis, gauss-kronrod, trapezoid, riemann. `steps` fixes the number
    of nodes; None adds nodes until the relative residual ‖g(a) − g(r) − ΣU‖ / ‖g(a) − g(r)‖ is at most `tol`, up to
    `max_steps`, and warns (`ConvergenceWarning`) with the reached value otherwise.

    `strategy` says how vectors are computed: "pooled" closed form, "forward" one tangent per feature, "reverse" one
    cotangent per joint dimension. "auto" (the default; "paired" is another name of it) leaves them to what they are needed
    for: of a pair, the side where they cost less is computed and pulled back through the other, one cotangent per feature.
    `normalize`: "outside" decomposes raw embeddings and divides by their norms, "inside" goes through the normalisation.
    `seed` draws the noise reference. `kinks`: "average" takes ReLU-like activations with their mean slope over each node's
    part of the path, which needs about ten times fewer nodes; "pointwise" with the slope at the node, as the paper's code
    does.
    """

    layer: Sides[Layer] = -1
    quadrature: str = "gauss-legendre"
    steps: int | None = None
    tol: float = 1e-3
    max_steps: int = 256
    reference: Sides[str | Tensor | None] = None
    strategy: str = "auto"
    normalize: str = "outside"
    seed: int = 0
    kinks: str = "average"

    name: ClassVar[str] = "integrated-jacobian"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("quadrature", self.quadrature, QUADRATURES)
        one_of("strategy", self.strategy, STRATEGIES)
        one_of("normalize", self.normalize, ("outside", "inside"))
        one_of("kinks", self.kinks, ("average", "pointwise"))
        if isinstance(self.layer, tuple) and len(self.layer) != 2:
            raise InputError(f"layer={self.layer!r} must be one layer or a (left, right) pair of layers")
        if not self.tol > 0 or not math.isfinite(self.tol):
            raise InputError(f"tol={self.tol!r} must be a positive, finite number")
        if self.tol < SMALLEST_TOLERANCE:
            raise InputError(
                f"tol={self.tol!r} is below what double precision can reach: use at least {SMALLEST_TOLERANCE:g}"
            )
        if self.steps is not None:
            rule(self.quadrature, self.steps)
        elif self.max_steps < 1:
            raise InputError(f"max_steps={self.max_steps!r} must be at least 1")

    def contribute(self, x: LayerInput) -> Contributions:
        """Contributions of one input; "auto" leaves the vectors to what they are needed for."""
        path = straight_path(x, x.reference, self.strategy, self.kinks)
        with differentiable():
            embedding, reference_embedding = verified_ends(x, type(path), lambda: _ends(path))
            if nothing_moved(embedding, reference_embedding):
                reference_embedding = embedding
            difference = embedding - reference_embedding
            integral = adapt(self.quadrature, path.total, difference, **self.goal(path, difference))
        self.warn_if_missed(x, integral, difference.dtype)
        factor = PathFactor(path, integral.rule, integral.total, x.encoder)
        contributions = x.contributions(
            factor, embedding, reference_embedding, self.outcome(x, integral), self.facts(x, integral, path.strategy)
        )
        return contributions if self.strategy in ("auto", "paired") else contributions.dense()

    def vectors(self, x: LayerInput) -> Float[Tensor, "position joint"]:
        """The vectors of one input's positions."""
        return self.contribute(x).vectors

    def goal(self, path: Path, difference: Float[Tensor, " joint"]) -> dict[str, Any]:
        """What `adapt` is to reach on a path whose embedding moves by `difference`."""
        # Where sums are always complete, contributions along the embedding's own move say whether there are enough nodes.
        probe = (lambda rule: path.pull(rule, difference[None])[0]) if path.needs_probe else None
        tol = max(self.tol, smallest_tolerance(difference.dtype))
        return {"steps": self.steps, "tol": tol, "max_steps": self.max_steps, "probe": probe}

    def outcome(self, x: LayerInput, integral: Integral) -> Outcome:
        """How the integral went."""
        tolerance = None if self.steps is not None else max(self.tol, smallest_tolerance(x.hidden.dtype))
        return Outcome(
            method=self.name,
            layer=x.layer_label,
            reference=x.reference_label,
            residual=integral.residual,
            converged=integral.converged if self.steps is None else integral.residual <= LARGE_ERROR,
            tolerance=tolerance,
            nodes=len(integral.rule),
            cost=integral.evaluations,
        )

    def facts(self, x: LayerInput, integral: Integral, strategy: str) -> dict[str, object]:
        """What files and figures tell people about the integral."""
        return {
            "layer": x.layer_label,
            "quadrature": self.quadrature,
            "steps": len(integral.rule),
            "evaluations": integral.evaluations,
            "residual": integral.residual,
            **({} if integral.change is None else {"change": integral.change}),
            "strategy": strategy,
        }

    def warn_if_missed(self, x: LayerInput, integral: Integral, dtype: torch.dtype) -> None:
        """`ConvergenceWarning` with the residual that was reached, where it is above `tol`."""
        if self.steps is not None or (integral.converged and integral.residual <= self.tol):
            return
        change = "" if integral.change is None else f", change {integral.change:.1e} since half the nodes"
        remedy = "raise max_steps or tol"
        if self.tol < smallest_tolerance(dtype):
            precision = str(dtype).removeprefix("torch.")
            remedy = (
                f"{precision} sums reach about {smallest_tolerance(dtype):.0e}: raise tol, or use the model in float64"
            )
        warnings.warn(
            f"{x.side.kind} side at layer {x.layer_label}: relative residual {integral.residual:.1e}{change} with "
            f"{len(integral.rule)} nodes misses tol={self.tol:.0e}; {remedy}",
            ConvergenceWarning,
            stacklevel=2,
        )


def smallest_tolerance(dtype: torch.dtype) -> float:
    """The relative residual that sums in a precision can reach."""
    return 2 * torch.finfo(dtype).eps


def straight_path(
    x: LayerInput, start: Float[Tensor, "position width"], strategy: str = "auto", kinks: str = "average"
) -> Path:
    """The straight path from the hidden states `start` to an input's: the closed form where there is one, else any head's.

    Raises `InputError` where the strategy is "pooled" and there is no closed form.
    """
    encoder, dtype = x.encoder, x.hidden.dtype
    block = None if strategy in ("forward", "reverse") else x.pooled_block
    if block is not None:
        if start is x.reference:
            # The reference's half of the closed form serves all inputs that share the reference.
            if x.reference_states.pooled is None:
                x.reference_states.pooled = block.reference(start)
            beginning = x.reference_states.pooled
        else:
            beginning = block.reference(start)
        if x.unit:
            block = replace(block, tail=Chain((block.tail, Unit())))
        return PooledPath(block, beginning, x.hidden)
    if strategy == "pooled":
        raise InputError(
            f"strategy='pooled' is the closed form of a last block with one pooled query; the {x.side.kind} encoder "
            f"has none at layer {x.layer_label}: use 'auto', 'forward' or 'reverse'"
        )
    mode: Literal["forward", "reverse"] = "forward" if len(x.hidden) <= x.states.embedding.numel() else "reverse"
    if strategy in ("forward", "reverse"):
        mode = "forward" if strategy == "forward" else "reverse"
    averaged = kinks == "average" and has_kinks(encoder.in_precision(dtype))
    return LinePath(x.head, start, x.hidden, mode, "kinks" if averaged else "none", x.grid)


def _ends(path: Path) -> tuple[Tensor, Tensor]:
    start, end = path.value_at(torch.tensor([0.0, 1.0], dtype=torch.float64))
    return start, end


def verified_ends(x: LayerInput, path: type, ends: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """g(a) and g(r), after checking that the path's head reproduces what the host model gives for both.

    `ends` computes the head's embeddings of reference and input. The check is made for the first input that meets a
    reference at this layer and these weights; later ones are watched by the residual. Where the host runs in half
    precision the head's own embedding is taken.
    """
    reference, key = x.reference_states, (path, x.unit)
    rough_host = _less_precise(x.encoder, x.hidden.dtype)
    if key in reference.checked and not rough_host:
        return x.embedding, reference.checked[key]
    start, end = ends()
    _check_reproduced(end, x.embedding, "input", x.encoder)
    if reference.embedding is not None:
        expected = F.normalize(reference.embedding, dim=-1) if x.unit else reference.embedding
        _check_reproduced(start, expected, "reference", x.encoder)
    reference.checked[key] = start
    return (end if rough_host else x.embedding), start


def nothing_moved(embedding: Tensor, reference_embedding: Tensor) -> bool:
    """Whether two embeddings differ by rounding errors only, as where an input is its own reference."""
    floor = 100 * torch.finfo(embedding.dtype).eps * float(embedding.norm())
    return float((embedding - reference_embedding).norm()) <= floor


def _less_precise(encoder: Encoder, dtype: torch.dtype) -> bool:
    """Whether the host's own embeddings are less precise than the decomposition."""
    floats = [p.dtype.itemsize for p in encoder.module.parameters() if p.dtype.is_floating_point]
    return min(floats, default=dtype.itemsize) < dtype.itemsize


def _check_reproduced(computed: Tensor, host: Tensor, role: str, encoder: Encoder) -> None:
    """`AdapterError` unless the head's embedding is the host's."""
    gap, size = float((host - computed).double().norm()), max(float(computed.double().norm()), 1e-12)
    rough = 5e-4 if torch.get_float32_matmul_precision() == "highest" else 2e-2
    precise = rough if computed.dtype == torch.float32 else 1e-6
    allowed = 0.1 if _less_precise(encoder, computed.dtype) else precise
    if not gap <= allowed * size:
        raise AdapterError(
            f"the {encoder.kind} encoder's head gives another embedding for the {role} than the model itself "
            f"(relative difference {gap / size:.1e}): its description misses a part of the model"
        )
