"""The conductor: times a group of models in interleaved blocks, each model in processes of its own.

Owns the protocol: who is launched, whose block is due and in which order, and when a model has been timed enough.
Leaves the clock to `timed`, the processes to `process`, storage to the caller's `keep`, and every figure to
`statistics`.

A launch opens every model of the group in a fresh process, times them in rounds, and ends them. A round has one short
block of each, in an order that is drawn anew, so that whatever the machine does, it does to all of them alike up to
that draw. Processes are launched anew because each has a speed of its own for as long as it lives.

Source: R. A. Fisher, The Design of Experiments (1935), chapters II and III, for blocks in random order; T. Kalibera and
R. Jones, Rigorous Benchmarking in Reasonable Time (ISMM 2013), and the manual of pyperf, for several processes.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchcard import registry
from benchcard.measure import noise
from benchcard.measure.blocks import Block, Failure, GroupTiming, Opened, Progress, Round, Subject
from benchcard.measure.lock import machine_lock
from benchcard.measure.process import Child, ChildFailed

# Long against waking up; short, so that a round is over before a machine's mood changes, and there are many rounds.
_BLOCK_S = 0.1
# So that one slow call does not decide over a block, and a model with long calls does not spend half its time on the
# unrecorded one: a block has this many calls, where that leaves enough blocks.
_CALLS_PER_BLOCK = 10
# So that a launch has a median over rounds, even when it is short.
_ROUNDS_PER_LAUNCH = 6
# Precision is judged between launches, so these are shorter then.
_LAUNCHES_TO_JUDGE = 4
# Unrecorded calls, one at least, fill this share of a block: a model that slept while others ran finds the caches full
# of theirs. 5 ms are enough to read the largest of today's caches from memory anew.
_WARM_SHARE = 0.05
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class _Plan:
    """What was asked of a group, in nanoseconds."""

    duration_ns: int
    launches: int
    warmup_runs: int
    seed: int
    precision: float | None
    block_ns: int | None
    timeout_s: float

    @property
    def launch_ns(self) -> int:
        """Recorded time of a model in one launch."""
        launches = self.launches * (1 if self.precision is None else _LAUNCHES_TO_JUDGE)
        return math.ceil(self.duration_ns / launches)

    def block_of(self, opened: Opened) -> int:
        """Length of a model's blocks, from how long its calls took while it warmed up."""
        if self.block_ns is not None:
            return self.block_ns
        call_ns = float(np.median(opened.warmup_ns or (opened.first_call_ns,)))
        return round(min(max(_BLOCK_S * 1e9, _CALLS_PER_BLOCK * call_ns), self.launch_ns / _ROUNDS_PER_LAUNCH))


@dataclass(eq=False)
class _Member:
    """One model of a group (or the baseline's twin), its process while there is one, and its account so far."""

    subject: Subject
    twin: bool
    child: Child | None = None
    failed: bool = False
    block_ns: int = 0
    elapsed_ns: int = 0
    until_ns: int = 0
    medians: dict[tuple[int, int], float] = field(default_factory=dict)

    @property
    def launches(self) -> int:
        """Number of launches in which it was timed."""
        return len({launch for launch, _ in self.medians})

    def timed_in(self, launch: int) -> bool:
        """Whether it has a block of this launch."""
        return any(launch == one for one, _ in self.medians)


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
) -> GroupTiming:
    """Opened models, failures and conditions of a group; the timed blocks go to `keep`, round by round.

    Every subject gets a process; the baseline gets a second one, its twin, that does not know of the first. One process
    works at a time, the others and this one sleep. Launches go on until every subject has `duration_s` of recorded time
    and as many launches as asked; the baseline and its twin take part in every round, because a ratio needs both sides.

    Args:
        subjects: the models, with unique names.
        baseline: index of the subject that ratios compare with; None for none (then there is no twin either).
        duration_s: recorded seconds per subject, over all launches; with `precision`, what each may take on average.
        launches: how many processes each subject is timed in, one after the other; intervals need two, five are enough
            for Student's quantile to be below 3.
        warmup_runs: calls after the first one of a process and before any block, as long as they and the first one take
            no longer than the launch is to be timed; a slow model has its unrecorded calls before each block.
        seed: of the order within rounds; a round's order depends on it and on the round's number alone.
        keep: called with each round as soon as it is over; what it has stored survives a kill.
        earlier: rounds of the same group kept by a run that did not come to its end; they count as done.
        progress: called between blocks.
        precision: stop a subject once the 95 % interval of its ratio to the baseline (of its latency, where there is no
            baseline) is within this share on either side, 0.01 for 1 %; its time goes to those that are not there yet.
            See `statistics.settled` for when that is judged.
        block_s: length of every block; by default a tenth of a second, longer for ten calls of a slow model, and never
            more than a sixth of what a launch is timed.
        timeout_s: how long one answer of a process may take (importing, opening with its unrecorded calls, a block)
            beyond what was asked of it; then the process is ended, and its model is out of the group.

    Raises:
        ValueError: names are not unique, or a number makes no sense.
        MachineError: the machine's lock cannot be made.
    """
    _check(subjects, baseline, duration_s, launches, warmup_runs, precision)
    block_ns = None if block_s is None else round(block_s * 1e9)
    plan = _Plan(round(duration_s * 1e9), launches, warmup_runs, seed, precision, block_ns, timeout_s)
    members = [_Member(subject, twin=False) for subject in subjects]
    reference = None if baseline is None else members[baseline]
    if reference is not None:
        members.append(_Member(reference.subject, twin=True))
    for past in earlier:
        _count(past, members)
    number = 1 + max((past.number for past in earlier), default=-1)
    launch = 1 + max((past.launch for past in earlier), default=-1)
    opened = [each for past in earlier for each in past.opened]
    kept = len(opened)
    failures: list[Failure] = []

    def say(doing: str) -> None:
        if progress is not None:
            progress(_progress(doing, members, plan))

    with machine_lock(say):
        before = noise.read_machine_state()
        while due := _due(members, reference, plan):
            launched = [m for m in members if not m.failed and (m in due or m is reference or m.twin)]
            with ExitStack() as processes:
                say(f"launch {launch + 1}: starting {_processes(launched)}")
                started = _start(launched, plan, processes, failures)
                # Before they are waited for one by one: each takes a moment to give its memory back.
                processes.callback(_kill, launched)
                for member, import_ns in started:
                    say(f"launch {launch + 1}: opening {member.subject.name}")
                    _open(member, import_ns, launch, plan, opened, failures)
                while order := _order(launched, due, reference, launch, number, plan):
                    say(f"launch {launch + 1}: timing {_processes(order)}")
                    timed = replace(_time_round(number, launch, order, plan, failures), opened=tuple(opened[kept:]))
                    kept = len(opened)
                    _count(timed, members)
                    keep(timed)
                    number += 1
            del opened[kept:]  # a launch without a round is none
            launch += 1
        after = noise.read_machine_state()
        say("timed")
    return GroupTiming(tuple(opened), tuple(failures), number, launch, before, after)


