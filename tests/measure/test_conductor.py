"""The timing protocol: which model is timed when, how often and for how long.

Most tests simulate the processes, so that the number of blocks does not depend on the machine.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timing_fixtures
from timing_fixtures import order, paired_ratio, recorded_s, simulated, subject, timed

from benchcard.measure.blocks import Progress, Round
from benchcard.measure.conductor import _Conductor, _Settings
from benchcard.measure.latency import block_medians

folder = timing_fixtures.folder
MEMBERS = (("a", False), ("b", False), ("a", True))


def test_every_subject_gets_its_duration(folder: Path) -> None:
    """Every subject, and the baseline's twin, has the requested seconds recorded, and no more blocks than needed."""
    result, rounds = simulated([subject(folder, "a"), subject(folder, "b", ms=2)])
    assert not result.failures
    assert all(recorded_s(rounds, *member) >= 0.12 for member in MEMBERS)
    assert min(recorded_s(rounds[:-1], *member) for member in MEMBERS) < 0.12
    assert [timed.number for timed in rounds] == list(range(result.rounds))


def test_every_launch_has_processes_of_its_own(folder: Path) -> None:
    """Models are launched as often as requested, in fresh processes."""
    result, rounds = timed([subject(folder, "a"), subject(folder, "b")], launches=3)
    assert result.launches == 3
    assert [timed.launch for timed in rounds] == sorted(timed.launch for timed in rounds)
    assert [(opened.launch, opened.name, opened.twin) for opened in result.opened] == [
        (launch, *member) for launch in range(3) for member in MEMBERS
    ]
    assert len({opened.facts["pid"] for opened in result.opened}) == 9


def test_launches_share_the_duration_evenly(folder: Path) -> None:
    """Each of three launches gets a third of the duration."""
    _, rounds = simulated([subject(folder, "a"), subject(folder, "b")], launches=3, duration_s=0.3)
    for launch in range(3):
        recorded = recorded_s([timed for timed in rounds if timed.launch == launch], "b")
        assert recorded == pytest.approx(0.1, abs=0.017)


@pytest.mark.parametrize(
    ("opening_s", "duration_s", "launches"), [(0.0, 2.0, 5), (60.0, 1.0, 3), (60.0, 1.1, 5), (60.0, 15.0, 5)]
)
def test_there_are_fewer_launches_where_opening_takes_long(
    folder: Path, opening_s: float, duration_s: float, launches: int
) -> None:
    """Where models take long to open for a short duration, three launches share it."""
    conductor = _Conductor(
        [subject(folder, "a")], None, _Settings(round(duration_s * 1e9), 5, 2, 0, None, None), [], None
    )
    (member,) = conductor._members
    member.block_ns = 40_000_000
    conductor._share_time([member], round(opening_s * 1e9))
    assert member.until_ns / 1e9 == pytest.approx(duration_s / launches)


def test_no_launch_makes_up_for_interrupted_ones(folder: Path) -> None:
    """After launches that were cut short, the next one is no longer than the others."""
    conductor = _Conductor([subject(folder, "a")], None, _Settings(15 * 10**9, 5, 2, 0, None, None), [], None)
    (member,) = conductor._members
    member.block_ns, member.elapsed_ns = 40_000_000, 400_000_000
    member.medians.update({(launch, launch): 1e6 for launch in range(4)})
    conductor._share_time([member], 10**9)
    assert 2.5e9 < member.until_ns - member.elapsed_ns < 3.5e9


def test_one_process_works_at_a_time(folder: Path) -> None:
    """Every model and the twin have a process of their own, and no two blocks overlap."""
    result, rounds = timed([subject(folder, "a"), subject(folder, "b")], launches=1)
    assert len({opened.facts["pid"] for opened in result.opened}) == 3
    blocks = [block for timed in rounds for block in timed.blocks]
    for first, second in itertools.pairwise(blocks):
        # `started_ns` is the wall clock and `elapsed_ns` the monotonic one, so allow for an adjustment between them.
        assert first.started_ns + first.elapsed_ns <= second.started_ns + 1_000_000


def test_the_order_within_rounds_depends_on_the_seed(folder: Path) -> None:
    """The same seed gives the same orders, another seed gives others, and the order changes from round to round."""
    subjects = [subject(folder, name) for name in "ab"]
    settings: dict[str, Any] = {"duration_s": 0.04, "launches": 1, "block_s": 0.005}
    orders = [[order(timed) for timed in simulated(subjects, seed=seed, **settings)[1]] for seed in (1, 1, 2)]
    assert [len(rounds) for rounds in orders] == [8, 8, 8]
    assert orders[0] == orders[1] != orders[2]
    assert len({tuple(members) for members in orders[0]}) > 1


