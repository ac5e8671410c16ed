"""The frame `time`: a row for each configuration and shape, with latencies and ratios.

Units are converted here: nanoseconds and bytes in the run directory, milliseconds and megabytes (10^6 bytes) in frames.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from benchcard.analysis.frames.columns import frame_of, parameter_columns, parameter_names
from benchcard.analysis.records import Records
from benchcard.analysis.times import TimeFigures, row_times

if TYPE_CHECKING:
    import pandas as pd

# Said of every row where nothing was to be timed.
NOT_ASKED = "not timed: `duration` is 0"


def _bounded(*names: str) -> tuple[str, ...]:
    """Each name, followed by those of the bounds of its interval."""
    return tuple(f"{name}{end}" for name in names for end in ("", "_low", "_high"))


TIME_FIGURES = (
    *_bounded("latency_mean_ms", *(f"latency_p{rank}_ms" for rank in ("50", "90", "95", "99", "99.9"))),
    *_bounded("throughput_per_s", "ratio"),
    "detectable",
    *_bounded("drift"),
    "threads",
    "spinning",
    "runs",
    "elapsed_s",
    "load_ms",
    "first_call_ms",
    "memory_mb",
)


def time(records: Records) -> pd.DataFrame:
    """One row per configuration, batch size and input length.

    `latency_*_ms` are of one forward call; `throughput_per_s` counts samples in really elapsed seconds; `ratio` is how
    many times faster than the baseline, paired round by round; figures with `_low` and `_high` beside them have a 95 %
    interval. `drift` is the relative change of latency from the first launch to the last; `threads` and `spinning` are
    what the runtime said that it had; `runs` are the calls and `elapsed_s` the seconds that stand behind the figures;
    `memory_mb` is the peak over the process before the model was loaded.
    """
    rows = []
    for record in records.records:
        for shape, times in row_times(records, record):
            columns = {**parameter_columns(record), "batch_size": shape.batch_size, "input_length": shape.input_length}
            figures = _columns(times) if isinstance(times, TimeFigures) else {"failure": str(times or NOT_ASKED)}
            rows.append({**columns, **figures})
    return frame_of(rows, (*parameter_names(records), "batch_size", "input_length", *TIME_FIGURES, "failure"))


def _columns(times: TimeFigures) -> dict[str, Any]:
    columns = {field.name: getattr(times, field.name) for field in fields(times) if field.name != "intervals"}
    for name, interval in times.intervals.items():
        bounds = (interval.value, interval.low, interval.high) if interval else (None, None, None)
        columns |= dict(zip(_bounded(name), bounds))
    return columns


def timing_notes(records: Records) -> list[str]:
    """That nothing was timed where none was asked for, and that lengths were asked for where inputs have none."""
    untimed = sum(not row["duration"] > 0 for row in records.plan)
    if untimed == len(records.plan):
        return [NOT_ASKED]
    notes = [f"{untimed} of {len(records.plan)} rows {'is' if untimed == 1 else 'are'} {NOT_ASKED}"] if untimed else []
    asked = [row["input_lengths"] for row in records.plan if row["input_lengths"]]
    if not asked or records.traits.has_length:
        return notes
    lengths = ", ".join(str(length) for length in dict.fromkeys(length for each in asked for length in each))
    return [
        *notes,
        f"input_lengths ({lengths}) change nothing for {records.plan.spec.task}: each batch size was timed once, "
        "at the size that the model's own processor gives",
    ]
