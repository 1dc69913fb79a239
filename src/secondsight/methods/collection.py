"""Images at their last layer and texts at their token embeddings, for whole collections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from secondsight.algebra.contributions import Contributions
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Method
from secondsight.methods.chained_jacobian import ChainedJacobian
from secondsight.methods.integrated_jacobian import IntegratedJacobian

if TYPE_CHECKING:
    from secondsight.model import Side


@dataclass(frozen=True, eq=False)
class CollectionMethod(Method):
    """Images (and sounds) by `IntegratedJacobian` at their last layer, texts by `ChainedJacobian` at their token embeddings.

    Either side takes the cheapest way that still tells its parts apart: an image costs a fraction of a forward pass where
    the closed form applies, and at its token embeddings a text's words are not yet mixed, so that what a word carries is
    its own. Both add up exactly, so that their products do.
    """

    name: ClassVar[str] = "collection"

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input of one side."""
        method = ChainedJacobian(layer="grounded") if side.kind == "text" else IntegratedJacobian()
        return method.contributions(side, inputs)
