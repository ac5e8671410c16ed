"""Intervals and paired tests of figures, by the method that fits each."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

from benchcard.analysis import metric_info
from benchcard.measure.significance import least_p_value
from benchcard.metrics import uncertainty
from benchcard.metrics.examples import Computed, mean_of
from benchcard.metrics.info import FigureUncertainty
from benchcard.run.record import Outcomes
from benchcard.steps.evaluate import CompareOutcome, ScoreOutcome
from benchcard.utils.values import Interval


def test_a_share_in_per_cent_is_scaled():
    """Exact match in per cent has a hundred times the interval, difference and detectable difference of the share."""
    baseline, model = np.array([1.0] * 30 + [0.0] * 10), np.array([0.0] * 8 + [1.0] * 24 + [0.0] * 8)
    share, percent = (
        uncertainty.paired_test(mean_of(whole * baseline, whole), mean_of(whole * model, whole), 0)
        for whole in (1.0, 100.0)
    )
    assert share.p_value == percent.p_value == binomtest(share.better, share.better + share.worse).pvalue
    assert (share.better, share.worse) == (2, 8)
    assert percent.difference.value == pytest.approx(100 * share.difference.value)
    assert percent.difference.low == pytest.approx(100 * share.difference.low)
    assert percent.detectable == pytest.approx(100 * share.detectable)
    expected = binomtest(24, 40).proportion_ci(0.95, "wilson")
    found = uncertainty.interval(mean_of(100 * model, 100.0), 0)
    assert (found.low, found.high) == (pytest.approx(100 * expected.low), pytest.approx(100 * expected.high))


def test_other_figures_are_resampled_by_seed():
    """A mean that is no share has the interval of the bootstrap, which depends on the seed."""
    values = mean_of(np.random.default_rng(0).exponential(size=50))
    assert uncertainty.interval(values, 1) == uncertainty.interval(values, 1) != uncertainty.interval(values, 2)
    assert uncertainty.paired_test(values, values, 1).p_value == 1.0
    test = uncertainty.paired_test(values, values, 1)
    assert uncertainty.figure_uncertainty(uncertainty.interval(values, 1), test).detectable_difference is None


@pytest.mark.parametrize(("models", "draws"), [(1, 1000), (25, 1000), (26, 1040), (40, 1600)])
def test_what_is_slow_is_drawn_no_more_than_the_number_of_models_takes(models, draws):
    """A metric that says nothing of single examples is computed anew for each draw: a thousand times, or as often as a
    difference takes that is to stand being adjusted for so many models.
    """
    calls = 0

    def compute(indices):
        nonlocal calls
        calls += 1
        return 1.0

    found = uncertainty.paired_test(Computed(lambda indices: 0.0, 20), Computed(compute, 20), 0, models=models)
    assert (found.p_value, found.draws, calls) == (2 / (draws + 1), draws, draws + 1)
    assert models * found.p_value < 0.05
    assert uncertainty.figure_uncertainty(found.difference, found).draws == draws


@pytest.mark.parametrize(("models", "draws"), [(1, 5000), (100, 5000), (200, 8000)])
def test_what_is_quick_stands_many_models(models, draws):
    """Figures of examples are drawn often enough that one of 125 models can differ, and more often for more models."""
    values = np.random.default_rng(0).normal(size=30)
    assert uncertainty.paired_test(mean_of(values), mean_of(values + 1 + values / 10), 0, models=models).draws == draws


class Row(dict):
    """The configuration of a row: its parameters, its number and its baseline's."""

    def __init__(self, row, baseline):
        super().__init__(framework="onnxruntime")
        self.row, self.baseline = row, baseline


def of_models(count, draws, p_value=None, start=0):
    """The records of a baseline and so many models, of which one differs by this p-value: by default that which no draw
    contradicts. They are the models of every run with so many, in rows from `start` on.
    """
    p_values = [None, least_p_value(draws) if p_value is None else p_value, *[0.5] * (count - 1)]
    records = [
        SimpleNamespace(
            digest=str(row),
            configuration=Row(start + row, start),
            outcomes=Outcomes(
                score=SimpleNamespace(values=ScoreOutcome(metrics={"longer": 0.5})),
                compare=SimpleNamespace(
                    values=CompareOutcome(
                        figures={"longer": FigureUncertainty(None, None, p_value=p_value, draws=draws)}
                    )
                ),
            ),
        )
        for row, p_value in enumerate(p_values)
    ]
    return SimpleNamespace(records=records, info_of=lambda record: None)


def test_too_few_draws_are_told():
    """Where a difference that no draw contradicts is none, among so many models, it is said how many draws it takes."""
    (told,) = metric_info.too_few_resamples(of_models(40, 1000))
    assert told.startswith("longer: 1,000 resamples can show no difference among 40 models, and the 1,600 that can")
    assert not metric_info.too_few_resamples(of_models(40, 1600))
    assert not metric_info.too_few_resamples(of_models(25, 1000))
    assert not metric_info.too_few_resamples(of_models(40, 1000, 0.02))
    assert not metric_info.too_few_resamples(of_models(40, None, 0.0001))


def test_draws_are_counted_beside_each_baseline():
    """As p-values are adjusted: two baselines with 20 models each are no 40; the same models once more, on other data,
    are looked at there for the first time.
    """
    few = [*of_models(20, 1000).records, *of_models(20, 1000, start=21).records]
    assert not metric_info.too_few_resamples(SimpleNamespace(records=few, info_of=lambda record: None))
    again = [*of_models(40, 1600).records, *of_models(40, 1000, start=41).records]
    (told,) = metric_info.too_few_resamples(SimpleNamespace(records=again, info_of=lambda record: None))
    assert "1,000 resamples can show no difference among 40 models" in told


def test_models_that_agree_everywhere_are_no_certainty():
    """Answers that score alike in all examples have a difference of nothing without bounds, and an F1 of 1 on two
    examples has none either.
    """
    answers = mean_of([50.0, 80.0] * 10, 100.0)
    assert uncertainty.paired_test(answers, answers, 0).difference == Interval(0.0, None, None)
    assert uncertainty.interval(mean_of([3.0, 3.0]), 0) == Interval(3.0, None, None)


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
    """Labels, lists, tags and texts differ where they are unequal; numbers beyond single precision."""
    assert uncertainty.count_changed(baseline, model) == count


def test_scores_in_lists_are_equal_to_single_precision():
    """The scores of a ranking that another framework computes are not all changed; labels are compared as they are."""
    before = [[0.1, 2.0], [0.1, 2.0], [0.1], ["B-PER", "O"], [1, 2]]
    after = [[0.1 + 1e-9, 2.0], [0.11, 2.0], [0.1, 2.0], ["B-PER", "B-LOC"], [1, 2]]
    assert [uncertainty.is_same(*pair) for pair in zip(before, after)] == [True, False, False, False, True]
