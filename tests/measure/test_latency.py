"""Figures with intervals from raw latencies: estimators against their definitions, intervals against the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import trim_mean, ttest_1samp
from scipy.stats.mstats import winsorize
from scripts import load_benchmark
from timing_fixtures import paired_ratio

from benchcard.measure.blocks import Block, Round
from benchcard.measure.intervals import drift, paired_ratios, precise, unpaired_ratio
from benchcard.measure.latency import block_medians, cpu_times, latency_figures, over_launches
from benchcard.measure.machine_state import MachineState
from benchcard.measure.noise import distinguishable, ratios
from benchcard.utils.values import Interval

QUIET = MachineState(at_ns=0)
logarithms = st.lists(st.floats(-0.1, 0.1, allow_subnormal=False), min_size=1, max_size=40)


def block(
    latencies_ns: Sequence[int],
    name: str = "a",
    *,
    twin: bool = False,
    elapsed_ns: int | None = None,
    cpu_ns: int = 0,
) -> Block:
    values = np.asarray(latencies_ns, dtype=np.int64)
    return Block(name, twin, 0, elapsed_ns or int(values.sum()), values, 1, cpu_ns, 0, 0, 0, 0)


def rounds_of(*by_round: Sequence[Block], per_launch: int = 2) -> list[Round]:
    return [Round(number, number // per_launch, tuple(blocks), QUIET, QUIET) for number, blocks in enumerate(by_round)]


def placed(values: Sequence[float], per_launch: int = 2) -> dict[tuple[int, int], float]:
    """Medians by launch and round, so many rounds to a launch."""
    return {(number // per_launch, number): float(value) for number, value in enumerate(values)}


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    """The script that shows how often intervals hold the truth."""
    return load_benchmark("coverage")


@pytest.mark.parametrize(
    "scenario",
    [
        "quiet",
        "noisy calls",
        "heavy tails",
        "skewed, few calls",
        "drift",
        "bursts",
        "correlated blocks",
        "states of blocks",
        "states of a process",
        "processes differ a bit",
        "processes differ",
        "one model's differ",
        "unequal launches",
        "a third disturbed",
        "moved differently",
        "all of these",
        "stopped at 1 %",
    ],
)
def test_intervals_hold_the_truth(simulation: ModuleType, scenario: str) -> None:
    """On a simulated machine of every kind, 95 % intervals hold the true ratio about as often as they say.

    Where other work affects models differently, they do not, and every such run is marked as disturbed.
    """
    share, width, disturbed = simulation.coverage(
        simulation.interleaved, simulation.SCENARIOS[scenario], runs=200, rounds=50, seed=4
    )
    if scenario == "moved differently":
        assert disturbed == 1
    else:
        assert 0.91 <= share <= 0.99  # two standard errors of 200 runs beyond the bounds of the full benchmark
        assert width < 0.15
        assert disturbed == (scenario == "a third disturbed")


def test_every_scenario_is_tested(simulation: ModuleType) -> None:
    """The scenarios above are those of the benchmark."""
    (marks,) = (mark for mark in test_intervals_hold_the_truth.pytestmark if mark.name == "parametrize")
    assert marks.args[1] == list(simulation.SCENARIOS)


@pytest.mark.parametrize(
    "scenario",
    [
        *("quiet", "noisy calls", "skewed, few calls", "drift", "correlated blocks", "states of blocks"),
        *("one model's differ", "unequal launches", "moved differently"),
    ],
)
def test_intervals_of_processor_time_hold_the_truth(simulation: ModuleType, scenario: str) -> None:
    """Although the clock counts in steps, 95 % intervals of processor time hold the true ratio as often as they say."""
    share, width, _ = simulation.coverage(
        simulation.processor_time, simulation.SCENARIOS[scenario], runs=200, rounds=50, seed=4
    )
    assert 0.91 <= share <= 0.99
    assert width < 0.15


@pytest.mark.parametrize(("scenario", "most"), [("drift", 0.1), ("processes differ", 0.2)])
def test_models_timed_one_after_the_other_do_not_hold_it(simulation: ModuleType, scenario: str, most: float) -> None:
    """The simulation tells methods apart: where machines drift or processes differ, the usual one is mostly wrong."""
    share, *_ = simulation.coverage(simulation.in_turn, simulation.SCENARIOS[scenario], runs=50, rounds=60, seed=4)
    assert share < most


def test_the_ratio_of_a_machine_that_changes_is_exact() -> None:
    """What happens to a whole round alike leaves no trace in the ratio."""
    machine = np.exp(np.random.default_rng(0).normal(size=30))
    ratio = paired_ratio(placed(3.0 * machine), placed(2.0 * machine))
    assert ratio.value == pytest.approx(1.5)
    assert ratio.low == pytest.approx(1.5)
    assert ratio.high == pytest.approx(1.5)


def test_the_interval_is_students_over_launches_where_these_vary() -> None:
    """One value a launch, the trimmed mean over its rounds, on a logarithmic scale, as scipy's t-test has it."""
    draw = np.random.default_rng(0)
    baseline, subject = np.exp(draw.normal(1, 0.01, (2, 5, 7)) + draw.normal(0, 0.1, (2, 5, 1)))
    levels = trim_mean(np.log(baseline / subject), 0.25, axis=1)
    expected = ttest_1samp(levels, 0).confidence_interval(0.95)
    found = paired_ratio(placed(baseline.ravel(), 7), placed(subject.ravel(), 7))
    assert found.value == pytest.approx(math.exp(levels.mean()))
    assert found.low == pytest.approx(math.exp(expected.low))
    assert found.high == pytest.approx(math.exp(expected.high))


