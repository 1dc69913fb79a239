"""Contribution vectors of a path, computed when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.factors import DenseFactor, Factor
from secondsight.encoders.base import Encoder, check_finite
from secondsight.paths.line import Path
from secondsight.paths.pooled import PooledPath
from secondsight.paths.quadrature import Rule
from secondsight.support.guard import differentiable, untouched


class PathFactor(Factor):
    """The vectors U of a path under a quadrature rule; `pull` and `push` take one derivative a node instead of U.

    Explanations compute parts long after they were made, so every call prepares the model and puts it back. `total` is
    Σ_i U_i, known from the quadrature. Vectors that were computed once are kept.
    """

    def __init__(self, path: Path, rule: Rule, total: Float[Tensor, " joint"], encoder: Encoder) -> None:
        self.path, self.rule, self.encoder, self._total = path, rule, encoder, total
        self._computed: DenseFactor | None = None
        self.shape, self.dtype, self.closed_form = (path.positions, len(total)), path.dtype, path.closed_form
        self.pull_cost = len(rule) * path.work
        self.vectors_cost = self.pull_cost * min(self.shape)

    def vectors(self) -> Float[Tensor, "position joint"]:
        """U; `InputError` where it holds NaN or infinity."""
        return self._dense().tensor

    def total(self) -> Float[Tensor, " joint"]:
        """Σ_i U_i in double precision."""
        return self._total.double() if self._computed is None else self._computed.total()

    def push(self, weights: Float[Tensor, " position"]) -> Float[Tensor, " joint"]:
        """Σ_i w_i U_i by one tangent a node."""
        if self._computed is not None:
            return self._computed.push(weights)
        with self._guarded():
            return self.path.push(self.rule, weights)

    def pull(self, directions: Float[Tensor, "row joint"]) -> Float[Tensor, "row position"]:
        """directions · Uᵀ by one cotangent a direction and node."""
        if self._computed is not None:
            return self._computed.pull(directions)
        with self._guarded():
            return self.path.pull(self.rule, directions)

    def vectors_by_head(self) -> Float[Tensor, "head position joint"]:
        """U split by the heads of the last block, where the path is its closed form; see `PooledPath.vectors_by_head`."""
        if not isinstance(self.path, PooledPath):
            return super().vectors_by_head()
        with self._guarded():
            return self.path.vectors_by_head(self.rule)

    def __reduce__(self) -> tuple[type[DenseFactor], tuple[Tensor]]:
        """Other processes get the vectors, not the model."""
        return DenseFactor, (self.vectors(),)

    def _dense(self) -> DenseFactor:
        if self._computed is None:
            with self._guarded():
                vectors = self.path.vectors(self.rule)
            check_finite(self.encoder, vectors, None)
            self._computed = DenseFactor(vectors)
            self.pull_cost = self.vectors_cost = 0.0
        return self._computed

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with untouched(self.encoder.module), differentiable():
            yield
