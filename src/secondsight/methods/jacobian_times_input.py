"""Jacobian times input: InteractionCAM of Sammani et al. (2023), and Grad-CAM's shape of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vjp, vmap

from secondsight.algebra.interactions import Interactions
from secondsight.encoders.base import Head
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Layer, Sides, one_of
from secondsight.methods.layer_input import LayerInput, LayerMethod
from secondsight.paths.line import LinePath
from secondsight.paths.quadrature import rule

if TYPE_CHECKING:
    from secondsight.model import Side


@dataclass(frozen=True, eq=False)
class JacobianTimesInput(LayerMethod):
    """Contributions U_i = Σ_d x_id ∂g/∂x_id at the input itself: one node at α = 1, reference zero ([M25] App. G).

    `layer` as in `IntegratedJacobian`. `pool_gradients` takes the derivatives' mean over positions first, as Grad-CAM
    does. `relu` sets negative attributions of pairs to zero, as InteractionCAM's maps do; sums are then lost.
    `normalize` "outside" differentiates raw embeddings, "inside" through the normalisation. Vectors do not add up to the
    embedding; what they miss is the explanation's error.
    """

    layer: Sides[Layer] = -1
    pool_gradients: bool = False
    relu: bool = False
    normalize: str = "outside"

    name: ClassVar[str] = "jacobian-times-input"
    adds_up: ClassVar[bool] = False
    from_zero: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("normalize", self.normalize, ("outside", "inside"))

    def cost(self, x: LayerInput) -> int:
        """One derivative per position or per joint dimension, whichever are fewer."""
        return len(x.embedding) if self.pool_gradients else min(len(x.hidden), len(x.embedding))

    def vectors(self, x: LayerInput) -> Float[Tensor, "position joint"]:
        """One Jacobian at the input, times its hidden states."""
        if self.pool_gradients:
            return x.hidden @ _mean_jacobian(x.head, x.hidden)
        mode: Literal["forward", "reverse"] = "forward" if len(x.hidden) <= len(x.embedding) else "reverse"
        return LinePath(x.head, torch.zeros_like(x.hidden), x.hidden, mode, grid=x.grid).vectors(rule("riemann", 1))

    @property
    def factorises(self) -> bool:
        """Not where negative attributions are set to zero."""
        return not self.relu

    def interactions(self, left: Side, right: Side, a: Prepared, partners: Sequence[Prepared]) -> list[Interactions]:
        """Pairs' interactions, without the negative ones where `relu` says so."""
        pairs = super().interactions(left, right, a, partners)
        return [replace(pair.dense(), attributions=pair.matrix.clamp(min=0)) if self.relu else pair for pair in pairs]


def _mean_jacobian(head: Head, x: Float[Tensor, "position width"]) -> Float[Tensor, "width joint"]:
    """Mean over positions of ∂g_k/∂x_pd."""
    embedding, pull = vjp(lambda hidden: head(hidden[None])[0], x)[:2]
    directions = torch.eye(len(embedding), dtype=x.dtype, device=x.device)
    rows: Tensor = vmap(lambda direction: pull(direction)[0].mean(0), chunk_size=16)(directions)
    return rows.T
