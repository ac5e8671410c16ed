"""The quality of a row by one metric: its figure, and its difference from the baseline's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchcard.analysis.frames.columns import row_parameters
from benchcard.analysis.records import Records
from benchcard.analysis.row_facts import same_model_as
from benchcard.metrics.info import FigureUncertainty
from benchcard.run.record import Record
from benchcard.utils.values import Interval

_UNCERTAIN = FigureUncertainty(None, None)


@dataclass(frozen=True)
class RowQuality:
    """The quality of one row.

    Attributes:
        baseline: The row that it is compared with; None where there is none.
        examples: A key that is equal for rows that are evaluated on the same examples.
        figure: The metric with its interval; None where it was not measured.
        difference: The metric minus the baseline's, with its interval; None where it was not compared.
        p_value: The p-value of that difference; None where it was not tested.
        model: The first row of the run with the same model.
        failure: Why figures are missing; empty where they are not.
    """

    parameters: Mapping[str, object]
    baseline: int | None
    examples: str
    figure: Interval | None
    difference: Interval | None
    p_value: float | None
    model: int
    failure: str


def row_quality(records: Records, record: Record, metric: str | None) -> RowQuality:
    """Return the quality of a row by a metric; without figures where the metric is None."""
    row, score, comparison = record.configuration, record.outcomes.score, record.outcomes.compare
    value = score.values.metrics.get(metric) if score and metric else None
    test = comparison.values.figures.get(metric, _UNCERTAIN) if comparison and score and metric else _UNCERTAIN
    first = same_model_as(records, record)
    return RowQuality(
        parameters=row_parameters(record),
        baseline=row.baseline,
        examples=row.evaluation_key,
        figure=None if value is None else Interval(value, test.low, test.high),
        difference=(
            None if test.difference is None else Interval(test.difference, test.difference_low, test.difference_high)
        ),
        p_value=test.p_value,
        model=row.row if first is None else first,
        failure=str(record.failures.of_quality() or ""),
    )