def test_a_resumed_group_continues_where_it_stopped(folder: Path) -> None:
    """Rounds of an earlier run count: their seconds are not spent again, and numbers and orders continue."""
    subjects = [subject(folder, name) for name in "ab"]
    _, rounds = simulated(subjects, seed=5)
    result, rest = simulated(subjects, seed=5, earlier=rounds[:4])
    assert (rest[0].number, rest[0].launch) == (4, rounds[3].launch + 1)
    assert (result.rounds, result.launches) == (rest[-1].number + 1, rest[-1].launch + 1)
    assert order(rest[0]) == order(rounds[4])
    assert min(recorded_s(rounds[:4] + rest[:-1], *member) for member in MEMBERS) < 0.12
    assert all(recorded_s(rounds[:4] + rest, *member) >= 0.12 for member in MEMBERS)


def test_a_finished_group_is_not_timed_again(folder: Path) -> None:
    """A group whose rounds are complete is not launched again."""
    subjects = [subject(folder, name) for name in "ab"]
    _, rounds = simulated(subjects)
    result, rest = simulated(subjects, earlier=rounds)
    assert not rest
    opened = [opened for timed in rounds for opened in timed.opened]
    assert sorted(opened, key=str) == sorted(result.opened, key=str)
    assert (result.rounds, result.launches) == (len(rounds), 2)


def test_the_baseline_takes_part_in_every_round(folder: Path) -> None:
    """While any subject needs more time, the baseline and its twin are timed too, because a ratio needs both."""
    subjects = [subject(folder, "a"), subject(folder, "b")]
    _, rounds = simulated(subjects)
    lagging = [replace(timed, blocks=tuple(b for b in timed.blocks if b.name == "a")) for timed in rounds]
    _, rest = simulated(subjects, earlier=lagging)
    assert rest
    assert all({"a", "b"} == {block.name for block in timed.blocks} for timed in rest)
    assert all(sum(block.twin for block in timed.blocks) == 1 for timed in rest)


def test_without_a_baseline_there_is_no_twin(folder: Path) -> None:
    """Subjects can be timed without a baseline."""
    result, rounds = simulated([subject(folder, "a")], None)
    assert [(opened.name, opened.twin) for opened in result.opened] == [("a", False)] * 2
    assert recorded_s(rounds, "a") >= 0.12


def test_slow_calls_still_give_an_interval(folder: Path) -> None:
    """A call longer than the duration is made once in each launch, after the first call and one before its block."""
    slow = [subject(folder, "a", ms=40), subject(folder, "b", ms=40)]
    result, rounds = simulated(slow, duration_s=0.02, launches=3, warmup_runs=50)
    assert [timed.launch for timed in rounds] == [0, 1, 2]
    assert all(len(block.latencies_ns) == 1 for timed in rounds for block in timed.blocks)
    assert not any(opened.warmup_ns for opened in result.opened)
    assert {block.warm_calls for timed in rounds for block in timed.blocks} == {1}
    assert paired_ratio(block_medians(rounds, "a"), block_medians(rounds, "b")).low is not None


def test_models_are_launched_in_random_order(folder: Path) -> None:
    """Each launch opens the models and the twin in an order of its own, which depends on the seed."""
    subjects = [subject(folder, name) for name in "abcd"]

    def orders(seed: int) -> list[list[tuple[str, bool]]]:
        _, rounds = simulated(subjects, seed=seed, duration_s=0.1, launches=3)
        opened = [each for timed in rounds for each in timed.opened]
        return [[(each.name, each.twin) for each in opened if each.launch == launch] for launch in range(3)]

    assert all(sorted(order) == [("a", False), ("a", True), *((name, False) for name in "bcd")] for order in orders(0))
    assert len({tuple(order) for order in orders(0)}) > 2
    assert orders(0) == orders(0) != orders(1)


def test_precision_stops_early(folder: Path) -> None:
    """With a precision that is easily reached, timing ends long before the duration."""
    settings: dict[str, Any] = {"duration_s": 4.0, "precision": 50.0, "block_s": 0.01, "launches": 5}
    result, rounds = simulated([subject(folder, "a")], None, **settings)
    assert result.launches == 9
    assert recorded_s(rounds, "a") == pytest.approx(9 * 0.2)