def _processes(members: Sequence[_Member]) -> str:
    return f"{len(members)} {'process' if len(members) == 1 else 'processes'}"


def default_threads() -> int:
    """Number of threads a model gets where none was asked for: the physical cores that this process may use."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


def _check(
    subjects: Sequence[Subject],
    baseline: int | None,
    duration_s: float,
    launches: int,
    warmup_runs: int,
    precision: float | None,
) -> None:
    names = [subject.name for subject in subjects]
    if len(set(names)) < len(names):
        raise ValueError(f"subjects must have names of their own: {names}")
    if baseline is not None and not 0 <= baseline < len(subjects):
        raise ValueError(f"baseline is {baseline}, there are {len(subjects)} subjects")
    if not duration_s > 0 or launches < 1 or warmup_runs < 0 or (precision is not None and not precision > 0):
        raise ValueError(
            "expected duration_s > 0, launches >= 1, warmup_runs >= 0 and precision > 0 or None, "
            f"found {duration_s}, {launches}, {warmup_runs} and {precision}"
        )


def _due(members: Sequence[_Member], reference: _Member | None, plan: _Plan) -> list[_Member]:
    """Members that a next launch is for, none when the group is done; the baseline and its twin go with them."""
    alive = [member for member in members if not member.failed]
    pair = [member for member in alive if member is reference or member.twin]
    if plan.precision is None:
        due = [member for member in alive if member.elapsed_ns < plan.duration_ns or member.launches < plan.launches]
    else:
        # the baseline and its twin are there for the others; they decide only where there are none
        judged = [member for member in alive if member not in pair] or pair
        # who has not been timed yet, and may not open, has no time to give away
        accounts = [member.elapsed_ns for member in alive if member.elapsed_ns]
        spent = sum(accounts) >= plan.duration_ns * len(accounts)
        due = [
            member
            for member in judged
            if member.launches < plan.launches or not (spent or _precise(member, reference, plan.precision))
        ]
    return due


def _precise(member: _Member, reference: _Member | None, precision: float) -> bool:
    """Whether a member's ratio to the baseline (its latency, where there is none) is known well enough to stop.

    The baseline itself is, always: it goes on for as long as another needs it.
    """
    from benchcard.measure import intervals

    if reference is None:
        return intervals.is_precise(dict.fromkeys(member.medians, 1.0), member.medians, precision)
    return member is reference or intervals.is_precise(reference.medians, member.medians, precision)


def _start(
    due: Sequence[_Member], plan: _Plan, processes: ExitStack, failures: list[Failure]
) -> list[tuple[_Member, int]]:
    """Those whose processes are there with their runtimes imported, and the nanoseconds that importing took.

    They import side by side, since nothing is timed yet; one that cannot is out of the group.
    """
    told, ready = [], []
    for member in due:
        command = {"do": "import", "framework": member.subject.framework, "registered": registry.registered_by_call()}
        options = _options(member.subject)
        try:
            member.child = processes.enter_context(
                Child(
                    member.subject.name,
                    member.twin,
                    threads=options["intra_op_num_threads"],
                    spinning=options["allow_spinning"],
                )
            )
            member.child.tell(command)
            told.append((member, member.child))
        except ChildFailed as failed:
            failures.append(failed.failure)
            member.failed = True
    for member, child in told:
        try:
            reply, _ = child.answer(plan.timeout_s)
            ready.append((member, reply["import_ns"]))
        except ChildFailed as failed:
            failures.append(failed.failure)
            member.failed = True
    return ready


def _kill(members: Sequence[_Member]) -> None:
    """Ends the processes of members, and waits for none."""
    for member in members:
        if member.child is not None:
            member.child.kill()


def _options(subject: Subject) -> dict[str, Any]:
    """What the framework is told, with threads and spinning filled in."""
    options: dict[str, Any] = dict(subject.options)
    options["intra_op_num_threads"] = options.get("intra_op_num_threads") or default_threads()
    options["allow_spinning"] = bool(options.get("allow_spinning", False))
    return options


def _open(
    member: _Member, import_ns: int, launch: int, plan: _Plan, opened: list[Opened], failures: list[Failure]
) -> None:
    """Has a member's process open its model; how that went is added to `opened` or to `failures`."""
    subject = member.subject
    command = {
        "do": "open",
        "model": os.fspath(subject.model),
        "options": _options(subject),
        "inputs": os.fspath(subject.inputs),
        "warmup_runs": plan.warmup_runs,
        "warmup_ns": plan.launch_ns,
    }
    if member.child is None:
        return
    try:
        reply, _ = member.child.ask(command, plan.timeout_s)
    except ChildFailed as failed:
        failures.append(failed.failure)
        member.failed = True
        return
    told = {**reply, "import_ns": import_ns, "warmup_ns": tuple(reply["warmup_ns"])}
    opened.append(Opened(subject.name, member.twin, launch, **told))
    member.block_ns = plan.block_of(opened[-1])
    member.until_ns = member.elapsed_ns + plan.launch_ns
    if plan.precision is None:
        member.until_ns = min(member.until_ns, plan.duration_ns)


