"""The conductor times a group of models in interleaved blocks, each model in processes of its own.

Owns the protocol: which models are launched, which block is next, and when a model has been timed enough. Leaves the
clock to `child`, processes to `process`, storage to the caller's `keep`, and figures to `latency`.

A launch opens every model of the group in a fresh process, times them in rounds, and ends them. A round has one short
block of each model in a random order, so that changes of the machine affect all models alike. Models are launched
several times because each process has a speed of its own. How often, and how long a block is, follows from what each
costs and how much it varies.

Source: R. A. Fisher, The Design of Experiments (1935), chapters II and III, for blocks in random order; T. Kalibera and
R. Jones, Rigorous Benchmarking in Reasonable Time (ISMM 2013), and the manual of pyperf, for several processes.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from benchcard.measure import intervals, machine_state
from benchcard.measure.blocks import Block, GroupTiming, OpenedModel, Progress, Round, Subject, TimedFailure
from benchcard.measure.gpu import uses_gpu
from benchcard.measure.lock import machine_lock
from benchcard.measure.process import Launchers, ProcessFailed, TimedProcess

_Medians: TypeAlias = Mapping[intervals.RoundId, float]

# Unrecorded calls before a block, after a first one: while a model slept, others filled the caches, and its threads
# woke up on any core.
_WARM_S = 0.005
# Recorded calls take this many times as long as the unrecorded ones, and not longer: a call of a block tells little
# that the others do not tell, while the next block finds the machine in another state.
_BLOCK_SHARE = 8
# A block of slow calls has this many, since one unrecorded call comes before them.
_SLOW_CALLS = 5
# A short launch still has this many rounds.
_ROUNDS_PER_LAUNCH = 6
# Precision is judged between launches, so these are shorter by this factor.
_LAUNCHES_TO_JUDGE = 4
# A duration of at most this is for a first look: where models take long to open, it has fewer launches, but so many
# that they show whether launches vary. With more than 30 rounds they do not show small differences between processes,
# and intervals hold in 91 of 100 cases (`benchmarks/coverage.py`).
SHORT_S, FEWEST_LAUNCHES = 1.0, 3
# How much launches are expected to vary before it is measured: their variance over that of rounds. On a quiet machine a
# model of 0.4 ms had 0.05. A little less is taken, so that a second of timing usually has three launches.
_USUAL_ADDED = 0.04
# The share of the recorded time that more launches than requested may take.
_OPENING_SHARE = 0.25
# The share of the recorded time of a launch that the import of a framework may take. A longer one is made only once.
_IMPORT_SHARE = 0.1


@dataclass(frozen=True)
class _Settings:
    """The arguments of `time_group`, in nanoseconds."""

    duration_ns: int
    launches: int
    warmup_runs: int
    seed: int
    precision: float | None
    block_ns: int | None

    @property
    def fewest(self) -> int:
        """The smallest number of launches of a model."""
        is_short = self.precision is None and self.duration_ns <= SHORT_S * 1e9
        return min(self.launches, FEWEST_LAUNCHES) if is_short else self.launches

    @property
    def usual_ns(self) -> int:
        """The recorded time of a model in one launch, unless opening takes long or launches vary."""
        launches = self.launches * (1 if self.precision is None else _LAUNCHES_TO_JUDGE)
        return math.ceil(self.duration_ns / launches)

    @property
    def launch_ns(self) -> int:
        """The longest recorded time of a model in one launch."""
        return self.usual_ns if self.precision is not None else math.ceil(self.duration_ns / self.fewest)

    def block_length_ns(self, opened: OpenedModel) -> int:
        """Return the length of a model's blocks, by the latency of its warm-up."""
        if self.block_ns is not None:
            return self.block_ns
        call_ns = float(np.median(opened.warmup_ns or (opened.first_call_ns,)))
        longest_ns = self.usual_ns / _ROUNDS_PER_LAUNCH
        return round(min(max(_BLOCK_SHARE * _WARM_S * 1e9, _SLOW_CALLS * call_ns), longest_ns))


@dataclass(eq=False)
class _Member:
    """A model of a group, or the twin of the baseline: its process in the current launch, and its recorded time."""

    subject: Subject
    twin: bool
    process: TimedProcess | None = None
    failed: bool = False
    block_ns: int = 0
    elapsed_ns: int = 0
    until_ns: int = 0
    medians: dict[intervals.RoundId, float] = field(default_factory=dict)

    @property
    def launches(self) -> set[int]:
        """The launches in which it was timed."""
        return {launch for launch, _ in self.medians}


