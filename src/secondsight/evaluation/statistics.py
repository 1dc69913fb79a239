"""Significance: almost stochastic order of two samples of scores (del Barrio et al. 2018; Dror et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from secondsight.errors import InputError


def almost_stochastic_order(
    a: Sequence[float] | Any,
    b: Sequence[float] | Any,
    *,
    confidence: float = 0.95,
    bootstraps: int = 1000,
    seed: int = 0,
) -> float:
    """ε_min of "scores A are almost stochastically larger than scores B", 0 … 1, by the package `deepsig`.

    It bounds, with this confidence, the part of the quantiles' squared distance where B's are above A's: A dominates B
    almost where it is below a threshold under 1/2 ([M25] uses 0.01), 1/2 means no order. Raises `InputError` for empty
    samples or numbers that are not finite.
    """
    from deepsig import aso

    x, y = _sample(a), _sample(b)
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence!r} is no probability between 0 and 1")
    if np.array_equal(np.sort(x), np.sort(y)):
        return 0.5  # deepsig divides by the distance of the two, which is zero
    options = {"confidence_level": confidence, "num_bootstrap_iterations": bootstraps, "seed": seed}
    return float(aso(x, y, show_progress=False, **options))


def _sample(values: Any) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64).ravel()
    if not len(x) or not np.isfinite(x).all():
        raise InputError("a sample needs one or more finite numbers")
    return x
