"""The metrics of a run and how their figures are to be read, as its records say: which way is better, how much may be
lost, and where too few draws were made to tell models apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from typing import Any

from benchcard.analysis.records import Records
from benchcard.analysis.rows import same_model_as
from benchcard.errors import BenchcardError
from benchcard.metrics.info import MetricInfo, point
from benchcard.metrics.uncertainty import Difference
from benchcard.spec.schema import Number
from benchcard.steps.evaluate import ScoreOutcome
from benchcard.steps.step import Outcome


def names(records: Records) -> tuple[str, ...]:
    """The names of the quality metrics, in the order of their columns."""
    return tuple(dict.fromkeys(name for score in _scores(records) for name in score.values.metrics))


def info_of_metric(records: Records, metric: str | None) -> MetricInfo:
    """Return the direction and unit of a metric; None for each where it is not known, or was not measured."""
    readings = (score.values.readings for score in _scores(records))
    found = next((infos[metric] for infos in readings if metric in infos), None) if metric else None
    return found or MetricInfo(None, None)


def positive_classes(records: Records, metric: str) -> tuple[str, ...]:
    """Return the labels that a metric of one label is of: several where they differ from row to row; else nothing."""
    known = (score.values.positive_classes for score in _scores(records))
    return tuple(dict.fromkeys(each[metric] for each in known if metric in each))


def allowed_loss(unit: str | None, max_drop: Any) -> float:
    """How much of a metric of this unit may be lost: what was asked, a point where nothing was.

    Raises:
        BenchcardError: `max_drop` is no finite number of at least 0.
    """
    if max_drop is None:
        return point(unit)
    # Numbers of other libraries are numbers, too; what is whole here may be too large for a float, and is told then.
    drop = max_drop if isinstance(max_drop, int) or not isinstance(max_drop, Real) else float(max_drop)
    for mistake in Number(0).mistakes(drop, "max_drop"):
        raise BenchcardError(str(mistake))
    return drop


def too_few_resamples(records: Records) -> tuple[str, ...]:
    """The figures of which too few draws were made to show any difference, among so many models, in sentences."""
    from benchcard.measure.intervals import CONFIDENCE
    from benchcard.measure.significance import draws_for, least_p_value

    told = []
    for name in names(records):
        # As where p-values are adjusted: among the models of one baseline, each of which counts once.
        groups: dict[int | None, dict[int, Difference]] = {}
        for record in records.records:
            if record.outcomes.compare is None:
                continue
            row, first = record.configuration, same_model_as(records, record)
            figures = record.outcomes.compare.values.figures.get(name, Difference())
            groups.setdefault(row.baseline, {}).setdefault(row.row if first is None else first, figures)
        for compared in groups.values():
            tested = [figure for figure in compared.values() if figure.p_value is not None]
            draws = [
                figure.draws for figure in tested if figure.draws and figure.p_value == least_p_value(figure.draws)
            ]
            if draws and least_p_value(min(draws)) * len(tested) >= 1 - CONFIDENCE:
                told.append(
                    f"{name}: {min(draws):,} draws can show no difference among {len(tested)} models, and the "
                    f"{draws_for(len(tested)):,} that can take too long here; run fewer rows, or fewer examples"
                )
    return tuple(told)


def _scores(records: Records) -> Iterator[Outcome[ScoreOutcome]]:
    return (record.outcomes.score for record in records.records if record.outcomes.score)
