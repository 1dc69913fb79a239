"""What a table of many tests may claim: means over images with their tests, and false discovery rates over all of them.

Cases of one image are not independent: they are averaged first, and an image counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from secondsight.support.errors import InputError

MOST_OUTLIERS = 20
"""Values of a few thousand that may be outliers; of more, a hundredth."""

FEWEST = 5
"""Images below which a mean is not tested: its p-value is 1."""


def check_alpha(alpha: float) -> None:
    """`InputError` for an alpha that is no rate between 0 and 1."""
    if not 0 < alpha < 1:
        raise InputError(f"alpha={alpha!r} must lie between 0 and 1, such as 0.05")


def q_values(p_values: Any) -> Float[np.ndarray, " test"]:
    """Benjamini and Hochberg's adjusted p-values, in their order (Benjamini & Hochberg 1995).

    Where everything with q ≤ alpha is claimed, the expected share of false claims is at most alpha. Values must lie in 0 … 1;
    NaN stands for what is not tested, and stays NaN.
    """
    q = np.array(p_values, dtype=np.float64)
    tested = ~np.isnan(q)
    if tested.any():
        q[tested] = stats.false_discovery_control(q[tested], method="bh")
    return q


def sign_test_p(more: int, fewer: int) -> float:
    """Two-sided exact p of "cases become better as often as worse"; of pairs of right and wrong answers, McNemar's test.

    1 where nothing changed.
    """
    return float(stats.binomtest(more, more + fewer).pvalue) if more + fewer else 1.0


def image_means(
    table: pd.DataFrame, by: str | Sequence[str], value: str, *, image: str = "image", confidence: float = 0.95
) -> pd.DataFrame:
    """The mean of a column for each group of rows, where an image counts once, however many rows of the group it has.

    Rows of the result are named by the group; columns are `images`, `mean`, the images' standard deviation `sd` (NaN for
    one image) and the interval `low` … `high` of the mean by Student's t.
    """
    names = [by] if isinstance(by, str) else list(by)
    of_images = table.groupby([*names, image], observed=True)[value].mean()
    groups = of_images.groupby(level=names if len(names) > 1 else names[0], observed=True)
    means = pd.DataFrame({"images": groups.size(), "mean": groups.mean(), "sd": groups.std()})
    degrees = np.maximum(means["images"] - 1, 1)
    half = stats.t.ppf((1 + confidence) / 2, degrees) * means["sd"] / np.sqrt(means["images"])
    return means.assign(low=means["mean"] - half, high=means["mean"] + half)


def above_p(means: pd.DataFrame, bound: float = 0.0) -> Float[np.ndarray, " group"]:
    """One-sided p of "the mean is at most `bound`" for every row of `image_means`, by Student's t.

    1 below five images. Images that all have the same value count as signs, as their spread says nothing.
    """
    return _one_sided(means, means["mean"].to_numpy() - bound)


def below_p(means: pd.DataFrame, bound: float = 0.0) -> Float[np.ndarray, " group"]:
    """One-sided p of "the mean is at least `bound`", as `above_p`."""
    return _one_sided(means, bound - means["mean"].to_numpy())


def equivalence_p(means: pd.DataFrame, bound: float) -> Float[np.ndarray, " group"]:
    """p of "the mean is at least `bound` away from zero", by two one-sided tests (Schuirmann 1987).

    A small one says that the mean is close to zero, which no large p of another test can say. 1 where `bound` is not positive.
    """
    if not bound > 0:
        return np.ones(len(means))
    return np.maximum(above_p(means, -bound), below_p(means, bound))


def _one_sided(means: pd.DataFrame, distance: Float[np.ndarray, " group"]) -> Float[np.ndarray, " group"]:
    images, sd = means["images"].to_numpy(), means["sd"].to_numpy()
    constant = ~(sd > 1e-12 * np.abs(distance))
    error = np.where(constant, 1.0, sd) / np.sqrt(images)
    p = stats.t.sf(distance / error, np.maximum(images - 1, 1))
    p = np.where(constant, np.where(distance > 0, 0.5**images, 1.0), p)
    return np.where(images < FEWEST, 1.0, p)


def wilson(right: int, whole: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    interval = stats.binomtest(right, whole).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def outlier_p(values: Any) -> Float[np.ndarray, " entry"]:
    """p of "this value belongs to the upper tail of the others", for every value; 1 for all but the largest few.

    A skewed distribution always has large values. A gamma distribution (the normal one where there is no skew to the right) is
    laid through the values' 10, 50 and 90 % points, which outliers hardly move, and values are put as −log of its upper tail:
    if it is right they are exponential above any edge. As it never is quite right, their slope is taken from the values below
    the largest few (a hundredth, of few values a twentieth); the excess of each of these over them, in units of that slope of r
    spacings, then follows F(2, 2r) (Rényi 1953). A tail heavier than an exponential one is outliers to this test.

    Equal values are one test; below 20 values all are 1. The p-values below 1 are those for `q_values`.
    """
    x, place = np.unique(np.asarray(values, dtype=np.float64).round(9), return_inverse=True)
    candidates = max(len(x) // 100, min(len(x) // 20, MOST_OUTLIERS))
    spacings = 4 * candidates
    p = np.ones(len(x))
    if candidates:
        surprise = _surprise(x)
        tail = surprise[-(candidates + spacings) :] - surprise[-(candidates + spacings) - 1]
        edge = tail[spacings - 1]
        # Those above the edge are known to be above it: a censored sample.
        slope = (tail[:spacings].sum() + candidates * edge) / spacings
        p[-candidates:] = stats.f.sf((tail[spacings:] - edge) / slope, 2, 2 * spacings)
    return p[place]


def _surprise(x: Float[np.ndarray, " value"]) -> Float[np.ndarray, " value"]:
    """−log of the upper tail of the gamma distribution through the 10, 50 and 90 % points of sorted values."""
    low, middle, high = np.quantile(x, [0.1, 0.5, 0.9])
    skews = np.linspace(0, 3, 61)
    points = np.stack([stats.pearson3.ppf(share, skews) for share in (0.1, 0.5, 0.9)])
    lopsided = (points[2] + points[0] - 2 * points[1]) / (points[2] - points[0])
    skew = np.interp((high + low - 2 * middle) / (high - low), lopsided, skews)
    standard_low, standard_middle, standard_high = stats.pearson3.ppf([0.1, 0.5, 0.9], skew)
    z = (x - middle) * (standard_high - standard_low) / (high - low) + standard_middle
    return -np.log(np.maximum(stats.pearson3.sf(z, skew), 1e-300))
