"""Quality figures with intervals and paired tests, against scipy, statsmodels and their definitions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, binomtest, bootstrap, norm

from benchcard.measure.significance import (
    PairedTest,
    bootstrap_metric,
    draws_for,
    holm,
    least_p_value,
    mcnemar,
    paired_bootstrap,
    smallest_detectable_share,
    wilson,
)
from benchcard.utils.values import Interval


def outcomes(both: int, better: int, worse: int, neither: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Right or wrong per example, of the baseline and of the model."""
    baseline = [True] * both + [False] * better + [True] * worse + [False] * neither
    model = [True] * both + [True] * better + [False] * worse + [False] * neither
    return np.array(baseline, dtype=bool), np.array(model, dtype=bool)


def mean_of(values: NDArray[np.float64]) -> Callable[[NDArray[np.intp]], float]:
    return lambda indices: float(values[indices].mean())


@pytest.mark.parametrize(
    ("successes", "examples", "low", "high"),
    [
        (0, 10, 0.0, 0.27753279986288926),
        (10, 10, 0.7224672001371106, 1.0),
        (130, 133, 0.9357817301552714, 0.9922995771801787),
        (911, 1000, 0.8917426484378812, 0.9271117560869926),
        (1, 2, 0.09453120573423068, 0.9054687942657693),
    ],
)
def test_wilson_is_that_of_statsmodels(successes: int, examples: int, low: float, high: float) -> None:
    """The interval of a share agrees to the last digits with what `proportion_confint` of statsmodels 0.15.0 gives."""
    found = wilson(successes, examples)
    assert found.value == successes / examples
    assert found.low == pytest.approx(low, rel=1e-14, abs=1e-15)
    assert found.high == pytest.approx(high, rel=1e-14)


def test_wilson_is_its_formula() -> None:
    """The interval of a share is the root of the score equation."""
    n, share, z = 133, 130 / 133, norm.ppf(0.975)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert wilson(130, 133) == Interval(share, pytest.approx(middle - half), pytest.approx(middle + half))


@pytest.mark.parametrize(
    ("successes", "examples", "said"),
    [
        (0, 0, "at least one example"),
        (3, 2, "0 <= successes <= 2 examples, found 3"),
        (-1, 2, "0 <= successes <= 2 examples, found -1"),
    ],
)
def test_a_share_needs_an_example_and_no_more_successes_than_there_are(
    successes: int, examples: int, said: str
) -> None:
    """What can be no share is refused in our own words, whatever scipy makes of it."""
    with pytest.raises(ValueError, match=said):
        wilson(successes, examples)


@pytest.mark.parametrize(
    ("better", "worse", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (0, 6, 0.03125),
        (12, 5, 0.143463134765625),
        (7, 7, 1.0),
        (40, 71, 0.004195534185394861),
    ],
)
def test_mcnemar_is_that_of_scipy_and_statsmodels(better: int, worse: int, p_value: float) -> None:
    """The exact p-value agrees to the last digits with `mcnemar` of statsmodels 0.15.0, and with scipy's."""
    found = mcnemar(*outcomes(50, better, worse, 30))
    assert found.p_value == pytest.approx(p_value, rel=1e-14)
    if better + worse:
        assert found.p_value == binomtest(better, better + worse).pvalue
    assert (found.examples, found.better, found.worse) == (80 + better + worse, better, worse)
    assert found.difference.value == pytest.approx((better - worse) / found.examples)


def test_the_interval_of_a_paired_difference_is_that_of_agresti_and_min() -> None:
    """One half is added to each cell; the interval holds the difference, and lies within minus one and one."""
    found = mcnemar(*outcomes(794, 150, 86, 570)).difference
    cells = np.array([794.5, 150.5, 86.5, 570.5])
    share = cells / cells.sum()
    centre = share[1] - share[2]
    half = norm.ppf(0.975) * math.sqrt((share[1] + share[2] - centre**2) / cells.sum())
    assert found == Interval(64 / 1600, pytest.approx(centre - half), pytest.approx(centre + half))
    extreme = mcnemar(*outcomes(0, 3, 0, 0)).difference
    assert extreme.value == 1.0
    assert extreme.high == 1.0