def _order(
    launched: Sequence[_Member],
    due: Sequence[_Member],
    reference: _Member | None,
    launch: int,
    number: int,
    plan: _Plan,
) -> list[_Member]:
    """Members of the next round in the order in which they run, none when the launch is over: also where all that it
    was for have failed, so that to try a broken model again changes no figure of the others.
    """
    alive = [member for member in launched if not member.failed]
    unfinished = [m for m in alive if m in due and (m.elapsed_ns < m.until_ns or not m.timed_in(launch))]
    order = [m for m in alive if m in unfinished or (unfinished and (m is reference or m.twin))]
    random.Random(f"{plan.seed}:{number}").shuffle(order)
    return order


def _time_round(number: int, launch: int, order: Sequence[_Member], plan: _Plan, failures: list[Failure]) -> Round:
    """One block of each in this order; a process that fails is out of the group from here on."""
    children = {id(member): member.child for member in order if member.child is not None}
    pids = [child.pid for child in children.values()]
    before = noise.read_machine_state(pids)
    blocks = []
    for member in order:
        command = {"do": "block", "block_ns": member.block_ns, "warm_ns": round(_WARM_SHARE * member.block_ns)}
        try:
            reply, latencies = children[id(member)].ask(command, plan.timeout_s + 2 * member.block_ns / 1e9)
        except ChildFailed as failed:
            failures.append(failed.failure)
            member.failed = True
            continue
        values = np.frombuffer(latencies, np.dtype("<i8")).astype(np.int64)
        blocks.append(Block(member.subject.name, member.twin, latencies_ns=values, **reply))
    return Round(number, launch, tuple(blocks), before, noise.read_machine_state(pids))


def _count(timed: Round, members: Sequence[_Member]) -> None:
    """Adds a round to the accounts of those who took part in it."""
    accounts = {(member.subject.name, member.twin): member for member in members}
    for block in timed.blocks:
        member = accounts.get((block.name, block.twin))
        if member is not None:
            member.elapsed_ns += block.elapsed_ns
            member.medians[timed.launch, timed.number] = block.median_ns


def _progress(doing: str, members: Sequence[_Member], plan: _Plan) -> Progress:
    counted = [member for member in members if not member.failed]
    total_ns = plan.duration_ns * len(counted)
    if plan.precision is None:
        done_ns = sum(min(member.elapsed_ns, plan.duration_ns) for member in counted)
    else:
        # who is not precise yet takes the time of those who are
        done_ns = min(sum(member.elapsed_ns for member in counted), total_ns)
    return Progress(doing, done_ns / 1e9, total_ns / 1e9)
