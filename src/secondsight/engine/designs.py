"""Which subsets of features to look at, and what a linear model of their values is: numbers only, no models."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def bernoulli_masks(players: int, count: int, p: float, seed: int) -> Bool[Tensor, "mask player"]:
    """`count` subsets in which every player is present with probability `p`, in antithetic pairs.

    Of a pair, one takes the players with u < p, the other those with u > 1 − p, so that at p = 1/2 they are complements
    and in general as unlike as p allows. An odd last one stands alone.
    """
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(math.ceil(count / 2), players, generator=generator, dtype=torch.float64)
    return torch.stack([u < p, u > 1 - p], dim=1).flatten(0, 1)[:count]


def all_masks(players: int) -> Bool[Tensor, "mask player"]:
    """Every subset, the empty one first."""
    return (torch.arange(2**players)[:, None] >> torch.arange(players)) % 2 == 1


def banzhaf_weights(masks: Bool[Tensor, "mask player"], p: float) -> Float[Tensor, " mask"]:
    """Probability of each subset under independent inclusion with probability `p`."""
    present = masks.double().sum(1)
    return p**present * (1 - p) ** (masks.shape[1] - present)


@dataclass(frozen=True)
class Fit:
    """A linear model of vector values: value ≈ `intercept` (target,) + mask · `effects` (player, target).

    `ridge` is the penalty that was used, `deviations` (group, player, target) how the effects move when a group of masks
    is left out, scaled so that their squares add up to the effects' variance (delete-a-group jackknife).
    """

    intercept: Float[Tensor, " target"]
    effects: Float[Tensor, "player target"]
    ridge: float
    deviations: Float[Tensor, "group player target"]


def fit(
    design: Float[Tensor, "mask player"],
    values: Float[Tensor, "mask target"],
    *,
    ridge: float | None = None,
    prior: Float[Tensor, "player target"] | None = None,
    weights: Float[Tensor, " mask"] | None = None,
    groups: int = 8,
) -> Fit:
    """Multi-target weighted least squares with an intercept, all targets from one factorisation.

    `ridge` penalises the effects' squared distance from `prior` (zero by default), relative to the design's mean
    squared column; None chooses it by generalised cross-validation, which is next to nothing where masks abound. Rows
    2k and 2k + 1 are taken for an antithetic pair and stay in one group of the jackknife.
    """
    x, y = design.double(), values.double()
    w = torch.ones(len(x), dtype=torch.float64) if weights is None else weights.double()
    w = w / w.sum()
    if prior is not None:
        y = y - x @ prior.double()
    system = _System(x, y, w)
    chosen = system.best_ridge() if ridge is None else ridge * system.unit
    intercept, effects = system.solve(chosen)
    count = min(groups, len(x) // 2)
    moved = []
    for group in range(count if count > 1 else 0):
        kept = (torch.arange(len(x)) // 2) % count != group
        moved.append(_System(x[kept], y[kept], w[kept] / w[kept].sum()).solve(chosen)[1])
    if moved:
        stacked = torch.stack(moved)
        deviations = (stacked - stacked.mean(0)) * math.sqrt((count - 1) / count)
    else:
        deviations = torch.zeros(0, *effects.shape, dtype=torch.float64)
    if prior is not None:
        effects = effects + prior.double()
    return Fit(intercept, effects, chosen / system.unit, deviations)


class _System:
    """Weighted, centred normal equations, solved for any ridge from one eigendecomposition."""

    def __init__(self, x: Tensor, y: Tensor, w: Tensor) -> None:
        self.mean_x, self.mean_y = w @ x, w @ y
        root = w.sqrt()[:, None]
        self.x, self.y = (x - self.mean_x) * root, (y - self.mean_y) * root
        # The smaller of the two Gram matrices.
        self.dual = len(x) < x.shape[1]
        gram = self.x @ self.x.T if self.dual else self.x.T @ self.x
        values, self.vectors = torch.linalg.eigh(gram)
        self.values = values.clamp(min=0)
        self.unit = float((self.x**2).sum() / max(x.shape[1], 1)) or 1.0
        self.floor = float(self.values.max()) * len(gram) * torch.finfo(torch.float64).eps if len(gram) else 0.0

    def solve(self, ridge: float) -> tuple[Tensor, Tensor]:
        """Intercept and effects; with ridge 0 the solution of least norm."""
        shrunk = self.values + ridge
        inverse = torch.where(self.values > self.floor, 1 / shrunk.clamp(min=1e-300), torch.zeros_like(shrunk))
        if self.dual:
            effects = self.x.T @ (self.vectors @ (inverse[:, None] * (self.vectors.T @ self.y)))
        else:
            effects = self.vectors @ (inverse[:, None] * (self.vectors.T @ (self.x.T @ self.y)))
        return self.mean_y - self.mean_x @ effects, effects

    def best_ridge(self) -> float:
        """The penalty of least generalised cross-validation error over eight decades."""
        m = len(self.x)
        # Coordinates of the values in the design's left singular vectors.
        along = (
            (self.vectors.T @ self.y)
            if self.dual
            else ((self.vectors.T @ (self.x.T @ self.y)) / self.values.clamp(min=1e-300).sqrt()[:, None])
        )
        known = self.values > self.floor
        energy = torch.where(known, (along**2).sum(1), torch.zeros_like(self.values))
        rest = max(float((self.y**2).sum() - energy.sum()), 0.0)
        best, least = 0.0, math.inf
        for ridge in self.unit * torch.logspace(-6, 2, 41, dtype=torch.float64):
            kept = torch.where(known, self.values / (self.values + ridge), torch.zeros_like(self.values))
            missed = rest + float((((1 - kept) ** 2) * energy).sum())
            freedom = 1 - (float(kept.sum()) + 1) / m
            score = missed / freedom**2 if freedom > 0 else math.inf
            if score < least:
                best, least = float(ridge), score
        return best
