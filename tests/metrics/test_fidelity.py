"""Figures of fidelity: each against another library on random cases, and their intervals by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from scripts import load_benchmark

from benchcard.metrics import fidelity, info
from benchcard.metrics.examples import Computed, mean_of
from benchcard.utils.values import Interval

CASES = 1000


simulation = load_benchmark("fidelity")


def test_divergences_are_those_of_scipy_and_torch():
    """On a thousand random models, of 1 to 20 labels and logits up to 300, the divergence is that of scipy and torch;
    it is 0 for equal logits, and for logits that differ by a constant.
    """
    draw = np.random.default_rng(1)
    units = 20
    for _ in range(CASES // units):
        labels = draw.integers(1, 21)
        baseline = draw.normal(0, 10 ** draw.uniform(-2, 2), (units, labels)).astype(np.float32)
        model = baseline + draw.normal(0, 10 ** draw.uniform(-4, 1), baseline.shape).astype(np.float32)
        found = fidelity.label_divergences(baseline, model)
        logs = [torch.log_softmax(torch.tensor(logits, dtype=torch.float64), -1) for logits in (model, baseline)]
        expected = torch.nn.functional.kl_div(*logs, reduction="none", log_target=True).sum(-1)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-9, atol=1e-13)
        if np.abs(baseline).max() < 100:
            softmaxes = (scipy.special.softmax(logits.astype(np.float64), axis=-1) for logits in (baseline, model))
            np.testing.assert_allclose(found, scipy.stats.entropy(*softmaxes, axis=-1), rtol=1e-6, atol=1e-12)
        assert (found >= 0).all()
        np.testing.assert_allclose(fidelity.label_divergences(baseline, baseline), 0, atol=0)
        exact = baseline.astype(np.float64)
        np.testing.assert_allclose(fidelity.label_divergences(exact, exact + 8), 0, atol=1e-12)


def test_divergences_of_independent_labels_are_summed():
    """The divergence of several labels is the sum of those of their sigmoids, as torch has it."""
    draw = np.random.default_rng(2)
    units = 20
    for _ in range(CASES // units):
        baseline = draw.normal(0, 10 ** draw.uniform(-1, 0.7), (units, draw.integers(1, 9)))
        model = baseline + draw.normal(0, 0.5, baseline.shape)
        expected = torch.distributions.kl_divergence(
            *(torch.distributions.Bernoulli(logits=torch.tensor(logits)) for logits in (baseline, model))
        ).sum(-1)
        np.testing.assert_allclose(fidelity.binary_divergences(baseline, model), expected.numpy(), rtol=1e-6, atol=1e-9)


def next_tokens(logits, most):
    """The most likely tokens by logits `(positions, vocabulary)`, and the probability of all others."""
    log_probs = scipy.special.log_softmax(logits, axis=-1)
    tokens = np.argsort(-log_probs, axis=-1)[:, :most]
    kept = np.take_along_axis(log_probs, tokens, axis=-1)
    return fidelity.NextTokens(tokens.astype(np.int32), kept, np.maximum(0, 1 - np.exp(kept).sum(-1)))


@pytest.mark.parametrize("noise", [1e-3, 0.03, 1.0])
def test_next_tokens_of_the_whole_vocabulary_have_the_whole_divergence(noise):
    """Where all tokens are kept, the divergence is that of the labels of a classifier, at each position."""
    draw = np.random.default_rng(11)
    baseline = draw.normal(0, 3, (5000, 20))
    model = baseline + draw.normal(0, noise, baseline.shape)
    found = fidelity.next_token_divergences(next_tokens(baseline, 20), next_tokens(model, 20))
    np.testing.assert_allclose(found, fidelity.label_divergences(baseline, model), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.5])
def test_the_most_likely_next_tokens_show_what_they_hold_of_the_divergence(noise):
    """Of a vocabulary of 5,000 tokens, whose probabilities fall as those of words do, 64 are kept. The divergence is
    too small by about the probability of the others, by half of it more at most, and never too large.
    """
    draw = np.random.default_rng(12)
    ranks = np.log(np.arange(1, 5001))
    baseline = draw.permuted(-1.5 * np.broadcast_to(ranks, (300, 5000)), axis=1) + draw.normal(0, 1, (300, 5000))
    model = baseline + draw.normal(0, noise, baseline.shape)
    before, after = next_tokens(baseline, 64), next_tokens(model, 64)
    found = fidelity.next_token_divergences(before, after).mean()
    whole = fidelity.label_divergences(baseline, model).mean()
    rest = before.rest.mean()
    assert 0.05 < rest < 0.4
    assert 1 - 1.5 * rest < found / whole < 1.02


def test_a_model_with_other_next_tokens_is_far_from_its_baseline():
    """Where no token is among the most likely of both, the divergence is large, and finite; also where the rest of one
    of them is nothing.
    """
    tokens = np.arange(8, dtype=np.int32).reshape(1, 8)
    log_probs = np.log(np.full((1, 8), 0.99 / 8))
    rest = np.asarray([0.01])
    before, after = (fidelity.NextTokens(tokens + first, log_probs, rest) for first in (0, 100))
    (found,) = fidelity.next_token_divergences(before, after)
    assert found > math.log(0.99 / 8 / 0.01)
    certain = fidelity.NextTokens(tokens + 100, log_probs, np.asarray([0.0]))
    (found,) = fidelity.next_token_divergences(before, certain)
    assert 10 < found < math.inf


def test_figures_of_divergences_are_those_of_numpy():
    """Mean, median, 99th percentile and maximum are NumPy's on a thousand random cases, inside their intervals; a
    maximum has none.
    """
    draw = np.random.default_rng(3)
    for _ in range(CASES):
        values = draw.gamma(0.5, 10 ** draw.uniform(-9, 0), draw.integers(1, 500))
        owners = np.sort(draw.integers(0, len(values), len(values)))
        owners = np.unique(owners, return_inverse=True)[1]
        figures = fidelity.divergence_figures(values, owners)
        expected = (values.mean(), np.median(values), np.quantile(values, 0.99), values.max())
        assert [figure.value for figure in figures.values()] == pytest.approx(expected)
        for figure in figures.values():
            if figure.low is not None:
                assert 0 <= figure.low <= figure.value <= figure.high
        assert figures["kl_max"].low is None


def test_predictions_are_counted():
    """A thousand random cases: agreement, lost, gained and swapped are those of a table of all pairs."""
    draw = np.random.default_rng(4)
    for _ in range(CASES):
        before, after, right = draw.integers(0, 3, (3, draw.integers(1, 40))).tolist()
        figures = fidelity.prediction_figures(before, after, right, np.arange(len(before)))
        table = list(zip(before, after, right))
        assert figures["agreement"].value == pytest.approx(sum(b == a for b, a, _ in table) / len(table))
        assert figures["lost"].value == sum(b == r != a for b, a, r in table)
        assert figures["gained"].value == sum(b != r == a for b, a, r in table)
        assert figures["swapped"].value == sum(b != r and a not in (r, b) for b, a, r in table)
        assert set(fidelity.prediction_figures(before, after, None, np.arange(len(before)))) == {"agreement"}


def test_numbers_differ_by_the_root_of_the_mean_square():
    """The RMS difference is that of scikit-learn on a thousand random cases."""
    from sklearn.metrics import root_mean_squared_error

    draw = np.random.default_rng(5)
    for _ in range(CASES):
        baseline, model = draw.normal(size=(2, draw.integers(1, 60)))
        figure = fidelity.rms_difference(baseline, model)
        assert figure.value == pytest.approx(root_mean_squared_error(baseline, model))
        assert figure.low is None or figure.low <= figure.value <= figure.high


def test_neighbors_are_those_of_scikit_learn():
    """The overlap of the ten nearest is that of scikit-learn's nearest neighbours; all texts are asked up to 500."""
    from sklearn.neighbors import NearestNeighbors

    draw = np.random.default_rng(6)
    for texts in (21, 100, 500):
        baseline = draw.normal(size=(texts, 8)).astype(np.float32)
        model = baseline + draw.normal(0, 0.5, baseline.shape).astype(np.float32)
        nearest = [
            NearestNeighbors(n_neighbors=11, metric="cosine").fit(array).kneighbors(array, return_distance=False)[:, 1:]
            for array in (baseline, model)
        ]
        expected = np.mean([len({*first} & {*second}) / 10 for first, second in zip(*nearest)])
        assert fidelity.neighbor_overlap(baseline, model, 0).value == pytest.approx(expected, abs=1e-9)
    models = [np.concatenate([array, -array]) for array in (baseline, model)]
    assert fidelity.neighbor_overlap(*models, 0) != fidelity.neighbor_overlap(*models, 1)


