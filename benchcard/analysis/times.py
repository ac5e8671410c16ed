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

DEVICE_MEMORY = ("device_memory", "device_allocated")
_NOT_RUN = NotRun("time", "NotRun", "it has not been timed yet: run the spec again")


@dataclass(frozen=True)
class TimeFigures:
    """The figures of one row and shape, with 95 % intervals. A figure is None where it is not known.

    Attributes:
        intervals: The figures with intervals by name, the unit in the name: `latency_mean_ms` and `latency_p99_ms` of
            one forward call; `throughput_per_s`, samples per elapsed second; `ratio`, how many times faster than the
            baseline, paired round by round; `tokens_per_s` of a call, for tasks that count tokens: those of the prompt,
            or those that are made in the phase `token`; `drift`, the relative change
            of latency from the first launch to the last;
            `cpu_ms`, the processor time of one call, of all threads, also of those that wait spinning; `cpu_ratio`, the
            baseline's processor time over the row's; `core_seconds_per_1000` samples; `cost_per_million` samples, where
            the spec or the service gives a price.
        detectable: Whether the ratio differs from 1 by more than its interval and the noise.
        runs: The number of calls behind the figures.
        elapsed_s: The seconds behind the figures.
        spinning: Whether idle threads spin, as the runtime reported.
        load_ms: The median time to load the model.
        first_call_ms: The median time of the first call.
        memory_mb: The peak memory above that of the process before it loaded the model, in 10^6 bytes.
        memory_saved: How much less that is than the baseline's, in %.
        device_memory_mb: The GPU memory of the process after the warm-up, with its CUDA context, in 10^6 bytes.
        device_allocated_mb: The peak of its tensors there, of PyTorch alone.
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
    device_memory_mb: float | None = None
    device_allocated_mb: float | None = None


def row_times(records: Records, record: Record) -> Iterator[tuple[Shape, TimeFigures | Failure | None]]:
    """Yield for each shape of a row its figures, or why there are none; None where the spec asks for no timing."""
    for shape, cell in record.cells.items():
        part = records.timed.get((record.configuration.row, shape))
        times = _figures(part, cell, prices(records, record))
        if isinstance(times, TimeFigures) and records.traits.counts_tokens and cell.shape.tokens:
            times.intervals["tokens_per_s"] = _scaled(times.intervals["throughput_per_s"], cell.shape.tokens)
        yield cell.shape, times
    row = record.configuration
    for shape in records.traits.shapes_of(row):
        failure = record.failures.model or record.failures.time.get(shape)
        if failure or not row["duration"] > 0:
            yield shape, failure


def prices(records: Records, record: Record) -> tuple[float | None, float | None]:
    """Return the prices of a core and of the machine in an hour: those of the spec, or else that of the service."""
    spec, arguments = records.plan.spec, record.configuration["backend_args"]
    per_hour = arguments.get("price_per_hour", spec.get("price_per_hour"))
    per_core = spec.get("price_per_core_hour") if per_hour is None else None
    if per_hour is None and per_core is None:
        per_hour = records.info_of(record).price_per_hour
    return per_core, per_hour


def _figures(part: Part | None, cell: Cell, prices: tuple[float | None, float | None]) -> TimeFigures | Failure:
    failure = part.failure(cell.name) if part else None
    if failure:
        return failure
    if part is None or not part.medians_ns(cell.name):
        return _NOT_RUN
    figures = latency_figures(part.rounds, cell.name, cell.shape.batch_size)
    ratio = part.speedup(cell.name)
    # 1 ns for a sample is 1e-6 s for 1,000 samples.
    core_seconds = _scaled(figures.cpu_ns, 1e-6 / cell.shape.batch_size)
    opened = part.opened(cell.name)
    facts = opened[-1].facts if opened else {}
    threads = facts.get("intra_op_num_threads")
    return TimeFigures(
        intervals={
            "latency_mean_ms": _scaled(figures.mean_ns, 1e-6),
            **{f"latency_p{rank:g}_ms": _scaled(value, 1e-6) for rank, value in figures.percentiles_ns.items()},
            "throughput_per_s": figures.throughput_per_s,
            "ratio": ratio,
            "drift": figures.drift,
            "cpu_ms": _scaled(figures.cpu_ns, 1e-6),
            "cpu_ratio": part.cpu_speedup(cell.name),
            "core_seconds_per_1000": core_seconds,
            "cost_per_million": _cost_per_million(*prices, core_seconds, figures.throughput_per_s),
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
        **{f"{name}_mb": _device_mb(part, cell.name, f"{name}_bytes") for name in DEVICE_MEMORY},
    )


def _device_mb(part: Part, name: str, fact: str) -> float | None:
    sizes = [each.facts.get(fact) for each in part.opened(name)]
    return max((size / 1e6 for size in sizes if isinstance(size, int)), default=None)


def _memory_saved(part: Part, name: str) -> float | None:
    baseline = part.peaks_bytes(part.baseline) if part.baseline else []
    peaks = part.peaks_bytes(name)
    return 100 * (1 - max(peaks) / max(baseline)) if peaks and baseline and max(baseline) > 0 else None


def _cost_per_million(
    per_core: float | None, per_hour: float | None, core_seconds: Interval | None, throughput_per_s: Interval
) -> Interval | None:
    """Return the cost of a million samples, by `core_seconds` per 1,000 or by throughput; None without a price."""
    if per_core is not None:
        return _scaled(core_seconds, per_core * 1000 / 3600)
    if per_hour is None:
        return None
    value, low, high = throughput_per_s.value, throughput_per_s.low, throughput_per_s.high
    return _scaled(Interval(1e6 / value, high and 1e6 / high, low and 1e6 / low), per_hour / 3600)


def _scaled(interval: Interval | None, factor: float) -> Interval | None:
    if interval is None:
        return None
    low, high = interval.low, interval.high
    return Interval(interval.value * factor, low and low * factor, high and high * factor)
