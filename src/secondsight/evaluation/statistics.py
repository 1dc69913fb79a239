"""Significance: almost stochastic order of two samples of scores (del Barrio et al. 2018; Dror et al. 2019), and paired tests.

Tests compare the order with the package deepsig, which takes seconds for each comparison; comparing all layers of a model
needs hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from secondsight.support.errors import InputError

_FIRST_DRAWS = 999
"""Random sign patterns that tell whether more of them are worth looking at."""


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


def standardised_difference(a: Any, b: Any) -> float:
    """(mean of A − mean of B) / √((variance of A + variance of B) / 2); NaN where neither sample varies."""
    x, y = _sample(a), _sample(b)
    spread = float(np.sqrt((x.var() + y.var()) / 2))
    return float(x.mean() - y.mean()) / spread if spread > 0 else float("nan")


def bootstrap_interval(
    values: Any,
    groups: Any,
    statistic: Callable[..., Any] = np.mean,
    *,
    confidence: float = 0.95,
    bootstraps: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of a statistic when groups of values are drawn anew, such as all cases of an image.

    `groups` names each value's group; values of a group are never separated, as they are not independent.
    """
    x = np.asarray(values, dtype=np.float64)
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(codes.max()) + 1
    drawn = np.random.default_rng(seed).integers(0, count, (bootstraps, count))
    if statistic is np.mean:
        estimates: Any = np.bincount(codes, weights=x)[drawn].sum(1) / np.bincount(codes)[drawn].sum(1)
    else:
        members = [np.flatnonzero(codes == code) for code in range(count)]
        estimates = [float(statistic(x[np.concatenate([members[i] for i in row])])) for row in drawn]
    tail = (1 - confidence) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return float(low), float(high)


def sign_flip_p(differences: Any, groups: Any, *, draws: int = 9999, seed: int = 0) -> float:
    """Two-sided p of "paired differences have the mean zero", by flipping the signs of whole groups at random.

    All sign patterns are looked at where they are no more than `draws`; otherwise p = (1 + as extreme) / (1 + draws).
    """
    x = np.asarray(differences, dtype=np.float64)
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.bincount(codes, weights=x)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    # Sums of the same numbers in another order differ by rounding only.
    observed = abs(sums.sum()) * (1 - 1e-12)
    if 2 ** len(sums) <= draws:
        signs = 1 - 2 * (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1)
        return float((np.abs(signs @ sums) >= observed).mean())
    generator, extreme = np.random.default_rng(seed), 1
    for block in _blocks(draws, len(sums)):
        signs = 1 - 2 * generator.integers(0, 2, (block, len(sums)))
        extreme += int((np.abs(signs @ sums) >= observed).sum())
    return extreme / (1 + draws)


def staged_sign_flip_p(differences: Any, groups: Any, *, draws: int, promising: float, seed: int = 0) -> float:
    """`sign_flip_p` that makes all `draws` only where few of them give a p of at most `promising`.

    Among many tests a p must be small to count, which takes more draws than are worth making for every test.
    """
    p = sign_flip_p(differences, groups, draws=min(draws, _FIRST_DRAWS), seed=seed)
    if p > promising or draws <= _FIRST_DRAWS:
        return p
    return sign_flip_p(differences, groups, draws=draws, seed=seed)


def _blocks(rows: int, width: int) -> list[int]:
    """Numbers of rows of about four million entries each, `rows` together."""
    most = max(4_000_000 // width, 1)
    return [min(most, rows - start) for start in range(0, rows, most)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: below a level, they keep the chance of any false finding among all below it (Holm 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min((len(p_values) - rank) * p_values[index], 1.0))
        adjusted[index] = largest
    return adjusted


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
