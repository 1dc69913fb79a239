"""Weighted Banzhaf values of the embedding itself: one multi-target regression on random masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor

from secondsight.contributions import Contributions
from secondsight.encoders.base import Prepared, Side
from secondsight.engine.designs import Fit, all_masks, banzhaf_weights, bernoulli_masks, fit
from secondsight.errors import InputError
from secondsight.layout import GridLayout, Layout, SpectrogramLayout, TokenLayout
from secondsight.methods.base import Method, one_of
from secondsight.methods.masking import Game, game


@dataclass(frozen=True, eq=False)
class Banzhaf(Method):
    """Contributions of the best linear model g(a_S) ≈ c + Σ_{i∈S} U_i under masks that keep each feature with probability p.

    One least-squares fit with a target per joint dimension. Two sides' fits multiply to the solution of FIxLIP's joint
    fit on the product of their masks (Baniecki et al. 2025; docs/methods.md), so each side's encodings serve every
    partner. What the fit gives to nothing, c, is the `reference_embedding`; vectors do not add up to the whole exactly.

    `budget` encodings a side, None for twice the features; all subsets where there are no more of them. `tol` goes on
    doubling the masks, up to `budget`, until the standard errors' mean size is that share of the vectors'. `ridge` is
    the penalty of the fit relative to the design, None chooses it by generalised cross-validation. `prior` is another
    method whose vectors the penalty draws towards, such as `IntegratedJacobian(layer=0)`, so that fewer masks suffice.
    `pairs` adds interactions within the input among its strongest features (FIxLIP's intra-modal terms), that many of
    them; they are special features of the layout. Other options as in `Occlusion`.
    """

    p: float = 0.5
    budget: int | None = None
    tol: float | None = None
    ridge: float | None = None
    prior: Method | None = None
    pairs: int = 0
    layer: Any = "input"
    reference: Any = None
    normalize: str = "inside"
    seed: int = 0

    name: ClassVar[str] = "banzhaf"

    def __post_init__(self) -> None:
        one_of("normalize", self.normalize, ("outside", "inside"))
        if not 0 < self.p < 1:
            raise InputError(f"p={self.p!r} is no probability between 0 and 1")
        if self.budget is not None and self.budget < 4:
            raise InputError(f"budget={self.budget!r} is too few encodings: at least 4 are needed")
        if self.tol is not None and not self.tol > 0:
            raise InputError(f"tol={self.tol!r} is no tolerance: a positive number is needed")
        if self.ridge is not None and self.ridge < 0:
            raise InputError(f"ridge={self.ridge!r} is no penalty: zero or a positive number is needed")
        if self.pairs < 0:
            raise InputError(f"pairs={self.pairs!r} is no number of pairs")

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input, with standard errors."""
        return [self._one(side, prepared) for prepared in inputs]

    def _one(self, side: Side, prepared: Prepared) -> Contributions:
        g = game(side, prepared, self.layer, self.reference, self.seed, self.normalize)
        prior, cost = self._prior(side, prepared, g)
        budget = self.budget or 2 * g.players
        if 2**g.players <= budget:
            masks = all_masks(g.players)
            weights: Tensor | None = banzhaf_weights(masks, self.p)
            values = g.values(masks)
            found = fit(masks.double(), values, ridge=self.ridge or 0.0, weights=weights, groups=0)
        else:
            masks, weights = bernoulli_masks(g.players, budget, self.p, self.seed), None
            count = budget if self.tol is None else min(budget, max(2 * g.players, 16))
            values = g.values(masks[:count])
            found = fit(masks[:count].double(), values, ridge=self.ridge, prior=prior)
            while self.tol is not None and count < budget and _error(found) > self.tol:
                more = min(2 * count, budget)
                values = torch.cat([values, g.values(masks[count:more])])
                count = more
                found = fit(masks[:count].double(), values, ridge=self.ridge, prior=prior)
            masks = masks[:count]
        about = {"masks": len(masks), "ridge": found.ridge, **cost}
        if len(found.deviations):
            about["standard_error"] = _error(found)
        if not self.pairs or g.players < 2:
            return g.contributions(found.effects, found.intercept, about, found.deviations)
        return self._with_pairs(g, masks, values, weights, found, about)

    def _prior(self, side: Side, prepared: Prepared, g: Game) -> tuple[Tensor | None, dict[str, Any]]:
        """The other method's vectors of the players, as they would be on unit vectors where the game is."""
        if self.prior is None:
            return None, {}
        c = self.prior.contributions(side, [prepared])[0]
        if c.layout != g.layout:
            raise InputError(
                f"the prior's features are not those of the masks: give {self.prior.name} a layer with the same grid"
            )
        vectors = c.vectors[g.layout.visible].double()
        # Raw vectors are brought to the unit vectors' scale, not through the normalisation: a prior may be rough.
        return vectors * (c.scale if g.unit else 1.0), {"prior": self.prior.name}

    def _with_pairs(
        self, g: Game, masks: Tensor, values: Tensor, weights: Tensor | None, first: Fit, about: dict[str, Any]
    ) -> Contributions:
        """A second fit with products of strong players' masks; their features are named as special ones."""
        strong = first.effects.norm(dim=-1).argsort(descending=True).tolist()
        wanted: list[tuple[int, int]] = []
        for size in range(2, g.players + 1):
            wanted = [(min(i, j), max(i, j)) for i, j in combinations(strong[:size], 2)]
            if len(wanted) >= self.pairs:
                break
        wanted = wanted[: self.pairs]
        x = masks.double()
        products = torch.stack([x[:, i] * x[:, j] for i, j in wanted], 1)
        groups = 8 if weights is None else 0
        ridge = self.ridge if weights is None else self.ridge or 0.0
        found = fit(torch.cat([x, products], 1), values, ridge=ridge, weights=weights, groups=groups)
        whole = g.contributions(found.effects[: g.players], found.intercept, {**about, "ridge": found.ridge})
        visible = g.layout.visible
        names = {g.layout.size + k: f"pair {visible[i]},{visible[j]}" for k, (i, j) in enumerate(wanted)}
        deviations = None
        if len(found.deviations):
            of_players = g.contributions(
                found.effects[: g.players], found.intercept, {}, found.deviations[:, : g.players]
            )
            assert of_players.deviations is not None
            deviations = torch.cat([of_players.deviations, found.deviations[:, g.players :].to(whole.vectors)], 1)
        return Contributions(
            vectors=torch.cat([whole.vectors, found.effects[g.players :].to(whole.vectors)]),
            embedding=whole.embedding,
            reference_embedding=whole.reference_embedding,
            layout=_extended(g.layout, names),
            scale=whole.scale,
            about=whole.about,
            deviations=deviations,
        )


def _error(found: Fit) -> float:
    """Mean size of the effects' standard errors, relative to the effects' own."""
    errors = found.deviations.square().sum((0, 2)).sqrt().mean()
    return float(errors / found.effects.norm(dim=-1).mean().clamp(min=1e-300))


def _extended(layout: Layout, names: dict[int, str]) -> Layout:
    """The layout with more special features behind its own."""
    size, special = layout.size + len(names), {**layout.special, **names}
    if isinstance(layout, GridLayout):
        return GridLayout(size, special, layout.grid, layout.image_size, layout.frame)
    if isinstance(layout, TokenLayout):
        tokens = (*layout.tokens, *names.values())
        return TokenLayout(size, special, tokens, (*layout.offsets, *[None] * len(names)), layout.text)
    if isinstance(layout, SpectrogramLayout):
        return SpectrogramLayout(size, special, layout.grid, layout.cells, layout.seconds)
    return Layout(size, special)
