"""Many tests at once: images count once, few images say nothing, and noise is claimed no more often than alpha."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from secondsight.answers.significance import above_p, below_p, equivalence_p, image_means, q_values


def table_of(values, groups="w"):
    """One row for each (image, value)."""
    return pd.DataFrame({"image": range(len(values)), "word": groups, "value": values})


def test_means_and_p_values_are_those_of_a_t_test():
    values = np.random.default_rng(0).normal(0.3, 1, 12)
    means = image_means(table_of(values), "word", "value")
    expected = stats.ttest_1samp(values, 0.1)
    assert above_p(means, 0.1)[0] == pytest.approx(stats.ttest_1samp(values, 0.1, alternative="greater").pvalue)
    assert below_p(means, 0.1)[0] == pytest.approx(stats.ttest_1samp(values, 0.1, alternative="less").pvalue)
    interval = expected.confidence_interval(0.95)
    assert (means["low"].iloc[0], means["high"].iloc[0]) == pytest.approx((interval.low, interval.high))


def test_an_image_counts_once():
    rows = pd.DataFrame({"image": [0, 0, 0, 1], "word": "w", "value": [1.0, 1.0, 1.0, 0.0]})
    means = image_means(rows, "word", "value")
    assert means.loc["w", "images"] == 2
    assert means.loc["w", "mean"] == pytest.approx(0.5)
    many = pd.concat([rows] * 50)
    assert above_p(image_means(many, ["word"], "value"))[0] == 1.0


def test_few_images_and_equal_values_claim_little():
    assert above_p(image_means(table_of([1.0, 1.01, 1.02, 1.03]), "word", "value"))[0] == 1.0
    assert above_p(image_means(table_of([1.0] * 6), "word", "value"))[0] == pytest.approx(0.5**6)
    assert below_p(image_means(table_of([1.0] * 6), "word", "value"))[0] == 1.0


def test_equivalence_needs_evidence_of_its_own():
    small, wide = (
        image_means(table_of([-0.01, 0.01] * 8), "word", "value"),
        image_means(table_of([-2, 2] * 8), "word", "value"),
    )
    assert equivalence_p(small, 0.1)[0] < 1e-6
    # A wide spread around zero is no evidence, though no test would find it different from zero.
    assert equivalence_p(wide, 0.1)[0] > 0.4
    assert equivalence_p(small, 0.0)[0] == 1.0


def test_noise_is_claimed_no_more_often_than_alpha():
    generator = np.random.default_rng(1)
    runs = []
    for _ in range(200):
        values = generator.normal(0, 1, (40, 8))
        frame = pd.DataFrame(
            {"image": np.tile(np.arange(8), 40), "word": np.repeat(np.arange(40), 8), "value": values.ravel()}
        )
        runs.append((q_values(above_p(image_means(frame, "word", "value"))) <= 0.05).any())
    assert np.mean(runs) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert len(q_values([])) == 0
