"""Occlusion: what the embedding loses when one feature is taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.methods.base import Layer, Sides, one_of
from secondsight.methods.game import Game, MaskingMethod


@dataclass(frozen=True, eq=False)
class Occlusion(MaskingMethod):
    """Contributions U_i = g(a) − g(a without i), features taken away one at a time; they need not add up.

    `layer`: where features are replaced by the reference's, "input" (default) or a block's input. `reference` as in
    `IntegratedJacobian`, but "mean" by default where the side knows it; both take one value or a (left, right) pair.
    `normalize` "inside" (default) looks at unit vectors where the similarity is a cosine, "outside" at raw embeddings.
    `seed` makes the noise reference.
    """

    layer: Sides[Layer] = "input"
    reference: Sides[str | Tensor | None] = None
    normalize: str = "inside"
    seed: int = 0

    name: ClassVar[str] = "occlusion"
    adds_up: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("normalize", self.normalize, ("outside", "inside"))

    def contribute(self, game: Game) -> Contributions:
        """One encoding per feature and two more."""
        without = game.values(~torch.eye(game.players, dtype=torch.bool))
        return game.contributions(game.end(True) - without, game.end(False), {})
