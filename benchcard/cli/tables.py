"""What commands write: data frames as tables that fit the terminal, and JSON."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from benchcard.spec.parameters import PARAMETERS, split_name
from benchcard.utils.plain import canonical_json, plain

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

CONFIGURATION = "configuration"
# The most important columns; others follow in the order of the frame, and last those with an ending of `_LAST`.
_FIRST = (
    *("row", "row_a", "row_b", CONFIGURATION, "figure", "verdict", "change", "a", "b", "adds", "timed_s"),
    *("ratio", "latency_mean_ms", "cpu_ratio", "cost_per_million", "memory_mb"),
)
_LAST = ("_p_value", "_detectable_difference", "_per_second", "runs", "paired")
# Columns of sentences, which are listed below the table.
_REASONS = ("why", "not_compared")
# Columns that are shown only where all are.
_HIDDEN = (
    *("latency_p90_ms", "latency_p95_ms", "latency_p99.9_ms", "elapsed_s", "drift", "threads", "spinning"),
    *("cpu_ms", "core_seconds_per_1000"),
    *("kl_median", "kl_p99", "kl_max", "cosine_p1", "lost", "gained", "swapped"),
    *("first_call_ms", "load_ms", "failure", "total_time_in_seconds", "latency_in_seconds", "expected_half_width"),
)
# Figures whose intervals are shown only where all are.
_WITHOUT_INTERVAL = ("latency_p", "throughput_per_s", "tokens_per_s", "change")
# Text is broken between words into lines of this length: the first at which all columns fit, or the last.
_LENGTHS = (40, 28, 20, 16, 12)
# A longer word is broken.
_LONGEST_WORD = 30
# A space of the interval of a figure, which is not broken.
_UNBROKEN = "\N{NO-BREAK SPACE}"
_GAP = 2
# The width of a pipe, where no line is broken.
_NO_WIDTH = 100_000


json_option = click.option("--json", "as_json", is_flag=True, help="Write everything as JSON.")
wide_option = click.option("--wide", is_flag=True, help="Show all columns, wider than the terminal.")


def write_json(value: object) -> None:
    """Write plain data on standard output as JSON."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


@dataclass(frozen=True)
class _Column:
    name: str
    cells: Sequence[str]
    is_number: bool = False

    def broken(self, length: int) -> _Column:
        """Return the column with its text in lines of this length, or of its longest word if that is longer."""
        # A header is broken after underscores, and the name of a row after the plus signs of a list.
        header, plus = self.name.replace("_", "_ "), "+ " if self.name == CONFIGURATION else "+"
        texts = [header, *(cell.replace("+", plus) for cell in self.cells)]
        words = [word for text in texts for word in text.split(" ")]
        width = max(length, *(min(len(word), _LONGEST_WORD) for word in words))
        header, *cells = [textwrap.fill(text, width, break_on_hyphens=False) for text in texts]
        cells = [cell.replace(plus, "+").replace(_UNBROKEN, " ") for cell in cells]
        return _Column(header.replace("_ ", "_"), cells, self.is_number)

    @property
    def width(self) -> int:
        """The length of the longest line."""
        return max(len(line) for text in (self.name, *self.cells) for line in text.split("\n"))


