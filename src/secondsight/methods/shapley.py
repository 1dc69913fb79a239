"""Shapley values of the embedding itself, by random orders and their reverses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.methods.base import Layer, Sides, one_of
from secondsight.methods.game import Game, MaskingMethod
from secondsight.support.errors import InputError


@dataclass(frozen=True, eq=False)
class Shapley(MaskingMethod):
    """Contributions U_i = mean over orders of g(those before i, and i) − g(those before i); they add up exactly.

    `orders` random orders of the features are taken, each with its reverse (antithetic); an order costs one encoding per
    feature. `budget` gives the number of encodings instead. Other options as in `Occlusion`; the same `seed` gives the
    same numbers.
    """

    orders: int = 4
    budget: int | None = None
    layer: Sides[Layer] = "input"
    reference: Sides[str | Tensor | None] = None
    normalize: str = "inside"
    seed: int = 0

    name: ClassVar[str] = "shapley"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("normalize", self.normalize, ("outside", "inside"))
        if self.orders < 1 or (self.budget is not None and self.budget < 1):
            raise InputError("orders= and budget= must be at least 1")

    def contribute(self, game: Game) -> Contributions:
        """Means over orders, with standard errors over pairs of orders."""
        pairs = torch.stack([self._pair(game, order) for order in self._orders(game.players)])
        count = len(pairs)
        deviations = (pairs - pairs.mean(0)) / math.sqrt(count * (count - 1)) if count > 1 else None
        return game.contributions(pairs.mean(0), game.end(False), {"orders": 2 * count}, deviations)

    def _orders(self, players: int) -> list[Tensor]:
        count = self.orders if self.budget is None else max(self.budget // max(2 * (players - 1), 1), 1)
        generator = torch.Generator().manual_seed(self.seed)
        return [torch.randperm(players, generator=generator) for _ in range(math.ceil(count))]

    @staticmethod
    def _pair(game: Game, order: Tensor) -> Tensor:
        """Mean of what players add in an order and in its reverse."""
        n = game.players
        total = torch.zeros(n, len(game.embedding), dtype=torch.float64)
        for run in (order, order.flip(0)):
            present = torch.zeros(n - 1, n, dtype=torch.bool)
            present[:, run] = torch.ones(n - 1, n).tril().bool()
            steps = torch.cat([game.end(False)[None], game.values(present), game.end(True)[None]])
            total[run] += steps.diff(dim=0) / 2
        return total