def time_group(
    subjects: Sequence[Subject],
    baseline: int | None = None,
    *,
    duration_s: float = 15.0,
    launches: int = 5,
    warmup_runs: int = 10,
    seed: int = 0,
    keep: Callable[[Round], None],
    earlier: Sequence[Round] = (),
    progress: Callable[[Progress], None] | None = None,
    precision: float | None = None,
    block_s: float | None = None,
    launchers: Launchers | None = None,
) -> GroupTiming:
    """Time a group of models, pass each round to `keep`, and return the opened models and the failures.

    Every subject gets a process. The baseline gets a second one, its twin, which shows the noise. One process works at
    a time while the others and this one sleep. Launches repeat until every subject has `duration_s` of recorded time
    and enough launches. The baseline and its twin take part in every round, because a ratio needs both models.

    Args:
        subjects: The models, with unique names.
        baseline: Index of the subject that ratios compare with; None for none, and then no twin.
        duration_s: Recorded seconds per subject over all launches; with `precision`, the mean over the subjects at
            most.
        launches: Processes per subject, one after the other. Intervals need two. There are more where launches vary so
            much that more of them, with fewer rounds each, give narrower intervals in the same time; and fewer, down to
            three, where `duration_s` is 1 s or less and short for the time that it takes to open the models.
        warmup_runs: Calls after the first one of a process, before any block; fewer where they and the first one would
            take longer than the launch. A slow model has its unrecorded calls before each block.
        seed: Seed of the order in which models are launched, and of that within rounds; the orders depend on it and the
            number of the launch or round alone.
        keep: Called with each round as soon as it is over, to store it.
        earlier: Rounds of the same group that an interrupted run kept.
        progress: Called between blocks.
        precision: Stop a subject when the 95 % interval of its ratio to the baseline (of its latency, where there is
            no baseline) is within this share on either side, 0.01 for 1 %. Its time goes to the other subjects. See
            `intervals.is_precise`.
        block_s: Length of every block; by default 40 ms, or five calls of a slow model, and never more than a sixth
            of the recorded time of a launch.
        launchers: What starts the processes; it may serve several groups, and import frameworks beforehand. By default
            new ones, which end with the call.

    Raises:
        ValueError: Names are not unique, or a number is out of range.
        MachineError: The lock of the machine cannot be created.
    """
    names = [subject.name for subject in subjects]
    if len(set(names)) < len(names):
        raise ValueError(f"expected subjects with unique names, found {names}")
    if baseline is not None and not 0 <= baseline < len(subjects):
        raise ValueError(f"baseline is {baseline}, but there are {len(subjects)} subjects")
    if not duration_s > 0 or launches < 1 or warmup_runs < 0 or (precision is not None and not precision > 0):
        raise ValueError(
            "expected duration_s > 0, launches >= 1, warmup_runs >= 0 and precision > 0 or None, "
            f"found {duration_s}, {launches}, {warmup_runs} and {precision}"
        )
    block_ns = None if block_s is None else round(block_s * 1e9)
    settings = _Settings(round(duration_s * 1e9), launches, warmup_runs, seed, precision, block_ns)
    conductor = _Conductor(subjects, baseline, settings, earlier, progress)
    with ExitStack() as stack:
        return conductor.run(keep, launchers or stack.enter_context(Launchers()))


