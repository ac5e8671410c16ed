"""The Pareto front: by ratios to one baseline, and never across data sets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.test_choice import FAST, ONE, of, rows_of
from benchcard.analysis.gains import Gains
from benchcard.analysis.pareto import pareto_front


def front_of(rows, gains, **rest):
    """Return the front by accuracy."""
    return pareto_front(rows, gains, "accuracy", **rest)


def test_the_front_goes_by_paired_ratios():
    """Rows are ordered by their paired ratios; where one is missing, by their means."""
    rows = rows_of([0.9, 0.9])
    assert front_of(rows, of([ONE, FAST], costs={0: 5.0, 1: 6.0}))["row"].tolist() == [1]
    assert front_of(rows, of([ONE, None], costs={0: 5.0, 1: 6.0}))["row"].tolist() == [0]


def test_a_broken_row_is_not_on_the_front():
    """It beats none of the rows that can be used."""
    rows = rows_of([0.9, 0.95])
    rows[1] = replace(rows[1], broken="kl_mean 14.3 is too much")
    assert front_of(rows, of([ONE, FAST]))["row"].tolist() == [0]


def test_ratios_to_two_baselines_are_not_compared():
    """A large model at twice its baseline's speed does not beat a small one that takes a fifth of its time."""
    costs = {0: 5.0, 1: 50.0, 2: 25.0}
    found = front_of(rows_of([0.9, 0.93, 0.92], {0: 0, 1: 1, 2: 1}), of([ONE, ONE, FAST], costs=costs))
    assert found["row"].tolist() == [0, 2, 1]
    assert found["ratio"].tolist() == pytest.approx([1.0, 2.0, 1.0])


def test_rows_of_two_data_sets_are_not_compared():
    """Each data set has its own front."""
    gains = of([ONE, FAST, ONE, FAST])
    baselines, examples = {0: 0, 1: 0, 2: 2, 3: 2}, ["easy", "easy", "hard", "hard"]
    found = front_of(rows_of([0.9, 0.9, 0.6, 0.5], baselines, examples=examples), gains)
    assert found["row"].tolist() == [1, 3, 2]
    other = rows_of([0.9, 0.5, 0.6, 0.61], baselines, examples=examples)
    turned = front_of(other, gains, higher_is_better=None)
    assert turned["row"].tolist() == [1, 0, 3, 2]


def test_the_front_of_a_metric_without_a_direction():
    """Without a direction, the value closer to the baseline's is better."""
    gains = of([ONE, FAST, (1.5, 1.4, 1.6, True)])
    assert front_of(rows_of([0.9, 0.95, 0.85]), gains, higher_is_better=None)["row"].tolist() == [1, 0]


def test_the_front_has_what_nothing_beats():
    """A row is on the front if no other is as good in both; of equal rows the first is; the direction matters."""
    rows = rows_of([0.9, 0.8, 0.7, 0.8, None])
    gains = of([ONE, FAST, (1.5, 1.4, 1.6, True), FAST, FAST])
    front = front_of(rows, gains)
    assert front["row"].tolist() == [1, 0]
    assert front["latency_mean_ms"].tolist() == [5.0, 10.0]
    assert front["ratio"].tolist() == pytest.approx([2.0, 1.0])
    assert {"accuracy", "accuracy_low", "accuracy_high", "ratio_low", "ratio_high"} <= set(front)
    assert front_of(rows, gains, higher_is_better=False)["row"].tolist() == [1, 2]
    assert front_of(rows, Gains("size", {}, {}, "")).empty
