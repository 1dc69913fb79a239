"""The attribution matrix as a product of two factors that is multiplied out only as far as somebody asks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.factors import DenseFactor, Factor


class FactoredMatrix:
    """A = scale · U Vᵀ, (left, right), kept as its factors ([M25] Eq. 10).

    A product with weights of one side costs one pass through each factor, and nothing but a multiplication where the
    vectors are at hand. What was computed is kept. `shape` is (left features, right features).
    """

    def __init__(self, left: Factor, right: Factor, scale: float = 1.0, dense: Tensor | None = None) -> None:
        self.left, self.right, self.scale, self._dense = left, right, scale, dense
        self.shape, self.dtype = (left.shape[0], right.shape[0]), torch.promote_types(left.dtype, right.dtype)
        self._products: dict[bytes, Tensor] = {}
        self._transposed: FactoredMatrix | None = None

    @property
    def T(self) -> FactoredMatrix:  # as tensors name it
        """The same matrix with its sides exchanged; either knows what the other has computed."""
        if self._transposed is None:
            self._transposed = FactoredMatrix(self.right, self.left, self.scale)
            self._transposed._transposed = self
        if self._dense is not None:
            self._transposed._dense = self._dense.T
        return self._transposed

    def __mul__(self, number: float) -> FactoredMatrix:
        """The matrix times a number."""
        dense = None if self._dense is None else self._dense * torch.tensor(number, dtype=self._dense.dtype)
        return FactoredMatrix(self.left, self.right, self.scale * number, dense)

    def __matmul__(self, weights: Float[Tensor, " right"]) -> Float[Tensor, " left"]:
        """Σ_j A_ij w_j."""
        if self.computed:
            return self.dense() @ weights
        key = weights.double().cpu().numpy().tobytes()
        if key not in self._products:
            if bool(weights.any()):
                direction = self.right.push(weights)
                product = self.left.pull(direction[None])[0] * self.scale
            else:
                product = weights.new_zeros(self.shape[0])
            self._products[key] = product.to(self.dtype)
        return self._products[key]

    def sum(self) -> float:
        """Σ_ij A_ij; from the factors' totals as long as the matrix would cost more than a multiplication."""
        if self.computed or (isinstance(self.left, DenseFactor) and isinstance(self.right, DenseFactor)):
            return float(self.dense().double().sum())
        left, right = self.left.total(), self.right.total()
        return float(left @ right.to(left.device)) * self.scale

    def rows(self, features: Sequence[int]) -> Float[Tensor, "row right"]:
        """The rows of some left features."""
        if self.computed:
            return self.dense()[list(features)]
        weights = torch.eye(self.shape[0], dtype=self.dtype)
        return torch.stack([self.T @ weights[feature] for feature in features])

    @property
    def computed(self) -> bool:
        """Whether the whole matrix is at hand."""
        return self._dense is not None or (self._transposed is not None and self._transposed._dense is not None)

    def dense(self) -> Float[Tensor, "left right"]:
        """The whole matrix, computed by the cheapest way when it is first asked for; see `multiply`."""
        if self._dense is None:
            if self._transposed is not None and self._transposed._dense is not None:
                self._dense = self._transposed._dense.T
            else:
                self._dense = multiply(self.left, self.right, self.scale).to(self.dtype)
        return self._dense


def factored(
    left: Factor,
    right: Factor,
    left_reference: Float[Tensor, " joint"],
    right_reference: Float[Tensor, " joint"],
    scale: float,
) -> tuple[FactoredMatrix, Float[Tensor, " left"], Float[Tensor, " right"]]:
    """The attribution matrix, and what each side's features add against the other side's reference embedding.

    Computes the vectors of the side where they cost less; the other side stays lazy, unless it is a closed form, for
    which the whole matrix costs little more than the effects.
    """
    if cheaper_left(left, right):
        matrix, right_effects, left_effects = factored(right, left, right_reference, left_reference, scale)
        return matrix.T, left_effects, right_effects
    dtype = torch.promote_types(left.dtype, right.dtype)
    vectors = right.vectors()
    dense_right = DenseFactor(vectors)
    right_effects = dense_right.pull(left_reference[None])[0] * scale
    if isinstance(left, DenseFactor) or not left.closed_form:
        left_effects = left.pull(right_reference[None])[0] * scale
        matrix = FactoredMatrix(left, dense_right, scale)
    else:
        rows = pull_rows(left, torch.cat([vectors, right_reference[None].to(vectors)])) * scale
        left_effects = rows[-1]
        matrix = FactoredMatrix(left, dense_right, scale, rows[:-1].T.to(dtype))
    return matrix, left_effects.to(dtype), right_effects.to(dtype)


def multiply(left: Factor, right: Factor, scale: float) -> Float[Tensor, "left right"]:
    """scale · U Vᵀ: the vectors of the side where they cost less, pulled back through the other or multiplied with it."""
    if cheaper_left(left, right):
        return multiply(right, left, scale).T
    if isinstance(left, DenseFactor) and isinstance(right, DenseFactor):
        return (left.double * scale) @ right.double.T
    vectors = right.vectors()
    if left.vectors_cost <= len(vectors) * left.pull_cost:
        return (left.vectors().double() * scale) @ vectors.double().T
    return pull_rows(left, vectors).T * scale


def cheaper_left(left: Factor, right: Factor) -> bool:
    """Whether to compute the left vectors first and pull them through the right factor, rather than the other way."""

    def cost(first: Factor, second: Factor) -> float:
        return first.vectors_cost + min(first.shape[0] * second.pull_cost, second.vectors_cost)

    return cost(left, right) < cost(right, left)


def pull_rows(factor: Factor, vectors: Float[Tensor, "row joint"]) -> Float[Tensor, "row feature"]:
    """vectors · Uᵀ; rows of zeros, as a start token's often is, are not pulled."""
    nonzero = vectors.any(1)
    if not bool(nonzero.any()):
        return vectors.new_zeros(len(vectors), factor.shape[0])
    pulled = factor.pull(vectors[nonzero])
    rows = pulled.new_zeros(len(vectors), factor.shape[0])
    rows[nonzero] = pulled
    return rows
