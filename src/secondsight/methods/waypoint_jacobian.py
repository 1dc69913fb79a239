"""Integrated Jacobians along a bent path: through blurred images, or through texts that fill up token by token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.encoders.base import check_finite
from secondsight.inputs.blur import gaussian_blur
from secondsight.methods.integrated_jacobian import IntegratedJacobian, straight_path
from secondsight.methods.layer_input import LayerInput
from secondsight.paths.quadrature import Integral, adapt
from secondsight.support.errors import InputError
from secondsight.support.guard import differentiable


@dataclass(frozen=True, eq=False)
class WaypointJacobian(IntegratedJacobian):
    """Contributions along straight stretches through `waypoints` inputs between the reference and the input.

    [M25] names other paths as future work. An image comes into focus: its waypoints are blurred ever less (Xu et al.
    2020). A text fills up: its waypoints are token sequences that exist, more of the input's tokens in each, in an order
    drawn with `seed`, so that no path leads through nonsense between two tokens at once (Sanyal and Ren 2021). Every
    stretch is integrated to `tol` and sums over stretches are complete as on the straight path. Other options as in
    `IntegratedJacobian`; there are no lazy pairs.
    """

    waypoints: int = 3

    name: ClassVar[str] = "waypoint-jacobian"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.waypoints < 1:
            raise InputError(f"waypoints={self.waypoints!r}: at least 1 is needed, or use IntegratedJacobian")
        if self.strategy == "paired":
            raise InputError("strategy='paired' is the straight path's: use IntegratedJacobian, or another strategy")

    def contribute(self, x: LayerInput) -> Contributions:
        """Contributions of one input, the sum over the stretches."""
        waypoints = [self._states(x, tensor) for tensor in self._between(x)]
        embeddings: list[Tensor] = []
        integrals: list[Integral] = []
        vectors = torch.zeros((), dtype=x.hidden.dtype, device=x.hidden.device)
        for start, end in pairwise([x.reference, *waypoints, x.hidden]):
            # A waypoint may be pooled elsewhere by the host; the head pools where the input is.
            stretch = replace(x, states=replace(x.states, hidden=end))
            path = straight_path(stretch, start, self.strategy, self.kinks)
            with differentiable():
                low, high = path.value_at(torch.tensor([0.0, 1.0], dtype=torch.float64))
                integral = adapt(self.quadrature, path.total, high - low, **self.goal(path, high - low))
                vectors = vectors + path.vectors(integral.rule)
            self.warn_if_missed(x, integral, low.dtype)
            embeddings += [low, high]
            integrals.append(integral)
        check_finite(x.encoder, vectors, None)
        worst = max(integrals, key=lambda integral: integral.residual)
        outcome = replace(
            self.outcome(x, worst),
            converged=all(integral.converged for integral in integrals),
            nodes=sum(len(integral.rule) for integral in integrals),
            cost=sum(integral.evaluations for integral in integrals),
        )
        facts = {
            "layer": x.layer_label,
            "quadrature": self.quadrature,
            "steps": outcome.nodes,
            "evaluations": outcome.cost,
            "residual": outcome.residual,
            "waypoints": len(waypoints),
        }
        return x.contributions(vectors, embeddings[-1], embeddings[0], outcome, facts)

    @staticmethod
    def _states(x: LayerInput, tensor: Tensor) -> Tensor:
        """A waypoint's hidden states, with the input's masks and pooling."""
        return x.encoder.reference_features(tensor, x.layer, x.states.context).hidden

    def _between(self, x: LayerInput) -> list[Tensor]:
        """Model-ready inputs on the way, the reference's end first."""
        tensor, kind = x.prepared.tensor, x.side.kind
        if kind == "image":
            widest = min(tensor.shape[-2:]) / 8
            shares = [1 - k / self.waypoints for k in range(self.waypoints)]
            return [gaussian_blur(tensor, max(widest * share**2, 0.1)) for share in shares]
        if kind == "text":
            reference = x.encoder.reference(x.prepared, x.reference_choice, self.seed)
            differing = (tensor != reference).flatten().nonzero().flatten()
            generator = torch.Generator().manual_seed(self.seed)
            order = differing[torch.randperm(len(differing), generator=generator)]
            waypoints = []
            for k in range(1, self.waypoints + 1):
                waypoint = reference.clone()
                filled = order[: len(order) * k // (self.waypoints + 1)]
                waypoint[0, filled] = tensor[0, filled]
                waypoints.append(waypoint)
            return waypoints
        raise InputError(f"there are no waypoints for {kind}: use IntegratedJacobian")
