"""The figures of time of a row, computed from the raw times of its part. Frames and cards are both made from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from benchcard.analysis.records import Part, Records
from benchcard.measure.blocks import Opened
from benchcard.run.record import Cell, Record
from benchcard.utils.values import Failure, Interval, Shape

_NOT_RUN = Failure("time", "NotRun", "it has not been timed yet: run the spec again")


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
        threads: The number of intra-op threads that the runtime reported.
        spinning: Whether idle threads spin, as the runtime reported.
        load_ms: The median time to load the model.
        first_call_ms: The median time of the first call.
        memory_mb: The peak memory above that of the process before it loaded the model, in 10^6 bytes.
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
    from benchcard.measure.latency import latency_figures

    failure = part.failure(cell.name) if part else None
    if failure:
        return failure
    if part is None or not any(block.name == cell.name for timed in part.rounds for block in timed.blocks):
        return _NOT_RUN
    figures = latency_figures(part.rounds, cell.name, cell.shape.batch_size)
    ratio, detectable = _ratio(part, cell.name)
    opened = part.opened(cell.name)
    facts = opened[-1].facts if opened else {}
    return TimeFigures(
        intervals={
            "latency_mean_ms": _milliseconds(figures.mean_ns),
            **{f"latency_p{rank:g}_ms": _milliseconds(value) for rank, value in figures.percentiles_ns.items()},
            "throughput_per_s": figures.throughput_per_s,
            "ratio": ratio,
            "drift": figures.drift,
        },
        detectable=detectable,
        runs=figures.calls,
        elapsed_s=figures.elapsed_s,
        threads=facts.get("intra_op_num_threads"),
        spinning=facts.get("allow_spinning", False) if opened else None,
        load_ms=median(launch.load_ns for launch in opened) / 1e6 if opened else None,
        first_call_ms=median(launch.first_call_ns for launch in opened) / 1e6 if opened else None,
        memory_mb=max(peak_bytes(part, launch) for launch in opened) / 1e6 if opened else None,
    )


def _ratio(part: Part, name: str) -> tuple[Interval | None, bool | None]:
    """Return the ratio of a cell to the baseline, and whether it is detectable; None where they are not known."""
    from benchcard.measure.intervals import detectable, paired_ratio
    from benchcard.measure.latency import block_medians, noise_floor

    if part.baseline is None or part.failure(part.baseline):
        return None, None
    baseline, model = block_medians(part.rounds, part.baseline), block_medians(part.rounds, name)
    if not baseline.keys() & model.keys():
        return None, None
    ratio = paired_ratio(baseline, model)
    try:
        floor = noise_floor(part.rounds, part.baseline)
    except ValueError:
        # The baseline's second process could not be timed, so the noise is not known.
        return ratio, False
    return ratio, name != part.baseline and detectable(ratio, floor)


def _milliseconds(interval_ns: Interval | None) -> Interval | None:
    if interval_ns is None:
        return None
    low, high = interval_ns.low, interval_ns.high
    return Interval(interval_ns.value / 1e6, None if low is None else low / 1e6, None if high is None else high / 1e6)


def peak_bytes(part: Part, opened: Opened) -> int:
    """Return the peak memory of a process above what it took before it loaded its model, in one launch."""
    blocks = [block for timed in part.rounds if timed.launch == opened.launch for block in timed.blocks]
    peaks = [block.peak_bytes for block in blocks if (block.name, block.twin) == (opened.name, opened.twin)]
    return max([opened.peak_bytes, *peaks]) - opened.base_bytes
