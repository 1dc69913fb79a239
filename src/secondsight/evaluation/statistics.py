"""Significance: almost stochastic order of two samples of scores (del Barrio et al. 2018; Dror et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from secondsight.errors import InputError


@dataclass(frozen=True)
class Order:
    """How far A is from being stochastically larger than B: `violation` ε in 0 … 1, and the bound `epsilon` on it.

    ε is 0 where A's quantiles are all above B's, 1 where all are below. `epsilon` is at least ε with confidence
    1 − alpha; A is almost stochastically larger where it is below a threshold under 1/2.
    """

    violation: float
    epsilon: float
    confidence: float

    def holds(self, threshold: float = 0.01) -> bool:
        """Whether A almost stochastically dominates B at this threshold."""
        return self.epsilon <= threshold


def violation_ratio(a: Any, b: Any) -> float:
    """ε of two samples: the part of their quantiles' squared distance where B's are above A's; 1/2 where they are equal.

    Quantile functions of samples are steps, so the integral over (0, 1) is exact.
    """
    x, y = _sample(a), _sample(b)
    cuts = np.unique(np.concatenate([np.arange(1, len(x) + 1) / len(x), np.arange(1, len(y) + 1) / len(y)]))
    widths = np.diff(np.concatenate([[0.0], cuts]))
    middles = cuts - widths / 2
    gaps = x[np.minimum((middles * len(x)).astype(int), len(x) - 1)]
    gaps = y[np.minimum((middles * len(y)).astype(int), len(y) - 1)] - gaps
    squared = gaps**2 * widths
    total = squared.sum()
    return 0.5 if total == 0 else float(squared[gaps > 0].sum() / total)


def almost_stochastic_order(
    a: Sequence[float] | Any,
    b: Sequence[float] | Any,
    *,
    confidence: float = 0.95,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Order:
    """Test whether scores A are almost stochastically larger than B.

    `epsilon` = ε − σ̂ √((n + m) / (n m)) Φ⁻¹(1 − confidence), with σ̂ from a bootstrap of √(n m / (n + m)) (ε* − ε)
    (del Barrio et al. 2018, Theorem 3.1). Raises `InputError` for empty samples or numbers that are not finite.
    """
    x, y = _sample(a), _sample(b)
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence!r} is no probability between 0 and 1")
    violation = violation_ratio(x, y)
    generator = np.random.default_rng(seed)
    factor = np.sqrt(len(x) * len(y) / (len(x) + len(y)))
    drawn = [
        violation_ratio(generator.choice(x, len(x)), generator.choice(y, len(y))) for _ in range(max(bootstraps, 2))
    ]
    sigma = float(np.std(factor * (np.asarray(drawn) - violation)))
    bound = violation - sigma / factor * NormalDist().inv_cdf(1 - confidence)
    return Order(violation, float(min(max(bound, 0.0), 1.0)), confidence)


def _sample(values: Any) -> np.ndarray[Any, Any]:
    x = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if not len(x) or not np.isfinite(x).all():
        raise InputError("a sample needs one or more finite numbers")
    return x


def bootstrap_interval(
    values: Any, statistic: Any = np.mean, *, confidence: float = 0.95, bootstraps: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of a statistic of one sample."""
    x = _sample(values)
    generator = np.random.default_rng(seed)
    drawn = [statistic(generator.choice(x, len(x))) for _ in range(bootstraps)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
