"""The metrics of a run: their names, directions and units, and where too few resamples were drawn to compare models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any

from benchcard.analysis.records import Records
from benchcard.analysis.row_facts import fidelity, same_model_as
from benchcard.errors import BenchcardError
from benchcard.measure.intervals import CONFIDENCE
from benchcard.measure.significance import draws_for, least_p_value
from benchcard.metrics.info import FIDELITY, FidelityLimit, FigureUncertainty, MetricInfo, default_max_drop
from benchcard.spec.schema import Number
from benchcard.steps.evaluate import ScoreOutcome
from benchcard.utils.text import did_you_mean, join_names

# A lower limit of a cosine or an agreement excludes nothing, and is meant as a distance from 1.
_LEAST_NEAR_ONE = 0.5


def metric_names(records: Records) -> tuple[str, ...]:
    """Return the names of the quality metrics, in the order of their columns."""
    return tuple(dict.fromkeys(name for score in _scores(records) for name in score.metrics))


def info_of_metric(records: Records, metric: str | None) -> MetricInfo:
    """Return the direction and unit of a metric or figure of fidelity; None for each where it is not known, or was not
    measured.
    """
    infos = (score.readings[metric] for score in _scores(records) if metric is not None and metric in score.readings)
    return next(infos, FIDELITY.get(metric or "", MetricInfo(None, None)))


def positive_classes(records: Records, metric: str) -> tuple[str, ...]:
    """Return the labels that a metric is of, as a binary F1: several where rows differ, none for other metrics."""
    scores = (score.positive_classes for score in _scores(records))
    return tuple(dict.fromkeys(classes[metric] for classes in scores if metric in classes))


def unknown_direction(metric: str) -> str:
    """Return the note for a metric whose direction is not known."""
    setting = f"`higher_is_better: {{{metric}: true}}`, or `false`"
    return f"it is not known whether a higher `{metric}` is better: set {setting}"


def allowed_loss(unit: str | None, max_drop: Any) -> float:
    """Return how much of a metric may be lost: `max_drop`, or one point of its unit where that is None.

    Raises:
        BenchcardError: `max_drop` is not a finite number of at least 0.
    """
    if max_drop is None:
        return default_max_drop(unit)
    # Scalars of other libraries are numbers as well. An int may be too large for a float, which is reported below.
    drop: float = max_drop if isinstance(max_drop, int) or not isinstance(max_drop, Real) else float(max_drop)
    for mistake in Number(0).mistakes(drop, "max_drop"):
        raise BenchcardError(str(mistake))
    return drop


def fidelity_names(records: Records) -> tuple[str, ...]:
    """Return the names of the figures of fidelity that were computed, the leading one first."""
    computed = {name for record in records.records for name in fidelity(record)}
    return tuple(name for name in FIDELITY if name in computed)


def fidelity_limits(records: Records, limit: FidelityLimit) -> dict[str, float]:
    """Return limits of figures of fidelity by name.

    Raises:
        BenchcardError: A figure was not computed, or a limit is not a finite number of at least 0; or it is one for a
            figure that is 1 for equal outputs, and far from it.
    """
    if limit is None:
        return {}
    computed = fidelity_names(records)
    if not computed:
        reason = "outputs are compared with a baseline's where the task says how, in runs of this version"
        raise BenchcardError(f"there is no figure of fidelity to limit: {reason}")
    limits = limit if isinstance(limit, Mapping) else {computed[0]: limit}
    for name, value in limits.items():
        if name not in computed:
            hint = did_you_mean(name, computed)
            message = f"the figure of fidelity `{name}` was not computed; expected {join_names(computed)}"
            raise BenchcardError(f"{message} ({hint})" if hint else message)
        # Less than half of the neighbours can be meant as a limit.
        is_near_one = FIDELITY[name].higher_is_better and name != "neighbor_overlap"
        expected = Number(_LEAST_NEAR_ONE, 1) if is_near_one else Number(0)
        for mistake in expected.mistakes(value, f"fidelity.{name}"):
            hint = f"1 is that of equal outputs: for 0.01 less, write {name}=0.99" if is_near_one else ""
            raise BenchcardError(str(replace(mistake, hint=hint)))
    return dict(limits)


def too_few_resamples(records: Records) -> tuple[str, ...]:
    """Return a note for each metric for which too few resamples were drawn to show any difference among the models."""
    notes = []
    for name in metric_names(records):
        # P-values are adjusted among the models of one baseline, each of which counts once.
        groups: dict[int | None, dict[int, FigureUncertainty]] = {}
        for record in records.records:
            test = record.outcomes.compare.values.figures.get(name) if record.outcomes.compare else None
            if test is not None:
                row, first = record.configuration, same_model_as(records, record)
                groups.setdefault(row.baseline, {}).setdefault(row.row if first is None else first, test)
        for group in groups.values():
            tests = [test for test in group.values() if test.p_value is not None]
            # Only the number of resamples keeps the p-values of these tests from being lower.
            draws = min((t.draws for t in tests if t.draws and t.p_value == least_p_value(t.draws)), default=0)
            if draws and least_p_value(draws) * len(tests) >= 1 - CONFIDENCE:
                notes.append(
                    f"{name}: {draws:,} resamples can show no difference among {len(tests)} models, and the "
                    f"{draws_for(len(tests)):,} that can take too long; run fewer rows, or fewer examples"
                )
    return tuple(notes)


def _scores(records: Records) -> Iterator[ScoreOutcome]:
    return (record.outcomes.score.values for record in records.records if record.outcomes.score)
