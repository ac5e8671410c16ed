"""Facts about one row: its fidelity and its recovery."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchcard.analysis.row_facts import fidelity, recovery
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
