"""The time figures of a row, from parts with made-up times."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from made_part import made_part

from benchcard.analysis.times import TimeFigures, _figures
from benchcard.utils.values import Interval, Shape

CPU_NS = {"base": 600_000, "x": 200_000}


@dataclass(frozen=True)
class NamedCell:
    """A cell with a name, of which a part knows the times."""

    name: str
    shape: Shape


def figures(
    name: str,
    cpu_ns: dict[str, int] | None = None,
    price_per_core_hour: float | None = None,
    price_per_hour: float | None = None,
) -> TimeFigures:
    """Return the figures of a model of a part with batches of eight."""
    part = made_part({"base": 400_000, "x": 100_000}, cpu_ns=cpu_ns)
    made = _figures(part, NamedCell(name, Shape(8, 64)), (price_per_core_hour, price_per_hour))
    assert isinstance(made, TimeFigures)
    return made


def known(made: TimeFigures, name: str) -> Interval:
    """Return a figure that has an interval around it."""
    interval = made.intervals[name]
    assert interval is not None
    assert interval.low < interval.value < interval.high
    return interval


def test_processor_time_is_per_call_and_per_sample():
    """`cpu_ms` is of a call, core-seconds are of a thousand samples, and the ratio is the baseline's over the row's."""
    made = figures("x", CPU_NS)
    assert known(made, "cpu_ms").value == pytest.approx(0.2, rel=0.01)
    assert known(made, "core_seconds_per_1000").value == pytest.approx(0.2e-3 / 8 * 1000, rel=0.01)
    assert known(made, "cpu_ratio").value == pytest.approx(3, rel=0.01)
    assert known(made, "ratio").value == pytest.approx(4, rel=0.01)
    assert figures("base", CPU_NS).intervals["cpu_ratio"] == Interval(1.0, 1.0, 1.0)
    assert made.intervals["cost_per_million"] is None


def test_a_clock_that_counts_nothing_gives_no_figure():
    """Where the processor time of all blocks is 0, there is none, and all other figures are there."""
    made = figures("x", price_per_core_hour=1)
    assert {name for name, interval in made.intervals.items() if interval is None} == {
        *("cpu_ms", "cpu_ratio", "core_seconds_per_1000", "cost_per_million", "latency_p99.9_ms"),
    }


def test_a_price_gives_the_cost_of_a_million_samples():
    """A core-hour pays for processor time, a machine's hour for the time that its samples take."""
    by_core = known(figures("x", CPU_NS, price_per_core_hour=0.05), "cost_per_million")
    core_seconds = known(figures("x", CPU_NS), "core_seconds_per_1000")
    assert by_core.value == pytest.approx(core_seconds.value * 1000 / 3600 * 0.05)
    assert by_core.high == pytest.approx(core_seconds.high * 1000 / 3600 * 0.05)
    by_machine = known(figures("x", CPU_NS, price_per_hour=0.4), "cost_per_million")
    throughput = known(figures("x", CPU_NS), "throughput_per_s")
    assert by_machine.value == pytest.approx(1e6 / throughput.value / 3600 * 0.4)
    assert by_machine.low == pytest.approx(1e6 / throughput.high / 3600 * 0.4)
