"""Jacobian times input: InteractionCAM of Sammani et al. (2023), and Grad-CAM's shape of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.func import vjp, vmap

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.encoders.base import Head, check_finite
from secondsight.encoders.input_layer import at_layer
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Method, for_side, one_of
from secondsight.methods.integrated_jacobian import unit_head
from secondsight.paths.line import LinePath
from secondsight.paths.quadrature import rule
from secondsight.support.guard import differentiable, untouched

if TYPE_CHECKING:
    from secondsight.model import Side


@dataclass(frozen=True, eq=False)
class JacobianTimesInput(Method):
    """Contributions U_i = Σ_d x_id ∂g/∂x_id at the input itself: one node at α = 1, reference zero ([M25] App. G).

    `layer` as in `IntegratedJacobian`. `pool_gradients` takes the derivatives' mean over positions first, as Grad-CAM
    does. `relu` sets negative attributions of pairs to zero, as InteractionCAM's maps do; sums are then lost.
    `normalize` "outside" differentiates raw embeddings, "inside" through the normalisation. Vectors do not add up to the
    embedding; what they miss is the explanation's error.
    """

    layer: Any = -1
    pool_gradients: bool = False
    relu: bool = False
    normalize: str = "outside"

    name: ClassVar[str] = "jacobian-times-input"

    def __post_init__(self) -> None:
        one_of("normalize", self.normalize, ("outside", "inside"))

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input, by one Jacobian each."""
        with untouched(side.encoder.module):
            return [self._one(side, prepared) for prepared in inputs]

    def interactions(self, left: Side, right: Side, a: Prepared, others: Sequence[Prepared]) -> list[Interactions]:
        """Pairs' interactions, without the negative ones where `relu` says so."""
        pairs = super().interactions(left, right, a, others)
        return [replace(pair, attributions=pair.matrix.clamp(min=0)) if self.relu else pair for pair in pairs]

    def pairwise(self, left: Side, a: Prepared) -> bool:
        """Cut off at zero, interactions are no products."""
        return self.relu

    def _one(self, side: Side, prepared: Prepared) -> Contributions:
        encoder, layer = at_layer(side.encoder, *for_side(side, self.layer))
        state = encoder.features(prepared.tensor, layer)[0]
        check_finite(side.encoder, state.embedding, prepared.tensor)
        head = encoder.head(layer, state.context, encoder.dtype())
        unit = self.normalize == "inside" and side.cosine
        head = unit_head(head) if unit else head
        x, joint = state.hidden, state.embedding.numel()
        fewer: Literal["forward", "reverse"] = "forward" if len(x) <= joint else "reverse"
        with differentiable():
            g = head(x[None])[0]
            if self.pool_gradients:
                vectors, passes = x @ _mean_jacobian(head, x), joint
            else:
                path = LinePath(head, torch.zeros_like(x), x, fewer)
                vectors = path.vectors(rule("riemann", 1))
                passes = len(x) if fewer == "forward" else joint
        check_finite(side.encoder, vectors, None)
        scale = 1.0 if unit or not side.cosine else 1 / float(g.double().norm())
        about = {"layer": encoder.label(layer), "steps": 1, "passes": passes}
        layout = encoder.layout(prepared, layer, state)
        return Contributions(vectors, g, torch.zeros_like(g), layout, scale, about)


def _mean_jacobian(head: Head, x: Tensor) -> Tensor:
    """Mean over positions of ∂g_k/∂x_pd, (width, joint)."""
    made = vjp(lambda h: head(h[None])[0], x)
    back = made[1]
    eye = torch.eye(len(made[0]), dtype=x.dtype, device=x.device)
    rows: Tensor = vmap(lambda k: back(k)[0].mean(0), chunk_size=16)(eye)
    return rows.T
