"""The frame `time`: one row for each configuration and shape, with latencies and ratios.

Units are converted here: nanoseconds and bytes in the run directory, milliseconds and megabytes (10^6 bytes) in frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING

from benchcard.analysis.frames.columns import (
    frame_of,
    interval_columns,
    parameter_columns,
    parameter_names,
    with_bounds,
)
from benchcard.analysis.records import Records
from benchcard.measure.intervals import detectable
from benchcard.measure.latency import latency_figures
from benchcard.run.record import Cell, Record
from benchcard.utils.values import Failure, Shape

if TYPE_CHECKING:
    import pandas as pd

# The failure of rows that were not to be timed.
NOT_ASKED = "not timed: `duration` is 0"
TIME_FIGURES = (
    *with_bounds("latency_mean_ms"),
    *(name for rank in ("50", "90", "95", "99", "99.9") for name in with_bounds(f"latency_p{rank}_ms")),
    *with_bounds("throughput_per_s"),
    *with_bounds("ratio"),
    "detectable",
    *with_bounds("drift"),
    "threads",
    "spinning",
    "runs",
    "elapsed_s",
    "load_ms",
    "first_call_ms",
    "memory_mb",
)


def time_frame(records: Records) -> pd.DataFrame:
    """Return one row per configuration, batch size and input length.

    `latency_*_ms` is the time of one forward call; `throughput_per_s` counts samples in elapsed seconds; `ratio` is how
    many times faster than the baseline the row is, paired round by round. Figures with `_low` and `_high` beside them
    have a 95 % interval. `drift` is the relative change of latency from the first launch to the last; `threads` and
    `spinning` are what the runtime reported; `runs` is the number of calls and `elapsed_s` the seconds behind the
    figures; `memory_mb` is the peak above the memory of the process before it loaded the model.
    """
    rows = []
    for record in records.records:
        for shape, cell in record.cells.items():
            figures = _figures(records, record, cell, shape)
            rows.append({**parameter_columns(record), **asdict(cell.shape), **figures})
        for shape, failure in _untimed_shapes(records, record):
            rows.append({**parameter_columns(record), **asdict(shape), "failure": str(failure)})
    return frame_of(rows, (*parameter_names(records), "batch_size", "input_length", *TIME_FIGURES, "failure"))


def _figures(records: Records, record: Record, cell: Cell, shape: Shape) -> dict[str, object]:
    part = records.timed.get((record.configuration.row, shape))
    failure = part.failure(cell.name) if part else None
    if failure:
        return {"failure": str(failure)}
    if part is None or not part.medians_ns(cell.name):
        return {"failure": "time: NotRun: it has not been timed yet: run the spec again"}
    figures = latency_figures(part.rounds, cell.name, cell.shape.batch_size)
    row: dict[str, object] = {**interval_columns("latency_mean_ms", figures.mean_ns, 1e6)}
    for rank, interval in figures.percentiles_ns.items():
        row |= interval_columns(f"latency_p{rank:g}_ms", interval, 1e6)
    row |= interval_columns("throughput_per_s", figures.throughput_per_s)
    row |= interval_columns("drift", figures.drift)
    if ratio := part.speedup(cell.name):
        floor = part.noise_floor
        row |= interval_columns("ratio", ratio)
        row["detectable"] = cell.name != part.baseline and floor is not None and detectable(ratio, floor)
    row |= {"runs": figures.calls, "elapsed_s": figures.elapsed_s}
    if opened := part.opened(cell.name):
        for name in ("load", "first_call"):
            row[f"{name}_ms"] = median(getattr(launch, f"{name}_ns") for launch in opened) / 1e6
        facts = opened[-1].facts
        row |= {"threads": facts.get("intra_op_num_threads"), "spinning": facts.get("allow_spinning", False)}
        row["memory_mb"] = max(part.peaks_bytes(cell.name)) / 1e6
    return row


def timing_notes(records: Records) -> list[str]:
    """Return notes on rows that were not to be timed, and on input lengths where the task has none."""
    plan = records.plan
    untimed = sum(not row["duration"] > 0 for row in plan)
    if untimed == len(plan):
        return [NOT_ASKED]
    notes = [f"{untimed} of {len(plan)} rows {'is' if untimed == 1 else 'are'} {NOT_ASKED}"] if untimed else []
    lengths = dict.fromkeys(str(length) for row in plan for length in row["input_lengths"] or ())
    if lengths and not records.traits.has_length:
        notes.append(
            f"input_lengths ({', '.join(lengths)}) have no effect for {plan.spec.task}: each batch size was timed "
            "once, at the input size of the model's processor"
        )
    return notes


def _untimed_shapes(records: Records, record: Record) -> Iterator[tuple[Shape, Failure | str]]:
    """Yield the shapes for which a row has no cell, and why."""
    row = record.configuration
    for batch_size in row["batch_sizes"]:
        for length in (records.traits.has_length and row["input_lengths"]) or [None]:
            shape = Shape(batch_size, length)
            failure = record.failures.model or record.failures.time.get(shape)
            if failure or not row["duration"] > 0:
                yield shape, failure or NOT_ASKED
