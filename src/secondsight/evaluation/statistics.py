"""Significance: almost stochastic order of two samples of scores (del Barrio et al. 2018; Dror et al. 2019).

Tests compare it with the package deepsig, which takes seconds for each comparison; comparing all layers of a model needs
hundreds.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from secondsight.support.errors import InputError


def violation_ratio(a: Any, b: Any) -> float:
    """ε of two samples: the share of their quantiles' squared distance where B's are above A's; 1/2 for equal samples.

    Quantile functions of samples are steps, so the integral over (0, 1) is exact.
    """
    x, y = _sample(a), _sample(b)
    widths, at_x, at_y = _steps(len(x), len(y))
    return float(_ratio((y[at_y] - x[at_x])[None], widths)[0])


def almost_stochastic_order(
    a: Sequence[float] | Any,
    b: Sequence[float] | Any,
    *,
    confidence: float = 0.95,
    bootstraps: int = 1000,
    seed: int = 0,
) -> float:
    """ε_min of "scores A are almost stochastically larger than scores B", 0 … 1.

    An upper bound, with this confidence, of the violation ratio ε: A almost dominates B if it is below a threshold under
    1/2 ([M25] uses 0.01), and 1/2 means no order. ε_min = ε − σ̂ √((n + m) / (n m)) Φ⁻¹(1 − confidence) with σ̂ the bootstrap's
    standard deviation of √(n m / (n + m)) (ε* − ε) (del Barrio et al. 2018). Raises `InputError` for empty samples or
    numbers that are not finite.
    """
    x, y = _sample(a), _sample(b)
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence!r} must lie between 0 and 1")
    violation = violation_ratio(x, y)
    generator = np.random.default_rng(seed)
    widths, at_x, at_y = _steps(len(x), len(y))
    ratios = []
    for part in np.array_split(np.arange(max(bootstraps, 2)), max(bootstraps * len(widths) // 2_000_000, 1)):
        resampled_x, resampled_y = (np.sort(generator.choice(v, (len(part), len(v))), axis=1) for v in (x, y))
        ratios.append(_ratio(resampled_y[:, at_y] - resampled_x[:, at_x], widths))
    spread = float(np.std(np.concatenate(ratios) - violation))
    # The two factors √(n m / (n + m)) cancel.
    bound = violation - spread * NormalDist().inv_cdf(1 - confidence)
    return float(min(max(bound, 0.0), 1.0))


def _steps(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intervals on which two step functions with n and m equal steps are constant: widths, and both functions' steps."""
    cuts = np.unique(np.concatenate([np.arange(1, n + 1) / n, np.arange(1, m + 1) / m]))
    widths = np.diff(np.concatenate([[0.0], cuts]))
    middles = cuts - widths / 2
    return widths, np.minimum((middles * n).astype(int), n - 1), np.minimum((middles * m).astype(int), m - 1)


def _ratio(gaps: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Violation ratios of rows of gaps, B's quantiles less A's."""
    squared = gaps**2 * widths
    total = squared.sum(1)
    violated = np.where(gaps > 0, squared, 0.0).sum(1)
    return np.where(total > 0, violated / np.where(total > 0, total, 1.0), 0.5)


def _sample(values: Any) -> np.ndarray:
    x = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if not len(x) or not np.isfinite(x).all():
        raise InputError("a sample needs at least one number, and only finite numbers")
    return x