class _Conductor:
    """The state of one call of `time_group`."""

    def __init__(
        self,
        subjects: Sequence[Subject],
        baseline: int | None,
        settings: _Settings,
        earlier: Sequence[Round],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._settings = settings
        self._progress = progress
        self._members = [_Member(subject, twin=False) for subject in subjects]
        self._baseline = None if baseline is None else self._members[baseline]
        if self._baseline is not None:
            self._members.append(_Member(self._baseline.subject, twin=True))
        self._failures: list[TimedFailure] = []
        for past in earlier:
            self._count(past)
        self._round = 1 + max((past.number for past in earlier), default=-1)
        self._launch = 1 + max((past.launch for past in earlier), default=-1)
        self._opened = [opened for past in earlier for opened in past.opened]
        self._state = machine_state.MachineState(0)
        self._half_width: float | None = None
        self._uses_gpu = any(uses_gpu(subject.options) for subject in subjects)

    def run(self, keep: Callable[[Round], None], launchers: Launchers) -> GroupTiming:
        """Launch and time the members until each has been timed enough."""
        kept = len(self._opened)
        with machine_lock(self._report):
            before = machine_state.read_machine_state(gpu=self._uses_gpu)
            while due := self._due():
                launched = self._launched(due)
                with ExitStack() as processes:
                    began = time.monotonic_ns()
                    self._report(f"launch {self._launch + 1}: starting {_count_processes(launched)}")
                    together = [(member.subject, member.twin) for member in launched]
                    affordable_ns = _IMPORT_SHARE * self._settings.usual_ns * len(launched)
                    started = launchers.start(together, processes, affordable_ns)
                    for member, process in zip(launched, started):
                        self._report(f"launch {self._launch + 1}: opening {member.subject.name}")
                        self._open(member, process)
                    self._share_time(launched, time.monotonic_ns() - began)
                    self._state = self._read_state()
                    while order := self._order(launched, due):
                        self._report(f"launch {self._launch + 1}: timing {_count_processes(order)}")
                        timed = replace(self._time_round(order), opened=tuple(self._opened[kept:]))
                        kept = len(self._opened)
                        self._count(timed)
                        keep(timed)
                        self._round += 1
                for member in launched:
                    member.process = None
                del self._opened[kept:]  # A launch without a round does not count.
                self._launch += 1
                self._half_width = self._current_half_width()
            after = machine_state.read_machine_state(gpu=self._uses_gpu)
            self._report("timed")
        places = {(member.subject.name, member.twin): place for place, member in enumerate(self._members)}
        opened = sorted(self._opened, key=lambda each: (each.launch, places.get((each.name, each.twin), -1)))
        failures = sorted(self._failures, key=lambda each: places[each.name, each.twin])
        return GroupTiming(tuple(opened), tuple(failures), self._round, self._launch, before, after)

    def _launched(self, due: Sequence[_Member]) -> list[_Member]:
        """Return the members of the next launch in random order.

        Of equal models, the one that was opened last was 5 % faster than the one opened first, probably by the physical
        memory that each gets. In a fixed order that would be a bias.
        """
        launched = [
            member for member in self._members if not member.failed and (member in due or self._is_pair(member))
        ]
        random.Random(f"{self._settings.seed}:launch {self._launch}").shuffle(launched)
        return launched

    def _is_pair(self, member: _Member) -> bool:
        """Return whether a member is the baseline or its twin."""
        return member is self._baseline or member.twin

    def _due(self) -> list[_Member]:
        """Return the members that need another launch; none when the group is done."""
        settings = self._settings
        alive = [member for member in self._members if not member.failed]
        if settings.precision is None:
            return [
                member
                for member in alive
                if member.elapsed_ns < settings.duration_ns or len(member.launches) < settings.fewest
            ]
        # The baseline and its twin are timed for the others, and decide only where there are no others.
        judged = [member for member in alive if not self._is_pair(member)] or alive
        # A member without any recorded time may be unable to open, and has no time to give to the others.
        times = [member.elapsed_ns for member in alive if member.elapsed_ns]
        is_spent = sum(times) >= settings.duration_ns * len(times)
        precise = intervals.precise(*self._compared(), settings.precision)
        return [
            member
            for member in judged
            if len(member.launches) < settings.launches
            or not (is_spent or member is self._baseline or self._members.index(member) in precise)
        ]

    def _open(self, member: _Member, process: TimedProcess | ProcessFailed) -> None:
        settings = self._settings
        try:
            if isinstance(process, ProcessFailed):
                raise process
            opened = process.open(self._launch, settings.warmup_runs, settings.usual_ns)
        except ProcessFailed as failed:
            self._fail(member, failed)
            return
        self._opened.append(opened)
        member.process = process
        member.block_ns = settings.block_length_ns(opened)

    def _share_time(self, launched: Sequence[_Member], opening_ns: int) -> None:
        """Set how long each member is timed in this launch, which took `opening_ns` to open.

        It has the number of rounds that gives the narrowest interval for the time that launches and rounds take: by the
        variances so far, where launches vary; else by what is usual, but not more launches than were asked for.

        Source: Kalibera and Jones (2013), section 6.
        """
        settings = self._settings
        opened = [member for member in launched if not member.failed]
        if not opened:
            return
        added = self._launch_variance()
        round_ns = sum(member.block_ns for member in opened) * (1 + 1 / _BLOCK_SHARE)
        rounds = max(_ROUNDS_PER_LAUNCH, math.sqrt(opening_ns / round_ns / (added or _USUAL_ADDED)))
        best_ns = rounds * float(np.median([member.block_ns for member in opened]))
        shortest_ns = opening_ns / (_OPENING_SHARE * len(opened)) if added else settings.usual_ns
        launch_ns = min(settings.launch_ns, max(best_ns, shortest_ns))
        for member in opened:
            recorded_ns = launch_ns
            if settings.precision is None:
                # The launches that are left share the time evenly, so that none is opened for a small remainder.
                left_ns = max(0, settings.duration_ns - member.elapsed_ns)
                recorded_ns = left_ns / max(1, round(left_ns / launch_ns))
            member.until_ns = member.elapsed_ns + math.ceil(recorded_ns)

    def _launch_variance(self) -> float | None:
        """Return the variance of launches relative to that of rounds; None where it is not known or there is none."""
        ratios = intervals.paired_ratios(*self._compared())
        # The median, because launches may affect one model far more than the others.
        added = float(np.median([ratio.launches_add or 1.0 for ratio in ratios.values()] or [1.0]))
        rounds = [len(member.medians) / len(member.launches) for member in self._members if member.medians]
        return (added - 1) / float(np.mean(rounds)) if added > 1 else None

    def _current_half_width(self) -> float | None:
        """Return the median half-width of the intervals so far."""
        found = [ratio.interval().half_width for ratio in intervals.paired_ratios(*self._compared()).values()]
        known = [half_width for half_width in found if half_width is not None]
        return float(np.median(known)) if known else None

    def _compared(self) -> tuple[_Medians, dict[int, _Medians]]:
        """Return the median latencies of the baseline and of the other members, by their place.

        Where there is no baseline, its medians are all equal, so that the members' own latencies are compared.
        """
        subjects: dict[int, _Medians] = {
            place: member.medians for place, member in enumerate(self._members) if member.medians
        }
        if self._baseline is not None:
            subjects.pop(self._members.index(self._baseline), None)
            return self._baseline.medians, subjects
        rounds = {place for medians in subjects.values() for place in medians}
        return dict.fromkeys(rounds, 1.0), subjects

    def _order(self, launched: Sequence[_Member], due: Sequence[_Member]) -> list[_Member]:
        """Return the members of the next round in random order; none when the launch is over.

        The launch is also over when all due members have failed, so that another attempt at a broken model does not
        change the figures of the others.
        """
        alive = [member for member in self._members if member in launched and not member.failed]
        unfinished = [
            member
            for member in alive
            if member in due and (member.elapsed_ns < member.until_ns or self._launch not in member.launches)
        ]
        order = [member for member in alive if member in unfinished or (unfinished and self._is_pair(member))]
        random.Random(f"{self._settings.seed}:{self._round}").shuffle(order)
        return order

    def _time_round(self, order: Sequence[_Member]) -> Round:
        """Time one block of each member in this order."""
        blocks: list[Block] = []
        for member in order:
            try:
                if member.process is not None:
                    blocks.append(member.process.time_block(member.block_ns, round(_WARM_S * 1e9)))
            except ProcessFailed as failed:
                self._fail(member, failed)
        before, self._state = self._state, self._read_state()
        return Round(self._round, self._launch, tuple(blocks), before, self._state)

    def _read_state(self) -> machine_state.MachineState:
        """Return the state of the machine; the time of all processes of the launch counts as own time."""
        processes = (member.process for member in self._members if not member.failed)
        pids = [process.pid for process in processes if process is not None]
        return machine_state.read_machine_state(pids, gpu=self._uses_gpu)

    def _fail(self, member: _Member, failed: ProcessFailed) -> None:
        self._failures.append(failed.failure)
        member.failed = True

    def _count(self, timed: Round) -> None:
        """Add the blocks of a round to the recorded time of the members."""
        members = {(member.subject.name, member.twin): member for member in self._members}
        for block in timed.blocks:
            member = members.get((block.name, block.twin))
            if member is not None:
                member.elapsed_ns += block.elapsed_ns
                member.medians[timed.launch, timed.number] = block.median_ns

    def _report(self, activity: str) -> None:
        if self._progress is None:
            return
        settings = self._settings
        times = [member.elapsed_ns for member in self._members if not member.failed]
        total_ns = settings.duration_ns * len(times)
        if settings.precision is None:
            done_ns = sum(min(time, settings.duration_ns) for time in times)
        else:
            # A member that is not precise yet takes the time of those that are.
            done_ns = min(sum(times), total_ns)
        self._progress(Progress(activity, done_ns / 1e9, total_ns / 1e9, self._half_width))


def _count_processes(members: Sequence[_Member]) -> str:
    return "1 process" if len(members) == 1 else f"{len(members)} processes"
