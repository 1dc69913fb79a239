"""Integrated Jacobians along a bent path: through blurred images, or through texts that fill up token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.encoders.base import Reference, States, check_finite
from secondsight.encoders.input_layer import at_layer
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Method, for_side
from secondsight.methods.integrated_jacobian import IntegratedJacobian
from secondsight.support.errors import InputError
from secondsight.support.guard import differentiable, untouched

if TYPE_CHECKING:
    from secondsight.model import Side


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

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input, stretch by stretch."""
        with untouched(side.encoder.module):
            return [self._along(side, prepared) for prepared in inputs]

    def interactions(self, left: Side, right: Side, a: Prepared, others: Sequence[Prepared]) -> list[Interactions]:
        """Both sides' vectors multiplied."""
        return Method.interactions(self, left, right, a, others)

    def pairwise(self, left: Side, a: Prepared) -> bool:
        """Stretches are summed as vectors."""
        return False

    def _along(self, side: Side, prepared: Prepared) -> Contributions:
        wanted, which = for_side(side, self.layer, self.reference)
        encoder, layer = at_layer(side.encoder, wanted)
        side = replace(side, encoder=encoder)
        unit = self.normalize == "inside" and side.cosine
        state = encoder.features(prepared.tensor, layer)[0]
        check_finite(side.encoder, state.embedding, prepared.tensor)
        reference = encoder.reference(prepared, which, self.seed)
        start = encoder.reference_at(reference, layer, state.context)
        through = [
            encoder.reference_features(t, layer, state.context) for t in self._between(side, prepared, reference)
        ]
        total: Tensor | None = None
        first: Tensor | None = None
        last: Tensor | None = None
        steps, evaluations, residual = 0, 0, 0.0
        for end in [*through, Reference(state.hidden, None)]:
            # The stretch's own end may be pooled elsewhere by the host; the head pools where the input is.
            stretch = States(end.hidden, state.embedding, state.context)
            path = self._path(side, stretch, layer, start, unit)
            with differentiable():
                low, high = path.value_at(torch.tensor([0.0, 1.0], dtype=torch.float64))
                adapted = self._nodes(path, high - low)
                vectors = path.vectors(adapted.rule)
            if not adapted.reached:
                self._missed(side, layer, adapted)
            total = vectors if total is None else total + vectors
            first = low if first is None else first
            steps, evaluations = steps + len(adapted.rule), evaluations + adapted.evaluations
            residual, start, last = max(residual, adapted.residual), end, high
        assert total is not None
        assert first is not None
        assert last is not None
        scale = 1.0 if unit or not side.cosine else 1 / float(last.double().norm())
        about = {
            "layer": encoder.label(layer),
            "quadrature": self.quadrature,
            "steps": steps,
            "evaluations": evaluations,
            "residual": residual,
            "waypoints": len(through),
        }
        return Contributions(total, last, first, encoder.layout(prepared, layer, state), scale, about)

    def _between(self, side: Side, prepared: Prepared, reference: Tensor) -> list[Tensor]:
        """Inputs on the way, the reference's side first."""
        own = prepared.tensor
        if side.kind == "image":
            widest = min(own.shape[-2:]) / 8
            size = 2 * (min(own.shape[-2:]) // 4) + 1
            shares = [1 - k / self.waypoints for k in range(self.waypoints)]
            return [gaussian_blur(own, kernel_size=size, sigma=max(widest * share**2, 0.1)) for share in shares]
        if side.kind == "text":
            differing = (own != reference).flatten().nonzero().flatten()
            generator = torch.Generator().manual_seed(self.seed)
            order = differing[torch.randperm(len(differing), generator=generator)]
            made = []
            for k in range(1, self.waypoints + 1):
                filled = reference.clone()
                kept = order[: len(order) * k // (self.waypoints + 1)]
                filled[0, kept] = own[0, kept]
                made.append(filled)
            return made
        raise InputError(f"there are no waypoints for {side.kind}: use IntegratedJacobian")
