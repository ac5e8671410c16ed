"""The timing protocol: who is timed when, how often and for how long."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timing_fixtures
from timing_fixtures import order, recorded_s, subject, timed

from benchcard.measure.blocks import Progress
from benchcard.measure.intervals import paired_ratio
from benchcard.measure.latency import block_medians

folder = timing_fixtures.folder


def test_every_subject_gets_its_duration(folder: Path) -> None:
    """Every subject, and the baseline's twin, has the asked seconds recorded and not a block more than it needs."""
    result, rounds = timed([subject(folder, "a"), subject(folder, "b", ms=2)])
    assert not result.failures
    for name, twin in (("a", False), ("b", False), ("a", True)):
        assert recorded_s(rounds, name, twin) >= 0.12
    # who was the last to have it had not had it a round before
    last = min(recorded_s(rounds[:-1], name, twin) for name, twin in (("a", False), ("b", False), ("a", True)))
    assert last < 0.12
    assert [timed.number for timed in rounds] == list(range(result.rounds))


def test_every_launch_is_a_process_of_its_own(folder: Path) -> None:
    """Models are launched as often as asked, in fresh processes, and share their time evenly over them."""
    result, rounds = timed([subject(folder, "a"), subject(folder, "b")], launches=3, duration_s=0.3)
    assert result.launches == 3
    assert [timed.launch for timed in rounds] == sorted(timed.launch for timed in rounds)
    assert [(opened.launch, opened.name, opened.twin) for opened in result.opened] == [
        (launch, name, twin) for launch in range(3) for name, twin in (("a", False), ("b", False), ("a", True))
    ]
    assert len({opened.facts["pid"] for opened in result.opened}) == 9
    for launch in range(3):
        # a third each, less what earlier launches were too long by: a block ends with the call that it began
        assert recorded_s([timed for timed in rounds if timed.launch == launch], "b") >= 0.05


def test_latencies_are_those_of_the_calls(folder: Path) -> None:
    """Models that wait 1 and 2 ms by the clock are seen to do so, within 1 %, in the call that nothing disturbed."""
    _, rounds = timed([subject(folder, "a", ms=1), subject(folder, "b", ms=2)])
    best_ms = {}
    for name in "ab":
        blocks = [block for timed in rounds for block in timed.blocks if block.name == name]
        assert all(block.elapsed_ns >= block.latencies_ns.sum() for block in blocks)
        best_ms[name] = min(block.latencies_ns.min() for block in blocks) / 1e6
    assert best_ms["a"] == pytest.approx(1, rel=0.01)
    assert best_ms["b"] == pytest.approx(2, rel=0.01)


def test_one_process_works_at_a_time(folder: Path) -> None:
    """Every model and the twin have a process of their own, and no two blocks overlap."""
    result, rounds = timed([subject(folder, "a"), subject(folder, "b")], launches=1)
    assert len({opened.facts["pid"] for opened in result.opened}) == 3
    blocks = [block for timed in rounds for block in timed.blocks]
    for first, second in itertools.pairwise(blocks):
        # started_ns is the wall clock, elapsed_ns the monotonic one: allow for an adjustment between them
        assert first.started_ns + first.elapsed_ns <= second.started_ns + 1_000_000


def test_the_order_within_rounds_is_drawn_by_the_seed(folder: Path) -> None:
    """The same seed gives the same orders, another seed others, and the order changes from round to round."""
    subjects = [subject(folder, name) for name in "ab"]
    # A block lasts as long as the calls in it, so how many rounds there are is the machine's to say.
    settings = {"duration_s": 0.3, "launches": 1, "block_s": 0.005}
    drawn = [[order(timed) for timed in timed(subjects, seed=seed, **settings)[1]] for seed in (1, 1, 2)]
    orders = [[once for once in each if len(once) == 3][:8] for each in drawn]
    assert [len(each) for each in orders] == [8, 8, 8]
    assert orders[0] == orders[1] != orders[2]
    assert len({tuple(once) for once in orders[0]}) > 1


def test_a_resumed_group_goes_on_where_it_was(folder: Path) -> None:
    """Rounds kept earlier count: their seconds are not spent again, and numbers and orders go on in a new launch."""
    subjects = [subject(folder, name) for name in "ab"]
    _, whole = timed(subjects, seed=5)
    result, rest = timed(subjects, seed=5, earlier=whole[:4])
    assert (rest[0].number, rest[0].launch) == (4, whole[3].launch + 1)
    assert (result.rounds, result.launches) == (rest[-1].number + 1, rest[-1].launch + 1)
    assert order(rest[0]) == order(whole[4])
    members = [("a", False), ("a", True), ("b", False)]
    assert min(recorded_s(whole[:4] + rest[:-1], *member) for member in members) < 0.12
    assert recorded_s(whole[:4] + rest, "b") >= 0.12


