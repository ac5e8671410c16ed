"""A classic card, parsed into facts, and the entry point for cards of both layouts.

`classic.render(read_card(text)) == text` for the cards that `layouts.classic` writes and for those published before it,
including the first ones, in which each row also has the original model's figures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from benchcard.card.facts import Facts, FrontMatter, Measured, Metric, Plain, Row
from benchcard.card.frontmatter.yaml import load_front_matter, split_card
from benchcard.card.layouts import classic, figures
from benchcard.card.layouts.full import COMPARED_TITLE, QUALITY_TITLE
from benchcard.card.markdown.inline import parse_code_span, unescape
from benchcard.card.markdown.tables import Table
from benchcard.card.reading import full, labels
from benchcard.errors import CardError
from benchcard.utils.text import quote_names
from benchcard.utils.values import Failure, Interval, Shape

_POSITIVE_CLASS = re.compile(r"The positive class of (.+) is (`.*`)\.")
_REMARK = re.compile(r"(.*) \(([^()]*)\)")
_TIME_KEYS = {(name, unit): key for name, unit, key in classic.TIME_COLUMNS}
_ORIGINAL, _OPTIMIZED = classic.SIDES
# The fields of front matter that are lists, with the types of their items, and those that are texts.
_LISTS = {"datasets": str, "metrics": str, "tags": str, "model-index": dict}
_TEXTS = ("license", "library_name", "pipeline_tag", "base_model", "base_model_relation")


@dataclass(frozen=True)
class _Column:
    """A column of figures: its index in the table, and the parts of its header."""

    place: int
    name: str
    unit: str = ""
    side: str = _OPTIMIZED


def read_card(text: str) -> Facts:
    """Return the facts of a card of either layout; other text may surround its sections."""
    card = split_card(text)
    lines = card.body.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if COMPARED_TITLE in lines and QUALITY_TITLE in lines:
        return replace(full.read_full_card(lines), front_matter=_front_matter(card.yaml))
    facts = replace(labels.read_labels(lines), front_matter=_front_matter(card.yaml))
    quality, *others = labels.find_tables_below(lines, classic.QUALITY_TITLE)
    names = {unescape(header) for header in quality.headers[: _count_parameters(quality)]}
    if names != {*facts.benchmarked}:
        raise CardError(
            f"the table below `{classic.QUALITY_TITLE}` has columns for {quote_names(sorted(names)) or 'nothing'}. "
            f"Expected the benchmarked parameters: {quote_names(sorted(facts.benchmarked)) or 'none'}"
        )
    classes = dict(_positive_classes(lines))
    metrics = {
        column.name: Metric(column.name, column.unit, positive_class=classes.get(column.name, ""))
        for column in _columns(quality)
    }
    rows = tuple(_rows(quality, lambda column: column.name))
    # Others may have written tables around those of the card.
    times = {shape: table for table in others if (shape := labels.find_shape(lines, table)) is not None}
    for shape, table in times.items():
        rows = _with_times(rows, shape, table)
    return replace(facts, metrics=tuple(metrics.values()), shapes=tuple(times), rows=rows)


def _positive_classes(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the name and the positive class of each metric of one class."""
    for line in lines:
        if match := _POSITIVE_CLASS.fullmatch(line):
            yield unescape(match.group(1)), parse_code_span(match.group(2)) or ""


def _with_times(rows: tuple[Row, ...], shape: Shape, table: Table) -> tuple[Row, ...]:
    """Return the rows with the figures of one time table, which must have the same rows."""
    if len(table.rows) != len(rows):
        raise CardError(f"the time table of {shape} has {len(table.rows)} rows, the quality table has {len(rows)}")
    timed = []
    for number, (row, line) in enumerate(zip(rows, _rows(table, _time_key)), 1):
        if repr([*line.parameters.values()]) != repr([*row.parameters.values()]):
            raise CardError(f"row {number} of the time table of {shape} has other parameters than the quality table")
        original = row.original
        if line.original is not None:
            before = original or Measured()
            original = Measured(before.metrics, {**before.times, shape: line.original.metrics})
        times = {**row.times, shape: line.metrics}
        timed.append(replace(row, times=times, original=original, failure=row.failure or line.failure))
    return tuple(timed)


def _rows(table: Table, key: Callable[[_Column], str]) -> Iterator[Row]:
    """Yield the rows of a table, with all its figures as metrics, by `key`."""
    columns, width = _columns(table), _count_parameters(table)
    names = [unescape(header) for header in table.headers[:width]]
    for number, cells in enumerate(table.rows, 1):
        sides: dict[str, dict[str, Interval | None]] = {side: {} for side in classic.SIDES}
        for column in columns:
            place, cell = f"row {number}, {column.name}", cells[column.place]
            if not cell:  # The row has lost a cell, and its figures may be in other columns.
                raise CardError(f"{place}: {cell!r} is not a figure")
            labels.add_once(sides[column.side], key(column), figures.parse_figure(cell, place))
        parameters: dict[str, Plain] = {}
        for name, cell in zip(names, cells):
            labels.add_once(parameters, name, labels.parse_span(cell))
        yield Row(
            parameters=parameters,
            metrics=sides[_OPTIMIZED],
            original=Measured(sides[_ORIGINAL]) if sides[_ORIGINAL] else None,
            failure=Failure() if figures.FAILED in cells[width:] else None,
        )


def _columns(table: Table) -> list[_Column]:
    """Return the columns of figures. A remark in a header is a unit, or part of the name if names would be equal."""
    start = _count_parameters(table)
    columns = [_parse_header(place, header) for place, header in enumerate(table.headers) if header and place >= start]
    names = Counter((column.name, column.side) for column in columns)
    return [
        replace(column, name=f"{column.name} ({column.unit})", unit="")
        if column.unit and names[column.name, column.side] > 1
        else column
        for column in columns
    ]


def _count_parameters(table: Table) -> int:
    """Return the number of columns before the first column of pipes."""
    return table.headers.index("") if "" in table.headers else len(table.headers)


def _parse_header(place: int, header: str) -> _Column:
    """Return name, side and unit of a header such as `throughput (original, /s)`."""
    text = unescape(header)
    match = _REMARK.fullmatch(text)
    if match is None:
        return _Column(place, text)
    name, remark = match.groups()
    side, _, unit = remark.partition(", ")
    return _Column(place, name, unit, side) if side in classic.SIDES else _Column(place, name, remark)


def _time_key(column: _Column) -> str:
    if (column.name, column.unit) in _TIME_KEYS:
        return _TIME_KEYS[column.name, column.unit]
    unit = f"per_{column.unit[1:]}" if column.unit.startswith("/") else column.unit
    return f"{column.name}_{unit}" if unit else column.name


def _front_matter(yaml: str) -> FrontMatter:
    """Return the front matter: known keys as fields; other keys, and known ones of another type, as extras."""
    fields: dict[str, Plain] = {}
    extra: dict[str, Plain] = {}
    for key, value in load_front_matter(yaml).items():
        items = value if isinstance(value, list) else [value]
        if key in _LISTS and all(isinstance(item, _LISTS[key]) for item in items):
            fields[key.replace("-", "_")] = tuple(items)
        elif key in _TEXTS and isinstance(value, str):
            fields[key] = value
        else:
            extra[key] = value
    return FrontMatter(**fields, extra=extra)
