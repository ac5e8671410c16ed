"""Markdown tables, written and parsed. A cell is one line of Markdown, made by `inline`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchcard.errors import CardError

_DELIMITER = re.compile(r":?-+:?")
_PIPE = re.compile(r"(?<!\\)\|")
_MIN_WIDTH = 3
# Cells added to rows that have too few. Source: cmark-gfm 0.29, MAX_AUTOCOMPLETED_CELLS.
_MAX_ADDED_CELLS = 0x80000
# A card has one table per shape, and a few more.
_MAX_TABLES = 1000


@dataclass(frozen=True)
class Column:
    """A column: its header, as Markdown, and its alignment."""

    header: str
    align: Literal["left", "center", "right"] = "left"


@dataclass(frozen=True)
class Table:
    """A table in a text, its rows as long as `headers`, pipes unescaped; `first_line` is the header's, from 0."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    first_line: int = 0


def render_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    """Return a GitHub-flavoured Markdown table, also aligned as plain text; no newline at the end.

    Widths count an escaped pipe as the one character that readers see, so its line is longer, as in published cards.
    """
    header_row = [column.header for column in columns]
    headers, *body = [[" ".join(cell.splitlines()).strip() for cell in line] for line in (header_row, *rows)]
    for index, row in enumerate(body):
        if len(row) != len(columns):
            raise CardError(f"row {index} of a table has {len(row)} cells for {len(columns)} columns")
    widths = [max(_MIN_WIDTH, *map(len, cells)) for cells in zip(headers, *body)]
    lines = [headers, list(map(_delimiter, widths, columns)), *body]
    return "\n".join(f"| {' | '.join(map(_pad, line, widths, columns))} |" for line in lines)


def find_tables(text: str) -> list[Table]:
    """Return all tables in a text as GitHub reads them: rows that are too short get empty cells.

    Source: GitHub Flavored Markdown 0.29, section 4.10.
    """
    lines = text.split("\n")
    tables: list[Table] = []
    place = added = 0
    while place + 1 < len(lines):
        headers, delimiters = split_row(lines[place]), split_row(lines[place + 1])
        if "|" not in lines[place] or len(headers) != len(delimiters) or not all(map(_DELIMITER.fullmatch, delimiters)):
            place += 1
            continue
        end = place + 2
        rows: list[tuple[str, ...]] = []
        while end < len(lines) and "|" in lines[end]:
            cells = split_row(lines[end])
            missing = [""] * (len(headers) - len(cells))
            added += len(missing)
            if added > _MAX_ADDED_CELLS:
                raise CardError(f"line {end + 1}: the tables have more than {_MAX_ADDED_CELLS} empty cells")
            rows.append(tuple([*cells, *missing][: len(headers)]))
            end += 1
        if len(tables) == _MAX_TABLES:
            raise CardError(f"line {place + 1}: there are more than {_MAX_TABLES} tables")
        tables.append(Table(tuple(headers), tuple(rows), place))
        place = end
    return tables


def split_row(line: str) -> list[str]:
    """Return the cells of one line of a table, without the spaces around them, pipes unescaped."""
    cells = [cell.strip() for cell in _PIPE.split(line.strip())]
    start = 0 if cells[0] else 1
    end = len(cells) if cells[-1] else -1
    return [cell.replace("\\|", "|") for cell in cells[start:end]]


def format_number(value: float, decimals: int) -> str:
    """Return `value` with that many decimals; zero has no sign."""
    text = f"{value:.{decimals}f}"
    return text[1:] if text.startswith("-") and float(text) == 0 else text


def _pad(cell: str, width: int, column: Column) -> str:
    side = {"left": "<", "center": "^", "right": ">"}[column.align]
    return f"{cell:{side}{width}}".replace("|", "\\|")


def _delimiter(width: int, column: Column) -> str:
    ends = {"left": ":-", "center": "::", "right": "-:"}[column.align]
    return ends[0] + "-" * (width - 2) + ends[1]
