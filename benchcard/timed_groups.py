"""Which models are timed together, and what is kept of it.

This module owns the groups: cells of one shape that share a baseline, in parts that fit into memory. How a part is
timed is told in `measure.timing`; where its latencies lie, in `store`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard.progress import Progress
from benchcard.spec import digest
from benchcard.steps import Cell, Record
from benchcard.store import RunDirectory, TimedPart, disk

if TYPE_CHECKING:
    from benchcard.measure.blocks import Round

# A model in memory takes about its file twice over (weights as stored and as prepacked), and its process this much.
_PROCESS_BYTES = 300 << 20
_MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class Group:
    """Cells that are compared with each other."""

    cells: tuple[Cell, ...]
    baseline: str | None
    duration_s: float
    warmup_runs: int
    seed: int

    @property
    def key(self) -> str:
        """Equal for groups of the same cells, timed in the same way."""
        return digest(
            [sorted(cell.name for cell in self.cells), self.baseline, self.duration_s, self.warmup_runs, self.seed]
        )


def groups(records: Iterable[Record]) -> list[Group]:
    """The distinct cells of all rows, in groups that share a shape, a baseline and how long they are timed."""
    every = list(records)
    found: dict[Any, dict[str, Cell]] = {}
    for record in every:
        row = record.configuration
        for shape, cell in record.cells.items():
            reference = every[row.baseline].cells.get(shape) if row.baseline is not None else None
            about = (
                cell.samples,
                cell.input_length,
                reference.name if reference else None,
                row["duration"],
                row["warmup_runs"],
                row["seed"],
            )
            members = found.setdefault(about, {reference.name: reference} if reference else {})
            members.setdefault(cell.name, cell)
    return [Group(tuple(members.values()), about[2], *about[3:]) for about, members in found.items()]


def finished(part: TimedPart) -> bool:
    """Whether a part has its outcome and all the rounds that the outcome counts; a damaged file of rounds has fewer."""
    from benchcard.measure.blocks import read_rounds

    outcome = part.outcome
    return outcome is not None and len(read_rounds(part.rounds)) == outcome["rounds"]


def time_all(records: list[Record], directory: RunDirectory, progress: Progress) -> None:
    """Time every group that has no times yet, and keep them."""
    _Timing(records, directory, progress).go()


class _Timing:
    """The timing of all groups."""

    def __init__(self, records: list[Record], directory: RunDirectory, progress: Progress) -> None:
        self._groups = groups(records)
        self._directory = directory
        self._progress = progress

    def go(self) -> None:
        left = {group.key: group.duration_s * len(group.cells) for group in self._groups}
        self._progress.timed(sum(left.values()))
        for group in self._groups:
            for part in self._directory.parts(group.key, lambda group=group: self._divide(group)):  # type: ignore[misc]
                others = sum(left.values()) - group.duration_s * len(part.names)
                if not finished(part):
                    self._time(group, part, others)
                left[group.key] -= group.duration_s * len(part.names)
                self._progress.timed(max(0.0, sum(left.values())))

    @staticmethod
    def _divide(group: Group) -> list[list[str]]:
        """The group's cells in parts that fit into memory together, the baseline's name first in each."""
        import psutil

        from benchcard.measure.timing import plan_groups

        sizes = [2 * _size(cell.model) + _PROCESS_BYTES for cell in group.cells]
        available = int(psutil.virtual_memory().available * _MEMORY_SHARE)
        baseline = next((index for index, cell in enumerate(group.cells) if cell.name == group.baseline), None)
        return [
            [group.cells[index].name for index in part]
            for part in plan_groups(_subjects(group.cells), baseline, sizes, available)
        ]

    def _time(self, group: Group, part: TimedPart, others_s: float) -> None:
        from benchcard.measure.blocks import append_round, recover_rounds
        from benchcard.measure.timing import time_group

        cells = {cell.name: cell for cell in group.cells}
        members = [cells[name] for name in part.names]
        baseline = part.names.index(group.baseline) if group.baseline in part.names else None
        part.begin()
        earlier = recover_rounds(part.rounds)
        members_s = group.duration_s * len(members)
        shape = (
            f"{members[0].samples}x{members[0].input_length}"
            if members[0].input_length
            else f"batch {members[0].samples}"
        )
        self._progress.start(f"timing {len(members)} models, {shape}")

        def tell(progress: Any) -> None:
            self._progress.part(progress.done_s, progress.total_s)
            self._progress.timed(others_s + max(0.0, progress.total_s - progress.done_s))

        def keep(timed: Round) -> None:
            with disk(part.path):
                append_round(part.rounds, timed)

        started = time.monotonic()
        timing = time_group(
            _subjects(members),
            baseline,
            duration_s=group.duration_s,
            launches=_launches(group.duration_s),
            warmup_runs=group.warmup_runs,
            seed=group.seed,
            keep=keep,
            earlier=earlier,
            progress=tell,
        )
        told = {
            "duration_s": group.duration_s,
            "rounds": timing.rounds,
            "baseline": group.baseline,
            "opened": [_plain(asdict(each)) for each in timing.opened],
            "failures": [asdict(failure) for failure in timing.failures],
            "before": asdict(timing.before),
            "after": asdict(timing.after),
        }
        part.finish(told)
        self._progress.finish(
            "time", f"timed {len(members)} models, {shape}, {members_s:g} s", time.monotonic() - started
        )
        for failure in timing.failures:
            self._progress.say(f"time: {failure.stage}: {failure.type}: {failure.message}")


def _launches(duration_s: float) -> int:
    """How many processes a model is timed in, one after the other: five, or fewer where each would be at work for less
    than a fifth of a second; an interval needs two.
    """
    return max(2, min(5, round(duration_s / 0.2)))


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


def _size(model: Path) -> int:
    """Bytes of a model's file, with the weights that lie beside it, or of its folder."""
    folder = model if model.is_dir() else model.parent
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _plain(told: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with arrays as lists."""
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in told.items()}
