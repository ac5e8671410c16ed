"""The frame `quality`: a row for each configuration, with metrics and figures of the evaluation pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchcard.analysis import embedding_cosine
from benchcard.analysis import rows as rows_
from benchcard.analysis.frames.columns import frame_of, parameter_columns, parameter_names, text_of_failure
from benchcard.analysis.records import Records
from benchcard.metrics.info import BESIDE
from benchcard.run.record import Record
from benchcard.steps.evaluate import CompareOutcome, ScoreOutcome
from benchcard.steps.step import Outcome

if TYPE_CHECKING:
    import pandas as pd


PASS_METRICS = ("total_time_in_seconds", "samples_per_second", "latency_in_seconds")


def quality(records: Records) -> pd.DataFrame:
    """One row per configuration: `row`, the benchmarked parameters, each metric, the figures of the evaluation pass,
    and why figures are missing.

    Each metric `m` has its 95 % interval from `m_low` to `m_high`; against the baseline, on the same examples,
    `m_difference` with its interval, the `m_p_value` of a paired test, and `m_detectable_difference`, the smallest true
    difference that this many examples show four times in five. `predictions_changed` counts the examples that the
    baseline predicts otherwise; `not_compared` says why there is no comparison. Where there is a
    `saturation_risk`, the figures may be better on another processor. `positive_class` is the label that metrics of one
    label are of, as `f1`; there is no such column without such a metric.

    Where the model decides what is scored, a column says what: `similarity`, of embeddings; `activation`, of the one
    output of a model.

    `total_time_in_seconds` is one pass over the evaluation split with preprocessing; `samples_per_second` and
    `latency_in_seconds` follow from it. They are empty where the same model was evaluated for an earlier row, with
    another number of threads.
    """
    rows = []
    for record in records.records:
        score, evaluated, prepared = record.outcomes.score, record.outcomes.evaluate, record.outcomes.prepare
        row = {**(prepared.values.facts if prepared else {}), **parameter_columns(record)}
        if score:
            row |= _figures(score.values, record.outcomes.compare)
            row |= _positive_class(score.values.positive_classes)
            alike = embedding_cosine.embedding_cosine(records, record)
            row |= {embedding_cosine.COLUMN: alike} if alike is not None else {}
        if evaluated and prepared and evaluated.values.items:
            row["samples"] = samples = prepared.values.samples
            if rows_.other_threads(records, record) is None:
                seconds = (evaluated.values.elapsed_ns + prepared.values.preprocessing_ns) / 1e9
                row |= dict(zip(PASS_METRICS, (seconds, samples / seconds, seconds / samples)))
        row["predictions_changed"] = _predictions_changed(record)
        row["not_compared"] = _not_compared(records, record)
        row["saturation_risk"] = rows_.saturation_risk(records, record)
        row["same_model_as"] = rows_.same_model_as(records, record)
        row["failure"] = text_of_failure(record.failures.of_quality())
        rows.append(row)
    measured = dict.fromkeys(name for row in rows for name in row)
    names = [*parameter_names(records), *measured]
    last = (
        *(["positive_class"] if "positive_class" in measured else []),
        "predictions_changed",
        *PASS_METRICS,
        "samples",
        "not_compared",
        "saturation_risk",
        "same_model_as",
        "failure",
    )
    return frame_of(rows, [name for name in dict.fromkeys(names) if name not in last] + list(last))


def _figures(score: ScoreOutcome, compared: Outcome[CompareOutcome] | None) -> dict[str, Any]:
    """The columns of all metrics of one row: each figure and, after it, what there is beside it."""
    row: dict[str, Any] = {}
    for name, value in score.metrics.items():
        beside = compared.values.figures.get(name) if compared else None
        row[name] = value
        row |= {f"{name}_{part}": getattr(beside, part, None) for part in BESIDE}
    return row


def _positive_class(classes: Mapping[str, str]) -> dict[str, str]:
    """Return the label that metrics of one label are of: one name, or a name for each metric where they differ."""
    if not classes:
        return {}
    first, *others = dict.fromkeys(classes.values())
    return {"positive_class": ", ".join(f"{name}: {label}" for name, label in classes.items()) if others else first}


def _predictions_changed(record: Record) -> int | None:
    return record.outcomes.compare.values.predictions_changed if record.outcomes.compare else None


def _not_compared(records: Records, record: Record) -> str | None:
    """Why a row with figures is not compared with a baseline; None where it is, or is the baseline."""
    row = record.configuration
    if row.baseline == row.row or record.outcomes.score is None:
        return None
    if record.failures.comparison is not None:
        return str(record.failures.comparison)
    if _predictions_changed(record) is not None:
        return None
    if row.baseline is None:
        return "there is no unquantized baseline"
    failure = records.records[row.baseline].failures.of_quality()
    return f"row {row.baseline}, the baseline, has no predictions: {failure}" if failure else "other examples"
