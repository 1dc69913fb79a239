"""Occlusion: what the embedding loses when one feature is taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from secondsight.algebra.contributions import Contributions
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Method, one_of
from secondsight.methods.game import game

if TYPE_CHECKING:
    from secondsight.model import Side


@dataclass(frozen=True, eq=False)
class Occlusion(Method):
    """Contributions U_i = g(a) − g(a without i), features taken away one at a time; they need not add up.

    `layer`: where features are replaced by the reference's, "input" (default) or a block's input. `reference` as in
    `IntegratedJacobian`, but "mean" by default where the side knows it; both take one value or a (left, right) pair.
    `normalize` "inside" (default) looks at unit vectors where the similarity is a cosine, "outside" at raw embeddings.
    `seed` makes the noise reference.
    """

    layer: Any = "input"
    reference: Any = None
    normalize: str = "inside"
    seed: int = 0

    name: ClassVar[str] = "occlusion"

    def __post_init__(self) -> None:
        one_of("normalize", self.normalize, ("outside", "inside"))

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input, by one encoding per feature and two more."""
        made = []
        for prepared in inputs:
            g = game(side, prepared, self.layer, self.reference, self.seed, self.normalize)
            without = g.values(~torch.eye(g.players, dtype=torch.bool))
            made.append(g.contributions(g.end(True) - without, g.end(False), {}))
        return made
