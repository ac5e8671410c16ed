"""Columns of frames: benchmarked parameters, and values that may be missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from benchcard.analysis.records import Records
from benchcard.run.record import Record
from benchcard.utils.values import Interval


def is_known(value: object) -> bool:
    """Return whether a cell of a frame has a value: it is not None, NA or NaN."""
    return str(value) not in ("None", "<NA>", "nan")


def row_parameters(record: Record) -> Mapping[str, object]:
    """Return the benchmarked parameters of a row."""
    return record.configuration.axes or {"framework": record.configuration["framework"]}


def parameter_columns(record: Record) -> dict[str, object]:
    """Return the number of a row and its benchmarked parameters, by column."""
    return {"row": record.configuration.row, **row_parameters(record)}


def parameter_names(records: Records) -> tuple[str, ...]:
    """Return the columns of a row's number and its benchmarked parameters."""
    return ("row", *(records.plan.spec.grid or ("framework",)))


def with_bounds(name: str) -> tuple[str, str, str]:
    """Return the columns of a figure and the bounds of its interval."""
    return name, f"{name}_low", f"{name}_high"


def interval_columns(name: str, interval: Interval | None) -> dict[str, float | None]:
    """Return a figure and the bounds of its interval by column."""
    values = (interval.value, interval.low, interval.high) if interval else (None, None, None)
    return dict(zip(with_bounds(name), values))


def shape_columns(records: Records) -> tuple[str, ...]:
    """Return the columns that tell the shapes of a run apart; that of phases only where there are any."""
    return ("batch_size", "input_length", *(["phase"] if records.traits.phases else []))


def frame_of(rows: Sequence[Mapping[str, object]], names: Iterable[str]) -> pd.DataFrame:
    """Return rows as a frame of these columns, empty where no row has them."""
    return pd.DataFrame({name: column([row.get(name) for row in rows]) for name in names})


def to_records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return the rows of a frame as plain data, with None for missing values."""
    records: list[dict[str, object]] = json.loads(frame.to_json(orient="records", double_precision=12))
    return records


def column(values: list[Any]) -> pd.Series[Any]:
    """Return values as a column of whole numbers, of numbers, or else of objects."""
    present = [value for value in values if value is not None]
    if not present:
        return pd.Series(values, dtype="object")
    if all(isinstance(value, int) and not isinstance(value, bool) for value in present):
        return pd.Series(values, dtype="int64" if len(present) == len(values) else "Int64")
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present):
        return pd.Series(values, dtype="float64")
    return pd.Series(values, dtype="object")
