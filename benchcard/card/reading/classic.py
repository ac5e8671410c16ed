"""A card of either layout, read back into facts: the classic one here, the full one in `read_full`.

Owns the grammar of the cards that `classic` writes and of those published before it, the first ones included, where
each row holds the original model's figures beside its own: `classic.render(read(text)) == text` for all of them.
Leaves labels and parameters to `asked`, tables and values to `tables` and `notation`. What a card does not show is not
in the facts that it gives back: intervals, reasons and environment stand in full cards alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchcard.card.facts import (
    Facts,
    Figure,
    FrontMatter,
    Measured,
    Metric,
    Plain,
    Row,
)
from benchcard.card.frontmatter import yaml as yamltext
from benchcard.card.layouts import classic
from benchcard.card.markdown import tables
from benchcard.card.markdown.inline import unwords
from benchcard.card.reading import full, labels
from benchcard.errors import CardError
from benchcard.utils.values import Failure, Shape

_REMARK = re.compile(r"(.*) \(([^()]*)\)")
_SHAPE = re.compile(r"time metrics for batch size = (\d+)(?:, input length = (\d+))?")
_DURATION = re.compile(r"Time benchmarks were run for (\d+(?:\.\d+)?(?:e[+-]?\d+)?) seconds? per config")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
_TIME_KEYS = {(name, unit): key for name, unit, key in classic.TIME_COLUMNS}
_ORIGINAL, _OWN = classic.SIDES


@dataclass(frozen=True)
class _Column:
    """A column of figures: its place in the table, and what its header says."""

    place: int
    name: str
    side: str
    unit: str


def read_card(text: str) -> Facts:
    """The facts that a card shows, of either layout.

    Args:
        text: the whole card; other text may stand around its sections.

    Raises:
        CardError: a part that every card has is missing, or cannot be read; the message says which.
    """
    block = yamltext.split(text)
    lines = block.body.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if full.is_full(lines):
        return replace(full.read_full_card(lines), front_matter=_front_matter(block.yaml))
    said = labels.labels(lines)
    quality, times = _tables(lines)
    metrics, rows = _quality(quality)
    for shape, table in times:
        rows = _with_times(rows, shape, table)
    durations = [match.group(1) for line in lines if (match := _DURATION.match(line))]
    return Facts(
        **said,
        metrics=metrics,
        shapes=tuple(shape for shape, _ in times),
        duration_s=float(durations[0]) if durations else None,
        rows=rows,
        front_matter=_front_matter(block.yaml),
    )


def _tables(lines: list[str]) -> tuple[tables.Table, list[tuple[Shape, tables.Table]]]:
    """The quality table, and the time tables with their shapes; tables that others wrote around them are left out."""
    if classic.QUALITY_TITLE not in lines:
        raise CardError(f"the card has no section {classic.QUALITY_TITLE!r}")
    start = lines.index(classic.QUALITY_TITLE)
    found = [table for table in tables.find_tables("\n".join(lines)) if table.first_line > start]
    if not found:
        raise CardError(f"the card has no table under {classic.QUALITY_TITLE!r}")
    times = []
    for table in found[1:]:
        match = _SHAPE.search(tables.line_above(lines, table))
        if match is not None:
            times.append((labels.shape(match), table))
    return found[0], times


def _quality(table: tables.Table) -> tuple[tuple[Metric, ...], tuple[Row, ...]]:
    """The metrics and the rows of the quality table."""
    width = _parameter_columns(table)
    names = [unwords(header) for header in table.headers[:width]]
    metrics = {column.name: Metric(column.name, column.unit) for column in _columns(table)}
    rows = []
    for number, cells in enumerate(table.rows):
        sides = _sides(table, number, lambda column: column.name)
        rows.append(
            Row(
                parameters={name: labels.value(cell) for name, cell in zip(names, cells)},
                metrics=sides[_OWN],
                original=Measured(sides[_ORIGINAL]) if sides[_ORIGINAL] else None,
                failure=_failure(cells[width:]),
            )
        )
    return tuple(metrics.values()), tuple(rows)


def _with_times(rows: tuple[Row, ...], shape: Shape, table: tables.Table) -> tuple[Row, ...]:
    """The rows with the figures of one time table, whose rows must be theirs."""
    width = _parameter_columns(table)
    if len(table.rows) != len(rows):
        raise CardError(f"the table of {shape} has {len(table.rows)} rows, the one of quality {len(rows)}")
    done = []
    for number, (row, cells) in enumerate(zip(rows, table.rows)):
        if repr([labels.value(cell) for cell in cells[:width]]) != repr(list(row.parameters.values())):
            raise CardError(
                f"row {number + 1} of the table of {shape} is another configuration than in the first table"
            )
        sides = _sides(table, number, _time_key)
        original = row.original
        if sides[_ORIGINAL]:
            before = original or Measured()
            original = Measured(before.metrics, {**before.times, shape: sides[_ORIGINAL]})
        failure = row.failure or _failure(cells[width:])
        done.append(replace(row, times={**row.times, shape: sides[_OWN]}, original=original, failure=failure))
    return tuple(done)


def _columns(table: tables.Table) -> list[_Column]:
    """The columns of figures, no two of one name and side: where a remark is no unit, it is part of the name."""
    start = _parameter_columns(table)
    columns = [_column(place, header) for place, header in enumerate(table.headers) if header and place >= start]
    names = Counter((column.name, column.side) for column in columns)
    return [
        replace(column, name=f"{column.name} ({column.unit})", unit="")
        if column.unit and names[column.name, column.side] > 1
        else column
        for column in columns
    ]


def _sides(table: tables.Table, number: int, key: Callable[[_Column], str]) -> dict[str, dict[str, Figure | None]]:
    """The figures of one row: the original model's, and the row's own, each by its key."""
    sides: dict[str, dict[str, Figure | None]] = {_ORIGINAL: {}, _OWN: {}}
    for column in _columns(table):
        cell = table.rows[number][column.place]
        sides[column.side or _OWN][key(column)] = _figure(cell, f"row {number + 1}, {column.name}")
    return sides


def _failure(cells: Sequence[str]) -> Failure | None:
    return Failure() if classic.FAILED in cells else None


def _parameter_columns(table: tables.Table) -> int:
    """How many columns stand before the first bar."""
    return table.headers.index("") if "" in table.headers else len(table.headers)


def _column(place: int, header: str) -> _Column:
    """What the header says: name, side and unit, as in `throughput (original, /s)`."""
    text = unwords(header)
    match = _REMARK.fullmatch(text)
    if match is None:
        return _Column(place, text, "", "")
    parts = match.group(2).split(", ")
    side = parts[0] if parts[0] in classic.SIDES else ""
    return _Column(place, match.group(1), side, ", ".join(parts[1:] if side else parts))


def _time_key(column: _Column) -> str:
    if (column.name, column.unit) in _TIME_KEYS:
        return _TIME_KEYS[column.name, column.unit]
    unit = f"per_{column.unit[1:]}" if column.unit.startswith("/") else column.unit
    return f"{column.name}_{unit}" if unit else column.name


def _figure(cell: str, place: str) -> Figure | None:
    if cell in (classic.FAILED, classic.MISSING):
        return None
    if not _NUMBER.fullmatch(cell):
        raise CardError(f"{place}: {cell!r} is no figure")
    return Figure(float(cell))


def _front_matter(yaml: str) -> FrontMatter:
    """The front matter's known keys as fields; every other one, and a known one of an unknown form, as an extra."""
    data = labels.mapping(yamltext.load_yaml(yaml) or {}, "front matter")
    fields: dict[str, Plain] = {}
    extra: dict[str, Plain] = {}
    for key, value in data.items():
        field = "model_index" if key == "model-index" else key
        inside = value if isinstance(value, list) else [value]
        kind = dict if field == "model_index" else str
        if field in ("datasets", "metrics", "tags", "model_index") and all(isinstance(item, kind) for item in inside):
            fields[field] = tuple(inside)
        elif field in ("license", "library_name", "pipeline_tag", "base_model", "base_model_relation") and isinstance(
            value, str
        ):
            fields[field] = value
        else:
            extra[key] = value
    return FrontMatter(**fields, extra=extra)
