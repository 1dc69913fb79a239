"""Weighted Banzhaf values of the embedding itself: one multi-target regression on random masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import GridLayout, Layout, SpectrogramLayout, TokenLayout
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Method, for_side, one_of
from secondsight.methods.game import Game, game
from secondsight.methods.integrated_jacobian import IntegratedJacobian
from secondsight.methods.mask_regression import Fit, all_masks, banzhaf_weights, bernoulli_masks, fit
from secondsight.support.errors import InputError
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from secondsight.model import Side

_LENGTHS = (0.7, 1.0, 1.5)
"""Over how many cells vectors of a grid may be alike."""


@dataclass(frozen=True, eq=False)
class Known:
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
        return fit(design, values, ridge=ridge, prior=prior, kernels=kernels, weights=self.weights, groups=groups)


@dataclass(frozen=True, eq=False)
class Banzhaf(Method):
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
    them; they are special features of the layout. Other options as in `Occlusion`.
    """

    p: float = 0.5
    budget: int | None = None
    tol: float | None = None
    ridge: float | None = None
    prior: Method | bool | None = None
    smooth: bool | None = None
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
        budget = self.budget or 2 * g.players
        if 2**g.players <= budget:
            # With every subset there is nothing to guess.
            masks = all_masks(g.players)
            values, extra = g.values(masks), Known(banzhaf_weights(masks, self.p))
            more: dict[str, Any] = {}
            found = extra.fit(masks.double(), values, self.ridge or 0.0)
        else:
            extra, more = self.known(side, prepared, g)
            masks = bernoulli_masks(g.players, budget, self.p, self.seed)
            count = budget if self.tol is None else min(budget, max(2 * g.players, 16))
            values = g.values(masks[:count])
            found = extra.fit(masks[:count].double(), values, self.ridge)
            while self.tol is not None and count < budget and _error(found) > self.tol:
                goal = min(2 * count, budget)
                values = torch.cat([values, g.values(masks[count:goal])])
                count = goal
                found = extra.fit(masks[:count].double(), values, self.ridge)
            masks = masks[:count]
            more = {name: {**what, "scale": round(found.scale, 4)} for name, what in more.items()}
        about = {"masks": len(masks), "ridge": found.ridge, **more}
        if found.kernel:
            about["smooth"] = _LENGTHS[found.kernel - 1]
        if len(found.deviations):
            about["standard_error"] = _error(found)
        if not self.pairs or g.players < 2:
            return g.contributions(found.effects, found.intercept, about, found.deviations)
        return self._with_pairs(g, masks, values, extra, found, about)

    def known(self, side: Side, prepared: Prepared, g: Game) -> tuple[Known, dict[str, Any]]:
        """What is known of the effects before any mask is looked at, and what a prior has cost."""
        usual = self.ridge is None
        kernels = _smooth_kernels(g.layout) if (usual if self.smooth is None else self.smooth) else ()
        vectors, spent = self._prior(side, prepared, g, usual if self.prior is None else self.prior)
        return Known(None, vectors, kernels), spent

    def _prior(self, side: Side, prepared: Prepared, g: Game, wanted: Any) -> tuple[Tensor | None, dict[str, Any]]:
        """The other method's vectors of the players, as they would be on unit vectors where the game is."""
        if wanted is False:
            return None, {}
        own = wanted is True
        if own:
            reference = for_side(side, self.reference)[0]
            reference = g.filling if reference is None else reference
            # Eight nodes are plenty for a guess, and give no warning.
            path_method = IntegratedJacobian(reference=reference, normalize=self.normalize, steps=8, seed=self.seed)
            with untouched(side.encoder.module):
                x = next(path_method.layer_inputs(side, [prepared]))
            if side.kind != "text" and x.pooled_block is None:
                return None, {}
            method: Method = path_method
        else:
            method = wanted
        c = method.contributions(side, [prepared])[0]
        if c.layout != g.layout:
            if own:
                return None, {}
            raise InputError(
                f"the prior's features are not those of the masks: give {method.name} a layer with the same grid"
            )
        vectors = c.vectors[g.layout.visible].double()
        spent = {k: v for k, v in c.about.items() if k in ("encodings", "passes", "evaluations")}
        # Raw vectors are brought to the unit vectors' scale, not through the normalisation: a prior may be rough.
        return vectors * (c.scale if g.unit else 1.0), {"prior": {"method": method.name, **spent}}

    def _with_pairs(
        self, g: Game, masks: Tensor, values: Tensor, known: Known, first: Fit, about: dict[str, Any]
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
        ridge = self.ridge if known.weights is None else self.ridge or 0.0
        found = known.fit(torch.cat([x, products], 1), values, ridge)
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
            factor=torch.cat([whole.vectors, found.effects[g.players :].to(whole.vectors)]),
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


def _smooth_kernels(layout: Layout) -> tuple[Tensor, ...]:
    """Covariances of a grid's visible features that fall with their distance; none for other layouts."""
    if not isinstance(layout, GridLayout | SpectrogramLayout):
        return ()
    features = layout.view(torch.arange(layout.size, dtype=torch.float64)).long()
    places = torch.full((layout.size, 2), -1.0, dtype=torch.float64)
    places[features.flatten()] = torch.cartesian_prod(*(torch.arange(n).double() for n in features.shape)).reshape(
        -1, 2
    )
    at = places[layout.visible]
    squared = torch.cdist(at, at).square()
    own = 0.1 * torch.eye(len(at), dtype=torch.float64)
    return tuple(0.9 * torch.exp(-squared / (2 * length**2)) + own for length in _LENGTHS)


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
