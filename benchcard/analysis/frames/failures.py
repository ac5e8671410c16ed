"""The frame `failures`: one row for each result that is missing because a step or a time measurement failed."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from benchcard.analysis.records import Records
from benchcard.run.record import Record
from benchcard.utils.values import Failure, Shape


def failures_frame(records: Records) -> pd.DataFrame:
    """Return what is `missing` in which `row`, with the `stage`, `type`, `message` and `log` of each failure."""
    names = ("stage", "type", "message", "log")
    rows = [
        {"row": record.configuration.row, "missing": missing, **{name: getattr(failure, name) for name in names}}
        for record in records.records
        for missing, failure in (
            *record.failures.items(),
            *((f"time {shape}", failure) for shape, failure in _untimed_cells(records, record)),
            *((f"noise floor {shape}", failure) for shape, failure in _untimed_twins(records, record)),
        )
    ]
    return pd.DataFrame(rows, columns=["row", "missing", *names])


def incomplete_rows(records: Records) -> list[int]:
    """Return the rows that lack figures of their own: the second process of a baseline is not one of its row."""
    return [
        record.configuration.row
        for record in records.records
        if any(record.failures.items()) or any(_untimed_cells(records, record))
    ]


def _untimed_cells(records: Records, record: Record) -> Iterator[tuple[Shape, Failure]]:
    """Yield the shapes at which a row could not be timed, and why."""
    for shape, cell in record.cells.items():
        part = records.timed.get((record.configuration.row, shape))
        if part and (failure := part.failure(cell.name)):
            yield shape, failure


def _untimed_twins(records: Records, record: Record) -> Iterator[tuple[Shape, Failure]]:
    """Yield the shapes at which the second process of a baseline could not be timed, and why."""
    # Rows with other settings may be timed in other parts, each with its own second process.
    rows = [row.row for row in records.plan if row.baseline == record.configuration.row]
    for shape, cell in record.cells.items():
        parts = [records.timed[row, shape] for row in rows if (row, shape) in records.timed]
        for part in {id(part): part for part in parts}.values():
            if failure := part.failure(cell.name, twin=True):
                yield shape, failure