def test_the_interval_is_over_rounds_where_launches_add_nothing() -> None:
    """With equal launches, the interval is that of a trimmed mean over all rounds, with winsorized variances."""
    draw = np.random.default_rng(0)
    logs = np.tile(draw.normal(0, 0.1, 20), (5, 1))
    found = paired_ratio(placed(np.exp(logs.ravel()), 20), placed(np.ones(100), 20))
    kept = 10  # of 20 rounds
    error = math.sqrt(float(winsorize(logs[0], (0.25, 0.25)).var()) * 20 / (kept * (kept - 1)) / 5)
    assert found.value == pytest.approx(math.exp(trim_mean(logs[0], 0.25)))
    assert found.high is not None
    assert math.log(found.high / found.value) == pytest.approx(student.ppf(0.975, 5 * (kept - 1)) * error)


def test_launches_are_tested_on_all_ratios_together() -> None:
    """An effect of launches that all ratios share widens each of them; that of one model alone widens only its own."""
    draw = np.random.default_rng(1)
    noise = draw.normal(0, 0.01, (6, 5, 10))
    shared, own = noise + draw.normal(0, 0.01, (6, 5, 1)), noise.copy()
    own[0] += draw.normal(0, 0.05, (5, 1))
    plain, wide, one = (
        paired_ratios(placed(np.ones(50), 10), {n: placed(np.exp(row.ravel()), 10) for n, row in enumerate(logs)})
        for logs in (noise, shared, own)
    )
    assert np.mean([ratio.error for ratio in wide.values()]) > 1.5 * np.mean([ratio.error for ratio in plain.values()])
    assert np.mean([ratio.launches_add for ratio in wide.values()]) > 2
    assert {ratio.freedom for ratio in wide.values()} == {4}
    assert all(ratio.freedom > 4 for ratio in plain.values())
    assert [one[n].error == plain[n].error for n in range(6)] == [False, True, True, True, True, True]
    assert (one[0].error or 0) > 5 * (plain[0].error or 0)
    assert one[0].freedom == 4


def test_rounds_that_do_not_vary_are_judged_by_launches() -> None:
    """A coarse clock may give all rounds of a launch one latency, while launches differ."""
    draw = np.random.default_rng(0)
    coarse = np.repeat([1.0, 1.01, 0.99, 1.01, 0.99], 10)
    others = {"coarse": placed(coarse, 10), "fine": placed(np.exp(draw.normal(0, 0.01, 50)), 10)}
    found = paired_ratios(placed(np.ones(50), 10), others)["coarse"]
    assert found.error == pytest.approx(np.log(coarse[::10]).std(ddof=1) / math.sqrt(5))
    assert found.freedom == 4


