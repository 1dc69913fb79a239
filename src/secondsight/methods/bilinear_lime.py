"""Bilinear LIME (ILIME): a bilinear model of the similarity under random perturbations of both inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.inputs.prepared import Prepared
from secondsight.methods.banzhaf import Banzhaf
from secondsight.methods.base import Layer, Method, Sides, one_of
from secondsight.methods.game import Game, open_game
from secondsight.methods.mask_regression import bernoulli_masks
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.model import Side

SOLVERS = ("sgd", "closed", "factorised")
CLOSENESS = ("embeddings", "masks")

_WIDTH = 0.25
"""Width of the kernel over distances of masks."""


@dataclass(frozen=True, eq=False)
class _Perturbed:
    """One input, the masks it was seen under, its embeddings then, and its embedding with nothing masked."""

    game: Game
    masks: Tensor
    values: Tensor
    whole: Tensor


@dataclass(frozen=True, eq=False)
class BilinearLime(Method):
    """Pair method: W and c of s(a masked by z_a, b masked by z_b) ≈ z_aᵀ W z_b + c (Joukovsky et al. 2023; [M25] App. H).

    Patches and tokens are dropped with probability `drop` and replaced by the image's own mean colour and by padding;
    `samples` such pairs are drawn, each input of which is encoded once. Masks enter divided by the square root of their
    number of features. `closeness` weighs a sample's squared error: "embeddings" (default) is half the sum of both sides'
    cosine similarities of the masked to the whole input ([M25] Eq. 19), not below zero; "masks" is LIME's usual kernel
    exp(−(d_a² + d_b²) / 0.25²), with d the cosine distance of a mask to the full one.

    `solver` "sgd" is the paper's: stochastic gradient descent with `lr`, `decay` (L2) and `epochs`; "closed" the same
    objective's exact minimum, with `decay` its penalty; "factorised" one vector-valued ridge per side (`Banzhaf` at
    p = 1 − drop), whose encodings serve every partner. The same `seed` gives the same numbers. For sides by themselves,
    `contributions` are those of "factorised".
    """

    samples: int = 1000
    drop: float = 0.3
    closeness: str = "embeddings"
    solver: str = "sgd"
    lr: float = 1e-2
    decay: float = 1e-3
    epochs: int = 50
    layer: Sides[Layer] = "input"
    reference: Sides[str | Tensor | None] = None
    seed: int = 0

    name: ClassVar[str] = "bilinear-lime"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("solver", self.solver, SOLVERS)
        one_of("closeness", self.closeness, CLOSENESS)
        if not 0 < self.drop < 1:
            raise InputError(f"drop={self.drop!r} must be a probability between 0 and 1")
        for option in ("samples", "lr", "epochs"):
            if not getattr(self, option) > 0:
                raise InputError(f"{option}={getattr(self, option)!r} must be positive")
        if self.decay < 0:
            raise InputError(f"decay={self.decay!r} must be zero or positive")

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """The factorised form's vectors of one side."""
        method = Banzhaf(
            p=1 - self.drop,
            budget=max(self.samples, 4),
            layer=self.layer,
            reference=self.reference,
            seed=self.seed + side.index,
        )
        return method.contributions(side, inputs)

    def interactions(self, left: Side, right: Side, a: Prepared, partners: Sequence[Prepared]) -> list[Interactions]:
        """The fitted W as attributions and c as base; the four terms miss the similarity by what the fit does."""
        if self.solver == "factorised":
            return super().interactions(left, right, a, partners)
        drawn = self._perturbed(left, a)
        return [self._fitted(drawn, self._perturbed(right, b)) for b in partners]

    @property
    def factorises(self) -> bool:
        """Only the factorised solver fits the sides apart."""
        return self.solver == "factorised"

    def _perturbed(self, side: Side, prepared: Prepared) -> _Perturbed:
        game = open_game(side, prepared, self.layer, self.reference, self.seed, "inside", self.name)
        masks = bernoulli_masks(game.players, self.samples, 1 - self.drop, self.seed + side.index)
        return _Perturbed(game, masks, game.values(masks), game.end(True))

    def _fitted(self, a: _Perturbed, b: _Perturbed) -> Interactions:
        """Both sides' samples taken in their order as pairs, and the bilinear model of them."""
        za, zb = (side.masks.double() / side.masks.shape[1] ** 0.5 for side in (a, b))
        solve = self._descend if self.solver == "sgd" else self._solve
        w, c = solve(za, zb, (a.values * b.values).sum(-1), self._closeness(a, b))
        w = w / (za.shape[1] * zb.shape[1]) ** 0.5
        rows, columns = a.game.layout, b.game.layout
        matrix = torch.zeros(rows.size, columns.size, dtype=a.game.embedding.dtype)
        matrix[torch.tensor(rows.visible)[:, None], torch.tensor(columns.visible)] = w.to(matrix.dtype)
        facts = {
            name: {"layer": side.game.layer, "encodings": side.game.encodings}
            for name, side in (("left", a), ("right", b))
        }
        return Interactions(
            attributions=matrix,
            left_effects=matrix.new_zeros(rows.size),
            right_effects=matrix.new_zeros(columns.size),
            base=float(c),
            similarity=float(a.whole @ b.whole),
            left_layout=rows,
            right_layout=columns,
            about={**facts, "solver": self.solver},
            outcomes=(a.game.outcome(), b.game.outcome()),
        )

    def _closeness(self, a: _Perturbed, b: _Perturbed) -> Tensor:
        """Weight of every sample: near 1 where the pair is close to the whole one."""
        if self.closeness == "masks":
            # The cosine of a 0/1 vector with the vector of ones is the root of the share that is kept.
            distances = [1 - side.masks.double().mean(1).sqrt() for side in (a, b)]
            return torch.exp(-(distances[0] ** 2 + distances[1] ** 2) / _WIDTH**2)
        cosines = [F.cosine_similarity(side.values, side.whole[None]) for side in (a, b)]
        # A sample of negative weight would be fitted the worse the better.
        return ((cosines[0] + cosines[1]) / 2).clamp(min=0)

    def _solve(self, za: Tensor, zb: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted ridge solution in its dual form, whose size is the number of samples; the intercept is free."""
        root = (weights / weights.sum()).sqrt()
        # Products of masks' inner products are the inner products of the masks' outer products.
        kernel = (za @ za.T) * (zb @ zb.T) * root[:, None] * root
        inverse = torch.linalg.inv(kernel + max(self.decay, 1e-12) * torch.eye(len(y), dtype=torch.float64))
        constant, target = inverse @ root, inverse @ (root * y)
        c = (root @ target) / (root @ constant)
        dual = (target - c * constant) * root
        return za.T @ (dual[:, None] * zb), c

    def _descend(self, za: Tensor, zb: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Stochastic gradient descent over single pairs' weighted squared errors, in batches of 32."""
        w = torch.zeros(za.shape[1], zb.shape[1], dtype=torch.float64)
        c = y.mean().clone()
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.epochs):
            for batch in torch.randperm(len(y), generator=generator).split(32):
                a, b, pi = za[batch], zb[batch], weights[batch]
                error = pi * (torch.einsum("ni,ij,nj->n", a, w, b) + c - y[batch]) * 2 / len(batch)
                w = w - self.lr * (a.T @ (error[:, None] * b) + self.decay * w)
                c = c - self.lr * error.sum()
        return w, c
