"""Which subsets of features to look at, and what a linear model of their values is: numbers only, no models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from secondsight.support.errors import InputError


def bernoulli_masks(
    players: int, count: int, p: float, seed: int, *, antithetic: bool = True
) -> Bool[Tensor, "mask player"]:
    """`count` subsets in which every player is present with probability `p`, in antithetic pairs or independent.

    Of a pair, one takes the players with u < p, the other those with u > 1 − p, so that at p = 1/2 they are complements
    and in general as unlike as p allows. An odd last one stands alone.
    """
    generator = torch.Generator().manual_seed(seed)
    if not antithetic:
        return torch.rand(count, players, generator=generator, dtype=torch.float64) < p
    u = torch.rand(math.ceil(count / 2), players, generator=generator, dtype=torch.float64)
    return torch.stack([u < p, u > 1 - p], dim=1).flatten(0, 1)[:count]


def shapley_masks(players: int, count: int, seed: int) -> Bool[Tensor, "mask player"]:
    """`count` subsets drawn by the Shapley kernel, each followed by its complement, which is as likely.

    A subset has k of the players with a chance in proportion to 1 / (k (players − k)), and all subsets of a size are alike. The
    empty and the full set, whose weight is infinite, are left out. Raises `InputError` for fewer than two players.
    """
    if players < 2:
        raise InputError(f"the Shapley kernel needs two players or more, not {players}")
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.arange(1, players, dtype=torch.float64)
    pairs = math.ceil(count / 2)
    drawn = 1 + torch.multinomial(1 / (sizes * (players - sizes)), pairs, replacement=True, generator=generator)
    ranks = torch.rand(pairs, players, generator=generator, dtype=torch.float64).argsort(1).argsort(1)
    masks = ranks < drawn[:, None]
    return torch.stack([masks, ~masks], dim=1).flatten(0, 1)[:count]


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

    `ridge` is the penalty that was used, `kernel` the number of the covariance (0 is none), `scale` the factor of the
    prior. `deviations` (group, player, target) is how the effects move when a group of masks is left out, scaled so that
    their squares add up to the effects' variance (delete-a-group jackknife).
    """

    intercept: Float[Tensor, " target"]
    effects: Float[Tensor, "player target"]
    ridge: float
    deviations: Float[Tensor, "group player target"]
    kernel: int = 0
    scale: float = 0.0


