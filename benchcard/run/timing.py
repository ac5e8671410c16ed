"""The timing of all groups of a run, in parts that fit into memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.errors import MachineError
from benchcard.measure import conductor
from benchcard.measure.blocks import Progress as GroupProgress
from benchcard.measure.blocks import Round, Subject, append_round, read_rounds, recover_rounds
from benchcard.measure.conductor import FEWEST_LAUNCHES, SHORT_S
from benchcard.measure.grouping import memory_shortage, plan_groups
from benchcard.measure.machine_state import read_machine_state
from benchcard.measure.memory import available_bytes
from benchcard.measure.process import Launchers, Member
from benchcard.run.directory import PartFailure, PartOutcome, RunDirectory, TimedPart
from benchcard.run.groups import LAUNCHES, Group, finished, groups, size_bytes
from benchcard.run.record import Cell, Record
from benchcard.spec.plan import Configuration
from benchcard.utils.events import RoundEvent
from benchcard.utils.files import reporting_disk_errors
from benchcard.utils.progress import Progress
from benchcard.utils.text import pluralize

# The memory of a timed process: about twice the model's file (weights as stored and as prepacked), several times its
# inputs (the activations of a layer or two), and this much for the process, without torch and with it.
_PROCESS_BYTES = (200 << 20, 700 << 20)
_TIMES_INPUTS = 8
# What timing takes, before it is known: seconds for each timed one, to open a model, and to import PyTorch.
_ELAPSED_PER_TIMED_S = 1.7
_OPENING_S = 0.2
IMPORT_S = 4.0
_MEMORY_SHARE = 0.8


def time_all(records: list[Record], directory: RunDirectory, progress: Progress, launchers: Launchers) -> None:
    """Time every group that has no times yet, in processes of these launchers."""
    _Timing(records, directory, progress, launchers).go()


def slow_imports(rows: Sequence[Configuration], threads: int) -> Iterator[Member]:
    """Yield a model, whose file need not be there yet, for every process that will take seconds to import PyTorch.

    `threads` is the number where a row names none.
    """
    twins = {row.baseline for row in rows}
    for row in rows:
        framework, arguments = registry.framework(row["framework"]), row["framework_args"] or {}
        if framework.engine == "torch":
            options = {name: value for name, value in arguments.items() if name in framework.running}
            options["intra_op_num_threads"] = row.threads or threads
            subject = Subject(row.label, row["framework"], Path(), Path(), 1, options)
            yield from ((subject, twin) for twin in (False, True) if not twin or row.row in twins)


class _Timing:
    def __init__(
        self, records: list[Record], directory: RunDirectory, progress: Progress, launchers: Launchers
    ) -> None:
        self._launchers = launchers
        self._groups = groups(records)
        self._directory = directory
        self._progress = progress
        # Elapsed seconds per expected second.
        self._pace = 1.0

    def go(self) -> None:
        todo = [
            (group, part)
            for group in self._groups
            for part in self._directory.parts(group.key, partial(self._divide, group))
            if not finished(part)
        ]
        seconds = [_expected_s(group, part) for group, part in todo]
        for place, (group, part) in enumerate(todo):
            self._progress.set_timing_left(sum(seconds[place:]) * self._pace)
            if (refusal := self._refusal(group, part)) is None:
                self._time(group, part, sum(seconds[place + 1 :]))
            else:
                self._refuse(group, part, refusal)
        self._progress.set_timing_left(0.0)

    @staticmethod
    def _room(group: Group) -> int:
        """Return the bytes for the processes of models, beside those that they are forked from."""
        parents = {(cell.framework, str(cell.options.get("intra_op_num_threads"))) for cell in group.cells}
        twins = {cell.framework for cell in group.cells if cell.name == group.baseline}
        shared = sum(_process_bytes(framework) for framework in [*(name for name, _ in parents), *twins])
        return int(available_bytes() * _MEMORY_SHARE) - shared

    @classmethod
    def _divide(cls, group: Group) -> list[list[str]]:
        """Return the names of cells in parts that fit into memory together, the baseline first in each."""
        sizes = [_needs(cell) for cell in group.cells]
        baseline = next((index for index, cell in enumerate(group.cells) if cell.name == group.baseline), None)
        return [
            [group.cells[index].name for index in part]
            for part in plan_groups(_subjects(group.cells), baseline, sizes, cls._room(group))
        ]

    @classmethod
    def _refusal(cls, group: Group, part: TimedPart) -> str | None:
        """Return why the only model of a part does not fit into memory, or None. Several models were chosen to fit."""
        needs = {cell.name: _needs(cell) for cell in group.cells if cell.name in part.names}
        shared = 2 * needs.pop(group.baseline, 0) if group.baseline is not None else 0
        available = cls._room(group)
        if len(needs) != 1 or shared + sum(needs.values()) <= available:
            return None
        return memory_shortage(sum(needs.values()), shared, available)

    def _refuse(self, group: Group, part: TimedPart, message: str) -> None:
        now = read_machine_state()
        failures = tuple(
            PartFailure(name=name, twin=False, stage="start", type=MachineError.__name__, message=message)
            for name in part.names
            if name != group.baseline
        )
        rounds = len(read_rounds(part.rounds))
        part.finish(_outcome(group, rounds=rounds, opened=(), failures=failures, before=now, after=now))
        self._progress.finish("time", f"timing {pluralize(len(failures), 'model')}", 0.0, failures)

    def _time(self, group: Group, part: TimedPart, others_s: float) -> None:
        cells = {cell.name: cell for cell in group.cells}
        members = [cells[name] for name in part.names]
        baseline = part.names.index(group.baseline) if group.baseline in part.names else None
        earlier_outcome = part.outcome
        part.begin()
        earlier = recover_rounds(part.rounds)
        # Latencies beside a baseline that failed have nothing to be compared with, and those of earlier versions were
        # measured in another way.
        baseline_failed = earlier_outcome and any(each.name == group.baseline for each in earlier_outcome.failures)
        is_older = any("forked" not in opened.facts for timed in earlier for opened in timed.opened)
        if is_older:
            self._progress.write_line("time: an unfinished timing of an earlier version begins again")
        if baseline_failed or is_older:
            part.rounds.unlink(missing_ok=True)
            earlier = []
        models, shape = pluralize(len(members), "model"), members[0].shape
        limit = f"{group.seconds(len(members)):g} s"
        if group.precision is not None:
            limit = f"to {group.precision:.2%} or for {limit}"
        self._progress.start(f"timing {models}, {shape}")
        started = time.monotonic()
        done_before = sum(block.elapsed_ns for timed in earlier for block in timed.blocks) / 1e9
        expected_s, total_s = _expected_s(group, part), group.seconds(len(members))
        reached = GroupProgress("", done_before, total_s)

        def report(progress: GroupProgress) -> None:
            nonlocal reached
            reached = progress
            note = "" if progress.half_width is None else f"ratios ±{progress.half_width:.2%}"
            self._progress.update(progress.done_s, progress.total_s, note)
            done = (progress.done_s - done_before) / total_s
            self._pace = pace(expected_s, time.monotonic() - started, done)
            left_s = expected_s * max(0.0, progress.total_s - progress.done_s) / total_s
            self._progress.set_timing_left(self._pace * (others_s + left_s))

        def keep(timed: Round) -> None:
            with reporting_disk_errors(part.path):
                append_round(part.rounds, timed)
            recorded_s = sum(block.elapsed_ns for block in timed.blocks) / 1e9
            self._progress.report(
                RoundEvent(
                    left_s=self._progress.left_s,
                    number=timed.number,
                    launch=timed.launch,
                    models=len(members),
                    shape=shape,
                    done_s=min(reached.done_s + recorded_s, reached.total_s),
                    total_s=reached.total_s,
                    half_width=reached.half_width,
                ),
                logging.DEBUG,
            )

        timing = conductor.time_group(
            _subjects(members),
            baseline,
            duration_s=group.duration_s,
            precision=group.precision,
            launches=_launches(group.duration_s),
            warmup_runs=group.warmup_runs,
            seed=group.seed,
            keep=keep,
            earlier=earlier,
            progress=report,
            launchers=self._launchers,
        )
        failures = tuple(
            PartFailure(name=failed.name, twin=failed.twin, **asdict(failed.failure)) for failed in timing.failures
        )
        part.finish(
            _outcome(
                group,
                rounds=timing.rounds,
                sizes={cell.name: size_bytes(cell.model) for cell in members},
                opened=timing.opened,
                failures=failures,
                before=timing.before,
                after=timing.after,
            )
        )
        self._progress.set_timing_left(self._pace * others_s)
        self._progress.finish("time", f"timing {models}, {shape}, {limit}", time.monotonic() - started, failures)


def _outcome(group: Group, **values: Any) -> PartOutcome:
    return PartOutcome(duration_s=group.duration_s, precision=group.precision, baseline=group.baseline, **values)


def _expected_s(group: Group, part: TimedPart) -> float:
    """Return about how many seconds it takes to time a part."""
    processes = len(part.names) + (group.baseline in part.names)
    torch = any(registry.framework(cell.framework).engine == "torch" for cell in group.cells if cell.name in part.names)
    return processes * expected_s(group.duration_s) + torch * IMPORT_S


def expected_s(duration_s: float) -> float:
    """Return about how many seconds it takes to time a model for `duration_s`."""
    launches = _launches(duration_s) if duration_s > SHORT_S else min(_launches(duration_s), FEWEST_LAUNCHES)
    return _ELAPSED_PER_TIMED_S * duration_s + _OPENING_S * launches


def pace(expected_s: float, elapsed_s: float, done: float) -> float:
    """Return how many times as long as expected timing takes, when a share of it is done.

    The first seconds pass before anything is timed, so what was expected counts as much as a quarter of the timing.
    """
    return (expected_s / 4 + elapsed_s) / (expected_s / 4 + expected_s * done)


def _launches(duration_s: float) -> int:
    """Return how many processes time a model in turn: up to five of 0.2 s or more, but at least two for an interval."""
    return max(2, min(LAUNCHES, round(duration_s / 0.2)))


def _subjects(cells: Iterable[Cell]) -> list[Subject]:
    return [
        Subject(
            cell.name,
            cell.framework,
            cell.model.resolve(),
            (cell.inputs.folder / "inputs.npz").resolve(),
            cell.shape.batch_size,
            cell.options,
        )
        for cell in cells
    ]


def _needs(cell: Cell) -> int:
    """Return the bytes that a cell's process is expected to take."""
    inputs = cell.inputs.folder / "inputs.npz"
    return 2 * size_bytes(cell.model) + _TIMES_INPUTS * inputs.stat().st_size + _process_bytes(cell.framework)


def _process_bytes(framework: str) -> int:
    """Return the bytes that a process is expected to take when it has imported a framework."""
    return _PROCESS_BYTES[registry.framework(framework).engine == "torch"]