def test_precision_spends_at_most_the_duration_on_average(folder: Path) -> None:
    """With a precision that cannot be reached, the group ends at its duration."""
    subjects = [subject(folder, "a"), subject(folder, "b", noisy=True)]
    result, rounds = simulated(subjects, duration_s=1.2, precision=1e-9, launches=5)
    assert result.launches == 20
    assert sum(recorded_s(rounds, *member) for member in MEMBERS) == pytest.approx(3 * 1.2, rel=0.05)
    earlier = [timed for timed in rounds if timed.launch < result.launches - 1]
    assert sum(recorded_s(earlier, *member) for member in MEMBERS) < 3 * 1.2


def test_a_failure_is_kept_and_the_others_go_on(folder: Path) -> None:
    """A model that fails at any stage is not launched again, and the others get their duration."""
    broken = [subject(folder, stage, stage=stage, after=stage == "time") for stage in ("import", "load", "time")]
    result, rounds = simulated([subject(folder, "a"), *broken])
    assert [(failed.name, failed.failure.stage) for failed in result.failures] == [
        (stage, stage) for stage in ("import", "load", "time")
    ]
    assert {timed.launch for timed in rounds for block in timed.blocks if block.name == "time"} == {0}
    assert recorded_s(rounds, "a") >= 0.12
    assert recorded_s(rounds, "a", twin=True) >= 0.12


def test_launches_stay_long_where_they_affect_one_model_alone(folder: Path) -> None:
    """How long a launch is follows from what most models show, in whichever order they are."""
    draw = np.random.default_rng(0)
    subjects = [subject(folder, name) for name in "abcd"]
    _, rounds = simulated(subjects, duration_s=1.0, launches=3)
    effects = draw.normal(0, 0.3, 3)

    def vary(timed: Round) -> Round:
        logs = [draw.normal(0, 0.01) + (block.name == "b") * effects[timed.launch] for block in timed.blocks]
        blocks = zip(timed.blocks, np.exp(logs))
        return replace(timed, blocks=tuple(replace(b, latencies_ns=b.latencies_ns * factor) for b, factor in blocks))

    settings = _Settings(10**10, 5, 2, 0, None, None)
    conductor = _Conductor(subjects, 0, settings, [vary(timed) for timed in rounds], None)
    assert (conductor._launch_variance() or 0.0) < 1


@pytest.mark.parametrize("precision", [None, 50.0])
def test_another_attempt_at_a_broken_model_changes_nothing_else(folder: Path, precision: float | None) -> None:
    """The rounds of the others stay as they are, no opening is added, and the failure is reported again."""
    subjects = [subject(folder, "a"), subject(folder, "b"), subject(folder, "c", stage="load")]
    settings = {"precision": precision, "block_s": 0.01, "duration_s": 0.04}
    result, rounds = simulated(subjects, **settings)
    again, rest = simulated(subjects, earlier=rounds, **settings)
    assert not rest
    assert (again.opened, again.rounds) == (result.opened, result.rounds)
    assert [failed.name for failed in result.failures] == [failed.name for failed in again.failures] == ["c"]


def test_every_model_failing_leaves_no_rounds(folder: Path) -> None:
    """A group in which no model opens returns at once, with its failures."""
    result, rounds = simulated([subject(folder, "a", stage="load")])
    assert [failed.twin for failed in result.failures] == [False, True]
    assert not rounds


def test_progress_counts_up_to_the_total(folder: Path) -> None:
    """Progress never decreases, and ends at its total."""
    reports: list[Progress] = []
    simulated([subject(folder, "a"), subject(folder, "b", stage="load")], progress=reports.append)
    assert [report.done_s for report in reports] == sorted(report.done_s for report in reports)
    assert reports[-1].done_s == pytest.approx(reports[-1].total_s)
    assert reports[-1].total_s == pytest.approx(2 * 0.12)
    assert reports[0].half_width is None
    assert reports[-1].half_width == 0


@pytest.mark.parametrize(
    "wrong",
    [{"duration_s": 0.0}, {"duration_s": float("nan")}, {"launches": 0}, {"warmup_runs": -1}, {"precision": 0.0}],
)
def test_settings_out_of_range_are_refused(folder: Path, wrong: dict[str, float]) -> None:
    """Nothing is started where a duration, warm-up or precision is out of range."""
    with pytest.raises(ValueError, match="expected"):
        simulated([subject(folder, "a")], **wrong)


def test_names_and_baseline_must_fit(folder: Path) -> None:
    """Two subjects with one name, and a baseline out of range, are refused."""
    with pytest.raises(ValueError, match="names"):
        simulated([subject(folder, "a"), subject(folder, "a")])
    with pytest.raises(ValueError, match="baseline"):
        simulated([subject(folder, "a")], 1)
