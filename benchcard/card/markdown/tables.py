"""GitHub tables: written with every cell safe, and read back.

Owns columns, widths, alignment, and the escape of what would end a cell. Takes cells as one line of Markdown, which
`notation` makes from values and words. Leaves which columns there are to the layouts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchcard.errors import CardError

Align = Literal["left", "center", "right"]

_RULE = re.compile(r":?-+:?")
_BAR = re.compile(r"(?<!\\)\|")
_SHORTEST_RULE = 3
# Cells that are filled in because a row has too few. Source: cmark-gfm 0.29, MAX_AUTOCOMPLETED_CELLS.
_MOST_FILLED = 0x80000
MOST_TABLES = 1000
"""Far more tables than a card has of shapes."""


@dataclass(frozen=True)
class Column:
    """A column: its header, as Markdown, and on which side its cells stand."""

    header: str
    align: Align = "left"


@dataclass(frozen=True)
class Table:
    """A table as it stands in a text.

    Attributes:
        columns: header and alignment.
        rows: cells as Markdown, pipes unescaped; each row as long as `columns`.
        first_line: line of the text that the header stands on, from 0.
        end_line: line after the last row.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    first_line: int = 0
    end_line: int = 0

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers alone."""
        return tuple(column.header for column in self.columns)


def render_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    """The table as GitHub-flavoured Markdown, its columns aligned in plain text too; no newline at the end.

    Widths count a pipe as the one character that it is on the page: its backslash widens the cell, as in the cards.

    Raises:
        CardError: a row has more or fewer cells than there are columns.
    """
    body = [[_one_line(cell) for cell in row] for row in rows]
    for index, row in enumerate(body):
        if len(row) != len(columns):
            raise CardError(f"row {index} of a table has {len(row)} cells for {len(columns)} columns")
    headers = [_one_line(column.header) for column in columns]
    widths = [
        max(_SHORTEST_RULE, len(header), *(len(row[place]) for row in body))
        if body
        else max(_SHORTEST_RULE, len(header))
        for place, header in enumerate(headers)
    ]
    lines = [headers, [_rule(column.align, width) for column, width in zip(columns, widths)], *body]
    return "\n".join(
        "| "
        + " | ".join(_pad(cell, width, column.align) for cell, width, column in zip(line, widths, columns, strict=True))
        + " |"
        for line in lines
    )


def find_tables(text: str) -> list[Table]:
    """All the tables in `text`, in their order, read as GitHub reads them: rows of too few cells are filled up.

    Raises:
        CardError: there are more tables, or more cells to be filled in, than any card has.

    Source: GitHub Flavored Markdown 0.29, section 4.10.
    """
    lines = text.split("\n")
    tables: list[Table] = []
    place = filled = 0
    while place + 1 < len(lines):
        headers, rules = split_row(lines[place]), split_row(lines[place + 1])
        if "|" in lines[place] and len(headers) == len(rules) and all(_RULE.fullmatch(rule) for rule in rules):
            end = place + 2
            rows: list[tuple[str, ...]] = []
            while end < len(lines) and "|" in lines[end]:
                cells = split_row(lines[end])
                filled += max(0, len(headers) - len(cells))
                if filled > _MOST_FILLED:
                    raise CardError(f"line {end + 1}: the tables have more than {_MOST_FILLED} empty cells")
                rows.append(tuple([*cells, *[""] * (len(headers) - len(cells))][: len(headers)]))
                end += 1
            columns = tuple(Column(header, _alignment(rule)) for header, rule in zip(headers, rules))
            if len(tables) == MOST_TABLES:
                raise CardError(f"line {place + 1}: there are more than {MOST_TABLES} tables")
            tables.append(Table(columns, tuple(rows), place, end))
            place = end
        else:
            place += 1
    return tables


def line_above(lines: Sequence[str], table: Table) -> str:
    """The last line above a table that is not empty; empty where there is none."""
    place = table.first_line - 1
    while place >= 0 and not lines[place].strip():
        place -= 1
    return lines[place] if place >= 0 else ""


def split_row(line: str) -> list[str]:
    """The cells of one line of a table, without the spaces around them, pipes unescaped."""
    cells = _BAR.split(line.strip())
    if cells and not cells[0]:
        cells = cells[1:]
    if cells and not cells[-1].strip():
        cells = cells[:-1]
    return [cell.strip().replace("\\|", "|") for cell in cells]


def number_column(
    name: str, unit: str, values: Iterable[float | None], decimals: int, missing: str = "n/a"
) -> tuple[Column, list[str]]:
    """A column of numbers and its cells: its unit in the header, on the right, all with as many decimals."""
    header = f"{name} ({unit})" if unit else name
    return Column(header, "right"), [missing if value is None else digits(value, decimals) for value in values]


def digits(value: float, decimals: int) -> str:
    """`value` with that many decimals; a zero has no sign."""
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and float(text) == 0 else text


def _one_line(cell: str) -> str:
    return " ".join(cell.splitlines()).strip()


def _pad(cell: str, width: int, align: Align) -> str:
    missing = width - len(cell)
    left = {"left": 0, "center": missing // 2, "right": missing}[align]
    return " " * left + cell.replace("|", "\\|") + " " * (missing - left)


def _rule(align: Align, width: int) -> str:
    left = ":" if align != "right" else "-"
    right = ":" if align != "left" else "-"
    return left + "-" * (width - 2) + right


def _alignment(rule: str) -> Align:
    if rule.startswith(":"):
        return "center" if rule.endswith(":") and len(rule) > 1 else "left"
    return "right" if rule.endswith(":") else "left"
