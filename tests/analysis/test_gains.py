"""Gains of rows, from parts with made-up latencies and memory."""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
from made_part import died, made_part

from benchcard import Results
from benchcard.analysis.frames.noise import _disturbances
from benchcard.analysis.gains import Gain, _gain, _latencies_differ, mean_ratio, unfinished_rows
from benchcard.measure.machine_state import MachineState
from benchcard.utils.values import Failure, Interval, Shape

SHAPE, LONG = Shape(1, 64), Shape(1, 200)
LATENCIES = {"base": 200_000, "x": 100_000}
BOTH = (("base", False), ("base", True), ("x", False))


def test_a_row_of_half_the_latency_is_twice_as_fast():
    """A row of half the latency has a ratio of 2 that is beyond its interval and the noise floor."""
    gain = _gain("latency", made_part(LATENCIES), "x", SHAPE, 1)
    assert gain.ratio is not None
    assert gain.ratio.value == pytest.approx(2, rel=0.01)
    assert gain.sure


def test_the_ratio_of_processor_time_is_at_the_same_level():
    """The interval of the ratio of processor time holds for all rows at once, as that of latencies does."""
    part = made_part(LATENCIES, cpu_ns={"base": 300_000, "x": 200_000})
    one, many = (_gain("latency", part, "x", SHAPE, count).cpu_ratio for count in (1, 20))
    assert one == part.cpu_speedup("x")
    assert one.value == many.value == pytest.approx(1.5, rel=0.01)
    assert many.low < one.low < one.high < many.high
    assert part.cpu_speedup("base") == Interval(1.0, 1.0, 1.0)
    assert not part.cpu_noise_floor.excludes(1.0)
    assert part.cpu_noise_floor != part.noise_floor


def test_the_mean_over_shapes_is_that_of_latency_or_of_processor_time():
    """A shape without a figure does not count; the bounds are the outermost ones."""
    ratio, cpu = Interval(9.0, 8.0, 10.0), (Interval(1.0, 0.5, 1.5), Interval(4.0, 3.5, 4.5), None)
    gains = [Gain(ratio, True, Shape(size), cpu_ratio=each) for size, each in enumerate(cpu, 1)]
    assert mean_ratio(gains).value == pytest.approx(9)
    mean = mean_ratio(gains, of_cpu=True)
    assert mean.value == pytest.approx(2)
    assert (mean.low, mean.high) == (0.5, 4.5)


def test_nothing_is_sure_without_a_noise_floor():
    """Where the baseline's second process was not timed, a ratio is known and is not sure."""
    part = made_part(LATENCIES)
    alone = tuple(replace(each, blocks=tuple(one for one in each.blocks if not one.twin)) for each in part.rounds)
    gain = _gain("latency", replace(part, rounds=alone), "x", SHAPE, 1)
    assert gain.ratio is not None
    assert gain.ratio.excludes(1.0)
    assert (gain.sure, gain.doubt) == (False, "the noise is not known")


def test_nothing_is_sure_on_a_disturbed_machine():
    """Where others used much of the processors, or the baseline's two processes differ, a ratio is known, not sure."""
    part = made_part(LATENCIES)
    states = [MachineState(at_ns=n * 10**9, busy_s=0.5 * n, own_s=0.0) for n in range(len(part.rounds) + 1)]
    busy = tuple(
        replace(timed, before=before, after=after)
        for timed, (before, after) in zip(part.rounds, itertools.pairwise(states))
    )
    gain = _gain("latency", replace(part, rounds=busy), "x", SHAPE, 1)
    assert (gain.sure, gain.doubt) == (False, "the machine was disturbed")
    (disturbed,) = (each for each in _disturbances(replace(part, rounds=busy), 5) if each.kind == "disturbed")
    assert str(disturbed) == "the machine was disturbed: no ratio counts as detectable"
    once = replace(part, rounds=busy[:2])
    assert once.disturbance == "the machine was disturbed"
    slowed = tuple(
        replace(
            timed,
            blocks=tuple(replace(one, latencies_ns=one.latencies_ns * (2 if one.twin else 1)) for one in timed.blocks),
        )
        for timed in part.rounds
    )
    gain = _gain("latency", replace(part, rounds=slowed), "x", SHAPE, 1)
    assert gain.doubt == "two processes of the baseline differ by more than their interval"
    assert not gain.sure
    assert replace(part, rounds=slowed).detectable == frozenset()
    assert part.detectable == {"x"}


