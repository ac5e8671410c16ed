"""The verdict on a model file: each rule, and how seldom it is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from benchcard.analysis.verdict import (
    BROKEN,
    DEGRADED,
    FAITHFUL,
    FEWEST_EXAMPLES,
    UNKNOWN,
    Evidence,
    chance_agreement,
    judge,
)
from benchcard.measure import significance
from benchcard.metrics import fidelity
from benchcard.metrics.info import MetricInfo
from benchcard.utils.values import Interval

SHARE, PERCENT, ERROR = MetricInfo(True, "share"), MetricInfo(True, "%"), MetricInfo(False, "squared error")
NEAR = {"kl_mean": Interval(1e-5, 8e-6, 2e-5), "agreement": Interval(1.0, 0.99, 1.0)}


def found(**given):
    """The verdict on a file in 8 bits with an unchanged metric and this evidence, by name."""
    return judge(Evidence(**{"metric": "accuracy", "info": SHARE, "examples": 500, "bits": 8, **given})).name


@pytest.mark.parametrize(
    ("difference", "info", "expected"),
    [
        (Interval(0.0, -0.01, 0.01), SHARE, FAITHFUL),
        (Interval(-0.03, -0.045, -0.015), SHARE, DEGRADED),
        # Within the limit of broken, which does not show that it is not degraded.
        (Interval(-0.03, -0.055, -0.005), SHARE, UNKNOWN),
        (Interval(-0.05, -0.09, -0.005), MetricInfo(True, "coefficient"), UNKNOWN),
        (Interval(-0.005, -0.02, 0.01), SHARE, UNKNOWN),
        (Interval(-0.3, -0.35, -0.25), SHARE, BROKEN),
        (Interval(-0.3, -0.45, -0.05), SHARE, DEGRADED),
        (Interval(-0.1, -0.3, 0.1), SHARE, UNKNOWN),
        (Interval(-0.3), SHARE, UNKNOWN),
        (Interval(-3.0, -4.0, -2.0), PERCENT, DEGRADED),
        (Interval(-30.0, -35.0, -25.0), PERCENT, BROKEN),
        (Interval(0.3, 0.25, 0.35), SHARE, FAITHFUL),
        # A squared error has no scale of points, and a metric without direction no loss.
        (Interval(30.0, 25.0, 35.0), ERROR, UNKNOWN),
        (Interval(-0.3, -0.35, -0.25), MetricInfo(None, "share"), UNKNOWN),
    ],
)
def test_the_loss_of_the_metric_decides_by_its_interval(difference, info, expected):
    """A file is degraded or broken only if the whole interval is beyond the limit, faithful only if it is within."""
    assert found(difference=difference, info=info) == expected


def test_the_accepted_loss_can_be_given():
    """With `max_drop` of five points, a loss of three is none."""
    evidence = Evidence("accuracy", SHARE, Interval(-0.03, -0.045, -0.015), examples=500)
    assert judge(evidence).name == DEGRADED
    assert judge(evidence, 0.05).name == FAITHFUL


@pytest.mark.parametrize(
    ("bits", "kl", "expected"),
    [
        (32, 1e-9, FAITHFUL),
        (32, 1e-3, BROKEN),
        (16, 1e-3, FAITHFUL),
        (16, 0.03, BROKEN),
        (8, 0.03, FAITHFUL),
        (8, 0.1, DEGRADED),
        (8, 0.5, BROKEN),
        (4, 0.5, DEGRADED),
        (4, 2.0, BROKEN),
        (None, 0.5, DEGRADED),
    ],
)
def test_the_bits_explain_how_far_outputs_may_be(bits, kl, expected):
    """The same divergence is good for a file in four bits and the sign of a fault in one of float16."""
    assert found(bits=bits, fidelity={"kl_mean": Interval(kl, 0.9 * kl, 1.1 * kl)}) == expected


def test_the_reason_says_that_rounding_does_not_explain_it():
    """Other weights or another graph are what is left of a divergence that the bits cannot make."""
    why = judge(Evidence(fidelity={"kl_mean": Interval(0.0023, 0.002, 0.0026)}, examples=500, bits=32)).why
    expected = "rounding to 32 bits does not explain this, weights or graph differ from the reference"
    assert why == f"kl_mean 0.00230 [0.00200, 0.00260]: {expected}"


@pytest.mark.parametrize(
    ("figure", "good", "bad"),
    [("cosine_mean", 0.999, 0.5), ("agreement", 0.99, 0.3), ("rms_difference", 0.02, 1.5)],
)
def test_each_task_has_a_figure_that_decides(figure, good, bad):
    """Embeddings by their cosine, answers by their agreement, numbers by their difference and spread."""
    for value, expected in ((good, FAITHFUL), (bad, BROKEN)):
        assert found(fidelity={figure: Interval(value, value - 0.001, value + 0.001)}, spread=1.0) == expected


def test_numbers_are_measured_by_their_spread():
    """A difference of 0.1 is nothing among numbers of hundreds, and without a spread it says nothing."""
    figures = {"rms_difference": Interval(0.1, 0.09, 0.11)}
    assert found(fidelity=figures, spread=200.0) == FAITHFUL
    assert found(fidelity=figures, spread=0.1) == BROKEN
    assert found(fidelity=figures) == UNKNOWN


def test_predictions_that_hardly_agree_beyond_chance_are_broken():
    """A constant prediction agrees with nine in ten where nine in ten have that label; the same agreement beside rare
    labels is good.
    """
    agreement = {"agreement": Interval(0.9, 0.88, 0.92)}
    assert found(fidelity=agreement, chance=0.9, bits=4) == BROKEN
    assert found(fidelity=agreement, chance=0.1, bits=4) == DEGRADED
    assert chance_agreement([0] * 9 + [1], [0] * 10) == pytest.approx(0.9)
    assert chance_agreement([["O", "B"], ["O"]], [["O", "O"], ["O"]]) == pytest.approx(2 / 3)
    assert chance_agreement([0.5, 0.7], [0.5, 0.7]) is None
    assert chance_agreement([[0, 1]], [[0, 1]]) is None
    assert chance_agreement([], []) is None


def test_what_was_not_compared_is_unknown():
    """Without any figure, and with figures of so few examples that they have no interval."""
    assert judge(Evidence()) == judge(Evidence("accuracy", SHARE))
    assert found() == UNKNOWN
    few = {"kl_mean": Interval(1e-5), "agreement": Interval(1.0)}
    assert found(fidelity=few, difference=Interval(0.0)) == UNKNOWN
    assert found(fidelity=NEAR, difference=Interval(0.0)) == FAITHFUL


def test_a_figure_beyond_its_limit_is_not_faithful():
    """One figure is surely within its limit, and the estimate of the other one is not."""
    near = {"kl_mean": Interval(0.04, 0.03, 0.049)}
    assert found(fidelity=near, difference=Interval(-0.08, -0.18, 0.01)) == UNKNOWN
    assert found(fidelity=near, difference=Interval(-0.008, -0.1, 0.09)) == FAITHFUL
    assert found(fidelity={"kl_mean": Interval(0.06, 0.03, 0.1)}, difference=Interval(0.0, -0.005, 0.005)) == UNKNOWN


def test_few_examples_make_no_file_faithful():
    """They miss what happens to few of them, whatever their intervals say."""
    verdict = judge(Evidence("accuracy", SHARE, Interval(0.0, -0.01, 0.01), NEAR, 58, 8))
    assert verdict.name == UNKNOWN
    assert verdict.why.startswith("58 examples are too few to call it faithful; use at least 59: accuracy +0 ")
    assert found(fidelity=NEAR, examples=59) == FAITHFUL


def test_equal_outputs_have_no_interval_and_are_faithful():
    """All divergences are 0, so the agreement decides."""
    assert found(fidelity={"kl_mean": Interval(0.0), "agreement": Interval(1.0, 0.98, 1.0)}) == FAITHFUL


def audited(baseline, model, labels, bits):
    """The verdict on logits `(examples, labels)`, as the steps of a run compute its evidence."""
    owners = np.arange(len(labels))
    expected, actual = baseline.argmax(axis=1), model.argmax(axis=1)
    test = significance.mcnemar(expected == labels, actual == labels)
    figures = {"kl_mean": fidelity.mean(fidelity.label_divergences(baseline, model), owners, least=0.0)}
    figures["agreement"] = fidelity.share(expected == actual, owners)
    chance = chance_agreement(expected.tolist(), actual.tolist())
    return judge(Evidence("accuracy", SHARE, test.difference, figures, len(labels), bits, chance)).name


@pytest.mark.parametrize("examples", [12, 40, 300])
@pytest.mark.parametrize(("bits", "noise"), [(16, 0.01), (8, 0.1), (4, 0.5)])
def test_a_good_file_is_never_called_broken(examples, bits, noise):
    """In 200 audits of resampled data with rounding errors of the logits as good files have them, few examples too; a
    file with swapped or constant labels is never called faithful, and always broken with enough examples.
    """
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 600)
    baseline = generator.normal(0, 1, (600, 3)) + 4 * np.eye(3)[labels]
    good = baseline + generator.normal(0, noise, baseline.shape)
    constant = np.tile([1.0, 0.0, 0.0], (600, 1))
    verdicts = {name: set() for name in ("good", "swapped", "constant")}
    for _ in range(200):
        chosen = generator.integers(0, 600, examples)
        for name, model in {"good": good, "swapped": baseline[:, [1, 0, 2]], "constant": constant}.items():
            verdicts[name].add(audited(baseline[chosen], model[chosen], labels[chosen], bits))
    assert not verdicts["good"] & {BROKEN, DEGRADED}
    assert (FAITHFUL in verdicts["good"]) == (examples >= FEWEST_EXAMPLES)
    for name in ("swapped", "constant"):
        assert FAITHFUL not in verdicts[name]
        if examples == 300:
            assert verdicts[name] == {BROKEN}


@pytest.mark.parametrize("examples", [12, 60, 500])
@pytest.mark.parametrize("kind", ["a few examples", "all examples"])
def test_a_degraded_file_is_hardly_ever_called_faithful(examples, kind):
    """It loses seven points of accuracy: by other outputs for one example in thirteen, or by noise on all. Of 100
    audits of resampled data at most one in twenty says faithful, and none does with fewer examples than it takes.
    """
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 600)
    baseline = generator.normal(0, 1, (600, 3)) + 5 * np.eye(3)[labels]
    changed = np.where((np.arange(600) % 13 == 0)[:, None], baseline[:, [1, 2, 0]], baseline)
    model = changed if kind == "a few examples" else baseline + generator.normal(0, 2, baseline.shape)
    assert 0.05 < np.mean(baseline.argmax(axis=1) == labels) - np.mean(model.argmax(axis=1) == labels) < 0.1
    draws = [generator.integers(0, 600, examples) for _ in range(100)]
    verdicts = [audited(baseline[chosen], model[chosen], labels[chosen], 8) for chosen in draws]
    assert verdicts.count(FAITHFUL) <= (5 if examples >= FEWEST_EXAMPLES else 0), verdicts
    assert DEGRADED in verdicts or examples < 500
