"""The state of the machine during a timing, and the disturbances in it.

Owns `MachineState` (load, processor time of other processes, steal, cgroup quota and throttling, frequency
governor, GPU)
and the `Disturbance`s that two states show. A figure is None where the system does not report it. Leaves to `conductor`
when to read the state, and to `intervals` how noise widens an interval.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import psutil

from benchcard.measure.gpu import GpuState, gpu_state
from benchcard.utils.text import pluralize
from benchcard.utils.values import Disturbance

# The share of a processor that other processes may use in a round before it counts as disturbed. A desktop or a
# monitoring agent at rest uses less.
_OTHERS_SHARE = 0.05
_STRETCH_NS = 500_000_000
# The share of a processor, for others or stolen, above which ratios of models of different speed were wrong by more
# than their intervals (`benchmarks/noise.py`).
_TOO_MUCH_SHARE = 0.2
# How many times as long the fixed loop takes after slow rounds as after fast ones, where speeds have changed. If
# another machine uses the second thread of a core, everything takes 1.5 times as long (`benchmarks/README.md`).
_SLOWDOWN = 1.2
_LOOP, _LOOPS, _LEAST_LOOPS = 5_000, 5, 10
# The share of processor time stolen by the hypervisor above which tail latencies are not the model's own.
_STEAL_SHARE = 0.01


@dataclass(frozen=True)
class MachineState:
    """The machine at one moment. Counters only grow, so two states give a rate.

    Attributes:
        at_ns: Wall clock, ns since the epoch.
        load_1m: Load average of the last minute.
        busy_s: Processor seconds used by all processes, without steal.
        own_s: Processor seconds used by this process and the given ones.
        steal_s: Processor seconds that the hypervisor gave to other machines.
        quota_cpus: Processors that the cgroup may use at most.
        throttled: Number of periods in which the cgroup was throttled.
        throttled_s: Seconds for which it was throttled.
        governors: Frequency governors in use, such as `performance`.
        frequency_mhz: Mean frequency of the processors.
        loop_ns: The time that a short fixed loop took, which shows how fast a core is.
        core_throttles: Number of times that a core was slowed down because of heat.
        swapped_bytes: Bytes moved to or from swap.
        on_battery: Whether the machine runs on its battery.
        gpu: The GPU, where a model runs on it.
    """

    at_ns: int
    load_1m: float | None = None
    busy_s: float | None = None
    own_s: float | None = None
    steal_s: float | None = None
    quota_cpus: float | None = None
    throttled: int | None = None
    throttled_s: float | None = None
    governors: str | None = None
    frequency_mhz: float | None = None
    loop_ns: int | None = None
    core_throttles: int | None = None
    swapped_bytes: int | None = None
    on_battery: bool | None = None
    gpu: GpuState | None = None


Span: TypeAlias = tuple[MachineState, MachineState]
"""The machine just before and just after a round."""


def read_machine_state(pids: Iterable[int] = (), root: Path = Path("/"), *, gpu: bool = False) -> MachineState:
    """Return the state of this machine now, which takes a few milliseconds.

    Args:
        pids: Processes whose processor time counts as own time, beside this one.
        root: The folder with `proc` and `sys`; another folder for a test.
        gpu: Whether to read the state of the GPU, too.

    Source: field meanings in proc(5) and the Linux kernel's cgroup-v2.rst, "CPU Interface Files".
    """
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    steal = getattr(times, "steal", None)
    # User time includes guest time, which must not be counted twice.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    throttled, throttled_s = _throttling(root)
    return MachineState(
        at_ns=time.time_ns(),
        load_1m=_load(),
        busy_s=sum(times) - idle - guests - (steal or 0.0),
        own_s=_own_seconds(pids),
        steal_s=steal,
        quota_cpus=_quota(root),
        throttled=throttled,
        throttled_s=throttled_s,
        governors=_governors(root),
        frequency_mhz=_frequency(),
        loop_ns=_loop_ns(),
        core_throttles=_core_throttles(root),
        swapped_bytes=_swapped(),
        on_battery=_on_battery(),
        gpu=gpu_state() if gpu else None,
    )


def others_share(rounds: Iterable[Span]) -> float | None:
    """Return how much of one processor other processes used in rounds; 1.0 is one processor all the time.

    Rounds in which the system does not report it, or one of benchcard's own processes ended, do not count; None where
    none is left.
    """
    used_s = wall_s = 0.0
    for before, after in rounds:
        if before.busy_s is None or after.busy_s is None or before.own_s is None or after.own_s is None:
            continue
        if after.own_s < before.own_s or after.at_ns <= before.at_ns:
            continue
        used_s += after.busy_s - before.busy_s - (after.own_s - before.own_s)
        wall_s += (after.at_ns - before.at_ns) / 1e9
    return max(0.0, used_s) / wall_s if wall_s else None


def others_shares(rounds: Iterable[Span]) -> list[float]:
    """Return `others_share` for stretches of rounds that last half a second together, at least.

    Rounds that are left over at the end belong to the last stretch.

    Source: proc(5): the counters of processor time have a resolution of 10 ms, which is much for a single round.
    """
    stretches: list[list[Span]] = []
    lasted_ns = _STRETCH_NS
    for before, after in rounds:
        if lasted_ns >= _STRETCH_NS:
            stretches.append([])
            lasted_ns = 0
        stretches[-1].append((before, after))
        lasted_ns += after.at_ns - before.at_ns
    if len(stretches) > 1 and lasted_ns < _STRETCH_NS:
        stretches[-2:] = [stretches[-2] + stretches[-1]]
    return [share for share in map(others_share, stretches) if share is not None]


def is_disturbed(rounds: Sequence[Span]) -> bool:
    """Return whether others used so much of the processors that models may have been affected differently."""
    return max(others_share(rounds) or 0.0, steal_share(rounds) or 0.0) > _TOO_MUCH_SHARE


def disturbances(rounds: Sequence[Span]) -> Iterator[Disturbance]:
    """Yield what disturbed the rounds; nothing on a quiet machine.

    Args:
        rounds: The states around each round. What happens between rounds does not count, because an interrupted run may
            continue on another day.
    """
    shares = others_shares(rounds)
    if disturbed := sum(share > _OTHERS_SHARE for share in shares):
        text = (
            f"others used the processors in {disturbed} of {len(shares)} stretches of half a second, "
            f"{others_share(rounds):.2f} of a processor on average and {max(shares):.2f} at most"
        )
        yield Disturbance("others", text)
    stolen = steal_share(rounds)
    if stolen is not None and stolen > _STEAL_SHARE:
        text = f"the hypervisor gave {stolen:.1%} of the processor time to other machines (steal)"
        yield Disturbance("steal", text)
    if throttled := counter_increase(rounds, "throttled"):
        spent_s, times = counter_increase(rounds, "throttled_s") or 0.0, pluralize(round(throttled), "time")
        text = f"the cgroup's processor quota throttled this process {times}, for {spent_s:.2f} s in all"
        yield Disturbance("throttling", text)
    quota = quota_cpus(rounds)
    if quota is not None and quota < 1.0:
        text = f"the cgroup may use {quota:.2f} of a processor: less than one thread needs"
        yield Disturbance("quota", text)
    names = governors(rounds)
    if names is not None and names != "performance":
        text = f"the frequency governor is {names!r}: the clock rate follows the load (set 'performance')"
        yield Disturbance("governor", text)
    if slowed := counter_increase(rounds, "core_throttles"):
        text = f"cores were slowed down {pluralize(round(slowed), 'time')} because of heat"
        yield Disturbance("heat", text)
    # Work on this machine slows cores down too.
    if not disturbed and (slowdown := core_slowdown(rounds) or 1.0) > _SLOWDOWN:
        text = (
            f"a fixed loop took {slowdown:.2f} times as long after slow rounds as after fast ones: other machines "
            "share the cores, the clock rate changed, or cores differ"
        )
        yield Disturbance("cores", text)
    if swapped := counter_increase(rounds, "swapped_bytes"):
        yield Disturbance("swap", f"the machine moved {swapped / 1e6:.1f} MB to or from swap")
    if any(after.on_battery for _, after in rounds):
        yield Disturbance("battery", "the machine runs on its battery, which limits the clock rate")
    if slowdowns := gpu_slowdowns(rounds):
        yield Disturbance("gpu", f"the clocks of the GPU were lowered: {slowdowns}")


def core_slowdown(rounds: Iterable[Span]) -> float | None:
    """Return how many times as long the fixed loop took after slow rounds as after fast ones.

    These are the 90th and the 10th percentile; None for fewer than ten rounds, where an earlier version timed them, and
    where models are not stopped meanwhile. Another virtual machine on the second hardware thread of a core slows it
    down without any steal.
    """
    times = sorted(after.loop_ns for _, after in rounds if after.loop_ns)
    tenth = len(times) // 10
    return times[-1 - tenth] / times[tenth] if len(times) >= _LEAST_LOOPS else None


def steal_share(rounds: Sequence[Span]) -> float | None:
    """Return the share of all processor time of rounds that the hypervisor gave to other machines, if reported."""
    steal_s = counter_increase(rounds, "steal_s")
    wall_s = sum(after.at_ns - before.at_ns for before, after in rounds) / 1e9
    return None if steal_s is None or wall_s <= 0 else steal_s / (wall_s * (os.cpu_count() or 1))


def counter_increase(rounds: Iterable[Span], counter: str) -> float | None:
    """Return by how much a counter of `MachineState` grew in rounds; None where the system does not report it."""
    ends = [(getattr(before, counter), getattr(after, counter)) for before, after in rounds]
    increases = [after - before for before, after in ends if before is not None and after is not None]
    return sum(increases) if increases else None


def quota_cpus(rounds: Iterable[Span]) -> float | None:
    """Return the smallest limit of processors for the cgroup in any of the rounds; None for no limit."""
    return min((after.quota_cpus for _, after in rounds if after.quota_cpus is not None), default=None)


def governors(rounds: Iterable[Span]) -> str | None:
    """Return the frequency governors that were in use in any of the rounds, joined by commas."""
    names = {name for _, after in rounds for name in (after.governors or "").split(", ") if name}
    return ", ".join(sorted(names)) or None


def gpu_slowdowns(rounds: Sequence[Span]) -> str | None:
    """Return why the GPU lowered its clocks in any of the rounds, joined by commas; None where no GPU was used."""
    states = [after.gpu.slowdowns for _, after in rounds if after.gpu and after.gpu.slowdowns is not None]
    return ", ".join(dict.fromkeys(name for text in states for name in text.split(", ") if name)) if states else None


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _own_seconds(pids: Iterable[int]) -> float | None:
    """Return the user and system seconds of this process and of `pids`; None where one of them has ended."""
    try:
        times = [psutil.Process(pid).cpu_times() for pid in (os.getpid(), *pids)]
    except psutil.Error:
        return None
    return float(sum(time.user + time.system for time in times))


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def cgroups(root: Path, controller: str = "cpu") -> list[Path]:
    """Return the folders of this process's cgroup and of its parents, whose limits of `controller` all apply."""
    folders = []
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, inside = rest.partition(":")
        if controllers == "":
            mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        elif controller in controllers.split(","):
            mounts = [f"sys/fs/cgroup/{controller}", f"sys/fs/cgroup/{controllers}"]
        else:
            continue
        for mount in mounts:
            path = Path(inside.lstrip("/"))
            # In a container the path may be the host's, while the mount has only the container's own part.
            folders += [root / mount / part for part in (path, *path.parents)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _quota(root: Path) -> float | None:
    """Return the smallest limit of processors of this cgroup and its parents; None for no limit."""
    quotas = []
    for folder in cgroups(root):
        quota, _, period = (_text(folder / "cpu.max") or "").partition(" ")
        if not quota:
            quota, period = _text(folder / "cpu.cfs_quota_us") or "", _text(folder / "cpu.cfs_period_us") or ""
        try:
            if int(quota) > 0:
                quotas.append(int(quota) / int(period))
        except ValueError:  # "max", or nothing there
            continue
    return min(quotas, default=None)


def _throttling(root: Path) -> tuple[int | None, float | None]:
    """Return how often, and for how many seconds, this cgroup and its parents were throttled."""
    counts, spent_s = [], 0.0
    for folder in cgroups(root):
        lines = (line.split() for line in (_text(folder / "cpu.stat") or "").splitlines())
        stat = {fields[0]: int(fields[1]) for fields in lines if len(fields) == 2 and fields[1].isdigit()}
        if "nr_throttled" in stat:
            counts.append(stat["nr_throttled"])
            spent_s += stat["throttled_usec"] / 1e6 if "throttled_usec" in stat else stat.get("throttled_time", 0) / 1e9
    return (sum(counts), spent_s) if counts else (None, None)


def _governors(root: Path) -> str | None:
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    names = sorted({text for text in map(_text, files) if text})
    return ", ".join(names) or None


def _core_throttles(root: Path) -> int | None:
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    counts = [int(text) for text in map(_text, files) if text and text.isdigit()]
    return sum(counts) if counts else None


def _frequency() -> float | None:
    try:
        frequency = psutil.cpu_freq()
    except (AttributeError, NotImplementedError, OSError, RuntimeError):
        return None
    return float(frequency.current) if frequency and frequency.current else None


def _loop_ns() -> int | None:
    """Return the shortest of a few times of a fixed loop. Elsewhere than on Linux, idle threads of models may run."""
    if sys.platform != "linux":
        return None
    times = []
    for _ in range(_LOOPS):
        start = time.perf_counter_ns()
        sum(range(_LOOP))
        times.append(time.perf_counter_ns() - start)
    return min(times)


def _swapped() -> int | None:
    try:
        swap = psutil.swap_memory()
    except (OSError, RuntimeError):
        return None
    return int(swap.sin) + int(swap.sout)


def _on_battery() -> bool | None:
    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError, RuntimeError):
        return None
    return None if battery is None or battery.power_plugged is None else not battery.power_plugged