@given(logarithms)
@settings(deadline=None)
def test_swapping_the_sides_inverts_the_ratio(logs: list[float]) -> None:
    """Baseline over subject is one over subject over baseline, interval included."""
    baseline = placed([math.exp(value) for value in logs])
    subject = dict.fromkeys(baseline, 1.0)
    one, other = paired_ratio(baseline, subject), paired_ratio(subject, baseline)
    assert one.value == pytest.approx(1 / other.value)
    if one.low is None or one.high is None or other.low is None or other.high is None:
        assert len(logs) <= 2
        assert one.low is one.high is other.low is other.high is None
    else:
        assert one.low <= one.value <= one.high
        assert one.low * other.high == pytest.approx(1)
        assert one.high * other.low == pytest.approx(1)


def test_only_shared_rounds_count() -> None:
    """A round in which one of the two was not timed says nothing about their ratio."""
    baseline, subject = {(0, 0): 2.0, (1, 1): 2.0, (1, 2): 99.0}, {(0, 0): 1.0, (1, 1): 1.0, (2, 3): 99.0}
    assert paired_ratio(baseline, subject).value == pytest.approx(2.0)
    assert paired_ratios({(0, 0): 1.0}, {"b": {(0, 1): 1.0}}) == {}


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    """Intervals that hold for many rows at once contain those that hold for one."""
    baseline, subject = (placed(np.exp(row)) for row in np.random.default_rng(1).normal(0, 0.1, (2, 50)))
    one, many = paired_ratio(baseline, subject), paired_ratio(baseline, subject, 1 - 0.05 / 18)
    assert one.low is not None
    assert one.high is not None
    assert many.low is not None
    assert many.high is not None
    assert many.low < one.low < one.value == many.value < one.high < many.high


def test_many_rounds_of_one_launch_are_one_launch() -> None:
    """However many rounds there are, a single launch of each gives a ratio and no interval."""
    assert paired_ratio(placed([3.0] * 500, 500), placed([2.0] * 500, 500)) == Interval(pytest.approx(1.5), None, None)


def test_bounds_that_tell_nothing_are_left_out() -> None:
    """Two launches far apart, at the level of two hundred rows, give a ratio and no bounds beyond all numbers."""
    baseline, subject = placed([1.0, 1.1], 1), placed([1.0, 1.8], 1)
    for ratio in (paired_ratio, unpaired_ratio):
        assert ratio(baseline, subject).low is not None
        found = ratio(baseline, subject, 1 - 0.05 / 200)
        assert (found.low, found.high) == (None, None)
        assert found.value == pytest.approx((1.1 / 1.8) ** 0.5)


def test_an_interval_knows_what_it_excludes() -> None:
    """Bounds belong to the interval, and one without bounds excludes nothing and is within nothing."""
    assert Interval(1.2, 1.1, 1.3).excludes(1.0)
    assert Interval(0.8, 0.7, 0.9).excludes(1.0)
    assert not Interval(1.1, 1.0, 1.2).excludes(1.0)
    assert not Interval(5.0, None, None).excludes(1.0)
    assert Interval(2.0, 1.98, 2.02).within(0.0101)
    assert not Interval(2.0, 1.98, 2.02).within(0.0099)
    assert not Interval(2.0, None, None).within(1.0)


def test_ratios_are_of_all_models_and_the_twin() -> None:
    """The baseline over each model, and over its own second process, round by round."""
    timed = rounds_of(*([block([10 + n] * 3), block([20 + 2 * n] * 3, twin=True)] for n in range(10)))
    assert list(ratios(timed, "a", ["a", "b"])) == [("a", True)]
    assert ratios(timed, "a", ["a"])["a", True].interval().value == pytest.approx(0.5)
    assert ratios(rounds_of([block([1])]), "a", ["a", "b"]) == {}


def test_processor_time_is_that_of_a_launch_per_call() -> None:
    """One value for each launch: its processor time over its calls, however the clock spread it over its blocks."""
    used = [[0, 40], [20, 20], [16, 32], [0, 0]]
    timed = rounds_of(*([block([5] * 4, cpu_ns=cpu)] for launch in used for cpu in launch))
    assert cpu_times(timed, "a") == {(0, 0): 5.0, (1, 0): 5.0, (2, 0): 6.0}
    figure = latency_figures(timed, "a", samples=1).cpu_ns
    assert figure is not None
    assert figure.value == pytest.approx(128 / 24)
    assert latency_figures(rounds_of([block([5])]), "a", samples=1).cpu_ns is None
    assert cpu_times(timed, "b") == {}


