"""What is missing of a run, as a frame: steps that failed, and models that could not be timed.

This module owns one row per figure that is not there, and what it is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from benchcard.analysis.records import Part, Records
from benchcard.run.record import Record
from benchcard.utils.values import Failure, Shape

if TYPE_CHECKING:
    import pandas as pd


# What is missing of a baseline's row whose second process failed: not a figure of its own.
_NOISE_FLOOR = "noise floor"


def failures_frame(records: Records) -> pd.DataFrame:
    """What is missing of which row, each with stage, type, message and the end of the log."""
    import pandas as pd

    names = ("stage", "type", "message", "log")
    rows = [
        {"row": record.configuration.row, "missing": place, **{name: getattr(failure, name) for name in names}}
        for record in records.records
        for place, failure in [*record.failures.items(), *_untimed_cells(records, record)]
    ]
    return pd.DataFrame(rows, columns=["row", "missing", *names])


def lacking(failures: pd.DataFrame) -> set[int]:
    """The rows that lack figures of their own."""
    missing = failures["missing"].astype(str)
    return set(failures["row"][~missing.str.startswith(_NOISE_FLOOR)])


def _untimed_cells(records: Records, record: Record) -> Iterator[tuple[str, Failure]]:
    """The shapes at which a row's model was opened to be timed and failed, as `time batch 8`, and why; and those at
    which a baseline's second process did, as `noise floor batch 8`.
    """
    for shape, cell in record.cells.items():
        part = records.timed.get((record.configuration.row, shape))
        failure = part.failure(cell.name) if part else None
        if failure:
            yield f"time {shape}", failure
        for part in _beside(records, record.configuration.row, shape):
            if failure := part.failure(cell.name, twin=True):
                yield f"{_NOISE_FLOOR} {shape}", failure


def _beside(records: Records, baseline: int, shape: Shape) -> list[Part]:
    """The parts in which a baseline's rows were timed, each once; cells of its name in others are of rows that are
    timed otherwise.
    """
    rows = [each.configuration.row for each in records.records if each.configuration.baseline == baseline]
    parts = [records.timed[row, shape] for row in rows if (row, shape) in records.timed]
    return list({id(part): part for part in parts}.values())
