"""Factors of the attribution matrix: contribution vectors that are at hand, or computed when they are needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.support.errors import InputError


class Factor(ABC):
    """The vectors U (feature, joint) of one input, and products with them that may cost less than U itself.

    `pull_cost` is the work of pulling one direction, `vectors_cost` that of computing all vectors, in the same arbitrary
    unit; both are 0 for vectors that are at hand. `closed_form` says that either costs less than a forward pass. `shape`
    is (features, joint dimensions), `dtype` the precision of the vectors.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    pull_cost: float = 0.0
    vectors_cost: float = 0.0
    closed_form: bool = True

    @abstractmethod
    def vectors(self) -> Float[Tensor, "feature joint"]:
        """U itself."""

    @abstractmethod
    def total(self) -> Float[Tensor, " joint"]:
        """Σ_i U_i in double precision."""

    @abstractmethod
    def push(self, weights: Float[Tensor, " feature"]) -> Float[Tensor, " joint"]:
        """Σ_i w_i U_i."""

    @abstractmethod
    def pull(self, directions: Float[Tensor, "row joint"]) -> Float[Tensor, "row feature"]:
        """directions · Uᵀ."""

    def vectors_by_head(self) -> Float[Tensor, "head feature joint"]:
        """U split exactly by the heads of an attention, the last entry what passes none.

        `InputError` where there is no closed form of a last block, whose heads are free.
        """
        raise InputError(
            "heads need the closed form of a last block with one pooled query: explain the pair with "
            "ss.explain(..., method='last-layer'); stored vectors, and models without that form, have no heads"
        )


class DenseFactor(Factor):
    """Vectors that are at hand. Sums of hundreds of terms are taken in double precision."""

    def __init__(self, tensor: Float[Tensor, "feature joint"]) -> None:
        self.tensor, self.shape, self.dtype = tensor, (tensor.shape[0], tensor.shape[1]), tensor.dtype

    @cached_property
    def double(self) -> Float[Tensor, "feature joint"]:
        """The vectors in double precision."""
        return self.tensor.double()

    def vectors(self) -> Float[Tensor, "feature joint"]:
        """The tensor."""
        return self.tensor

    def total(self) -> Float[Tensor, " joint"]:
        """Σ_i U_i in double precision."""
        return self.double.sum(0)

    def push(self, weights: Float[Tensor, " feature"]) -> Float[Tensor, " joint"]:
        """Σ_i w_i U_i, in double precision."""
        return weights.double() @ self.double

    def pull(self, directions: Float[Tensor, "row joint"]) -> Float[Tensor, "row feature"]:
        """directions · Uᵀ, in double precision."""
        return directions.double() @ self.double.T


class JoinedFactor(Factor):
    """The features of several inputs one after another, each input's vectors times its scale."""

    def __init__(self, parts: Sequence[Factor], scales: Sequence[float]) -> None:
        self.parts, self.scales = tuple(parts), tuple(scales)
        self.pull_cost = sum(part.pull_cost for part in parts)
        self.vectors_cost = sum(part.vectors_cost for part in parts)
        self.closed_form = all(part.closed_form for part in parts)
        self.shape = sum(part.shape[0] for part in parts), parts[0].shape[1]
        self.dtype = torch.promote_types(parts[0].dtype, parts[-1].dtype)

    def vectors(self) -> Float[Tensor, "feature joint"]:
        """The vectors of all parts."""
        return torch.cat([part.vectors() * scale for part, scale in zip(self.parts, self.scales, strict=True)])

    def total(self) -> Float[Tensor, " joint"]:
        """Σ_i U_i over all parts, in double precision."""
        return sum((part.total() * scale for part, scale in zip(self.parts, self.scales, strict=True)), torch.zeros(()))

    def push(self, weights: Float[Tensor, " feature"]) -> Float[Tensor, " joint"]:
        """Σ_i w_i U_i; a part whose weights are all zero is not computed."""
        shares = weights.split([part.shape[0] for part in self.parts])
        total = torch.zeros(self.shape[1], dtype=torch.float64, device=weights.device)
        for part, scale, share in zip(self.parts, self.scales, shares, strict=True):
            if bool(share.any()):
                total = total + part.push(share).double() * scale
        return total

    def pull(self, directions: Float[Tensor, "row joint"]) -> Float[Tensor, "row feature"]:
        """directions · Uᵀ for the features of all parts."""
        return torch.cat([part.pull(directions) * s for part, s in zip(self.parts, self.scales, strict=True)], 1)

    def vectors_by_head(self) -> Float[Tensor, "head feature joint"]:
        """Head by head the features of all parts, which have the same heads."""
        return torch.cat([part.vectors_by_head() * s for part, s in zip(self.parts, self.scales, strict=True)], 1)


class WeightedFactor(Factor):
    """Another factor's vectors, each times a weight of its own."""

    def __init__(self, factor: Factor, weights: Float[Tensor, " feature"]) -> None:
        self.factor, self.weights, self.shape, self.dtype = factor, weights, factor.shape, factor.dtype
        self.pull_cost, self.vectors_cost, self.closed_form = factor.pull_cost, factor.vectors_cost, factor.closed_form

    def vectors(self) -> Float[Tensor, "feature joint"]:
        """w_i U_i."""
        vectors = self.factor.vectors()
        return vectors * self.weights.to(vectors)[:, None]

    def total(self) -> Float[Tensor, " joint"]:
        """Σ_i w_i U_i in double precision."""
        return self.factor.push(self.weights).double()

    def push(self, weights: Float[Tensor, " feature"]) -> Float[Tensor, " joint"]:
        """Σ_i w_i v_i U_i for weights v."""
        return self.factor.push(weights * self.weights.to(weights))

    def pull(self, directions: Float[Tensor, "row joint"]) -> Float[Tensor, "row feature"]:
        """directions · Uᵀ, times the weights."""
        pulled = self.factor.pull(directions)
        return pulled * self.weights.to(pulled)

    def vectors_by_head(self) -> Float[Tensor, "head feature joint"]:
        """Head by head w_i U_i."""
        vectors = self.factor.vectors_by_head()
        return vectors * self.weights.to(vectors)[:, None]
