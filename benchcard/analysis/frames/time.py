"""The frame `time`: a row for each configuration and shape, with latencies and ratios.

Units are converted here: nanoseconds and bytes in the run directory, milliseconds and megabytes (10^6 bytes) in frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING, Any

from benchcard.analysis.frames.columns import frame_of, parameter_columns, parameter_names, text_of_failure
from benchcard.analysis.records import Part, Records
from benchcard.measure.blocks import Opened
from benchcard.run.record import Cell, Record
from benchcard.utils.values import Failure, Shape

if TYPE_CHECKING:
    import pandas as pd

    from benchcard.utils.values import Interval

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
        for shape, cell in record.cells.items():
            timed = _timed(records, record, cell, shape)
            rows.append(
                {
                    **parameter_columns(record),
                    "batch_size": cell.shape.batch_size,
                    "input_length": cell.shape.input_length,
                    **timed,
                }
            )
        for shape, failure in _untimed(records, record):
            rows.append(
                {
                    **parameter_columns(record),
                    "batch_size": shape.batch_size,
                    "input_length": shape.input_length,
                    "failure": str(failure),
                }
            )
    return frame_of(rows, (*parameter_names(records), "batch_size", "input_length", *TIME_FIGURES, "failure"))


def _timed(records: Records, record: Record, cell: Cell, shape: Shape) -> dict[str, Any]:
    from benchcard.measure import intervals, latency

    part = records.timed.get((record.configuration.row, shape))
    failure = part.failure(cell.name) if part else None
    if part is None or failure or not any(block.name == cell.name for timed in part.rounds for block in timed.blocks):
        return {"failure": text_of_failure(failure) or "time: NotRun: it has not been timed yet: run the spec again"}
    figures = latency.latency_figures(part.rounds, cell.name, cell.shape.batch_size)
    row: dict[str, Any] = _with_bounds("latency_mean_ms", figures.mean_ns, 1e6)
    for rank, interval in figures.percentiles_ns.items():
        row |= _with_bounds(f"latency_p{rank:g}_ms", interval, 1e6)
    row |= _with_bounds("throughput_per_s", figures.throughput_per_s) | _with_bounds("drift", figures.drift)
    if part.baseline is not None and not part.failure(part.baseline):
        medians = [latency.block_medians(part.rounds, name) for name in (part.baseline, cell.name)]
        if medians[0].keys() & medians[1].keys():
            ratio = intervals.paired_ratio(medians[0], medians[1])
            row |= _with_bounds("ratio", ratio)
            row["detectable"] = cell.name != part.baseline and _detectable(part, ratio)
    row |= {"runs": figures.calls, "elapsed_s": figures.elapsed_s}
    opened = part.opened(cell.name)
    if opened:
        for name in ("load", "first_call"):
            row[f"{name}_ms"] = median(getattr(each, f"{name}_ns") for each in opened) / 1e6
        facts = opened[-1].facts
        row |= {"threads": facts.get("intra_op_num_threads"), "spinning": facts.get("allow_spinning", False)}
        row["memory_mb"] = max(peak_bytes(part, each) for each in opened) / 1e6
    return row


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


def _with_bounds(name: str, interval: Interval | None, unit: float = 1.0) -> dict[str, float | None]:
    """A figure and the bounds of its interval, in a unit."""
    values = (interval.value, interval.low, interval.high) if interval else (None, None, None)
    return {column: None if value is None else value / unit for column, value in zip(_bounded(name), values)}


def _detectable(part: Part, ratio: Interval) -> bool:
    """Whether a ratio differs from 1 by more than its interval and by more than the noise of its run."""
    from benchcard.measure import intervals, latency

    try:
        floor = latency.noise_floor(part.rounds, part.baseline or "")
    except ValueError:
        # The baseline's twin could not be timed: nothing is known of the noise.
        return False
    return intervals.detectable(ratio, floor)


def peak_bytes(part: Part, opened: Opened) -> int:
    """Bytes that a process took at its most over what it took before it loaded its model, in one launch."""
    blocks = [block for timed in part.rounds if timed.launch == opened.launch for block in timed.blocks]
    mine = (opened.name, opened.twin)
    peaks = [block.peak_bytes for block in blocks if (block.name, block.twin) == mine]
    return max([opened.peak_bytes, *peaks]) - opened.base_bytes


def _untimed(records: Records, record: Record) -> Iterator[tuple[Shape, Failure | str]]:
    """The shapes for which a row has nothing to time, and why."""
    row = record.configuration
    has_length = records.traits.has_length
    for batch_size in row["batch_sizes"]:
        for length in (has_length and row["input_lengths"]) or [None]:
            shape = Shape(batch_size, length)
            failure = record.failures.model or record.failures.time.get(shape)
            if failure or not row["duration"] > 0:
                yield shape, failure or NOT_ASKED
