"""The classic layout: the cards published in 2022, byte for byte; `reading.classic` reads them.

The rules, derived from the published cards:

- Labels, then fixed parameters, then benchmarked ones, then one table of quality and one table per shape, in the order
  of the facts. All columns are centred.
- A parameter is a code span in Python's notation. A fixed mapping becomes nested bullets; a list of mappings is one
  line without code span. Benchmarked values are separated by a comma and two spaces.
- A column of pipes precedes each metric. Quality has three decimals, time has two.
- Where rows also hold the original model's figures, as in the first cards, each metric has two columns, `(original)`
  and `(optimized)`.
- A figure that does not exist is `failed` in a row that failed, else `n/a`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from benchcard.card.facts import LATENCY_MEAN, THROUGHPUT, Facts, Figures, Measured, Plain
from benchcard.card.frontmatter import fields
from benchcard.card.layouts import figures
from benchcard.card.markdown import tables
from benchcard.card.markdown.inline import bare_or_code_span, code_span, escape, survives_escape, write_value
from benchcard.utils.text import pluralize
from benchcard.utils.values import Shape

FIXED_TITLE = "Fixed parameters:"
BENCHMARKED_TITLE = "Benchmarked parameters:"
QUALITY_TITLE = "## Non-time metrics"
TIME_TITLE = "## Time metrics"
ALL_SAMPLES = "All dataset"
VARIED_SAMPLES = "benchmarked"
SIDES = ("original", "optimized")
QUALITY_DECIMALS = 3
TIME_DECIMALS = 2
TIME_COLUMNS = (("latency_mean", "ms", LATENCY_MEAN), ("throughput", "/s", THROUGHPUT))
"""Name, unit and figure of each time column."""


def render(facts: Facts) -> str:
    """Return the whole card: front matter and body."""
    metrics = [(metric.name, metric.unit, metric.name) for metric in facts.metrics]
    positive_classes = "".join(
        f"The positive class of {escape(metric.name)} is {code_span(metric.positive_class)}.\n\n"
        for metric in facts.metrics
        if metric.positive_class  # The cards of 2022 have none.
    )
    quality = _table(facts, metrics, QUALITY_DECIMALS, lambda measured: measured.metrics)
    front_matter = facts.front_matter
    front_matter = replace(front_matter, metrics=(*front_matter.metrics, *front_matter.pass_metrics))
    parts = [
        fields.render_front_matter(front_matter),
        "".join(f"{line}  \n" for line in labels(facts)),
        f"{FIXED_TITLE}\n" + "".join(bullet(name, value) for name, value in facts.fixed.items()),
        benchmarked(facts),
        f"# Evaluation\n{QUALITY_TITLE}\n{positive_classes}{quality}\n",
    ]
    if facts.shapes:
        opening = f"{TIME_TITLE}\n"
        if facts.duration_s is not None:
            opening += f"Time benchmarks were run for {seconds(facts.duration_s)} per config.\n"
        parts.append(opening + "".join(_time(facts, shape) for shape in facts.shapes))
    return "\n".join(parts) + "\n"


def labels(facts: Facts) -> list[str]:
    """Return the lines that name task, backend and number of samples."""
    samples = ALL_SAMPLES if facts.max_eval_samples is None else str(facts.max_eval_samples)
    if "max_eval_samples" in facts.benchmarked:
        samples = VARIED_SAMPLES
    return [
        f"**task**: {_code(facts.task)}",
        f"**Backend:** {_code(facts.backend)}",
        f"**Backend args:** {_code(facts.backend_args)}",
        f"**Number of evaluation samples:** {code_span(samples)}",
    ]


def bullet(name: str, value: Plain) -> str:
    """Return a parameter and its value as a bullet, a mapping as nested ones; it ends in a line end."""
    if isinstance(value, Mapping) and value and all(isinstance(key, str) and survives_escape(key) for key in value):
        inner = "".join(f"    * **{escape(key)}**: {_code(item)}\n" for key, item in value.items())
        return f"* **{escape(name)}**:\n{inner}"
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return f"* **{escape(name)}**: {bare_or_code_span(write_value(value))}\n"
    return f"* **{escape(name)}**: {_code(value)}\n"


def benchmarked(facts: Facts) -> str:
    """Return the title and bullets of the benchmarked parameters; it ends in a line end."""
    lines = (f"* **{escape(name)}**: {',  '.join(map(_code, values))}\n" for name, values in facts.benchmarked.items())
    return f"{BENCHMARKED_TITLE}\n" + "".join(lines)


def seconds(duration_s: float) -> str:
    """Return a duration with its unit: `1 second`, `0.5 seconds`."""
    return pluralize(int(duration_s) if duration_s == int(duration_s) else duration_s, "second")


def time_heading(shape: Shape, kind: str = "time") -> str:
    """Return the line above the time table of a shape; `kind` ends in `time`."""
    length = "" if shape.input_length is None else f", input length = {shape.input_length}"
    return f"Below, {kind} metrics for batch size = {shape.batch_size}{length}{shape.remark}."


def _code(value: Plain) -> str:
    return code_span(write_value(value))


def _time(facts: Facts, shape: Shape) -> str:
    table = _table(facts, TIME_COLUMNS, TIME_DECIMALS, lambda measured: measured.times.get(shape, {}))
    return f"\n\n{time_heading(shape)}\n\n{table}\n"


def _table(
    facts: Facts, shown: Iterable[tuple[str, str, str]], decimals: int, figures_of: Callable[[Measured], Figures]
) -> str:
    """Return a table whose columns are given by name, unit and figure."""
    sides = SIDES if any(row.original is not None for row in facts.rows) else ("",)
    headers = [escape(name) for name in facts.benchmarked]
    lines = [[_code(row.parameters[name]) for name in facts.benchmarked] for row in facts.rows]
    for name, unit, key in shown:
        remarks = [", ".join(filter(None, (side, unit))) for side in sides]
        headers += ["", *(escape(f"{name} ({remark})" if remark else name) for remark in remarks)]
        for line, row in zip(lines, facts.rows):
            line.append("|")
            for side in sides:
                measured = row.original if side == SIDES[0] else row
                figure = figures_of(measured).get(key) if measured else None
                absent = figures.MISSING if row.failure is None else figures.FAILED
                line.append(tables.format_number(figure.value, decimals) if figure else absent)
    return tables.render_table([tables.Column(header, "center") for header in headers], lines)
