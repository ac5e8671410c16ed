"""The frame `failures`: one row for each result that is missing because a step or a time measurement failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from benchcard.analysis.records import Part, Records
from benchcard.run.record import Record
from benchcard.utils.values import Failure, Shape

if TYPE_CHECKING:
    import pandas as pd

# The value of `missing` for the second process of a baseline, which is no figure of the baseline's row.
_NOISE_FLOOR = "noise floor"


def failures_frame(records: Records) -> pd.DataFrame:
    """Return what is `missing` in which `row`, with the `stage`, `type`, `message` and `log` of each failure."""
    import pandas as pd

    names = ("stage", "type", "message", "log")
    rows = [
        {"row": record.configuration.row, "missing": missing, **{name: getattr(failure, name) for name in names}}
        for record in records.records
        for missing, failure in [*record.failures.items(), *_untimed_cells(records, record)]
    ]
    return pd.DataFrame(rows, columns=["row", "missing", *names])


def incomplete_rows(failures: pd.DataFrame) -> set[int]:
    """Return the rows that lack figures of their own."""
    missing = failures["missing"].astype(str)
    return set(failures["row"][~missing.str.startswith(_NOISE_FLOOR)])


def _untimed_cells(records: Records, record: Record) -> Iterator[tuple[str, Failure]]:
    """Yield the shapes at which a row, or the second process of a baseline, could not be timed, and why."""
    row = record.configuration.row
    for shape, cell in record.cells.items():
        part = records.timed.get((row, shape))
        if part and (failure := part.failure(cell.name)):
            yield f"time {shape}", failure
        for part in _parts_beside(records, row, shape):
            if failure := part.failure(cell.name, twin=True):
                yield f"{_NOISE_FLOOR} {shape}", failure


def _parts_beside(records: Records, baseline: int, shape: Shape) -> list[Part]:
    """Return the parts in which the rows of a baseline were timed, without those of rows with other settings."""
    rows = [record.configuration.row for record in records.records if record.configuration.baseline == baseline]
    parts = [records.timed[row, shape] for row in rows if (row, shape) in records.timed]
    return list({id(part): part for part in parts}.values())
