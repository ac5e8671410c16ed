"""The frame `failures`: one row for each result that is missing because a step or a time measurement failed."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from benchcard.analysis.records import Records
from benchcard.run.record import Record
from benchcard.utils.values import Failure


def failures_frame(records: Records) -> pd.DataFrame:
    """Return what is `missing` in which `row`, with the `stage`, `type`, `message` and `log` of each failure."""
    names = ("stage", "type", "message", "log")
    rows = [
        {"row": record.configuration.row, "missing": missing, **{name: getattr(failure, name) for name in names}}
        for record in records.records
        for missing, failure in (*_failures(records, record), *_twin_failures(records, record))
    ]
    return pd.DataFrame(rows, columns=["row", "missing", *names])


def incomplete_rows(records: Records) -> list[int]:
    """Return the rows that lack figures of their own: the second process of a baseline is not one of its row."""
    return [record.configuration.row for record in records.records if any(_failures(records, record))]


def _failures(records: Records, record: Record) -> Iterator[tuple[str, Failure]]:
    """Yield each figure of a row that is missing, and why."""
    yield from record.failures.items()
    for shape, cell in record.cells.items():
        part = records.timed.get((record.configuration.row, shape))
        if part and (failure := part.failure(cell.name)):
            yield f"time {shape}", failure


def _twin_failures(records: Records, record: Record) -> Iterator[tuple[str, Failure]]:
    """Yield each noise floor that is missing because the second process of a baseline could not be timed, and why."""
    # Rows with other settings may be timed in other parts, each with its own second process.
    rows = [row.row for row in records.plan if row.baseline == record.configuration.row]
    for shape, cell in record.cells.items():
        parts = [records.timed[row, shape] for row in rows if (row, shape) in records.timed]
        for part in {id(part): part for part in parts}.values():
            if failure := part.failure(cell.name, twin=True):
                yield f"noise floor {shape}", failure