def test_neighbors_that_are_equal_or_few():
    """Equal models overlap entirely, also where many texts are the same, or their embeddings are 0. Of 20 texts or
    fewer, ten are most of them, and there is no figure.
    """
    draw = np.random.default_rng(7)
    few = draw.normal(size=(4, 6)).astype(np.float32)
    many = np.repeat(few, 30, axis=0)
    rounded = many + draw.normal(0, 1e-7, many.shape).astype(np.float32)
    assert fidelity.neighbor_overlap(many, rounded, 0) == Interval(1.0)
    assert fidelity.neighbor_overlap(np.zeros((30, 4)), np.zeros((30, 4)), 0) == Interval(1.0)
    assert fidelity.neighbor_overlap(many[:20], many[:20], 0) is None


def test_what_says_nothing_has_no_interval():
    """There are no bounds for fewer than ten examples, for equal values, and for a quantile that few examples reach."""
    every = np.arange(400)
    assert fidelity.mean(np.arange(9.0), every[:9]) == Interval(4.0)
    assert fidelity.mean(np.full(50, 0.1), every[:50]) == Interval(pytest.approx(0.1))
    assert fidelity.mean(np.tile([1.0, 3.0], 25), every[:50] // 2) == Interval(2.0)
    # Many units of nine examples are still nine examples.
    assert fidelity.mean(np.arange(90.0), every[:90] // 10).low is None
    assert fidelity.quantile(np.arange(90.0), every[:90] // 10, 0.5).low is None
    assert fidelity.quantile(np.zeros(50), every[:50], 0.5) == Interval(0.0)
    assert fidelity.quantile(np.arange(367.0), every[:367], 0.99).low is None
    assert fidelity.quantile(np.arange(368.0), every[:368], 0.99).low is not None
    assert fidelity.divergence_figures(np.zeros(1), every[:1])["kl_mean"] == Interval(0.0)


def test_sentences_count_as_one_example():
    """Where the words of a sentence are alike, intervals are as wide as those of one word a sentence."""
    values = np.random.default_rng(8).gamma(0.5, 1.0, 400)
    words, owners = np.repeat(values, 20), np.repeat(np.arange(400), 20)
    for compute in (fidelity.mean, lambda units, of: fidelity.quantile(units, of, 0.5)):
        one, many = compute(values, np.arange(400)), compute(words, owners)
        assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.05)
    hits = values < 1
    one, many = fidelity.share(hits, np.arange(400)), fidelity.share(np.repeat(hits, 20), owners)
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.05)
    alike = fidelity.share(np.ones(400, dtype=bool), np.arange(400) // 20)
    assert alike == fidelity.share(np.ones(20, dtype=bool), np.arange(20))


# Those of the bootstrap take long, and are tested with it.
CHECKED = {name for name, scenario in simulation.SCENARIOS.items() if scenario.checked} - {"recovery, error"}


@pytest.mark.parametrize("name", sorted(CHECKED))
def test_intervals_hold_the_true_figure(name):
    """In 200 simulated runs of 500 examples, an interval holds the true figure 90 to 99 times in 100; the script has
    ten times as many runs.
    """
    share, known = simulation.coverage(simulation.SCENARIOS[name], runs=200, examples=500, seed=3)
    assert known > 0.98
    assert 0.90 <= share <= 0.99


def test_a_ratio_of_metrics():
    """A ratio of shares and of means is inside its interval; a metric that is computed anew has one too. There is none
    to a baseline that is 0 or less.
    """
    draw = np.random.default_rng(9)
    right = [draw.random(200) < share for share in (0.9, 0.6)]
    found = fidelity.figure_ratio(*(mean_of(part) for part in right), 0)
    assert found.value == pytest.approx(right[1].mean() / right[0].mean())
    assert 0.5 < found.low < found.value < found.high < 0.8
    errors = [np.abs(draw.normal(size=200)), np.abs(draw.normal(size=200))]
    for make in (mean_of, lambda values: Computed(lambda indices: float(values[indices].mean()), len(values))):
        found = fidelity.figure_ratio(*(make(part) for part in errors), 0)
        assert found.value == pytest.approx(errors[1].mean() / errors[0].mean())
        assert found.low < found.value < found.high
    assert fidelity.figure_ratio(mean_of(np.zeros(20)), mean_of(right[0][:20]), 0) is None
    assert fidelity.figure_ratio(mean_of(right[0]), mean_of(np.zeros(200)), 0).value == 0
    assert fidelity.figure_ratio(mean_of(errors[0]), mean_of(-errors[1]), 0) == Interval(
        pytest.approx(-errors[1].mean() / errors[0].mean())
    )


def test_equal_models_recover_everything():
    """Of models that are right on the same examples, the ratio is 1 within an interval: other examples may differ."""
    right = np.arange(100) >= 5
    found = fidelity.figure_ratio(mean_of(right), mean_of(right), 0)
    assert found.value == 1
    assert 0.95 < found.low < 1 < found.high < 1.05
    assert math.isclose(found.low * found.high, 1, abs_tol=1e-9)


def test_every_figure_has_a_direction_or_is_a_count():
    """Each figure of fidelity has a unit, and a direction unless it counts changes of either kind."""
    assert all(each.unit for each in info.FIDELITY.values())
    assert {name for name, each in info.FIDELITY.items() if each.higher_is_better is None} == {"gained", "swapped"}
    assert info.leading_figure({"agreement": Interval(1.0), "kl_mean": Interval(0.1)}) == ("kl_mean", Interval(0.1))
    assert info.leading_figure({}) == ("", None)