@given(st.integers(0, 60), st.integers(0, 15), st.integers(0, 15), st.integers(0, 60))
@settings(deadline=None)
def test_exchanging_the_models_turns_the_comparison_round(both: int, better: int, worse: int, neither: int) -> None:
    """Baseline and model exchanged: the same p-value, the difference with the other sign."""
    if not both + better + worse + neither:
        return
    one = mcnemar(*outcomes(both, better, worse, neither))
    other = mcnemar(*outcomes(both, worse, better, neither))
    assert one.p_value == other.p_value
    assert one.difference.value == -other.difference.value
    assert one.difference.low == pytest.approx(-(other.difference.high or 0.0))
    assert one.difference.low is not None
    assert one.difference.high is not None
    assert one.difference.low <= one.difference.value <= one.difference.high


def test_paired_outcomes_must_be_of_the_same_examples() -> None:
    """Outcomes of other lengths, or none, are refused."""
    right = np.ones(3, dtype=bool)
    with pytest.raises(ValueError, match="same examples"):
        mcnemar(right, right[:2])
    with pytest.raises(ValueError, match="same examples"):
        mcnemar(right[:0], right[:0])


def test_the_bootstrap_is_that_of_scipy() -> None:
    """The interval of a mean agrees to the last digit with scipy's, given the same generator."""
    values = np.random.default_rng(0).exponential(size=80)
    found = bootstrap_metric(mean_of(values), 80, seed=7)
    expected = bootstrap(
        (np.arange(80),),
        mean_of(values),
        vectorized=False,
        n_resamples=1000,
        method="BCa",
        rng=np.random.default_rng(7),
    ).confidence_interval
    assert found == Interval(values.mean(), expected.low, expected.high)
    assert found == bootstrap_metric(mean_of(values), 80, seed=7)
    assert found != bootstrap_metric(mean_of(values), 80, seed=8)


def test_many_examples_are_resampled_without_the_correction() -> None:
    """Beyond a thousand examples the metric is scored once per resample, and no more."""
    calls = 0

    def score(indices: NDArray[np.intp]) -> float:
        nonlocal calls
        calls += 1
        return float(np.mean(indices))

    found = bootstrap_metric(score, 1001, resamples=50)
    assert calls <= 55
    assert found.value == 500.0
    assert found.excludes(600.0)


def test_a_level_for_many_rows_reaches_further_than_the_draws() -> None:
    """Of a thousand draws none lies where the bounds for a thousand rows do: they are where a normal mean has them."""
    values = np.random.default_rng(0).normal(size=400)
    one, many = (bootstrap_metric(mean_of(values), 400, confidence=1 - 0.05 / rows) for rows in (1, 1000))
    error = values.std() / math.sqrt(400)
    for found, reach in ((one, norm.ppf(0.975)), (many, norm.ppf(1 - 0.025 / 1000))):
        assert found.low is not None
        assert found.high is not None
        assert found.value - found.low == pytest.approx(reach * error, rel=0.1)
        assert found.high - found.value == pytest.approx(reach * error, rel=0.1)


def test_a_metric_that_never_changes_has_no_interval() -> None:
    """All examples alike: every resample gives the same, and says nothing of examples that were not there."""
    assert bootstrap_metric(mean_of(np.ones(20)), 20) == Interval(1.0, None, None)


def test_a_few_examples_have_no_interval() -> None:
    """Nine examples are too few to be resampled, ten are not."""
    values = np.random.default_rng(0).normal(size=10)
    assert bootstrap_metric(mean_of(values), 9) == Interval(values[:9].mean(), None, None)
    assert bootstrap_metric(mean_of(values), 10).low is not None
    few = paired_bootstrap(mean_of(values), mean_of(values + 1), 9)
    assert (few.difference.low, few.p_value) == (None, None)


def test_a_metric_that_is_undefined_on_some_examples_has_no_interval() -> None:
    """A metric that gives NaN on a resample has a value and no bounds, and no test either."""

    def score(indices: NDArray[np.intp]) -> float:
        return 1.0 if 0 in indices else math.nan

    assert bootstrap_metric(score, 10) == Interval(1.0, None, None)
    assert bootstrap_metric(score, 1) == Interval(1.0, None, None)
    compared = paired_bootstrap(score, lambda indices: 1.0, 10)
    assert compared.p_value is None
    assert compared.difference.low is None
    with pytest.raises(ValueError, match="example"):
        bootstrap_metric(score, 0)


