"""The frame `quality`: one row for each configuration, with metrics and figures of the evaluation pass."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from benchcard.analysis import row_facts
from benchcard.analysis.frames.columns import frame_of, interval_columns, parameter_columns, parameter_names
from benchcard.analysis.records import Records
from benchcard.metrics.info import FIDELITY, FIGURE_SUFFIXES, RECOVERY
from benchcard.run.record import Record

PASS_METRICS = ("total_time_in_seconds", "samples_per_second", "latency_in_seconds")
_LAST = ("predictions_changed", *PASS_METRICS, "samples", "not_compared", "saturation_risk", "same_model_as", "failure")


def quality_frame(records: Records) -> pd.DataFrame:
    """Return one row per configuration: `row`, the benchmarked parameters, each metric, the figures of the evaluation
    pass, and why figures are missing.

    Each metric `m` has its 95 % interval from `m_low` to `m_high`. Against the baseline, on the same examples, it has
    `m_difference` with its interval, the `m_p_value` of a paired test, and `m_detectable_difference`, the smallest true
    difference that this number of examples shows four times in five. `predictions_changed` counts the examples with
    another prediction than the baseline's; `not_compared` says why there is no comparison. Where there is a
    `saturation_risk`, the figures may be better on another processor. `positive_class` is the label of metrics such as
    a binary F1; without such a metric there is no such column.

    How close a row is to its baseline on the same examples is said by `recovery`, the first metric in % of the
    baseline's, and by the figures of `benchcard.metrics.info.FIDELITY` that the task has, which compare outputs: see
    docs/choosing.md.

    Where the model decides what is scored, a column says so: `similarity` of embeddings; `activation` of the one output
    of a model.

    `total_time_in_seconds` is one pass over the evaluation split with preprocessing; `samples_per_second` and
    `latency_in_seconds` follow from it. They are empty where the model was evaluated for an earlier row with another
    number of threads.
    """
    rows = [_columns(records, record) for record in records.records]
    measured = dict.fromkeys([*parameter_names(records), *(name for row in rows for name in row)])
    last = ("positive_class", *_LAST) if "positive_class" in measured else _LAST
    return frame_of(rows, [*(name for name in measured if name not in last), *last])


def _columns(records: Records, record: Record) -> dict[str, object]:
    outcomes, failure = record.outcomes, record.failures.of_quality()
    score, evaluated, prepared, comparison = outcomes.score, outcomes.evaluate, outcomes.prepare, outcomes.compare
    row: dict[str, object] = {**(prepared.values.facts if prepared else {}), **parameter_columns(record)}
    if score:
        for name, value in score.values.metrics.items():
            uncertainty = comparison.values.figures.get(name) if comparison else None
            row |= {name: value, **{f"{name}_{part}": getattr(uncertainty, part, None) for part in FIGURE_SUFFIXES}}
        row |= _positive_class(score.values.positive_classes)
        row |= _closeness(record)
    if evaluated and prepared and evaluated.values.items:
        samples = prepared.values.samples
        row["samples"] = samples
        if row_facts.other_threads(records, record) is None:
            seconds = (evaluated.values.elapsed_ns + prepared.values.preprocessing_ns) / 1e9
            row |= dict(zip(PASS_METRICS, (seconds, samples / seconds, seconds / samples)))
    return {
        **row,
        "predictions_changed": comparison.values.predictions_changed if comparison else None,
        "not_compared": _not_compared(records, record),
        "saturation_risk": row_facts.saturation_risk(records, record),
        "same_model_as": row_facts.same_model_as(records, record),
        "failure": str(failure) if failure else None,
    }


def _closeness(record: Record) -> dict[str, float | None]:
    """Return the figures of a row's closeness to its baseline by column; counts have no interval."""
    fidelity, row = row_facts.fidelity(record), interval_columns(RECOVERY, row_facts.recovery(record))
    row = {} if row[RECOVERY] is None else row
    for name, info in FIDELITY.items():
        if name in fidelity:
            columns = interval_columns(name, fidelity[name])
            row |= {name: columns[name]} if info.unit == "count" else columns
    return row


def _positive_class(classes: Mapping[str, str]) -> dict[str, str]:
    """Return the label of metrics of one label: one name, or a name for each metric where they differ."""
    labels = list(dict.fromkeys(classes.values()))
    if len(labels) > 1:
        labels = [f"{name}: {label}" for name, label in classes.items()]
    return {"positive_class": ", ".join(labels)} if labels else {}


def _not_compared(records: Records, record: Record) -> str | None:
    """Return why a row with figures is not compared with a baseline; None where it is, or is the baseline."""
    row = record.configuration
    if row.baseline == row.row or record.outcomes.score is None:
        return None
    if record.failures.comparison is not None:
        return str(record.failures.comparison)
    if record.outcomes.compare and record.outcomes.compare.values.predictions_changed is not None:
        return None
    if row.baseline is None:
        return "there is no unquantized baseline"
    failure = records.records[row.baseline].failures.of_quality()
    return f"row {row.baseline}, the baseline, has no predictions: {failure}" if failure else "other examples"
