"""What all frames share: parameter columns, and columns of values that may be missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from benchcard.analysis.records import Records
from benchcard.run.record import Record

if TYPE_CHECKING:
    import pandas as pd


def is_known(value: Any) -> bool:
    """Whether a cell of a frame holds anything."""
    return str(value) not in ("None", "<NA>", "nan")


def parameter_columns(record: Record) -> dict[str, Any]:
    """Return the number of a row and its benchmarked parameters, by column."""
    row = record.configuration
    return {"row": row.row, **(row.axes or {"framework": row["framework"]})}


def text_of_failure(failure: Any) -> str | None:
    """Return a failure in one line; None where there is none."""
    return str(failure) if failure else None


def parameter_names(records: Records) -> tuple[str, ...]:
    """Return the columns of a row's number and its benchmarked parameters."""
    return ("row", *(records.plan.spec.grid or ("framework",)))


def frame_of(rows: list[dict[str, Any]], names: Iterable[str]) -> pd.DataFrame:
    """Rows as a frame of these columns, all of them there whatever was measured."""
    import pandas as pd

    return pd.DataFrame({name: column([row.get(name) for row in rows]) for name in names})


def column(values: list[Any]) -> pd.Series[Any]:
    """Values as a column: whole numbers and numbers as such where nothing else stands among them, else as they are."""
    import pandas as pd

    present = [value for value in values if value is not None]
    if not present:
        return pd.Series(values, dtype="object")
    if all(isinstance(value, int) and not isinstance(value, bool) for value in present):
        return pd.Series(values, dtype="int64" if len(present) == len(values) else "Int64")
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present):
        return pd.Series(values, dtype="float64")
    return pd.Series(values, dtype="object")