def test_pairing_shows_what_two_intervals_cannot() -> None:
    """A small difference on every example is seen, though the examples themselves differ far more."""
    draw = np.random.default_rng(0)
    baseline = draw.normal(0, 1, 200)
    model = baseline + 0.05 + draw.normal(0, 0.1, 200)
    compared = paired_bootstrap(mean_of(baseline), mean_of(model), 200, seed=1)
    assert compared.difference.value == pytest.approx(model.mean() - baseline.mean())
    assert compared.difference.excludes(0.0)
    assert compared.p_value is not None
    assert compared.p_value < 0.01
    assert compared.detectable == pytest.approx((1.96 + 0.84) * 0.1 / math.sqrt(200), rel=0.15)
    turned = paired_bootstrap(mean_of(model), mean_of(baseline), 200, seed=1)
    assert turned.difference.value == -compared.difference.value


def test_the_same_predictions_are_no_difference() -> None:
    """A model that is the baseline differs by nothing, with a p-value of one; how far it would differ on other examples
    is not known from these.
    """
    values = np.random.default_rng(0).normal(size=50)
    compared = paired_bootstrap(mean_of(values), mean_of(values), 50)
    assert compared.difference == Interval(0.0, None, None)
    assert compared.p_value == 1.0


def test_a_difference_that_never_changes_is_one_all_the_same() -> None:
    """Better by as much on every draw: a small p-value, and no bounds."""
    compared = paired_bootstrap(mean_of(np.zeros(20)), mean_of(np.ones(20)), 20)
    assert compared.difference == Interval(1.0, None, None)
    assert compared.p_value is not None
    assert compared.p_value < 0.01


def test_one_of_many_models_can_differ() -> None:
    """The p-value of a difference that no draw contradicts stands being adjusted for a hundred models."""
    values = np.random.default_rng(0).normal(size=60)
    models = mean_of(values), mean_of(values + 1 + values / 10)
    p_value = paired_bootstrap(*models, 60, max_resamples=draws_for(100)).p_value
    assert p_value is not None
    assert holm([p_value] + [0.5] * 99)[0] < 0.05
    assert paired_bootstrap(*models, 60).p_value == 2 / 1001


@pytest.mark.parametrize("models", [1, 2, 25, 26, 40, 125, 1000])
def test_the_draws_are_as_many_as_the_correction_needs(models: int) -> None:
    """With so many draws one of so many models can differ detectably, with one less none can."""
    draws = draws_for(models)
    assert holm([least_p_value(draws)] + [0.5] * (models - 1))[0] < 0.05
    assert holm([least_p_value(draws - 1)] + [0.5] * (models - 1))[0] >= 0.05


def test_draws_that_would_take_too_long_are_not_made() -> None:
    """More draws than the first are all made or none, by how long the first took; the comparison says how many."""
    values = np.random.default_rng(0).normal(size=60)
    other = mean_of(values + 1)

    now = 0.0

    def slow(indices: NDArray[np.intp]) -> float:
        nonlocal now
        now += 0.002
        return other(indices)

    def compare(max_resamples: int) -> PairedTest:
        first, limits = mean_of(values), {"max_resamples": max_resamples, "max_s": 1}
        return paired_bootstrap(first, slow, 60, resamples=100, **limits, clock=lambda: now)

    quick = paired_bootstrap(mean_of(values), other, 60, max_resamples=1600)
    assert (quick.p_value, quick.draws) == (2 / 1601, 1600)
    late = compare(1600)
    assert (late.p_value, late.draws) == (2 / 101, 100)
    assert compare(120).draws == 120


def test_paired_p_values_are_right_by_chance_alone() -> None:
    """Where there is no difference, five tests in a hundred say that there is one."""
    draw = np.random.default_rng(2)
    found = 0
    for number in range(100):
        differences = draw.normal(size=60)
        p_value = paired_bootstrap(lambda _: 0.0, mean_of(differences), 60, seed=number, resamples=200).p_value
        found += p_value is not None and p_value < 0.05
    assert found <= 12