def test_ratios_of_processor_time_are_students_over_launches() -> None:
    """The baseline's processor time per call over that of each model and of its twin, one value for each launch."""
    draw = np.random.default_rng(0)
    used = np.rint(1e6 * np.exp(draw.normal(0, 0.02, (3, 10)))).astype(int) * np.array([[2], [1], [2]])
    timed = rounds_of(
        *(
            [block([9], cpu_ns=a), block([9], "b", cpu_ns=b), block([9], twin=True, cpu_ns=twin)]
            for a, b, twin in used.T.tolist()
        )
    )
    found = ratios(timed, "a", ["a", "b"], cpu_times)
    assert list(found) == [("b", False), ("a", True)]
    launches = used.reshape(3, 5, 2).sum(axis=2)
    for key, subject in ((("b", False), launches[1]), (("a", True), launches[2])):
        logs = np.log(launches[0] / subject)
        expected = ttest_1samp(logs, 0).confidence_interval(0.95)
        interval = found[key].interval()
        assert interval.value == pytest.approx(math.exp(logs.mean()))
        assert interval.low == pytest.approx(math.exp(expected.low))
        assert interval.high == pytest.approx(math.exp(expected.high))


def test_one_test_for_all_ratios_has_the_stated_level() -> None:
    """Of many runs with equal models, in 5 of 100 at most one of them differs; models that do differ are found."""
    draw = np.random.default_rng(0)
    wrong, right = 0, 0
    for _ in range(300):
        logs = draw.normal(0, 0.02, (9, 50))
        logs[8] += 0.02
        medians = [placed(np.exp(row), 10) for row in logs]
        names = {(str(number), False): values for number, values in enumerate(medians[1:])}
        found = distinguishable(paired_ratios(medians[0], names))
        right += ("7", False) in found
        wrong += bool(found - {("7", False)})
    assert wrong <= 0.08 * 300
    assert right >= 0.7 * 300


def test_nothing_differs_where_the_noise_is_not_known() -> None:
    """One launch gives ratios without a p-value."""
    alone = paired_ratios(placed([3.0] * 9, 9), {("b", False): placed([1.0] * 9, 9)})
    assert alone["b", False].p_value is None
    assert distinguishable(alone) == set()


def test_timing_stops_one_launch_after_the_interval_is_narrow() -> None:
    """Precision reached in the first eight launches ends timing at nine; one that is not reached does not."""
    draw = np.random.default_rng(0)
    baseline, subject = (placed(np.exp(row)) for row in draw.normal(0, 0.01, (2, 60)))

    def first_stop(precision: float) -> int | None:
        shorter = ({place: subject[place] for place in subject if place[0] < count} for count in range(1, 31))
        return next((n for n, first in enumerate(shorter, 1) if precise(baseline, {"b": first}, precision)), None)

    assert first_stop(0.1) == 9
    assert first_stop(1e-6) is None
    assert (first_stop(0.005) or 0) > 10


def test_figures_are_those_of_all_calls() -> None:
    """Mean and percentiles are taken over every recorded call, throughput over really elapsed time, in samples."""
    draw = np.random.default_rng(0)
    latencies = draw.integers(1_000, 2_000, (20, 100))
    timed = rounds_of(*([block(row, elapsed_ns=300_000)] for row in latencies))
    figures = latency_figures(timed, "a", samples=8)
    assert figures.mean_ns.value == pytest.approx(latencies.mean())
    for rank in (50.0, 90.0, 95.0, 99.0):
        found = figures.percentiles_ns[rank]
        assert found is not None
        assert found.value == pytest.approx(np.percentile(latencies, rank))
        assert found.low is not None
    assert figures.throughput_per_s.value == pytest.approx(8 * 2000 / (20 * 300_000e-9))
    assert (figures.calls, figures.rounds, figures.launches) == (2000, 20, 10)
    assert figures.elapsed_s == pytest.approx(0.006)


