"""Which cells are timed together: those of equal shape and duration that share a baseline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchcard.run.directory import TimedPart
from benchcard.run.record import Cell, Record
from benchcard.utils.plain import digest

# Enough for Student's quantile to be below 3, and seldom enough for launching to take less time than timing.
LAUNCHES = 5


@dataclass(frozen=True)
class Group:
    """Cells that are compared with each other, and the rows and shapes that they are timed for."""

    cells: tuple[Cell, ...]
    places: tuple[tuple[int, Any], ...]
    baseline: str | None
    duration_s: float
    precision: float | None
    warmup_runs: int
    seed: int

    @property
    def key(self) -> str:
        """Equal for groups of the same cells, timed in the same way."""
        how = [self.duration_s, self.precision, self.warmup_runs, self.seed]
        return digest([sorted(cell.name for cell in self.cells), self.baseline, *how])

    def seconds(self, cells: int) -> float:
        """Seconds for which so many of its cells are timed together, at the most: the baseline is timed twice."""
        return self.duration_s * (cells + (self.baseline is not None))


def groups(records: Iterable[Record]) -> list[Group]:
    """The distinct cells of all rows, in groups that share a shape, a baseline and how long they are timed."""
    every = list(records)
    found: dict[Any, dict[str, Cell]] = {}
    places: dict[Any, list[tuple[int, Any]]] = {}
    for record in every:
        row = record.configuration
        for shape, cell in record.cells.items():
            reference = every[row.baseline].cells.get(shape) if row.baseline is not None else None
            about = (
                cell.samples,
                cell.input_length,
                reference.name if reference else None,
                row["duration"],
                row["precision"],
                row["warmup_runs"],
                row["seed"],
            )
            members = found.setdefault(about, {reference.name: reference} if reference else {})
            members.setdefault(cell.name, cell)
            places.setdefault(about, []).append((row.row, shape))
    return [Group(tuple(members.values()), tuple(places[about]), *about[2:]) for about, members in found.items()]


def finished(part: TimedPart) -> bool:
    """Whether a part has its outcome and all the rounds that the outcome counts; a damaged file of rounds has fewer.
    Where a model failed, it is tried again.
    """
    from benchcard.measure.blocks import read_rounds

    outcome = part.outcome
    if outcome is None or outcome["failures"]:
        return False
    return len(read_rounds(part.rounds)) == int(outcome["rounds"])


def size_bytes(model: Path) -> int:
    """Bytes of a model's file, with the weights that lie beside it, or of the weights in its folder."""
    folder = model if model.is_dir() else model.parent
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("log.txt", "outcome.json")]
    # a folder of the Hub may hold the same weights in several forms, of which one is read
    weights = [path for ending in (".safetensors", ".bin") for path in files if path.suffix == ending]
    read = [path for path in weights if path.suffix == weights[0].suffix] if model.is_dir() and weights else files
    return sum(path.stat().st_size for path in read)
