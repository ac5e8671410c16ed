"""The timing of all groups of a run, in parts that fit into memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from benchcard import registry
from benchcard.errors import MachineError
from benchcard.run.directory import RunDirectory, TimedPart
from benchcard.run.groups import LAUNCHES, Group, finished, groups, size_bytes
from benchcard.run.record import Cell, Record
from benchcard.utils.files import reporting_disk_errors
from benchcard.utils.progress import Progress
from benchcard.utils.text import pluralize

if TYPE_CHECKING:
    from benchcard.measure.blocks import Round


# A model in memory takes about its file twice over (weights as stored and as prepacked), its inputs a few times over
# (the activations of a layer or two), and its process this much, without torch and with it.
_PROCESS_BYTES = (200 << 20, 700 << 20)
_TIMES_INPUTS = 8
_MEMORY_SHARE = 0.8


def time_all(
    records: list[Record], directory: RunDirectory, progress: Progress, timeout_s: float | None = None
) -> None:
    """Time every group that has no times yet, and keep them.

    Args:
        records: What there is to time.
        directory: Where it is kept.
        progress: Told how far it is.
        timeout_s: Seconds for one answer of a timed process (to import, to open a model, or to time a block,
            beyond what the block lasts), after which it is ended and its model counts as failed; None for ten minutes.

    Raises:
        MachineError: A group has no model for which there is memory; said before anything is timed.
    """
    _Timing(records, directory, progress, timeout_s).go()


class _Timing:
    """The timing of all groups."""

    def __init__(
        self, records: list[Record], directory: RunDirectory, progress: Progress, timeout_s: float | None
    ) -> None:
        self._timeout_s = timeout_s
        self._groups = groups(records)
        self._directory = directory
        self._progress = progress
        # Seconds that go by for each that is timed: models are opened and warmed up, too.
        self._pace = 1.0

    def go(self) -> None:
        work = [
            (group, part)
            for group in self._groups
            for part in self._directory.parts(group.key, partial(self._divide, group))
            if not finished(part)
        ]
        left = [group.seconds(len(part.names)) for group, part in work]
        for place, (group, part) in enumerate(work):
            self._progress.set_timing_left(sum(left[place:]) * self._pace)
            if (refused := self._refusal(group, part)) is None:
                self._time(group, part, sum(left[place + 1 :]))
            else:
                self._refuse(group, part, refused)
        self._progress.set_timing_left(0.0)

    @staticmethod
    def _divide(group: Group) -> list[list[str]]:
        """The group's cells in parts that fit into memory together, the baseline's name first in each."""
        from benchcard.measure.grouping import plan_groups

        sizes = [_needs(cell) for cell in group.cells]
        baseline = next((index for index, cell in enumerate(group.cells) if cell.name == group.baseline), None)
        return [
            [group.cells[index].name for index in part]
            for part in plan_groups(_subjects(group.cells), baseline, sizes, _available())
        ]

    @staticmethod
    def _refusal(group: Group, part: TimedPart) -> str | None:
        """Why the one model of a part cannot be timed now; None where it can, or where there are several, which were
        put together because they fit.
        """
        from benchcard.measure.grouping import refusal

        needs = {cell.name: _needs(cell) for cell in group.cells if cell.name in part.names}
        shared = 2 * needs.pop(group.baseline, 0) if group.baseline is not None else 0
        available = _available()
        if len(needs) != 1 or shared + sum(needs.values()) <= available:
            return None
        return refusal(sum(needs.values()), shared, available)

    def _refuse(self, group: Group, part: TimedPart, message: str) -> None:
        """Keep why a part was not timed, as the failure of its one model."""
        from benchcard.measure import noise
        from benchcard.measure.blocks import Failure, read_rounds

        now = asdict(noise.read_machine_state())
        failures = [
            asdict(Failure(name, False, "start", MachineError.__name__, message, ""))
            for name in part.names
            if name != group.baseline
        ]
        told = _settings(group) | {"rounds": len(read_rounds(part.rounds)), "opened": [], "failures": failures}
        part.finish(told | {"before": now, "after": now})
        self._progress.write_line(f"time: {message}")

    def _time(self, group: Group, part: TimedPart, others_s: float) -> None:
        from benchcard.measure.blocks import append_round, recover_rounds
        from benchcard.measure.conductor import TIMEOUT_S, time_group

        cells = {cell.name: cell for cell in group.cells}
        members = [cells[name] for name in part.names]
        baseline = part.names.index(group.baseline) if group.baseline in part.names else None
        before = part.outcome
        part.begin()
        if before is not None and any(each["name"] == group.baseline for each in before["failures"]):
            # What was timed beside a baseline that died has nothing to be compared with.
            part.rounds.unlink(missing_ok=True)
        earlier = recover_rounds(part.rounds)
        members_s = group.seconds(len(members))
        shape = (
            f"{members[0].samples}x{members[0].input_length}"
            if members[0].input_length
            else f"batch {members[0].samples}"
        )
        sought = f"{members_s:g} s"
        if group.precision is not None:
            sought = f"to {group.precision:.2%} or for {sought}"
        models = pluralize(len(members), "model")
        self._progress.start(f"timing {models}, {shape}")

        def tell(progress: Any) -> None:
            self._progress.update(progress.done_s, progress.total_s)
            if progress.done_s > done_before:
                self._pace = max(1.0, (time.monotonic() - started) / (progress.done_s - done_before))
            self._progress.set_timing_left(self._pace * (others_s + max(0.0, progress.total_s - progress.done_s)))

        def keep(timed: Round) -> None:
            with reporting_disk_errors(part.path):
                append_round(part.rounds, timed)

        started = time.monotonic()
        done_before = sum(block.elapsed_ns for timed in earlier for block in timed.blocks) / 1e9
        timing = time_group(
            _subjects(members),
            baseline,
            duration_s=group.duration_s,
            precision=group.precision,
            launches=_launches(group.duration_s),
            warmup_runs=group.warmup_runs,
            seed=group.seed,
            keep=keep,
            earlier=earlier,
            progress=tell,
            timeout_s=self._timeout_s or TIMEOUT_S,
        )
        told = _settings(group) | {
            "rounds": timing.rounds,
            "sizes": {cell.name: size_bytes(cell.model) for cell in members},
            "opened": [_plain(asdict(each)) for each in timing.opened],
            "failures": [asdict(failure) for failure in timing.failures],
            "before": asdict(timing.before),
            "after": asdict(timing.after),
        }
        part.finish(told)
        self._progress.finish("time", f"timed {models}, {shape}, {sought}", time.monotonic() - started)
        for failure in timing.failures:
            self._progress.write_line(f"time: {failure.stage}: {failure.type}: {failure.message}")


def _launches(duration_s: float) -> int:
    """How many processes a model is timed in, one after the other: five, or fewer where each would be at work for less
    than a fifth of a second; an interval needs two.
    """
    return max(2, min(LAUNCHES, round(duration_s / 0.2)))


def _subjects(cells: Iterable[Cell]) -> list[Any]:
    from benchcard.measure.blocks import Subject

    return [
        Subject(
            cell.name,
            cell.framework,
            cell.model.resolve(),
            (cell.inputs.folder / "inputs.npz").resolve(),
            cell.samples,
            cell.options,
        )
        for cell in cells
    ]


def _settings(group: Group) -> dict[str, Any]:
    """What was asked of a group, as it is kept."""
    return {"duration_s": group.duration_s, "precision": group.precision, "baseline": group.baseline}


def _available() -> int:
    from benchcard.measure.memory import available_bytes

    return int(available_bytes() * _MEMORY_SHARE)


def _needs(cell: Cell) -> int:
    """Bytes that a cell's process is expected to take."""
    inputs = cell.inputs.folder / "inputs.npz"
    process = _PROCESS_BYTES[registry.framework(cell.framework).engine == "torch"]
    return 2 * size_bytes(cell.model) + _TIMES_INPUTS * inputs.stat().st_size + process


def _plain(told: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with arrays as lists."""
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in told.items()}
