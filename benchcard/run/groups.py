"""Which cells are timed together: those of equal shape and duration that share a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchcard.measure.blocks import read_rounds
from benchcard.run.directory import TimedPart
from benchcard.run.record import Cell, Record
from benchcard.utils.plain import digest
from benchcard.utils.values import Shape

# Enough for Student's quantile to be below 3, and few enough for launches to take less time than timing.
LAUNCHES = 5


@dataclass(frozen=True)
class Group:
    """Cells that are compared with each other, and how they are timed.

    Attributes:
        places: The rows and shapes that they are timed for.
        baseline: The name of the baseline's cell, or None.
        duration_s: Seconds for each cell.
        precision: The requested precision of ratios, or None.
    """

    cells: tuple[Cell, ...]
    places: tuple[tuple[int, Shape], ...]
    baseline: str | None
    duration_s: float
    precision: float | None
    warmup_runs: int
    seed: int

    @property
    def key(self) -> str:
        """A key that is equal for groups of the same cells that are timed in the same way."""
        how = [self.duration_s, self.precision, self.warmup_runs, self.seed]
        return digest([sorted(cell.name for cell in self.cells), self.baseline, *how])

    def seconds(self, cells: int) -> float:
        """Return the most seconds that timing this many cells takes. The baseline is timed twice."""
        return self.duration_s * (cells + (self.baseline is not None))


def groups(records: Sequence[Record]) -> list[Group]:
    """Return the distinct cells of these rows, in groups with the same shape, baseline and way of timing.

    The records of their baselines are among those of the rows.
    """
    by_row = {record.configuration.row: record for record in records}
    members: dict[Any, dict[str, Cell]] = {}
    places: dict[Any, list[tuple[int, Shape]]] = {}
    for record in records:
        row = record.configuration
        for shape, cell in record.cells.items():
            baseline = by_row[row.baseline].cells.get(shape) if row.baseline is not None else None
            name = baseline.name if baseline else None
            key = (cell.shape, name, row["duration"], row["precision"], row["warmup_runs"], row["seed"])
            cells = members.setdefault(key, {baseline.name: baseline} if baseline else {})
            cells.setdefault(cell.name, cell)
            places.setdefault(key, []).append((row.row, shape))
    return [Group(tuple(cells.values()), tuple(places[key]), *key[1:]) for key, cells in members.items()]


def finished(part: TimedPart) -> bool:
    """Return whether a part has its outcome, all rounds and no failure; else it is timed again."""
    outcome = part.outcome
    if outcome is None or outcome.failures:
        return False
    # A damaged file has fewer rounds.
    return len(read_rounds(part.rounds)) == outcome.rounds


def size_bytes(model: Path) -> int:
    """Return the bytes of a model's file and the external weights beside it, or of the weights in its folder."""
    folder = model if model.is_dir() else model.parent
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("log.txt", "outcome.json")]
    # A folder of the Hub may hold the same weights in several forms, of which one is read.
    weights = [path for ending in (".safetensors", ".bin") for path in files if path.suffix == ending]
    read = [path for path in weights if path.suffix == weights[0].suffix] if model.is_dir() and weights else files
    return sum(path.stat().st_size for path in read)
