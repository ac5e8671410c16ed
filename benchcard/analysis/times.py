"""The time figures of a row, computed from the raw times of its part. Frames and cards are both made from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from benchcard.analysis.records import Part, Records
from benchcard.measure.latency import latency_figures
from benchcard.run.record import Cell, Record
from benchcard.steps.step import NotRun
from benchcard.utils.values import Failure, Interval, Shape

_NOT_RUN = NotRun("time", "NotRun", "it has not been timed yet: run the spec again")


@dataclass(frozen=True)
class TimeFigures:
    """The figures of one row and shape, with 95 % intervals. A figure is None where it is not known.

    Attributes:
        intervals: The figures with intervals by name, the unit in the name: `latency_mean_ms` and `latency_p99_ms` of
            one forward call; `throughput_per_s`, samples per elapsed second; `ratio`, how many times faster than the
            baseline, paired round by round; `drift`, the relative change of latency from the first launch to the last.
        detectable: Whether the ratio differs from 1 by more than its interval and the noise.
        runs: The number of calls behind the figures.
        elapsed_s: The seconds behind the figures.
        spinning: Whether idle threads spin, as the runtime reported.
        load_ms: The median time to load the model.
        first_call_ms: The median time of the first call.
        memory_mb: The peak memory above that of the process before it loaded the model, in 10^6 bytes.
        memory_saved: How much less that is than the baseline's, in %.
    """

    intervals: dict[str, Interval | None]
    detectable: bool | None
    runs: int
    elapsed_s: float
    threads: int | None
    spinning: bool | None
    load_ms: float | None
    first_call_ms: float | None
    memory_mb: float | None
    memory_saved: float | None


def row_times(records: Records, record: Record) -> Iterator[tuple[Shape, TimeFigures | Failure | None]]:
    """Yield for each shape of a row its figures, or why there are none; None where the spec asks for no timing."""
    for shape, cell in record.cells.items():
        yield cell.shape, _figures(records.timed.get((record.configuration.row, shape)), cell)
    row = record.configuration
    for batch_size in row["batch_sizes"]:
        for length in (records.traits.has_length and row["input_lengths"]) or [None]:
            shape = Shape(batch_size, length)
            failure = record.failures.model or record.failures.time.get(shape)
            if failure or not row["duration"] > 0:
                yield shape, failure


def _figures(part: Part | None, cell: Cell) -> TimeFigures | Failure:
    failure = part.failure(cell.name) if part else None
    if failure:
        return failure
    if part is None or not part.medians_ns(cell.name):
        return _NOT_RUN
    figures = latency_figures(part.rounds, cell.name, cell.shape.batch_size)
    ratio = part.speedup(cell.name)
    opened = part.opened(cell.name)
    facts = opened[-1].facts if opened else {}
    threads = facts.get("intra_op_num_threads")
    return TimeFigures(
        intervals={
            "latency_mean_ms": _milliseconds(figures.mean_ns),
            **{f"latency_p{rank:g}_ms": _milliseconds(value) for rank, value in figures.percentiles_ns.items()},
            "throughput_per_s": figures.throughput_per_s,
            "ratio": ratio,
            "drift": figures.drift,
        },
        detectable=None if ratio is None else cell.name in part.detectable,
        runs=figures.calls,
        elapsed_s=figures.elapsed_s,
        threads=threads if isinstance(threads, int) else None,
        spinning=bool(facts.get("allow_spinning", False)) if opened else None,
        load_ms=median(launch.load_ns for launch in opened) / 1e6 if opened else None,
        first_call_ms=median(launch.first_call_ns for launch in opened) / 1e6 if opened else None,
        memory_mb=max(part.peaks_bytes(cell.name)) / 1e6 if opened else None,
        memory_saved=_memory_saved(part, cell.name),
    )


def _memory_saved(part: Part, name: str) -> float | None:
    baseline = part.peaks_bytes(part.baseline) if part.baseline else []
    peaks = part.peaks_bytes(name)
    return 100 * (1 - max(peaks) / max(baseline)) if peaks and baseline and max(baseline) > 0 else None


def _milliseconds(interval_ns: Interval | None) -> Interval | None:
    if interval_ns is None:
        return None
    low, high = interval_ns.low, interval_ns.high
    return Interval(interval_ns.value / 1e6, None if low is None else low / 1e6, None if high is None else high / 1e6)
