"""The layout of the cards of 2022, to the byte.

Owns what stands where in a classic card. Leaves the front matter to `frontmatter`, tables to `tables`, the text of
single values to `notation`, and reading such a card to `read`.

The rules, as the cards show them:

- Labels, then fixed parameters, then benchmarked ones, then one table of quality and one table per shape, in the order
  of the facts. All columns are centred.
- A parameter is a code span in Python's notation. A fixed mapping becomes nested bullets; a list of mappings stands on
  one line as it is. Benchmarked values are separated by a comma and two spaces.
- Figures are set off by a column that holds a bar, one before each metric. Quality has three decimals, time has two.
- Where rows hold the original model's figures beside their own, each metric has two columns, `(original)` and
  `(optimized)`: the layout of the first cards.
- A figure that does not exist is `failed` in a row that failed, else `n/a`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchcard.card.facts import (
    LATENCY_MEAN,
    THROUGHPUT,
    Facts,
    Figure,
    Measured,
    Plain,
    Row,
)
from benchcard.card.frontmatter import fields
from benchcard.card.markdown import tables
from benchcard.card.markdown.inline import bare_or_code, code, is_words, words, write_value
from benchcard.utils.text import pluralize
from benchcard.utils.values import Shape

FIXED_TITLE = "Fixed parameters:"
BENCHMARKED_TITLE = "Benchmarked parameters:"
QUALITY_TITLE = "## Non-time metrics"
TIME_TITLE = "## Time metrics"
ALL_SAMPLES = "All dataset"
VARIED_SAMPLES = "benchmarked"
FAILED = "failed"
MISSING = "n/a"
SIDES = ("original", "optimized")
QUALITY_DECIMALS = 3
TIME_DECIMALS = 2
TIME_COLUMNS = (("latency_mean", "ms", LATENCY_MEAN), ("throughput", "/s", THROUGHPUT))
"""Name and unit of each time column, and the figure that it shows."""


@dataclass(frozen=True)
class _Group:
    """The columns of one kind of figure: its label, how it is written, and where it is found."""

    name: str
    unit: str
    decimals: int
    pick: Callable[[Measured], Figure | None]

    def header(self, side: str) -> str:
        remark = ", ".join(part for part in (side, self.unit) if part)
        return words(f"{self.name} ({remark})" if remark else self.name)

    def cell(self, row: Row, side: str) -> str:
        measured = row.original if side == SIDES[0] else Measured(row.metrics, row.times)
        figure = None if measured is None else self.pick(measured)
        if figure is not None:
            return tables.digits(figure.value, self.decimals)
        return MISSING if row.failure is None else FAILED


def render(facts: Facts) -> str:
    """The whole card: front matter and body."""
    return fields.render(facts.front_matter) + "\n" + body(facts)


def body(facts: Facts) -> str:
    """The card without its front matter, ending in an empty line."""
    parts = [
        f"**task**: {code(write_value(facts.task))}  \n"
        f"**Backend:** {code(write_value(facts.backend))}  \n"
        f"**Backend args:** {code(write_value(facts.backend_args))}  \n"
        f"**Number of evaluation samples:** {code(samples(facts))}  \n",
        f"{FIXED_TITLE}\n" + "".join(bullet(name, value) for name, value in facts.fixed.items()),
        f"{BENCHMARKED_TITLE}\n"
        + "".join(f"* **{words(name)}**: {listed(values)}\n" for name, values in facts.benchmarked.items()),
        f"# Evaluation\n{QUALITY_TITLE}\n" + _positive_classes(facts) + _quality(facts) + "\n",
    ]
    if facts.shapes:
        opening = f"{TIME_TITLE}\n"
        if facts.duration_s is not None:
            opening += f"Time benchmarks were run for {seconds(facts.duration_s)} per config.\n"
        parts.append(opening + "".join(_time(facts, shape) for shape in facts.shapes))
    return "\n".join(parts) + "\n"


def bullet(name: str, value: Plain) -> str:
    """A parameter and its value as a bullet, a mapping as nested ones; ends in a line end."""
    if isinstance(value, Mapping) and value and all(isinstance(key, str) and is_words(key) for key in value):
        inner = "".join(f"    * **{words(key)}**: {code(write_value(item))}\n" for key, item in value.items())
        return f"* **{words(name)}**:\n{inner}"
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return f"* **{words(name)}**: {bare_or_code(write_value(value))}\n"
    return f"* **{words(name)}**: {code(write_value(value))}\n"


def listed(values: Iterable[Plain]) -> str:
    """Values as code spans, separated as in the cards."""
    return ",  ".join(code(write_value(value)) for value in values)


def samples(facts: Facts) -> str:
    """How many samples were evaluated at most, as a label says it: a number, all, or that it is benchmarked."""
    if "max_eval_samples" in facts.benchmarked:
        return VARIED_SAMPLES
    return ALL_SAMPLES if facts.max_eval_samples is None else str(facts.max_eval_samples)


def seconds(duration_s: float) -> str:
    """A duration in words: `1 second`, `0.5 seconds`."""
    return pluralize(int(duration_s) if duration_s == int(duration_s) else duration_s, "second")


def _positive_classes(facts: Facts) -> str:
    """Return a line for each metric of one label, which it is of; nothing on the cards of 2022."""
    of_one = [metric for metric in facts.metrics if metric.positive_class]
    lines = [f"The positive class of {words(metric.name)} is {code(metric.positive_class)}.\n" for metric in of_one]
    return "\n".join([*lines, ""])


def _quality(facts: Facts) -> str:
    def pick(name: str) -> Callable[[Measured], Figure | None]:
        return lambda measured: measured.metrics.get(name)

    return _table(
        facts, [_Group(metric.name, metric.unit, QUALITY_DECIMALS, pick(metric.name)) for metric in facts.metrics]
    )


def _time(facts: Facts, shape: Shape) -> str:
    def pick(key: str) -> Callable[[Measured], Figure | None]:
        return lambda measured: measured.times.get(shape, {}).get(key)

    length = "" if shape.input_length is None else f", input length = {shape.input_length}"
    groups = [_Group(name, unit, TIME_DECIMALS, pick(key)) for name, unit, key in TIME_COLUMNS]
    return f"\n\nBelow, time metrics for batch size = {shape.batch_size}{length}.\n\n{_table(facts, groups)}\n"


def _table(facts: Facts, groups: Sequence[_Group]) -> str:
    sides = SIDES if any(row.original is not None for row in facts.rows) else ("",)
    columns = [tables.Column(words(name), "center") for name in facts.benchmarked]
    for group in groups:
        columns += [tables.Column("", "center"), *(tables.Column(group.header(side), "center") for side in sides)]
    rows = []
    for row in facts.rows:
        cells = [code(write_value(row.parameters[name])) for name in facts.benchmarked]
        for group in groups:
            cells += ["|", *(group.cell(row, side) for side in sides)]
        rows.append(cells)
    return tables.render_table(columns, rows)
