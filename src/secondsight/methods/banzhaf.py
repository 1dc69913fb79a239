"""Weighted Banzhaf values of the embedding itself: one multi-target regression on random masks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import Layout
from secondsight.methods.base import Layer, Method, Sides, for_side, one_of
from secondsight.methods.game import Game, MaskingMethod
from secondsight.methods.integrated_jacobian import IntegratedJacobian
from secondsight.methods.mask_regression import Fit, all_masks, banzhaf_weights, bernoulli_masks, fit_masks
from secondsight.support.errors import InputError
from secondsight.support.guard import untouched

_LENGTHS = (0.7, 1.0, 1.5)
"""Over how many cells vectors of a grid may be alike."""


@dataclass(frozen=True, eq=False)
class Assumptions:
    """What a fit starts from: the masks' weights where all are there, a prior and covariances of the players' effects."""

    weights: Tensor | None = None
    prior: Tensor | None = None
    kernels: tuple[Tensor, ...] = ()

    def fit(self, design: Tensor, values: Tensor, ridge: float | None) -> Fit:
        """The fit; features behind the players, such as pairs, have no prior and vary by themselves."""
        prior, kernels = self.prior, list(self.kernels)
        if prior is not None:
            prior = F.pad(prior, (0, 0, 0, design.shape[1] - len(prior)))
        for k, kernel in enumerate(kernels):
            kernels[k] = torch.eye(design.shape[1], dtype=torch.float64)
            kernels[k][: len(kernel), : len(kernel)] = kernel
        groups = 8 if self.weights is None else 0
        return fit_masks(design, values, ridge=ridge, prior=prior, kernels=kernels, weights=self.weights, groups=groups)


@dataclass(frozen=True, eq=False)
class Banzhaf(MaskingMethod):
    """Contributions of the best linear model g(a_S) ≈ c + Σ_{i∈S} U_i under masks that keep each feature with probability p.

    One least-squares fit with a target per joint dimension. Two sides' fits multiply to the solution of FIxLIP's joint
    fit on the product of their masks (Baniecki et al. 2025; docs/methods.md), so each side's encodings serve every
    partner. What the fit gives to nothing, c, is the `reference_embedding`; vectors do not add up to the whole exactly.

    `budget` encodings a side, None for twice the features; all subsets where there are no more of them. `tol` goes on
    doubling the masks, up to `budget`, until the standard errors' mean size is that share of the vectors'.

    Where masks are few, three things help, and generalised cross-validation decides how much: `ridge`, the penalty of
    the fit relative to the design (None: chosen); `prior`, a method to a multiple of whose vectors the penalty draws
    (True: `IntegratedJacobian` at layer −1, for texts and where it has a closed form; False: none); and `smooth`,
    neighbouring cells of an image or spectrogram having similar vectors. With `ridge` given the latter two are off
    unless asked for: `ridge=0` is ordinary least squares.

    `pairs` adds interactions within the input among its strongest features (FIxLIP's intra-modal terms), that many of
    them; they are special features of the layout. `antithetic` draws masks in complementary pairs, otherwise independently, as
    FIxLIP does. Other options as in `Occlusion`.
    """

    p: float = 0.5
    budget: int | None = None
    tol: float | None = None
    ridge: float | None = None
    prior: Method | bool | None = None
    smooth: bool | None = None
    pairs: int = 0
    antithetic: bool = True
    layer: Sides[Layer] = "input"
    reference: Sides[str | Tensor | None] = None
    normalize: str = "inside"
    seed: int = 0

    name: ClassVar[str] = "banzhaf"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("normalize", self.normalize, ("outside", "inside"))
        if not 0 < self.p < 1:
            raise InputError(f"p={self.p!r} must be a probability between 0 and 1")
        if self.budget is not None and self.budget < 4:
            raise InputError(f"budget={self.budget!r} must be at least 4 encodings")
        if self.tol is not None and not self.tol > 0:
            raise InputError(f"tol={self.tol!r} must be positive")
        if self.ridge is not None and self.ridge < 0:
            raise InputError(f"ridge={self.ridge!r} must be zero or positive")
        if self.pairs < 0:
            raise InputError(f"pairs={self.pairs!r} must not be negative")

    def contribute(self, game: Game) -> Contributions:
        """Contributions of one input, with standard errors where not all subsets were seen."""
        budget = self.budget or 2 * game.players
        facts: dict[str, Any]
        if 2**game.players <= budget:
            # With every subset there is nothing to estimate.
            masks, facts = all_masks(game.players), {}
            values, model = game.values(masks), Assumptions(banzhaf_weights(masks, self.p))
            fit = model.fit(masks.double(), values, self.ridge or 0.0)
        else:
            model, facts = self.assumptions(game)
            masks, values, fit = self._sample(game, model, budget)
            facts = {name: {**about, "scale": round(fit.scale, 4)} for name, about in facts.items()}
        facts = {"masks": len(masks), "ridge": fit.ridge, **facts}
        if fit.kernel:
            facts["smooth"] = _LENGTHS[fit.kernel - 1]
        if len(fit.deviations):
            facts["standard_error"] = _standard_error(fit)
        converged = self.tol is None or not len(fit.deviations) or _standard_error(fit) <= self.tol
        if not self.pairs or game.players < 2:
            return game.contributions(fit.effects, fit.intercept, facts, fit.deviations, converged)
        return self._with_pairs(game, masks, values, model, fit, facts)

    def _sample(self, game: Game, model: Assumptions, budget: int) -> tuple[Tensor, Tensor, Fit]:
        """Masks, the embeddings under them and their fit; as many masks as the budget, or fewer that reach `tol`."""
        masks = bernoulli_masks(game.players, budget, self.p, self.seed, antithetic=self.antithetic)
        count = budget if self.tol is None else min(budget, max(2 * game.players, 16))
        values = game.values(masks[:count])
        fit = model.fit(masks[:count].double(), values, self.ridge)
        while self.tol is not None and count < budget and _standard_error(fit) > self.tol:
            doubled = min(2 * count, budget)
            values = torch.cat([values, game.values(masks[count:doubled])])
            count = doubled
            fit = model.fit(masks[:count].double(), values, self.ridge)
        return masks[:count], values, fit

    def assumptions(self, game: Game) -> tuple[Assumptions, dict[str, Any]]:
        """What is assumed of the effects before any mask is looked at, and what a prior has cost."""
        estimated = self.ridge is None
        kernels = _smooth_kernels(game.layout) if (estimated if self.smooth is None else self.smooth) else ()
        vectors, cost = self._prior(game, estimated if self.prior is None else self.prior)
        return Assumptions(None, vectors, kernels), cost

    def _prior(self, game: Game, prior: Method | bool) -> tuple[Tensor | None, dict[str, Any]]:
        """Another method's vectors of the players, as they would be on unit vectors where the game is."""
        if prior is False:
            return None, {}
        side = game.side
        if isinstance(prior, Method):
            method = prior
        else:
            reference = for_side(side, self.reference)[0]
            reference = game.filling if reference is None else reference
            # Eight nodes are plenty for a guess, and give no warning.
            default = IntegratedJacobian(reference=reference, normalize=self.normalize, steps=8, seed=self.seed)
            with untouched(side.encoder.module):
                x = next(default.layer_inputs(side, [game.prepared]))
            if side.kind != "text" and x.pooled_block is None:
                return None, {}
            method = default
        c = method.contributions(side, [game.prepared])[0]
        if c.layout != game.layout:
            if not isinstance(prior, Method):
                return None, {}
            raise InputError(
                f"the prior's features are not those of the masks: give {method.name} a layer with the same grid"
            )
        vectors = c.vectors[game.layout.visible].double()
        cost = {unit: c.about[unit] for unit in ("encodings", "passes", "evaluations") if unit in c.about}
        # Raw vectors are brought to the unit vectors' scale, not through the normalisation: a prior may be rough.
        return vectors * (c.scale if game.unit else 1.0), {"prior": {"method": method.name, **cost}}

    def _with_pairs(
        self, game: Game, masks: Tensor, values: Tensor, model: Assumptions, first: Fit, facts: dict[str, Any]
    ) -> Contributions:
        """A second fit with products of strong players' masks; their features are named as special ones."""
        players, x = game.players, masks.double()
        pairs = self._strongest_pairs(first, players)
        products = torch.stack([x[:, i] * x[:, j] for i, j in pairs], 1)
        ridge = self.ridge if model.weights is None else self.ridge or 0.0
        fit = model.fit(torch.cat([x, products], 1), values, ridge)
        deviations = fit.deviations[:, :players] if len(fit.deviations) else None
        single = game.contributions(fit.effects[:players], fit.intercept, {**facts, "ridge": fit.ridge}, deviations)
        visible = game.layout.visible
        names = [f"pair {visible[i]},{visible[j]}" for i, j in pairs]
        if single.deviations is not None:
            deviations = torch.cat([single.deviations, fit.deviations[:, players:].to(single.vectors)], 1)
        return replace(
            single,
            factor=torch.cat([single.vectors, fit.effects[players:].to(single.vectors)]),
            layout=game.layout.with_special(names),
            deviations=deviations,
        )

    def _strongest_pairs(self, fit: Fit, players: int) -> list[tuple[int, int]]:
        """As many pairs as asked for among the players with the largest effects."""
        strongest = fit.effects.norm(dim=-1).argsort(descending=True).tolist()
        pairs: list[tuple[int, int]] = []
        for size in range(2, players + 1):
            pairs = [(min(i, j), max(i, j)) for i, j in combinations(strongest[:size], 2)]
            if len(pairs) >= self.pairs:
                break
        return pairs[: self.pairs]


def _standard_error(fit: Fit) -> float:
    """Mean size of the effects' standard errors, relative to the effects' sizes."""
    errors = fit.deviations.square().sum((0, 2)).sqrt().mean()
    return float(errors / fit.effects.norm(dim=-1).mean().clamp(min=1e-300))


def _smooth_kernels(layout: Layout) -> tuple[Tensor, ...]:
    """Covariances of a grid's visible features that fall with their distance; none for other layouts."""
    if layout.cells.ndim != 2:
        return ()
    places = torch.full((layout.size, 2), -1.0, dtype=torch.float64)
    places[layout.cells.flatten()] = torch.cartesian_prod(
        *(torch.arange(n).double() for n in layout.cells.shape)
    ).reshape(-1, 2)
    at = places[layout.visible]
    squared = torch.cdist(at, at).square()
    independent = 0.1 * torch.eye(len(at), dtype=torch.float64)
    return tuple(0.9 * torch.exp(-squared / (2 * length**2)) + independent for length in _LENGTHS)
