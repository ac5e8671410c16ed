"""The conductor times a group of models in interleaved blocks, each model in processes of its own.

Owns the protocol: which models are launched, which block is next, and when a model has been timed enough. Leaves the
clock to `child`, processes to `process`, storage to the caller's `keep`, and figures to `latency`.

A launch opens every model of the group in a fresh process, times them in rounds, and ends them. A round has one short
block of each model in a random order, so that changes of the machine affect all models alike. Models are launched
several times because each process has a speed of its own.

Source: R. A. Fisher, The Design of Experiments (1935), chapters II and III, for blocks in random order; T. Kalibera and
R. Jones, Rigorous Benchmarking in Reasonable Time (ISMM 2013), and the manual of pyperf, for several processes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np

from benchcard.measure import intervals, machine_state
from benchcard.measure.blocks import Block, GroupTiming, OpenedModel, Progress, Round, Subject, TimedFailure
from benchcard.measure.lock import machine_lock
from benchcard.measure.process import ProcessFailed, TimedProcess

TIMEOUT_S = 600.0

# Long compared with the time to wake up, and short enough for many rounds in which the machine stays the same.
_BLOCK_S = 0.1
# A block has at least this many calls, where that leaves enough blocks: one slow call must not decide a block, nor the
# unrecorded call take half of the time.
_CALLS_PER_BLOCK = 10
# A short launch still has a median over this many rounds.
_ROUNDS_PER_LAUNCH = 6
# Precision is judged between launches, so these are shorter by this factor.
_LAUNCHES_TO_JUDGE = 4
# The share of a block that unrecorded calls take, one call at least: while a model slept, others filled the caches.
# 5 ms are enough to read the largest of today's caches from memory.
_WARM_SHARE = 0.05


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
    def launch_ns(self) -> int:
        """Recorded time of a model in one launch."""
        launches = self.launches * (1 if self.precision is None else _LAUNCHES_TO_JUDGE)
        return math.ceil(self.duration_ns / launches)

    def block_length_ns(self, opened: OpenedModel) -> int:
        """Return the length of a model's blocks, by the latency of its warm-up."""
        if self.block_ns is not None:
            return self.block_ns
        call_ns = float(np.median(opened.warmup_ns or (opened.first_call_ns,)))
        return round(min(max(_BLOCK_S * 1e9, _CALLS_PER_BLOCK * call_ns), self.launch_ns / _ROUNDS_PER_LAUNCH))


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
    timeout_s: float = TIMEOUT_S,
    process_class: type[TimedProcess] = TimedProcess,
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
        launches: Processes per subject, one after the other. Intervals need two; with five, Student's quantile is
            below 3.
        warmup_runs: Calls after the first one of a process, before any block; fewer where they and the first one would
            take longer than the launch. A slow model has its unrecorded calls before each block.
        seed: Seed of the order within rounds, which depends on it and the round's number alone.
        keep: Called with each round as soon as it is over, to store it.
        earlier: Rounds of the same group that an interrupted run kept.
        progress: Called between blocks.
        precision: Stop a subject when the 95 % interval of its ratio to the baseline (of its latency, where there is
            no baseline) is within this share on either side, 0.01 for 1 %. Its time goes to the other subjects. See
            `intervals.is_precise`.
        block_s: Length of every block; by default 0.1 s, or ten calls of a slow model, and never more than a sixth of
            the recorded time of a launch.
        timeout_s: The longest time for an answer of a process (to import, to open a model, or to time a block beyond
            the block's length). The process is then ended, and its model leaves the group.
        process_class: The class of the processes.

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
    return conductor.run(keep, lambda member: process_class(member.subject, member.twin, timeout_s))


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

    def run(self, keep: Callable[[Round], None], start: Callable[[_Member], TimedProcess]) -> GroupTiming:
        """Launch and time the members until each has been timed enough."""
        kept = len(self._opened)
        with machine_lock(self._report):
            before = machine_state.read_machine_state()
            while due := self._due():
                launched = [
                    member for member in self._members if not member.failed and (member in due or self._is_pair(member))
                ]
                with ExitStack() as processes:
                    self._report(f"launch {self._launch + 1}: starting {_count_processes(launched)}")
                    for member in self._start(launched, start, processes):
                        self._report(f"launch {self._launch + 1}: opening {member.subject.name}")
                        self._open(member)
                    while order := self._order(launched, due):
                        self._report(f"launch {self._launch + 1}: timing {_count_processes(order)}")
                        timed = replace(self._time_round(order), opened=tuple(self._opened[kept:]))
                        kept = len(self._opened)
                        self._count(timed)
                        keep(timed)
                        self._round += 1
                del self._opened[kept:]  # A launch without a round does not count.
                self._launch += 1
            after = machine_state.read_machine_state()
            self._report("timed")
        return GroupTiming(tuple(self._opened), tuple(self._failures), self._round, self._launch, before, after)

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
                if member.elapsed_ns < settings.duration_ns or len(member.launches) < settings.launches
            ]
        # The baseline and its twin are timed for the others, and decide only where there are no others.
        judged = [member for member in alive if not self._is_pair(member)] or alive
        # A member without any recorded time may be unable to open, and has no time to give to the others.
        times = [member.elapsed_ns for member in alive if member.elapsed_ns]
        is_spent = sum(times) >= settings.duration_ns * len(times)
        return [
            member
            for member in judged
            if len(member.launches) < settings.launches
            or not (is_spent or self._is_precise(member, settings.precision))
        ]

    def _is_precise(self, member: _Member, precision: float) -> bool:
        """Return whether a member's ratio to the baseline (its latency, where there is none) is precise enough.

        The baseline itself always is.
        """
        if self._baseline is None:
            return intervals.is_precise(dict.fromkeys(member.medians, 1.0), member.medians, precision)
        return member is self._baseline or intervals.is_precise(self._baseline.medians, member.medians, precision)

    def _start(
        self, members: Sequence[_Member], start: Callable[[_Member], TimedProcess], processes: ExitStack
    ) -> list[_Member]:
        """Start the processes of members and return those whose framework is imported.

        Imports run in parallel, since nothing is timed yet.
        """
        started: list[tuple[_Member, TimedProcess]] = []
        for member in members:
            try:
                process = processes.enter_context(start(member))
                process.start_import()
            except ProcessFailed as failed:
                self._fail(member, failed)
            else:
                member.process = process
                started.append((member, process))
        # All are killed before the first is waited for: each takes a moment to return its memory.
        processes.callback(_kill, [process for _, process in started])
        ready = []
        for member, process in started:
            try:
                process.finish_import()
            except ProcessFailed as failed:
                self._fail(member, failed)
            else:
                ready.append(member)
        return ready

    def _open(self, member: _Member) -> None:
        settings = self._settings
        if member.process is None:
            return
        try:
            opened = member.process.open(self._launch, settings.warmup_runs, settings.launch_ns)
        except ProcessFailed as failed:
            self._fail(member, failed)
            return
        self._opened.append(opened)
        member.block_ns = settings.block_length_ns(opened)
        member.until_ns = member.elapsed_ns + settings.launch_ns
        if settings.precision is None:
            member.until_ns = min(member.until_ns, settings.duration_ns)

    def _order(self, launched: Sequence[_Member], due: Sequence[_Member]) -> list[_Member]:
        """Return the members of the next round in random order; none when the launch is over.

        The launch is also over when all due members have failed, so that another attempt at a broken model does not
        change the figures of the others.
        """
        alive = [member for member in launched if not member.failed]
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
        processes = [(member, member.process) for member in order if member.process is not None]
        pids = [process.pid for _, process in processes]
        before = machine_state.read_machine_state(pids)
        blocks: list[Block] = []
        for member, process in processes:
            try:
                blocks.append(process.time_block(member.block_ns, round(_WARM_SHARE * member.block_ns)))
            except ProcessFailed as failed:
                self._fail(member, failed)
        return Round(self._round, self._launch, tuple(blocks), before, machine_state.read_machine_state(pids))

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
        self._progress(Progress(activity, done_ns / 1e9, total_ns / 1e9))


def _kill(processes: Sequence[TimedProcess]) -> None:
    for process in processes:
        process.kill()


def _count_processes(members: Sequence[_Member]) -> str:
    return "1 process" if len(members) == 1 else f"{len(members)} processes"
