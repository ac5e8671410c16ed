"""The page: one HTML file with a table of rows, a plot of their figures, and text, which loads nothing.

Everything that is not the page's own is escaped: in the HTML, in the JSON that its script reads, and in text that was
Markdown. A content security policy allows the script of the page only. Leaves the rows and the text to `run` and
`gallery`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

from benchcard.card.facts import LATENCY_MEAN, THROUGHPUT, figure
from benchcard.card.layouts import figures, full_tables
from benchcard.card.layouts.full_tables import BITS, MEMORY_SAVED, RATIO, SIZE, SIZE_SAVED
from benchcard.metrics.info import COMPARISONS, shown_unit
from benchcard.utils.files import reporting_disk_errors, write_bytes_atomically
from benchcard.utils.values import Interval

BASELINE, RECOMMENDED, OTHER = "baseline", "recommended", "other"
# The HTML that a card has: parts that a click on their heading opens.
_FOLD = re.compile(r"(?:</?details>|<summary>[^<>]*</summary>|\s)*")
_HIGHER_IS_BETTER: Mapping[str, bool | None] = {
    **{name: info.higher_is_better for name, info in COMPARISONS.items()},
    **dict.fromkeys((RATIO, "cpu_ratio", THROUGHPUT, "tokens_per_s", SIZE_SAVED, MEMORY_SAVED, "output_snr_db"), True),
    **dict.fromkeys((LATENCY_MEAN, "latency_p99_ms", SIZE, BITS, "memory_mb"), False),
    **dict.fromkeys(("cpu_ms", "core_seconds_per_1000", "cost_per_million"), False),
}
"""The direction of the figures that are no metrics, by column; that of others is not known."""
_SCROLLED = '<div class="scroll" role="region" aria-label="table" tabindex="0"><table class="sortable"'


@dataclass(frozen=True)
class Column:
    """A column of the table, with one cell for each row.

    Attributes:
        cells: Its cells as text.
        figures: The figures in them, None for a missing one; empty for a column of text, which is no axis of the plot.
        higher_is_better: None where it is not known, or neither is better.
    """

    title: str
    cells: Sequence[str]
    figures: Sequence[Interval | None] = ()
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Filter:
    """Values of the rows by which they can be chosen; one value is always chosen where it is `required`."""

    title: str
    values: Sequence[str]
    required: bool = False


@dataclass(frozen=True)
class Rows:
    """The rows of a page.

    Attributes:
        labels: A short name of each row, for the plot, and the first column of the table.
        links: Where the label of each row leads; empty for nowhere.
        names: The long name of each row, the second column.
        roles: What each row is, in words, the third column.
        kinds: `BASELINE`, `RECOMMENDED` or `OTHER`.
        groups: Rows with equal ones can be compared: they have a Pareto front.
        x, y: The titles of the columns that are the axes at first.
    """

    labels: Sequence[str]
    names: Sequence[str]
    roles: Sequence[str]
    kinds: Sequence[str]
    groups: Sequence[str]
    columns: Sequence[Column]
    filters: Sequence[Filter] = ()
    links: Sequence[str] = ()
    x: str = ""
    y: str = ""


def figure_columns(
    cells: Sequence[Mapping[str, Any]],
    names: Iterable[str],
    metrics: Mapping[str, bool | None],
    titles: Mapping[str, str],
) -> list[Column]:
    """Return a column with intervals for each of these figures that some row has, from the cells of the rows by name.

    `metrics` says of each metric whether more is better; `titles` is what is shown in place of a name.
    """
    columns = []
    for name in names:
        values = [figure(each.get(name), each.get(f"{name}_low"), each.get(f"{name}_high")) for each in cells]
        if any(values):
            write = _writer(name, values, name in metrics)
            texts = ["" if value is None else write(value) for value in values]
            higher = {**_HIGHER_IS_BETTER, **metrics}.get(name.removesuffix("_difference"))
            columns.append(Column(titles.get(name) or title_of(name), texts, values, higher))
    return columns


def title_of(name: str) -> str:
    """Return the title of a figure that compares rows with their baseline; for others, their name."""
    unit = shown_unit(COMPARISONS[name]) if name in COMPARISONS else ""
    return f"{name} ({unit})" if unit else name


def _writer(name: str, values: Sequence[Interval | None], is_metric: bool) -> Callable[[Interval], str]:
    """Return the function that writes the figures of a column."""
    if name in COMPARISONS:
        return partial(full_tables.format_comparison, name=name, unit=COMPARISONS[name].unit or "")
    rule = figures.quality_decimals if is_metric else full_tables.decimals_rule(name)
    return partial(figures.format_figure, decimals=figures.column_decimals(values, rule))


def render(title: str, intro: str, heading: str, rows: Rows, details: str) -> str:
    """Return the page; `intro` and `details` are HTML above and below the rows, `title` and `heading` are text."""
    folder = Path(__file__).parent
    template, style, script = (
        (folder / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(template).substitute(
        title=html.escape(title),
        heading=html.escape(heading),
        intro=intro,
        table=_table(rows),
        details=details,
        data=_data(rows),
        style=style,
        script=script,
        script_hash=f"'sha256-{digest}'",
    )


def save(text: str, path: str | Path) -> Path:
    """Write a page to a file, completely or not at all; return its path.

    Raises:
        BenchcardError: The file cannot be written.
    """
    target = Path(path)
    with reporting_disk_errors(target.parent):
        # A name may have a lone surrogate, which UTF-8 lacks.
        write_bytes_atomically(target.resolve(), text.encode(errors="replace"))
    return target


def _data(rows: Rows) -> str:
    """Return what the script reads as JSON, in which no character can end a script."""
    axes = [
        {
            "title": column.title,
            "column": place,
            "better": {True: 1, False: -1, None: 0}[column.higher_is_better],
            "figures": [each and [each.value, *_bounds(each)] for each in column.figures],
        }
        for place, column in enumerate(rows.columns, len(("label", "name", "role")))
        if any(column.figures)
    ]
    titles = [axis["title"] for axis in axes]
    data = {
        "axes": axes,
        "filters": [{"title": each.title, "values": each.values, "required": each.required} for each in rows.filters],
        **{name: getattr(rows, name) for name in ("labels", "names", "roles", "kinds", "groups")},
        "x": rows.x if rows.x in titles else (titles[-1:] or [""])[0],
        "y": rows.y if rows.y in titles else (titles[:1] or [""])[0],
    }
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _bounds(value: Interval) -> list[float]:
    return [] if value.low is None or value.high is None else [value.low, value.high]


def _table(rows: Rows) -> str:
    links = rows.links or [""] * len(rows.labels)
    lines = [
        [cell(label, link=link), cell(name, "name"), cell(role)]
        for label, link, name, role in zip(rows.labels, links, rows.names, rows.roles)
    ]
    for column in rows.columns:
        if not column.figures:
            lines = [[*line, cell(text)] for line, text in zip(lines, column.cells)]
            continue
        for line, text, interval in zip(lines, column.cells, column.figures):
            # It is broken before the interval only.
            unbroken = text.replace(", ", ",\N{NO-BREAK SPACE}")
            line.append(cell(unbroken, "number", interval.value if interval else None))
    titles = ["row", "configuration", "role", *(column.title for column in rows.columns)]
    return table(titles, lines, rows.kinds, "rows")


def cell(text: str, kind: str = "", value: float | None = None, link: str = "") -> str:
    """Return a cell of a table as HTML; it is sorted by the value, which may be infinite, where there is one."""
    content = html.escape(text)
    content = f'<a href="{html.escape(link)}">{content}</a>' if link else content
    sorted_by = _attribute("data-value", "" if value is None else json.dumps(value))
    return f"<td{_attribute('class', kind)}{sorted_by}>{content}</td>"


def table(titles: Sequence[str], lines: Sequence[Sequence[str]], kinds: Sequence[str] = (), name: str = "") -> str:
    """Return a table that can be sorted as HTML; the lines have cells of `cell`, and a class each in `kinds`."""
    numbers = ["number" * first.startswith('<td class="number"') for first in lines[0]] if lines else [""] * len(titles)
    head = "".join(
        f'<th scope="col"{_attribute("class", number)}>{html.escape(title)}</th>'
        for title, number in zip(titles, numbers)
    )
    classes = kinds or [""] * len(lines)
    body = "\n".join(f"<tr{_attribute('class', kind)}>{''.join(line)}</tr>" for kind, line in zip(classes, lines))
    content = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return f"{_SCROLLED}{_attribute('id', name)}>{content}</table></div>\n"


def fold(title: str, content: str) -> str:
    """Return HTML that a click on the title, which is text, opens; empty without content."""
    return f"<details><summary>{html.escape(title)}</summary>\n{content}</details>\n" if content else ""


def _attribute(name: str, value: str) -> str:
    return f' {name}="{html.escape(value)}"' if value else ""


def from_markdown(text: str) -> str:
    """Return the Markdown of a card as HTML, its headings one level higher; of HTML it may have folded parts only."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable("table").disable(["image", "html_inline"])
    rules = {
        "html_block": lambda _self, tokens, index, *_: _fold_or_text(tokens[index].content),
        "table_open": lambda *_: f"{_SCROLLED}>",
        "table_close": lambda *_: "</table></div>\n",
    }
    for name, rule in rules.items():
        parser.add_render_rule(name, rule)
    tokens = parser.parse(text)
    for token in tokens:
        if token.type.startswith("heading_"):
            token.tag = f"h{max(1, int(token.tag[1]) - 1)}"
    return str(parser.renderer.render(tokens, parser.options, {}))


def _fold_or_text(content: str) -> str:
    return content if _FOLD.fullmatch(content) else html.escape(content)
