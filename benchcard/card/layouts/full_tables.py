"""The tables of a full card: summary, quality, times, noise, rows with the same model, and failed rows.

Owns their columns and cells, and the short name of a row. Leaves the text around them to `full`, reading them to
`reading.full`, and the text of figures to `figures`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf

from benchcard.card.facts import LATENCY_MEAN, THROUGHPUT, Facts, Plain, Row
from benchcard.card.layouts import figures, row_groups
from benchcard.card.layouts.figures import DecimalsRule
from benchcard.card.markdown.inline import code_span, escape, escape_prose, write_value
from benchcard.card.markdown.tables import Column, render_table
from benchcard.utils.values import Interval, Shape

SUMMARY_ROWS = 10
SIZE = "size_mb"
CHANGED = "predictions_changed"
IN_8_BITS = "nodes_in_8_bits"
NODES = ("nodes_quantized", IN_8_BITS)
SAMPLES = "samples"
COUNTS = (CHANGED, *NODES, SAMPLES)
COSINE = "embedding_cosine"
P_VALUE = "_p_value"
RATIO = "ratio"
DETECTABLE = "detectable"
ROLES = {"baseline": "baseline", "chosen": "recommended", "pareto": "Pareto"}
# Precedes the number of a row's baseline among its roles, if there are several baselines.
AGAINST = "against row "
TIME_COLUMNS = (
    (LATENCY_MEAN, "latency (ms)"),
    ("latency_p99_ms", "p99 (ms)"),
    (THROUGHPUT, "throughput (samples/s)"),
    (RATIO, "times as fast as the baseline"),
    ("memory_mb", "memory (MB)"),
)
SIZE_COLUMN = "size (MB)"
NOISE_BASELINE = "baseline"
FIGURE_ENDINGS = {
    "_difference": " against the baseline",
    P_VALUE: " p-value",
    "_detectable_difference": " detectable difference",
}
"""Endings of the names of figures that belong to a metric, and what the header has in their place."""


class _Table:
    """A table with one line for each of some rows, which columns are added to."""

    def __init__(self, rows: Iterable[int]) -> None:
        self.rows = tuple(rows)
        self.columns: list[Column] = []
        self.cells: list[list[str]] = [[] for _ in self.rows]

    def add(self, header: str, cells: Sequence[str], *, numbers: bool = False) -> None:
        """Add a column, given the cells of all rows of the card."""
        self.columns.append(Column(header, "right" if numbers else "left"))
        for line, row in zip(self.cells, self.rows):
            line.append(cells[row])

    def render(self) -> str:
        return render_table(self.columns, self.cells)


def row_names(facts: Facts) -> list[str]:
    """Return a short name of each row, its distinguishing values: `onnxruntime, dynamic, Add+MatMul, per_channel`.

    If two different rows would share a name, all names list all parameters.
    """
    varied = {name: len({repr(row.parameters[name]) for row in facts.rows}) > 1 for name in facts.benchmarked}
    names = [
        ", ".join(_values_in_name(row.parameters, varied))
        or ("quantized" if row.parameters.get("apply_quantization") is True else "as it is")
        for row in facts.rows
    ]
    if len(set(names)) == len({repr(sorted(row.parameters.items())) for row in facts.rows}):
        return names
    return [", ".join(f"{name}={write_value(value)}" for name, value in row.parameters.items()) for row in facts.rows]


def _values_in_name(parameters: Mapping[str, Plain], varied: Mapping[str, bool]) -> list[str]:
    texts = []
    for name, value in parameters.items():
        # A mapping usually follows from the framework. If not, the names are equal, and all are written in full.
        if not varied.get(name) or value is None or isinstance(value, dict):
            continue
        if name == "apply_quantization" and isinstance(value, bool):
            text = "" if value else "not quantized"
        elif isinstance(value, bool):
            text = name if value else ""
        elif isinstance(value, list):
            text = "+".join(map(str, value))
        else:
            text = value if isinstance(value, str) else f"{name} {value}"
        texts += [text] if text else []
    return texts


def roles(facts: Facts, index: int) -> list[str]:
    """Return the roles of a row: baseline, recommended, Pareto; and its baseline if there are several baselines."""
    baselines, baseline = row_groups.baselines(facts), row_groups.baseline_of(facts, index)
    has_role = {
        "baseline": index in baselines,
        "chosen": index in row_groups.recommended(facts),
        "pareto": index in facts.pareto,
    }
    names = [ROLES[role] for role, holds in has_role.items() if holds]
    if len(baselines) > 1 and baseline not in (None, index):
        names.append(f"{AGAINST}{baseline}")
    return names


def summary_rows(facts: Facts) -> list[int]:
    """Return the rows of the summary, fastest first: recommended, baselines and Pareto set; ten at most."""
    first = [*row_groups.recommended(facts), *row_groups.baselines(facts)]
    rows = list(dict.fromkeys([*first, *facts.pareto]))[:SUMMARY_ROWS]
    if not rows:
        rows = [index for index, row in enumerate(facts.rows) if row.same_model_as is None][:SUMMARY_ROWS]
    return sorted(rows, key=lambda index: (_latency(facts, facts.rows[index]), index))


def _latency(facts: Facts, row: Row) -> float:
    latency = row.times.get(facts.shapes[0], {}).get(LATENCY_MEAN) if facts.shapes else None
    return inf if latency is None else latency.value


def summary(facts: Facts) -> str:
    """Return the table of the summary rows at the first shape; recommended rows are bold."""
    table = _Table(summary_rows(facts))
    _add_row_numbers(table, facts)
    table.add("configuration", [escape(name) for name in row_names(facts)])
    table.add("", [", ".join(roles(facts, index)) for index in range(len(facts.rows))])
    _add_metrics(table, facts)
    if facts.shapes:
        for key, header in TIME_COLUMNS:
            if key in (LATENCY_MEAN, RATIO):
                table.add(header, _time_cells(facts, facts.shapes[0], key), numbers=True)
    _add_size(table, facts)
    for index, line in zip(table.rows, table.cells):
        line[3:] = map(_unbreakable, line[3:])
        if index in row_groups.recommended(facts):
            line[:] = [f"**{cell}**" if cell else "" for cell in line]
    return table.render()


def quality(facts: Facts) -> str:
    """Return the table of all rows with their metrics, other figures and parameters."""
    table = _Table(range(len(facts.rows)))
    _add_row_numbers(table, facts)
    table.add("role", [", ".join(roles(facts, index)) for index in table.rows])
    _add_metrics(table, facts)
    names = dict.fromkeys(name for row in facts.rows for name, figure in row.figures.items() if figure is not None)
    for name in names:
        if name != SIZE or not facts.shapes:
            cells = _cells([row.figures.get(name) for row in facts.rows], facts.rows, _figure_rule(name))
            if name.endswith(P_VALUE):
                cells = [cell.replace("0.0000", figures.BELOW_RESOLUTION) for cell in cells]
            table.add(escape(_figure_header(facts, name)), cells, numbers=True)
    for name in facts.benchmarked:
        table.add(code_span(name), [code_span(write_value(row.parameters[name])) for row in facts.rows])
    return table.render()


def time(facts: Facts, shape: Shape) -> str:
    """Return the table of all rows with their times at one shape, and the sizes of their models."""
    table = _Table(range(len(facts.rows)))
    _add_row_numbers(table, facts)
    table.add("configuration", [escape(name) for name in row_names(facts)])
    for key, header in TIME_COLUMNS:
        if key in (LATENCY_MEAN, THROUGHPUT) or any(row.times.get(shape, {}).get(key) for row in facts.rows):
            table.add(header, _time_cells(facts, shape, key), numbers=True)
    _add_size(table, facts)
    return table.render()


def noise(facts: Facts) -> str:
    """Return the table of the noise certificates."""
    decimals = figures.column_decimals(certificate.ratio for certificate in facts.noise)
    headers = ["batch size", "input length", "models", "rounds", "the baseline against itself"]
    rows = [
        [
            str(certificate.shape.batch_size),
            _number(certificate.shape.input_length),
            str(certificate.models),
            str(certificate.rounds),
            figures.format_figure(certificate.ratio, decimals),
            "; ".join(escape_prose(disturbance.text) for disturbance in certificate.disturbances) or "none",
        ]
        for certificate in facts.noise
    ]
    if any(certificate.baseline is not None for certificate in facts.noise):
        headers.insert(0, NOISE_BASELINE)
        rows = [[_number(certificate.baseline), *row] for certificate, row in zip(facts.noise, rows)]
    return render_table([*(Column(name, "right") for name in headers), Column("disturbances")], rows)


def same_models(facts: Facts) -> str:
    """Return the table of the rows that run the same model as an earlier one, and why; empty without such rows."""
    rows = [
        [str(index), str(row.same_model_as), escape_prose("; ".join(row.reasons))]
        for index, row in enumerate(facts.rows)
        if row.same_model_as is not None
    ]
    headers = [Column("row", "right"), Column("same model as row", "right"), Column("why")]
    return render_table(headers, rows) if rows else ""


def failures(facts: Facts) -> str:
    """Return the table of the rows that failed: the step, the error and its message; empty without such rows."""
    rows = [
        [str(index), escape(row.failure.stage), escape(row.failure.type), escape_prose(row.failure.message)]
        for index, row in enumerate(facts.rows)
        if row.failure is not None
    ]
    headers = [Column("row", "right"), Column("step"), Column("error"), Column("message")]
    return render_table(headers, rows) if rows else ""


def _number(number: int | None) -> str:
    return figures.MISSING if number is None else str(number)


def _add_row_numbers(table: _Table, facts: Facts) -> None:
    table.add("row", [str(index) for index in range(len(facts.rows))], numbers=True)


def _add_metrics(table: _Table, facts: Facts) -> None:
    for metric in facts.metrics:
        cells = _cells([row.metrics.get(metric.name) for row in facts.rows], facts.rows, figures.quality_decimals)
        marked = [f"{cell} {figures.AT_RISK}" if row.saturation_risk else cell for row, cell in zip(facts.rows, cells)]
        header = f"{metric.name} ({metric.unit})" if metric.unit else metric.name
        table.add(escape(header), marked, numbers=True)


def _add_size(table: _Table, facts: Facts) -> None:
    sizes = [row.figures.get(SIZE) for row in facts.rows]
    if any(sizes):
        table.add(SIZE_COLUMN, _cells(sizes, facts.rows, figures.three_digits), numbers=True)


def _figure_header(facts: Facts, name: str) -> str:
    """Return the header of a figure: `accuracy against the baseline` for `accuracy_difference`."""
    if name == SIZE:
        return SIZE_COLUMN
    for metric in facts.metrics:
        ending = name.removeprefix(metric.name)
        if name.startswith(metric.name) and ending in FIGURE_ENDINGS:
            return metric.name + FIGURE_ENDINGS[ending]
    return name


def _figure_rule(name: str) -> DecimalsRule:
    if name in COUNTS:
        return _always(0)
    # In an index of old embeddings a cosine of 0.9996 makes a difference that 1.000 would hide.
    if name == COSINE or name.endswith(P_VALUE):
        return _always(4)
    return figures.quality_decimals if name.endswith("_difference") else figures.three_digits


def time_rule(key: str) -> DecimalsRule:
    """Return the rule for the decimals of a column of times."""
    return _always(2) if key == RATIO else figures.three_digits


def _always(decimals: int) -> DecimalsRule:
    return lambda values: decimals


def _time_cells(facts: Facts, shape: Shape, key: str) -> list[str]:
    times = [row.times.get(shape, {}) for row in facts.rows]
    cells = _cells([figures_of_row.get(key) for figures_of_row in times], facts.rows, time_rule(key))
    if key != RATIO:
        return cells
    baselines = row_groups.baselines(facts)
    return [
        f"{cell}, {figures.NOT_DETECTABLE}" if index not in baselines and is_undetectable(row, shape) else cell
        for index, (row, cell) in enumerate(zip(facts.rows, cells))
    ]


def is_undetectable(row: Row, shape: Shape) -> bool:
    """Return whether a row has a ratio at a shape that does not count as detectable."""
    times = row.times.get(shape, {})
    detectable = times.get(DETECTABLE)
    return times.get(RATIO) is not None and detectable is not None and detectable.value == 0


def _cells(column: Sequence[Interval | None], rows: Sequence[Row], rule: DecimalsRule) -> list[str]:
    decimals = figures.column_decimals(column, rule)
    absent = [figures.MISSING if row.failure is None else figures.FAILED for row in rows]
    return [word if figure is None else figures.format_figure(figure, decimals) for figure, word in zip(column, absent)]


def _unbreakable(cell: str) -> str:
    """Return a cell with no-break spaces inside its interval, so that it is broken before the interval only."""
    value, bracket, rest = cell.partition("[")
    interval, comma, remark = rest.partition("], ")
    return value + bracket + interval.replace(" ", "\N{NO-BREAK SPACE}") + comma + remark
