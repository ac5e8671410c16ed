"""The state of the machine, on this system and on simulated ones, and the disturbances that it shows."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from made_part import made_part

from benchcard.analysis.frames.noise import _disturbances, _machine_columns
from benchcard.measure.machine_state import (
    MachineState,
    core_slowdown,
    disturbances,
    is_disturbed,
    others_share,
    others_shares,
    read_machine_state,
)
from benchcard.utils.values import Disturbance

CALM = MachineState(
    at_ns=0,
    load_1m=0.1,
    busy_s=100.0,
    own_s=1.0,
    steal_s=5.0,
    throttled=3,
    throttled_s=0.2,
    governors="performance",
    core_throttles=1,
    swapped_bytes=4096,
    on_battery=False,
)
SECOND = 1_000_000_000


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def disturbed_by(after: MachineState, before: MachineState = CALM) -> list[Disturbance]:
    return list(disturbances([(before, replace(after, at_ns=10 * SECOND))]))


def test_the_state_of_this_machine_has_plain_values() -> None:
    """Every field is a number, text, a bool or None, so that it can be stored as JSON."""
    now = read_machine_state()
    assert abs(now.at_ns - time.time_ns()) < 60 * SECOND
    assert now.busy_s is not None
    assert now.own_s is not None
    assert 0 < now.own_s < now.busy_s
    assert all(value is None or isinstance(value, int | float | str) for value in asdict(now).values())


def test_own_work_is_not_that_of_others() -> None:
    """Processor time that this process used between two states is not that of others."""
    before = read_machine_state()
    stop = time.process_time() + 0.3
    while time.process_time() < stop:
        pass
    after = read_machine_state()
    assert before.own_s is not None
    assert after.own_s is not None
    assert after.own_s - before.own_s >= 0.25
    share = others_share([(before, after)])
    assert share is not None
    assert 0 <= share <= (os.cpu_count() or 1)


def test_a_process_that_ended_makes_the_share_unknown() -> None:
    """The share of others is None where the processor time of one of the own processes is unknown."""
    assert read_machine_state(pids=[2**22 + 1]).own_s is None
    assert others_share([(CALM, replace(CALM, at_ns=SECOND, own_s=None))]) is None
    assert others_share([(CALM, replace(CALM, at_ns=SECOND, own_s=0.5))]) is None
    assert others_share([(CALM, CALM)]) is None


def test_the_share_of_others_is_per_processor() -> None:
    """Half a second of work by others in one second is half a processor."""
    after = replace(CALM, at_ns=SECOND, busy_s=102.0, own_s=2.5)
    assert others_share([(CALM, after)]) == pytest.approx(0.5)


def test_a_calm_machine_has_no_disturbances() -> None:
    """Counters that do not grow, and a little work by others, are no disturbance."""
    a_little = replace(CALM, at_ns=10 * SECOND, busy_s=100.2, load_1m=0.2)
    assert not list(disturbances([(CALM, a_little)]))


def test_cores_that_another_machine_slows_down_are_reported() -> None:
    """A fixed loop that takes longer in some rounds shows it; a single slow loop does not, nor do old or few rounds."""

    def spans(times: list[int | None]) -> list[tuple[MachineState, MachineState]]:
        return [(CALM, replace(CALM, at_ns=SECOND, loop_ns=loop_ns)) for loop_ns in times]

    assert core_slowdown(spans([100] * 14 + [160] * 6)) == pytest.approx(1.6)
    assert core_slowdown(spans([100] * 19 + [900])) == pytest.approx(1.0)
    assert core_slowdown(spans([100] * 4 + [160] * 5)) is None
    assert core_slowdown(spans([None] * 20)) is None
    (told,) = disturbances(spans([100] * 14 + [160] * 6))
    assert told.kind == "cores"
    assert "1.60 times as long" in told.text
    assert not list(disturbances(spans([100, 110] * 10)))
    assert read_machine_state().loop_ns


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steal_s": 15.0}, "hypervisor"),
        ({"throttled": 10, "throttled_s": 1.7}, "7 times, for 1.50 s"),
        ({"throttled": 4, "throttled_s": 0.7}, "1 time, for 0.50 s"),
        ({"quota_cpus": 0.5}, "0.50 of a processor"),
        ({"governors": "performance, powersave"}, "powersave"),
        ({"core_throttles": 4}, "3 times because of heat"),
        ({"swapped_bytes": 4096 + 3_000_000}, "3.0 MB to or from swap"),
        ({"on_battery": True}, "battery"),
    ],
)
def test_each_disturbance_has_a_sentence(change: dict[str, object], words: str) -> None:
    """Each disturbance gives one sentence with its figure."""
    (disturbance,) = disturbed_by(replace(CALM, **change))  # type: ignore[arg-type]
    assert words in str(disturbance)


def test_short_rounds_are_counted_together() -> None:
    """Rounds are judged in stretches of half a second, over launches too: counters have steps of 10 ms."""
    states = [replace(CALM, at_ns=n * SECOND // 10, busy_s=100 + 0.01 * (n // 3)) for n in range(11)]
    rounds = list(itertools.pairwise(states))
    assert len(others_shares(rounds)) == 2
    assert max(others_shares(rounds)) < 0.05 < max(others_share([span]) or 0 for span in rounds)
    launches = [span for place, span in enumerate(rounds * 2) if place % 4]
    assert max(others_shares(launches)) < 0.05
    assert others_shares(rounds[3:10])[-1] == pytest.approx(others_share(rounds[3:10]))
    assert others_shares(rounds[:2]) == [others_share(rounds[:2])]


def test_a_timing_without_a_baseline_has_no_ratios_to_warn_of() -> None:
    """Only where a baseline was timed can its noise be unknown."""
    part = replace(made_part({"base": 200_000}), baseline=None)
    assert "the noise is not known" not in "; ".join(map(str, _disturbances(part, 5)))


@pytest.mark.parametrize(("share", "disturbed"), [(0.1, False), (0.3, True)])
def test_much_work_by_others_disturbs_a_timing(share: float, disturbed: bool) -> None:
    """Above a fifth of a processor, models may be affected differently."""
    assert is_disturbed([(CALM, replace(CALM, at_ns=SECOND, busy_s=100 + share))]) is disturbed
    assert not is_disturbed([])


def test_work_by_others_is_counted_in_rounds() -> None:
    """The rounds in which others used a considerable share of a processor are counted."""
    quiet = (CALM, replace(CALM, at_ns=SECOND))
    loud = (CALM, replace(CALM, at_ns=SECOND, busy_s=100.8))
    (disturbance,) = disturbances([quiet, loud, quiet, quiet])
    assert disturbance.kind == "others"
    assert "1 of 4 stretches" in str(disturbance)
    assert "0.20 of a processor on average and 0.80 at most" in str(disturbance)


def test_a_system_without_counters_has_no_disturbances() -> None:
    """A state that has only the time is valid."""
    nothing = MachineState(at_ns=0)
    assert not list(disturbances([(nothing, replace(nothing, at_ns=SECOND))]))
    assert not list(disturbances([]))


def test_an_empty_root_gives_none(tmp_path: Path) -> None:
    """Figures from /proc and /sys are None where these do not exist."""
    state = read_machine_state(root=tmp_path)
    assert (state.quota_cpus, state.throttled, state.throttled_s) == (None, None, None)
    assert (state.governors, state.core_throttles) == (None, None)


def test_the_quota_of_a_version_2_cgroup_is_the_tightest_above(tmp_path: Path) -> None:
    """Limits of parents apply too: the smallest counts, and throttling by any of them."""
    group = "sys/fs/cgroup/machine/service"
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/machine/service\n",
            f"{group}/cpu.max": "max 100000\n",
            f"{group}/cpu.stat": "usage_usec 12\nnr_periods 9\nnr_throttled 1\nthrottled_usec 500000\n",
            "sys/fs/cgroup/machine/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/machine/cpu.stat": "nr_throttled 3\nthrottled_usec 2000000\n",
            "sys/fs/cgroup/cpu.stat": "usage_usec 99\n",
        },
    )
    state = read_machine_state(root=tmp_path)
    assert state.quota_cpus == pytest.approx(1.5)
    assert (state.throttled, state.throttled_s) == (4, 2.5)


def test_a_container_sees_its_own_cgroup_at_the_root(tmp_path: Path) -> None:
    """The path in /proc may be the host's, which the container's mount does not have."""
    write(
        tmp_path,
        {"proc/self/cgroup": "0::/docker/0123\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"},
    )
    assert read_machine_state(root=tmp_path).quota_cpus == pytest.approx(2.0)


def test_the_quota_of_a_version_1_cgroup(tmp_path: Path) -> None:
    """The older interface has the quota in two files, -1 for none, and throttled time in nanoseconds."""
    group = "sys/fs/cgroup/cpu,cpuacct/service"
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/other\n2:cpu,cpuacct:/service\n1:name=systemd:/\n",
            f"{group}/cpu.cfs_quota_us": "50000\n",
            f"{group}/cpu.cfs_period_us": "100000\n",
            f"{group}/cpu.stat": "nr_periods 9\nnr_throttled 2\nthrottled_time 1500000000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    state = read_machine_state(root=tmp_path)
    assert state.quota_cpus == pytest.approx(0.5)
    assert (state.throttled, state.throttled_s) == (2, 1.5)


def test_governors_and_heat_are_read_from_every_core(tmp_path: Path) -> None:
    """Different governors are all named, throttle counts added up."""
    cpu = "sys/devices/system/cpu"
    write(
        tmp_path,
        {
            f"{cpu}/cpu0/cpufreq/scaling_governor": "powersave\n",
            f"{cpu}/cpu1/cpufreq/scaling_governor": "performance\n",
            f"{cpu}/cpu0/thermal_throttle/core_throttle_count": "3\n",
            f"{cpu}/cpu1/thermal_throttle/core_throttle_count": "4\n",
        },
    )
    state = read_machine_state(root=tmp_path)
    assert state.governors == "performance, powersave"
    assert state.core_throttles == 7


def test_the_certificate_covers_all_rounds_of_a_resumed_run() -> None:
    """The disturbances of the first rounds stay in the certificate of a run that was resumed on a calm day, after all
    counters had started again.
    """
    part = made_part({"base": 200_000})
    loud = (replace(CALM, load_1m=7.0), replace(CALM, at_ns=SECOND, steal_s=5.5, throttled=10, throttled_s=1.7))
    morning = MachineState(10**6 * SECOND, 0.0, steal_s=0.0, throttled=0, throttled_s=0.0, governors="schedutil")
    calm = (morning, replace(morning, at_ns=morning.at_ns + SECOND))
    spans = [loud, *[calm] * (len(part.rounds) - 1)]
    rounds = tuple(replace(timed, before=first, after=last) for timed, (first, last) in zip(part.rounds, spans))
    outcome = replace(part.outcome, before=calm[0], after=calm[1])
    part = replace(part, rounds=rounds, outcome=outcome)
    certificate = _machine_columns(part)
    assert certificate["load_before"] == 7.0
    assert certificate["throttled_s"] == pytest.approx(1.5)
    assert certificate["steal_share"] == pytest.approx(0.5 / (len(rounds) * (os.cpu_count() or 1)))
    assert certificate["governors"] == "performance, schedutil"
    assert "7 times, for 1.50 s" in "; ".join(map(str, _disturbances(part, 5)))
