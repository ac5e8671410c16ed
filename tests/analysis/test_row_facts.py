"""Facts about one row: its fidelity and its recovery."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchcard.analysis import row_facts
from benchcard.analysis.row_facts import fidelity, recovery, row_quality
from benchcard.metrics.info import MetricInfo
from benchcard.run.record import Outcomes
from benchcard.steps.evaluate import CompareOutcome, CompareRequest, ScoreOutcome
from benchcard.steps.step import Outcome
from benchcard.utils.values import Interval


def row_of(ratio, higher_is_better):
    """Return a row with this ratio of its first metric to the baseline's."""
    score = ScoreOutcome(metrics={"m": 0.5}, readings={"m": MetricInfo(higher_is_better, None)})
    outcomes = Outcomes(
        score=Outcome("score", "0", Path(), score),
        compare=Outcome("compare", "0", Path(), CompareOutcome(figures={}, ratio=ratio)),
    )
    return SimpleNamespace(outcomes=outcomes)


def test_recovery_is_above_100_where_the_row_is_better():
    """An error that is halved is a recovery of 200 %; bounds change places. Without a direction there is none."""
    ratio = Interval(0.5, 0.4, 0.8)
    assert recovery(row_of(ratio, True)) == Interval(50.0, 40.0, 80.0)
    assert recovery(row_of(ratio, False)) == Interval(200.0, 125.0, 250.0)
    assert recovery(row_of(ratio, None)) is None
    assert recovery(row_of(Interval(0.5), False)) == Interval(200.0)
    assert recovery(row_of(Interval(0.0), True)) == Interval(0.0)
    assert recovery(row_of(Interval(0.0), False)) is None


@pytest.mark.parametrize("outcomes", [Outcomes(), row_of(None, True).outcomes])
def test_rows_that_were_not_compared_have_none(outcomes):
    """A row without a comparison, and one of a run of an earlier version, has neither fidelity nor recovery."""
    row = SimpleNamespace(outcomes=outcomes)
    assert recovery(row) is None
    assert fidelity(row) == {}
    assert CompareRequest.read_values({"figures": {}}) == CompareOutcome(figures={})


@pytest.mark.parametrize(
    ("name", "value", "equal", "difference"),
    [
        ("kl_mean", Interval(0.03, 0.02, 0.05), 0.0, Interval(0.03, 0.02, 0.05)),
        ("agreement", Interval(0.75, 0.5, 1.0), 1.0, Interval(-0.25, -0.5, 0.0)),
    ],
)
def test_a_figure_of_fidelity_is_a_quality(monkeypatch, name, value, equal, difference):
    """A row has the figure and its difference from that of the baseline, which equals itself; a row that was not
    compared has neither. A metric of the same name comes first.
    """
    monkeypatch.setattr(row_facts, "same_model_as", lambda records, record: None)
    monkeypatch.setattr(row_facts, "row_parameters", lambda record: {})

    def quality(row, figures, metrics):
        score, compared = ScoreOutcome(metrics=metrics), CompareOutcome(figures={}, fidelity=figures)
        outcomes = Outcomes(
            score=Outcome("score", "0", Path(), score), compare=Outcome("compare", "0", Path(), compared)
        )
        configuration = SimpleNamespace(row=row, baseline=0, evaluation_key="all")
        failures = SimpleNamespace(of_quality=lambda: None)
        record = SimpleNamespace(outcomes=outcomes, configuration=configuration, failures=failures)
        found = row_quality(None, record, name)
        return found.figure, found.difference

    assert quality(1, {name: value}, {"perplexity": 9.0}) == (value, difference)
    assert quality(0, {}, {"perplexity": 9.0}) == (Interval(equal), None)
    assert quality(1, {}, {"perplexity": 9.0}) == (None, None)
    assert quality(1, {name: value}, {name: 9.0}) == (Interval(9.0), None)