def test_a_finished_group_is_not_timed_again(folder: Path) -> None:
    """A group whose rounds are all there is not launched again."""
    subjects = [subject(folder, name) for name in "ab"]
    _, whole = timed(subjects)
    result, rest = timed(subjects, earlier=whole)
    assert not rest
    assert [opened for timed in whole for opened in timed.opened] == list(result.opened)
    assert (result.rounds, result.launches) == (len(whole), 2)


def test_the_baseline_takes_part_in_every_round(folder: Path) -> None:
    """While any subject is still due the baseline and its twin are timed too, for a ratio needs both."""
    subjects = [subject(folder, "a"), subject(folder, "b")]
    _, rounds = timed(subjects)
    lagging = [replace(timed, blocks=tuple(b for b in timed.blocks if b.name == "a")) for timed in rounds]
    _, rest = timed(subjects, earlier=lagging)
    assert rest
    assert all({"a", "b"} == {block.name for block in timed.blocks} for timed in rest)
    assert all(sum(block.twin for block in timed.blocks) == 1 for timed in rest)


def test_without_a_baseline_there_is_no_twin(folder: Path) -> None:
    """Subjects can be timed with nothing to compare with."""
    result, rounds = timed([subject(folder, "a")], None)
    assert [(opened.name, opened.twin) for opened in result.opened] == [("a", False)] * 2
    assert recorded_s(rounds, "a") >= 0.12


def test_slow_calls_still_give_an_interval(folder: Path) -> None:
    """A call longer than the whole duration is made once in each launch, warmed up by the first call and the one before
    its block.
    """
    slow = [subject(folder, "a", ms=40), subject(folder, "b", ms=40)]
    result, rounds = timed(slow, duration_s=0.02, launches=3, warmup_runs=50)
    assert [timed.launch for timed in rounds] == [0, 1, 2]
    assert all(len(block.latencies_ns) == 1 for timed in rounds for block in timed.blocks)
    assert not any(opened.warmup_ns for opened in result.opened)
    assert {block.warm_calls for timed in rounds for block in timed.blocks} == {1}
    assert paired_ratio(block_medians(rounds, "a"), block_medians(rounds, "b")).low is not None


def test_precision_stops_early(folder: Path) -> None:
    """With a precision that is easily reached, timing ends long before the duration."""
    settings: dict[str, Any] = {"duration_s": 4.0, "precision": 50.0, "block_s": 0.01, "launches": 5}
    result, rounds = timed([subject(folder, "a")], None, **settings)
    assert result.launches == 8
    assert recorded_s(rounds, "a") < 3.0


def test_precision_spends_at_most_the_duration_on_average(folder: Path) -> None:
    """With a precision that cannot be reached, the group ends at its duration."""
    result, rounds = timed([subject(folder, "a"), subject(folder, "b")], duration_s=0.1, precision=1e-9, launches=1)
    total_s = sum(recorded_s(rounds, name, twin) for name, twin in (("a", False), ("b", False), ("a", True)))
    assert total_s >= 3 * 0.1
    before = [timed for timed in rounds if timed.launch < result.launches - 1]
    assert sum(recorded_s(before, name, twin) for name, twin in (("a", False), ("b", False), ("a", True))) < 3 * 0.1


def test_progress_counts_up_to_the_whole(folder: Path) -> None:
    """Progress never goes back, and ends at what it said was to do."""
    seen: list[Progress] = []
    timed([subject(folder, "a"), subject(folder, "b", stage="load", how="raise")], progress=seen.append)
    assert [now.done_s for now in seen] == sorted(now.done_s for now in seen)
    assert seen[-1].done_s == pytest.approx(seen[-1].total_s)
    assert seen[-1].total_s == pytest.approx(2 * 0.12)


@pytest.mark.parametrize(
    "wrong",
    [{"duration_s": 0.0}, {"duration_s": float("nan")}, {"launches": 0}, {"warmup_runs": -1}, {"precision": 0.0}],
)
def test_numbers_that_make_no_sense_are_refused(folder: Path, wrong: dict[str, float]) -> None:
    """Nothing is started for a duration, warm-up or precision that cannot be."""
    with pytest.raises(ValueError, match="expected"):
        timed([subject(folder, "a")], **wrong)


def test_names_and_baseline_must_fit(folder: Path) -> None:
    """Two subjects of one name, or a baseline that is not there, are refused."""
    with pytest.raises(ValueError, match="names"):
        timed([subject(folder, "a"), subject(folder, "a")])
    with pytest.raises(ValueError, match="baseline"):
        timed([subject(folder, "a")], 1)