def test_rare_latencies_have_figures_only_where_calls_are() -> None:
    """A percentile with no call beyond it is absent; one with fewer than a call in each launch has no interval."""
    figures = latency_figures(rounds_of(*([block(range(1, 51))] for _ in range(8)), per_launch=1), "a", samples=1)
    rare, few, common = (figures.percentiles_ns[rank] for rank in (99.9, 99.0, 95.0))
    assert rare is None
    assert few is not None
    assert few.low is None
    assert common is not None
    assert common.low is not None
    ten = latency_figures(rounds_of([block(range(1, 11))]), "a", samples=1).percentiles_ns
    assert [rank for rank, found in ten.items() if found] == [50.0, 90.0]


def test_the_twin_has_figures_of_its_own() -> None:
    """The baseline's two processes are told apart."""
    timed = rounds_of(*([block([10, 20, 30]), block([50, 60, 70], twin=True)] for _ in range(3)))
    assert latency_figures(timed, "a", 1).mean_ns.value == 20
    assert latency_figures(timed, "a", 1, twin=True).mean_ns.value == 60
    assert block_medians(timed, "a", twin=True) == {(0, 0): 60.0, (0, 1): 60.0, (1, 2): 60.0}
    with pytest.raises(ValueError, match="'b'"):
        latency_figures(timed, "b", 1)


def test_blocks_are_put_in_order_of_their_rounds() -> None:
    """Rounds may be given in any order."""
    timed = rounds_of(*([block([100 + number])] for number in range(12)))
    assert latency_figures(timed[::-1], "a", 1) == latency_figures(timed, "a", 1)
    assert latency_figures(timed, "a", 1).drift.value > 0


def test_a_figure_over_launches_has_a_t_interval() -> None:
    """The figure of the whole, with the spread that its logarithm has over launches around it, and never below zero."""
    values = np.random.default_rng(0).integers(100, 200, (5, 4))
    launches = [[block([value]) for value in row] for row in values]
    found = over_launches(launches, lambda part: float(np.mean([b.median_ns for b in part])))
    off = np.log(values.mean(axis=1) / values.mean())
    half = student.ppf(0.975, 4) * math.sqrt((off**2).sum() / (5 * 4))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() * math.exp(-half))
    assert found.high == pytest.approx(values.mean() * math.exp(half))
    apart = over_launches([[block([1])], [block([1000])]], lambda part: float(np.mean([b.median_ns for b in part])))
    assert 0 < apart.low < apart.value < apart.high
    assert over_launches(launches[:1], lambda part: 1.0) == Interval(1.0, None, None)


def test_a_mean_has_an_interval_that_holds_it() -> None:
    """Where processes differ, the interval of a mean latency holds the mean over all processes."""
    draw = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        speeds = 1e6 * np.exp(draw.normal(0, 0.03, 5)[:, None] + draw.normal(0, 0.05, (5, 6)))
        timed = rounds_of(*([block([int(speed)])] for speed in speeds.ravel()), per_launch=6)
        held += not latency_figures(timed, "a", 1).mean_ns.excludes(1e6 * math.exp((0.03**2 + 0.05**2) / 2))
    assert 0.92 <= held / 300 <= 0.98


def test_drift_is_the_change_over_the_run() -> None:
    """A run that becomes 10 % slower says so, and one that does not has an interval that holds none."""
    draw = np.random.default_rng(0)
    slower = np.linspace(1.0, 1.1, 8)[:, None] * np.exp(draw.normal(0, 0.005, (8, 10)))
    found = drift(slower.tolist())
    assert found.value == pytest.approx(0.1, abs=0.02)
    assert found.excludes(0.0)
    assert not drift(np.exp(draw.normal(0, 0.005, (8, 10))).tolist()).excludes(0.0)
    assert drift([[1.0], [2.0]]) == Interval(pytest.approx(1.0), None, None)
    assert drift([[1.0, 2.0]]) == Interval(0.0, None, None)


@pytest.mark.parametrize("launches", [3, 4, 5, 8])
def test_drift_has_bounds_where_they_hold(launches: int) -> None:
    """Without drift the interval holds 0 in 95 of 100 or more; where launches are too few for that, there is none."""
    draw = np.random.default_rng(0)
    found = [drift(np.exp(draw.normal(0, 0.01, (launches, 1))).tolist()) for _ in range(400)]
    if launches < 5:
        assert all(each.low is None and each.high is None for each in found)
    else:
        assert sum(each.low <= 0 <= each.high for each in found) >= 0.93 * 400
