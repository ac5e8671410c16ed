"""Intervals and paired tests of figures, by the method that fits each."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from benchcard.measure import quality
from benchcard.measure.statistics import Interval
from benchcard.metrics.examples import Computed, mean_of


def test_a_share_in_per_cent_is_scaled():
    """Exact match in per cent has a hundred times the interval, difference and detectable difference of the share."""
    baseline, model = np.array([1.0] * 30 + [0.0] * 10), np.array([0.0] * 8 + [1.0] * 24 + [0.0] * 8)
    share, percent = (
        quality.comparison(mean_of(whole * baseline, whole), mean_of(whole * model, whole), 0) for whole in (1.0, 100.0)
    )
    assert share.p_value == percent.p_value == binomtest(share.better, share.better + share.worse).pvalue
    assert (share.better, share.worse) == (2, 8)
    assert percent.difference.value == pytest.approx(100 * share.difference.value)
    assert percent.difference.low == pytest.approx(100 * share.difference.low)
    assert percent.detectable == pytest.approx(100 * share.detectable)
    expected = binomtest(24, 40).proportion_ci(0.95, "wilson")
    found = quality.interval(mean_of(100 * model, 100.0), 0)
    assert (found.low, found.high) == (pytest.approx(100 * expected.low), pytest.approx(100 * expected.high))


def test_other_figures_are_resampled_by_seed():
    """A mean that is no share has the bootstrap's interval: the same for the same seed, another for another."""
    values = mean_of(np.random.default_rng(0).exponential(size=50))
    assert quality.interval(values, 1) == quality.interval(values, 1) != quality.interval(values, 2)
    assert quality.comparison(values, values, 1).p_value == 1.0
    assert (
        quality.as_values(quality.interval(values, 1), quality.comparison(values, values, 1))["detectable_difference"]
        is None
    )


def test_what_is_slow_is_drawn_a_thousand_times_and_no_more():
    """A metric that says nothing of single examples is computed anew for each draw, for a small p-value too."""
    calls = 0

    def compute(indices):
        nonlocal calls
        calls += 1
        return 1.0

    found = quality.comparison(Computed(lambda indices: 0.0, 20), Computed(compute, 20), 0)
    assert (found.p_value, calls) == (2 / 1001, 1001)


def test_models_that_agree_everywhere_are_no_certainty():
    """Answers that score alike in all examples have a difference of nothing without bounds, and an F1 of 1 on two
    examples has none either.
    """
    answers = mean_of([50.0, 80.0] * 10, 100.0)
    assert quality.comparison(answers, answers, 0).difference == Interval(0.0, None, None)
    assert quality.interval(mean_of([3.0, 3.0]), 0) == Interval(3.0, None, None)


@pytest.mark.parametrize(
    ("baseline", "model", "count"),
    [
        ([1, 2, 3], [1, 0, 0], 2),
        ([[0, 1], [1, 1]], [[0, 1], [1, 0]], 1),
        ([0.5, 0.25], [0.5 + 1e-7, 0.3], 1),
        ([["O", "B-X"]], [["O", "O"]], 1),
        ([{"id": "1", "prediction_text": "a"}], [{"id": "1", "prediction_text": "a", "no_answer_probability": 1}], 0),
    ],
)
def test_predictions_that_changed(baseline, model, count):
    """Labels, lists, tags and texts differ when they are not equal; numbers beyond the digits of single precision."""
    assert quality.changed(baseline, model) == count