def fit_masks(
    design: Float[Tensor, "mask player"],
    values: Float[Tensor, "mask target"],
    *,
    ridge: float | None = None,
    prior: Float[Tensor, "player target"] | None = None,
    kernels: Sequence[Float[Tensor, "player player"]] = (),
    weights: Float[Tensor, " mask"] | None = None,
    groups: int = 8,
) -> Fit:
    """Multi-target weighted least squares with an intercept, all targets from one factorisation.

    `ridge` penalises what the effects are beyond a multiple of `prior`, relative to the design's mean squared column.
    `kernels` are covariances that effects may have beside independence: the penalty is small where they vary as one of
    them says. Generalised cross-validation chooses the ridge where it is None, the prior's factor (not below zero) and
    the kernel; all of them come to matter little where masks abound. Rows 2k and 2k + 1 are taken for an antithetic
    pair and stay in one group of the jackknife.
    """
    x, y = design.double(), values.double()
    w = torch.ones(len(x), dtype=torch.float64) if weights is None else weights.double()
    w = w / w.sum()
    guess = None if prior is None else x @ prior.double()
    choices: list[tuple[_Choice, _System, Tensor]] = []
    for kernel in (None, *kernels):
        root = torch.eye(x.shape[1], dtype=torch.float64) if kernel is None else torch.linalg.cholesky(kernel.double())
        system = _System(x @ root, w)
        choices.append((system.choose(y, guess, ridge), system, root))
    kernel_number = min(range(len(choices)), key=lambda k: choices[k][0].score)
    choice, system, root = choices[kernel_number]
    if guess is not None:
        y = y - choice.scale * guess
    intercept, effects = system.solve(y, choice.ridge)
    count = min(groups, len(x) // 2)
    moved = []
    for group in range(count if count > 1 else 0):
        rest = (torch.arange(len(x)) // 2) % count != group
        remaining = _System(x[rest] @ root, w[rest] / w[rest].sum())
        moved.append(root @ remaining.solve(y[rest], choice.ridge)[1])
    if moved:
        stacked = torch.stack(moved)
        deviations = (stacked - stacked.mean(0)) * math.sqrt((count - 1) / count)
    else:
        deviations = torch.zeros(0, *effects.shape, dtype=torch.float64)
    effects = root @ effects
    if prior is not None:
        effects = effects + choice.scale * prior.double()
    return Fit(intercept, effects, choice.ridge / choice.unit, deviations, kernel_number, choice.scale)


@dataclass(frozen=True)
class _Choice:
    """A penalty, the prior's factor, their cross-validation score, and the penalty's unit."""

    ridge: float
    scale: float
    score: float
    unit: float


class _System:
    """A weighted, centred design, whose normal equations one eigendecomposition solves for any values and ridge."""

    def __init__(self, x: Tensor, w: Tensor) -> None:
        self.w, self.root, self.mean_x = w, w.sqrt()[:, None], w @ x
        self.x = (x - self.mean_x) * self.root
        # The smaller of the two Gram matrices.
        self.dual = len(x) < x.shape[1]
        gram = self.x @ self.x.T if self.dual else self.x.T @ self.x
        values, self.vectors = torch.linalg.eigh(gram)
        self.values = values.clamp(min=0)
        self.unit = float((self.x**2).sum() / max(x.shape[1], 1)) or 1.0
        self.floor = float(self.values.max()) * len(gram) * torch.finfo(torch.float64).eps if len(gram) else 0.0

    def _centred(self, values: Tensor) -> Tensor:
        """Values less their weighted mean, times the roots of the weights."""
        return (values - self.w @ values) * self.root

    def solve(self, y: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Intercept and effects; with ridge 0 the solution of least norm."""
        shrunk = self.values + ridge
        inverse = torch.where(self.values > self.floor, 1 / shrunk.clamp(min=1e-300), torch.zeros_like(shrunk))
        centred = self._centred(y)
        if self.dual:
            effects = self.x.T @ (self.vectors @ (inverse[:, None] * (self.vectors.T @ centred)))
        else:
            effects = self.vectors @ (inverse[:, None] * (self.vectors.T @ (self.x.T @ centred)))
        return self.w @ y - self.mean_x @ effects, effects

    def _along(self, values: Tensor) -> Tensor:
        """Coordinates of centred values in the design's left singular vectors."""
        if self.dual:
            return self.vectors.T @ values
        return (self.vectors.T @ (self.x.T @ values)) / self.values.clamp(min=1e-300).sqrt()[:, None]

    def choose(self, y: Tensor, guess: Tensor | None, ridge: float | None) -> _Choice:
        """The penalty, over nine decades or as given, and the guess's factor of least generalised cross-validation."""
        m = len(self.x)
        nonzero = self.values > self.floor
        centred = self._centred(y)
        guessed = torch.zeros_like(y) if guess is None else self._centred(guess)
        y_along, p_along = self._along(centred), self._along(guessed)
        # Energies of y, of y with the guess, and of the guess: along every singular vector, and what is left over.
        energies, rests = [], []
        for first_along, second_along, first, second in (
            (y_along, y_along, centred, centred),
            (y_along, p_along, centred, guessed),
            (p_along, p_along, guessed, guessed),
        ):
            along = torch.where(nonzero, (first_along * second_along).sum(1), torch.zeros_like(self.values))
            energies.append(along)
            rests.append(float((first * second).sum() - along.sum()))
        steps = torch.logspace(-6, 3, 46, dtype=torch.float64) if ridge is None else torch.tensor([ridge]).double()
        best = _Choice(0.0, 0.0, math.inf, self.unit)
        for penalty in (self.unit * steps).tolist():
            share = torch.where(nonzero, self.values / (self.values + penalty), torch.zeros_like(self.values))
            yy, yp, pp = (
                rest + float(((1 - share) ** 2 * along).sum()) for rest, along in zip(rests, energies, strict=True)
            )
            scale = max(yp / pp, 0.0) if pp > 1e-12 * max(yy, 1e-300) else 0.0
            missed = max(yy - 2 * scale * yp + scale**2 * pp, 0.0)
            freedom = 1 - (float(share.sum()) + 1 + (scale > 0)) / m
            score = missed / freedom**2 if freedom > 1e-9 else math.inf
            if score < best.score or ridge is not None:
                best = _Choice(penalty, scale, score, self.unit)
        return best