def table(frame: pd.DataFrame, wide: bool = False, printed: Sequence[str] = ()) -> list[str]:
    """Print a data frame as a table of the columns that fit the terminal, and below it what it leaves out.

    If `wide`, all columns are printed, and no line is broken. The lines below the table are returned, and those of
    another table, `printed`, are not repeated.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    frame = frame.dropna(axis="columns", how="all")
    names = [str(name) for name in frame if not str(name).endswith(("_low", "_high"))]
    lines: list[str] = []
    if not wide:
        frame, lines = _brief(frame)
    width = _NO_WIDTH if wide else _width()
    shown = [column.broken(_NO_WIDTH) for column in _columns(frame)]
    without: list[str] = []
    if _total_width(shown) > width:
        without = [name for name in names if name.startswith(_WITHOUT_INTERVAL) and f"{name}_low" in frame]
        shown = _fitting(_columns(frame, without), width)
    grid = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for column in shown:
        grid.add_column(column.name, justify="right" if column.is_number else "left", no_wrap=True)
    for cells in zip(*(column.cells for column in shown)):
        grid.add_row(*cells)
    _print(grid, _NO_WIDTH)
    shown_names = [column.name.replace("\n", "") for column in shown]
    left_out = [name for name in names if name not in shown_names and (name in _HIDDEN or name in frame)]
    left_out += [f"the interval of {name}" for name in shown_names if name in without]
    if left_out:
        lines.append(f"not shown: {', '.join(left_out)} (`--wide` or `--json` shows them)")
    for line in lines:
        if line not in printed:
            write_text(line)
    return lines


def write_text(message: str) -> None:
    """Print text, broken between words in a terminal."""
    _print(message, _width())


def _width() -> int:
    """Return the characters of a line: those of the terminal; a pipe has no limit."""
    is_terminal = sys.stdout is not None and not sys.stdout.closed and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if is_terminal else _NO_WIDTH


def _print(content: RenderableType, width: int) -> None:
    from rich.console import Console

    console = Console(width=width, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(content)
    # `click` handles a pipe without a reader.
    click.echo(re.sub(r" +$", "", captured.get(), flags=re.MULTILINE), nl=False)


def _brief(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the frame with one column for all parameters, without those of equal values, and a line for these."""
    from benchcard.analysis.frames.columns import is_known
    from benchcard.card.layouts.full_tables import short_name

    if "row_a" in frame and (frame["row_a"] == frame["row_b"]).all():
        frame = frame.drop(columns="row_b").rename(columns={"row_a": "row"})
    values = {str(name): [plain(value) if is_known(value) else None for value in frame[name]] for name in frame}
    rows = next((name for name in values if name.startswith("row")), "")
    parameters = {name: column for name, column in values.items() if split_name(name)[0] in PARAMETERS}
    equal = {
        name: column[0]
        for name, column in values.items()
        if name != rows and name not in _HIDDEN and len({canonical_json(value) for value in column}) == 1
        if name in parameters or (len(frame) > 1 and isinstance(column[0], int))
    }
    lines = [f"in all rows: {', '.join(f'{name}={value}' for name, value in equal.items())}"] if equal else []
    varied = {name: column for name, column in parameters.items() if name not in equal}
    if varied:
        labels = [short_name(dict(zip(varied, row)), varied) for row in zip(*varied.values())]
        # A name has no mappings.
        lines += [
            _list_values(name, column, frame[rows].tolist())
            for name, column in varied.items()
            if any(isinstance(value, dict) for value in column)
        ]
        frame = frame.copy()
        frame.insert(list(frame).index(next(iter(varied))), CONFIGURATION, labels)
    reasons = [name for name in _REASONS if name in frame]
    lines += [_list_values(name, values[name], frame[rows].tolist()) for name in reasons]
    hidden = (name for name in _HIDDEN if name in frame)
    return frame.drop(columns=[*parameters, *equal, *reasons, *hidden]), lines


def _list_values(name: str, values: Sequence[object], rows: Sequence[int]) -> str:
    """Return a line with each value of a column, and the numbers of its rows."""
    from benchcard.analysis.row_facts import number_rows

    rows_by_value: dict[str, dict[int, None]] = {}
    for value, row in zip(values, rows):
        if value not in (None, ""):
            rows_by_value.setdefault(str(value), {})[row] = None
    return f"{name}: {'; '.join(f'{value} in {number_rows(list(rows))}' for value, rows in rows_by_value.items())}"


def _columns(frame: pd.DataFrame, without: Sequence[str] = ()) -> list[_Column]:
    """Return the columns of a frame, with intervals beside the figures, but for some `without` them."""
    columns = []
    for name in map(str, frame):
        if name.endswith(("_low", "_high")):
            continue
        cells = [cell(value) for value in frame[name]]
        if f"{name}_low" in frame and name not in without:
            cells = [
                f"{value} [{cell(low)},{_UNBROKEN}{cell(high)}]" if cell(low) else value
                for value, low, high in zip(cells, frame[f"{name}_low"], frame[f"{name}_high"])
            ]
        columns.append(_Column(name, cells, frame[name].dtype.kind in "if"))
    return columns


def _total_width(columns: Sequence[_Column]) -> int:
    return sum(column.width + _GAP for column in columns) - _GAP


def _fitting(columns: Sequence[_Column], width: int) -> list[_Column]:
    """Return the most important columns that fit this width, in their order, with their text in lines."""
    broken: list[_Column] = []
    for length in _LENGTHS:
        broken = [column.broken(length) for column in columns]
        if _total_width(broken) <= width:
            return broken
    chosen: list[_Column] = []
    for _, column in sorted(zip(columns, broken), key=lambda pair: _rank(pair[0].name)):
        if _total_width([*chosen, column]) <= width:
            chosen.append(column)
    return [column for column in broken if column in chosen]


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST) + name.endswith(_LAST)


def cell(value: object) -> str:
    """Return the text of a cell: four significant digits for a number, empty for a missing value."""
    from benchcard.analysis.frames.columns import is_known

    if not is_known(value):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
