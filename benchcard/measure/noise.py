"""How quiet the machine was: what it says about itself, and what of that spoils a timing.

Owns the readings (load, the processor time that others took, steal, cgroup quota and throttling, frequency governor)
and the warnings drawn from them, in words. Every figure is optional: None where a system does not tell. Leaves to
`timing` when to read, and to `statistics` how noise enters an interval.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import psutil

from benchcard.utils.text import pluralize

# Share of a round's processor time that others may take before the run is called disturbed: what a desktop
# or a monitoring agent takes at rest stays below it.
_OTHERS_SHARE = 0.05
# Share of processor time stolen by the hypervisor, above which tail latencies are no longer the model's own.
_STEAL_SHARE = 0.01


@dataclass(frozen=True)
class MachineState:
    """The machine at one moment. Counters only ever grow; two readings make a rate.

    Attributes:
        at_ns: wall clock, ns since the epoch.
        load_1m: load average of the last minute.
        busy_s: processor seconds used by anyone, steal not included.
        own_s: processor seconds used by this process and the processes given to `read`.
        steal_s: processor seconds that the hypervisor gave to other machines.
        quota_cpus: processors that the cgroup may use at most.
        throttled: number of periods in which the cgroup was held back.
        throttled_s: seconds for which it was held back.
        governors: frequency governors in force, as `performance`.
        frequency_mhz: mean frequency of the processors now.
        core_throttles: times that a core was slowed down because of heat.
        swapped_bytes: bytes moved to or from swap.
        on_battery: whether the machine runs on its battery.
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
    core_throttles: int | None = None
    swapped_bytes: int | None = None
    on_battery: bool | None = None


Span: TypeAlias = tuple[MachineState, MachineState]
"""The machine just before and just after a round."""


def read_machine_state(pids: Iterable[int] = (), root: Path = Path("/")) -> MachineState:
    """A reading of this machine now; takes a few milliseconds.

    Args:
        pids: processes whose processor time counts as our own, beside this one.
        root: where `proc` and `sys` are found; another folder for a test.

    Source: field meanings in proc(5) and the Linux kernel's cgroup-v2.rst, "CPU Interface Files".
    """
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    steal = getattr(times, "steal", None)
    # user time includes guest time already, so guest must not be added again
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
        core_throttles=_core_throttles(root),
        swapped_bytes=_swapped(),
        on_battery=_on_battery(),
    )


def others_share(before: MachineState, after: MachineState) -> float | None:
    """Share of one processor's time that anyone but us took between two readings, 1.0 for one processor all the time.

    None where the system does not tell, or where a process of ours ended in between.
    """
    if before.busy_s is None or after.busy_s is None or before.own_s is None or after.own_s is None:
        return None
    own_s = after.own_s - before.own_s
    wall_s = (after.at_ns - before.at_ns) / 1e9
    if own_s < 0 or wall_s <= 0:
        return None
    return max(0.0, after.busy_s - before.busy_s - own_s) / wall_s


def warnings(rounds: Sequence[Span]) -> list[str]:
    """What spoiled the timing of rounds, a sentence each; empty on a quiet machine.

    Args:
        rounds: the readings around each round. What happens between rounds does not count: a run that was stopped may
            go on another day.
    """
    found = []
    shares = [share for share in (others_share(first, last) for first, last in rounds) if share is not None]
    disturbed = sum(share > _OTHERS_SHARE for share in shares)
    if disturbed:
        found.append(
            f"others used the processors in {disturbed} of {len(shares)} rounds, "
            f"{sum(shares) / len(shares):.2f} of a processor on average and {max(shares):.2f} at most"
        )
    stolen = steal_share(rounds)
    if stolen is not None and stolen > _STEAL_SHARE:
        found.append(f"the hypervisor gave {stolen:.1%} of the processor time to other machines (steal)")
    throttled = counter_increase(rounds, "throttled")
    if throttled:
        spent_s, times = counter_increase(rounds, "throttled_s") or 0.0, pluralize(round(throttled), "time")
        found.append(f"the cgroup's processor quota held this process back {times}, {spent_s:.2f} s in all")
    quota = quota_cpus(rounds)
    if quota is not None and quota < 1.0:
        found.append(f"the cgroup may use {quota:.2f} of a processor: less than one thread needs")
    names = governors(rounds)
    if names is not None and names != "performance":
        found.append(f"the frequency governor is {names!r}: the clock rate follows the load (set 'performance')")
    slowed = counter_increase(rounds, "core_throttles")
    if slowed:
        found.append(f"cores were slowed down {pluralize(round(slowed), 'time')} because of heat")
    swapped = counter_increase(rounds, "swapped_bytes")
    if swapped:
        found.append(f"the machine moved {swapped / 1e6:.1f} MB to or from swap")
    if any(after.on_battery for _, after in rounds):
        found.append("the machine runs on its battery, which limits the clock rate")
    return found


def steal_share(rounds: Sequence[Span]) -> float | None:
    """Share of all processor time of rounds that the hypervisor gave to other machines; None where the system does not
    tell.
    """
    steal_s = counter_increase(rounds, "steal_s")
    wall_s = sum(after.at_ns - before.at_ns for before, after in rounds) / 1e9
    return None if steal_s is None or wall_s <= 0 else steal_s / (wall_s * (os.cpu_count() or 1))


def counter_increase(rounds: Iterable[Span], counter: str) -> float | None:
    """How much a counter of the readings grew in rounds, None where the system does not tell."""
    ends = [(getattr(before, counter), getattr(after, counter)) for before, after in rounds]
    grew = [after - before for before, after in ends if before is not None and after is not None]
    return sum(grew) if grew else None


def quota_cpus(rounds: Iterable[Span]) -> float | None:
    """The fewest processors that the cgroup might use in any of the rounds, None for no limit."""
    return min((after.quota_cpus for _, after in rounds if after.quota_cpus is not None), default=None)


def governors(rounds: Iterable[Span]) -> str | None:
    """The frequency governors that were in force in any of the rounds."""
    names = {name for _, after in rounds for name in (after.governors or "").split(", ") if name}
    return ", ".join(sorted(names)) or None


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _own_seconds(pids: Iterable[int]) -> float | None:
    """User and system seconds of this process and of `pids`, None where one of them is gone."""
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
    """Folders of this process's cgroup and all above it that may limit the processor, or whatever else `controller`
    stands for; version 2, then version 1.
    """
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
            # in a container the path may be the host's, while the mount shows only the container's own part
            folders += [root / mount / part for part in (path, *path.parents)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _quota(root: Path) -> float | None:
    """The smallest number of processors that any cgroup above us may use, None for no limit."""
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
    """How often, and for how many seconds, the cgroups that we are in were held back, each by a quota of its own."""
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