@pytest.mark.parametrize(("examples", "changed"), [(200, 20), (1000, 30), (5000, 400), (300, 300)])
def test_the_detectable_share_solves_connors_equation(examples: int, changed: int) -> None:
    """Put back into the sample size formula, the difference needs just this many examples."""
    difference, share = smallest_detectable_share(examples, changed), changed / examples
    root = norm.ppf(0.975) * math.sqrt(share) + norm.ppf(0.8) * math.sqrt(share - difference**2)
    assert (root / difference) ** 2 == pytest.approx(examples)


def test_the_detectable_share_is_shown_four_times_in_five() -> None:
    """Simulated models that differ by it are told apart by the test with about that chance."""
    examples, share = 800, 0.1
    difference = smallest_detectable_share(examples, round(share * examples))
    draw = np.random.default_rng(0)
    better, worse = (share + difference) / 2, (share - difference) / 2
    counts = draw.multinomial(examples, [better, worse, 1 - share], 400)
    told = sum(binomtest(int(row[0]), int(row[0] + row[1])).pvalue < 0.05 for row in counts if row[0] + row[1])
    assert 0.68 <= told / 400 <= 0.88


@pytest.mark.parametrize("examples", [6, 20, 300, 5000])
def test_six_changed_examples_are_found_four_times_in_five(examples: int) -> None:
    """Where nothing changed, a difference still needs the six examples of the exact test, and needs to be so large that
    this many are found with the chance that is promised.
    """
    assert binomtest(6, 6).pvalue < 0.05 <= binomtest(5, 5).pvalue
    found = smallest_detectable_share(examples, 0)
    assert binom.sf(5, examples, found) == pytest.approx(0.8)
    assert smallest_detectable_share(5, 0) == 1.0
    with pytest.raises(ValueError, match="changed"):
        smallest_detectable_share(3, 4)


def test_holm_is_that_of_statsmodels() -> None:
    """Adjusted p-values agree with `multipletests` of statsmodels 0.15.0."""
    p_values = [0.127, 0.054, 0.008, 0.003, 0.163, 0.183, 0.121, 0.146, 0.109]
    expected = [0.654, 0.378, 0.064, 0.027, 0.654, 0.654, 0.654, 0.654, 0.654]
    assert holm(p_values) == pytest.approx(expected, rel=1e-14)


def test_holm_of_a_table() -> None:
    """Three of four by hand: the smallest times four, the next times three, never less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_bounds_that_are_one_number_are_none():
    """An F1 of 1 is no certainty, though a draw without a positive example, of which F1 is 0, tells draws apart."""
    right = np.array([1] * 4 + [0] * 16)

    def f1(indices: NDArray[np.intp]) -> float:
        return float(right[indices].any())

    assert bootstrap_metric(f1, 20, seed=0) == Interval(1.0, None, None)


def test_a_difference_of_few_changed_examples_seldom_excludes_nothing():
    """Of equal models that a handful of predictions tell apart, about one in twenty intervals excludes 0."""

    def mean_of(values: NDArray[np.float64]) -> Callable[[NDArray[np.intp]], float]:
        return lambda indices: float(values[indices].mean())

    draw, excluded, runs = np.random.default_rng(3), 0, 200
    for run in range(runs):
        apart = np.concatenate([draw.choice([-1.0, 1.0], 5), np.zeros(395)])
        found = paired_bootstrap(lambda _: 0.0, mean_of(apart), 400, seed=run)
        low, high = found.difference.low, found.difference.high
        excluded += low is not None and high is not None and not low <= 0 <= high
    assert excluded <= 0.08 * runs


def test_an_interval_holds_its_own_figure() -> None:
    """Also of a metric that examples which repeat move to one side, as the mean average precision."""

    def distinct(indices: NDArray[np.intp]) -> float:
        return len(np.unique(indices)) / 40

    estimate = bootstrap_metric(distinct, 40)
    assert estimate.low is not None
    assert estimate.low < 0.7
    assert estimate.value == estimate.high == 1