@pytest.mark.parametrize("objective", ["latency", "memory"])
@pytest.mark.parametrize("name", ["base", "x"])
def test_what_died_gains_nothing(objective, name):
    """A row has no gain if its process, or the baseline's, died."""
    memory = dict(zip(BOTH, ([200] * 5, [200] * 5, [100] * 5)))
    lived, dead = (made_part(LATENCIES, memory=memory, failures=each) for each in ([], [died(name)]))
    assert _gain(objective, lived, "x", SHAPE, 1).sure
    gain = _gain(objective, dead, "x", SHAPE, 1)
    assert (gain.ratio, gain.sure) == (None, False)


@pytest.mark.parametrize(
    ("base", "twin", "x", "sure"),
    [
        ([200] * 5, [201] * 5, [190] * 5, True),
        # The same by chance in every third run: two launches, the one order of two.
        ([200] * 2, [201] * 2, [190] * 2, False),
        # The twin of the baseline took as little once.
        ([200] * 5, [201, 201, 201, 201, 189], [190] * 5, False),
        # Less than each of them, but by less than they are apart.
        ([200] * 5, [220] * 5, [190] * 5, False),
        ([200] * 5, [], [190] * 5, False),
    ],
)
def test_less_memory_is_beyond_what_launches_are_apart(base, twin, x, sure):
    """A gain in memory is sure in enough launches, and if it is larger than differences between launches of the
    baseline.
    """
    part = made_part(LATENCIES, launches=len(x), memory=dict(zip(BOTH, (base, twin, x))))
    gain = _gain("memory", part, "x", SHAPE, 1)
    assert gain.sure is sure
    assert gain.ratio is not None
    assert gain.ratio.value == pytest.approx(200 / 190)


def without(results, shape, rows):
    """Return the results as if these rows had no inputs of a shape."""
    failure = Failure("shape", "ValueError", "the model takes 64 tokens")
    records = tuple(
        replace(record, failures=replace(record.failures, time={**record.failures.time, shape: failure}))
        if record.configuration.row in rows
        else record
        for record in results.records.records
    )
    return Results(replace(results.records, records=records))


def test_a_shape_that_nobody_could_be_timed_at_does_not_count(results):
    """A shape at which the baseline has no latency does not count; the reason and the card name it."""
    rows = range(len(results.plan))
    asked = without(results, LONG, rows)
    known, found = results.gains("latency"), asked.gains("latency")
    assert found.by_row == known.by_row
    assert found.untimed_shapes == {results.baseline: (LONG,)}
    assert found.costs == known.costs
    assert asked.best().row == results.best().row
    assert "at 1x200 nothing is compared: the baseline has no latency there" in asked.best().reason
    assert "at 1x200 nothing is compared" in asked.card().text


def test_a_row_that_alone_could_not_be_timed_is_not_taken(results):
    """A row that alone could not be timed at a shape is not chosen; other rows are not affected."""
    row = next(row for row in results.gains("latency").by_row if row != results.baseline)
    found = without(results, LONG, [row]).gains("latency")
    assert found.untimed_shapes == {}
    assert [(gain.ratio, gain.shape) for gain in found.by_row[row] if not gain.ratio] == [(None, LONG)]


def test_a_run_that_was_stopped_says_how_far_it_got(results):
    """A run that was stopped has unfinished rows, and its choice and card say so; a finished run has none."""
    assert unfinished_rows(results.records) == frozenset()
    assert "not finished" not in results.card().text
    stopped = Results(replace(results.records, timed={}))
    assert stopped.gains("latency").unfinished == stopped.gains("size").unfinished == frozenset(range(6))
    assert stopped.best().reason.startswith(
        "keep the baseline for now: the run is not finished (0 of 6 configurations done)"
    )
    text = stopped.card().text
    assert "\n\n**This run is not finished**, with 0 of 6 configurations done: `benchcard run` continues it" in text
    assert "faster" not in text.split("### What was compared")[0]


def test_two_rows_are_compared_by_their_own_ratio():
    """Rows that were timed together differ if their own paired ratio excludes 1, at any shape; rows of one cell never
    do, and rows of two parts cannot be compared.
    """
    part = made_part({"base": 200_000, "x": 100_000, "y": 100_100, "z": 150_000})
    names = ("base", "x", "y", "z", "x")
    records = SimpleNamespace(
        records=[SimpleNamespace(cells={SHAPE: SimpleNamespace(name=name)}) for name in names],
        timed={(row, SHAPE): part for row in range(len(names))},
    )
    assert _latencies_differ(records, 1, 3)
    assert _latencies_differ(records, 1, 2) is False
    assert _latencies_differ(records, 1, 4) is False
    records.timed[4, SHAPE] = made_part({"base": 200_000, "x": 100_000})
    assert _latencies_differ(records, 1, 4) is None
