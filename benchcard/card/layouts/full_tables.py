"""The tables of a full card: summary, quality, times, noise, rows with the same model, and failed rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import TypeAlias

from benchcard.card.facts import DISTURBED, LATENCY_MEAN, MACHINE, THROUGHPUT, Facts, Metric, Plain, Row
from benchcard.card.layouts import figures
from benchcard.card.layouts.figures import DecimalsRule
from benchcard.card.markdown.inline import code_span, escape, escape_prose, write_value
from benchcard.card.markdown.tables import Column, render_table
from benchcard.utils.text import machine_name
from benchcard.utils.values import Interval, Shape

SUMMARY_ROWS = 10
_QUANTIZES = "apply_quantization"
SIZE = "size_mb"
CHANGED = "predictions_changed"
IN_8_BITS = "nodes_in_8_bits"
NODES = ("nodes_quantized", IN_8_BITS)
SAMPLES = "samples"
COUNTS = (CHANGED, *NODES, SAMPLES)
SIZE_SAVED, MEMORY_SAVED, BITS = "size_saved", "memory_saved", "bits_per_weight"
P_VALUE = "_p_value"
RATIO = "ratio"
COST = "cost_per_million"
CPU_RATIO = "cpu_ratio"
DETECTABLE = "detectable"
ROLES = {"baseline": "baseline", "chosen": "recommended", "cheapest": "cheapest", "pareto": "Pareto"}
# Precedes the number of a row's baseline among its roles, if there are several baselines.
AGAINST = "against row "
TIME_COLUMNS = {
    LATENCY_MEAN: "latency (ms)",
    "latency_p99_ms": "p99 (ms)",
    THROUGHPUT: "throughput (samples/s)",
    "tokens_per_s": "prefill (tokens/s)",
    RATIO: "times as fast as the baseline",
    "memory_mb": "memory (MB)",
    MEMORY_SAVED: "memory saved (%)",
    "device_memory_mb": "GPU memory (MB)",
}
CPU_COLUMNS = {
    CPU_RATIO: "processor time, baseline / row",
    "cpu_ms": "processor time (ms)",
    "core_seconds_per_1000": "core-seconds per 1,000 samples",
    COST: "cost per million samples",
}
PHASE_COLUMNS = {
    "token": {
        LATENCY_MEAN: "time per token (ms)",
        THROUGHPUT: "throughput (tokens/s)",
        "tokens_per_s": "generation (tokens/s)",
        "core_seconds_per_1000": "core-seconds per 1,000 tokens",
        COST: "cost per million tokens",
    },
    "prompt": {
        LATENCY_MEAN: "time to first token (ms)",
        THROUGHPUT: "throughput (prompts/s)",
        "core_seconds_per_1000": "core-seconds per 1,000 prompts",
        COST: "cost per million prompts",
    },
}
"""The headers that figures have instead in the phases of generation."""
SIZE_COLUMNS = {SIZE: "size (MB)", SIZE_SAVED: "size saved (%)", BITS: "bits per weight"}
NOISE_BASELINE = "baseline"
NOISE_LENGTH = "input length"
NOISE_PHASE = "phase"
NOISE_CPU = "by processor time"
# Endings of the names of figures that belong to a metric, and what the header has in their place.
_FIGURE_ENDINGS = {
    "_difference": " against the baseline",
    P_VALUE: " p-value",
    "_detectable_difference": " detectable difference",
}

# Figures that count predictions that changed.
_CHANGES = ("lost", "gained", "swapped")
# The decimals of figures of these names.
_DECIMALS = {
    **dict.fromkeys((*COUNTS, *_CHANGES), 0),
    **dict.fromkeys((RATIO, CPU_RATIO, BITS), 2),
    **dict.fromkeys((SIZE_SAVED, MEMORY_SAVED), 1),
}
# The units of figures whose distance from 1 counts; cards do not show them.
_OF_ONE = ("", "share", "coefficient")

_Column: TypeAlias = tuple[Column, list[str]]
"""A column, and its cells for all rows of the card."""


def row_names(facts: Facts, *, with_machine: bool = True) -> list[str]:
    """Return the short name of each row.

    If two different rows would share a name, all names list all parameters.
    """
    rows = [
        {name: value for name, value in row.parameters.items() if with_machine or name != MACHINE} for row in facts.rows
    ]
    varied = [name for name in facts.benchmarked if len({repr(parameters.get(name)) for parameters in rows}) > 1]
    names = [short_name(parameters, varied, is_quantized(row)) for parameters, row in zip(rows, facts.rows)]
    if len(set(names)) == len({repr(sorted(parameters.items())) for parameters in rows}):
        return names
    return [", ".join(f"{name}={write_value(value)}" for name, value in parameters.items()) for parameters in rows]


def is_quantized(row: Row) -> bool:
    """Return whether the model of a row is quantized, by whomever, as far as the card shows it.

    Only quantized rows have numbers of nodes; those of a framework that reports no kernels may have none.
    """
    return row.parameters.get(_QUANTIZES) is True or any(row.figures.get(name) for name in NODES)


def short_name(parameters: Mapping[str, Plain], varied: Collection[str], quantized: bool = False) -> str:
    """Return the values of a row that distinguish it: `onnxruntime, dynamic, Add+MatMul, per_channel`.

    `quantized` is whether its model is known to be quantized, also where `apply_quantization` does not say so.
    """
    texts = {name: _value_in_name(name, value) for name, value in parameters.items() if name in varied}
    if quantized and texts.get(_QUANTIZES):
        texts[_QUANTIZES] = "already quantized"
    if not any(text for name, text in texts.items() if name != MACHINE):
        texts[""] = "quantized" if quantized or parameters.get(_QUANTIZES) is True else "as it is"
    return ", ".join(filter(None, texts.values()))


def _value_in_name(name: str, value: Plain) -> str:
    if name == "dataset" and isinstance(value, dict):
        value = value.get("name") or value.get("path")
    if name == MACHINE and isinstance(value, dict):
        return machine_name(value)
    # A mapping usually follows from the framework. If not, the names are equal, and all are written in full.
    if value is None or isinstance(value, dict):
        return ""
    if name == _QUANTIZES and isinstance(value, bool):
        return "" if value else "not quantized"
    if isinstance(value, bool):
        return name if value else ""
    if isinstance(value, list):
        return "+".join(map(str, value))
    return value if isinstance(value, str) else f"{name} {value}"


def roles(facts: Facts, index: int) -> list[str]:
    """Return the roles of a row: baseline, recommended, Pareto; and its baseline if there are several baselines."""
    baselines, baseline = facts.baselines, facts.baseline_of(index)
    cheapest = () if facts.cheapest is None else (facts.cheapest,)
    holders = {"baseline": baselines, "chosen": facts.recommended, "cheapest": cheapest, "pareto": facts.pareto}
    names = [ROLES[role] for role, rows in holders.items() if index in rows]
    if len(baselines) > 1 and baseline not in (None, index):
        names.append(f"{AGAINST}{baseline}")
    return names


def pictured(facts: Facts) -> str:
    """Return the figure against which the picture shows quality: cost where all machines have a price, else latency."""
    timed = [row for row in facts.rows if row.time(facts.shapes[0], LATENCY_MEAN)]
    return COST if facts.machines and all(row.time(facts.shapes[0], COST) for row in timed) else LATENCY_MEAN


def summary_rows(facts: Facts) -> list[int]:
    """Return the rows of the summary, fastest first: recommended, baselines and Pareto set; ten at most."""
    cheapest = [] if facts.cheapest is None else [facts.cheapest]
    with_role = dict.fromkeys([*facts.recommended, *cheapest, *facts.baselines, *facts.pareto])
    rows = list(with_role) or [index for index, row in enumerate(facts.rows) if row.same_model_as is None]

    def speed(index: int) -> tuple[float, int]:
        latency = facts.rows[index].time(facts.shapes[0], LATENCY_MEAN) if facts.shapes else None
        return inf if latency is None else latency.value, index

    return sorted(rows[:SUMMARY_ROWS], key=speed)


def summary(facts: Facts) -> str:
    """Return the table of the summary rows at the first shape; recommended rows are bold.

    How close rows are to the baseline and further metrics are last, so that a page cuts off none of the other columns.
    """
    metrics = _metric_columns(facts)
    (header, names), *machines = _configurations(facts)
    names = [f"{name} ({role})" if role else name for name, role in zip(names, _roles(facts))]
    columns = [(header, names), *machines, *metrics[:1]]
    if facts.shapes:
        shape = facts.shapes[0]
        keys = (*([CPU_RATIO] if leads_with_cpu(facts, shape) else []), LATENCY_MEAN, RATIO)
        keys += (COST,) if facts.machines else ()
        columns += [_time_column(facts, shape, key) for key in keys]
        columns += [_time_column(facts, other, LATENCY_MEAN) for other in other_phases(facts)]
    columns += [*_size_columns(facts)[:1], *_comparison_columns(facts)[:2], *metrics[1:]]
    rows = summary_rows(facts)
    columns = [(column, cells) for column, cells in columns if any(cells[row] != figures.MISSING for row in rows)]
    lines = _lines(columns, rows)
    for index, line in zip(rows, lines):
        if index in facts.recommended:
            line[:] = [f"**{cell}**" if cell else "" for cell in line]
    return render_table(_headers(columns), lines)


def other_phases(facts: Facts) -> list[Shape]:
    """Return the shapes that differ from the first one in their phase alone."""
    first = facts.shapes[0]
    return [shape for shape in facts.shapes[1:] if replace(shape, phase=first.phase) == first]


def quality(facts: Facts) -> str:
    """Return the table of all rows with their metrics, other figures and parameters."""
    columns = [(Column("role"), _roles(facts)), *_metric_columns(facts)]
    headers = figure_headers(metric.name for metric in facts.metrics)
    names = dict.fromkeys(name for row in facts.rows for name, figure in row.figures.items() if figure is not None)
    elsewhere = {comparison.name for comparison in facts.comparisons} | ({*SIZE_COLUMNS} if facts.shapes else set())
    for name in names:
        if name not in elsewhere:
            cells = figure_cells(facts, name)
            if name.endswith(P_VALUE):
                cells = [cell.replace("0.0000", figures.BELOW_RESOLUTION) for cell in cells]
            columns.append(_figure_column(escape(headers.get(name, name)), cells))
    for name in facts.benchmarked:
        columns.append((Column(code_span(name)), [code_span(write_value(row.parameters[name])) for row in facts.rows]))
    return render_table(_headers(columns), _lines(columns, range(len(facts.rows))))


def comparisons(facts: Facts) -> str:
    """Return the table of all rows with the figures that compare them with their baseline; empty where none exist."""
    names = [escape(name) for name in row_names(facts)]
    columns = [(Column("configuration"), names), *_comparison_columns(facts)]
    return render_table(_headers(columns), _lines(columns, range(len(facts.rows)))) if facts.comparisons else ""


def time(facts: Facts, shape: Shape) -> str:
    """Return the table of all rows with their times at one shape, and the sizes of their models."""
    # Throughput counts the same as tokens per second where a call makes one token.
    hidden = (THROUGHPUT,) if shape.tokens == 1 and shape.phase else ()
    always = (LATENCY_MEAN, THROUGHPUT)
    shown = [CPU_RATIO] if leads_with_cpu(facts, shape) else []
    shown += [key for key in TIME_COLUMNS if key not in hidden and (key in always or _has_time(facts, shape, key))]
    columns = [*_configurations(facts), *(_time_column(facts, shape, key) for key in shown), *_size_columns(facts)]
    return render_table(_headers(columns), _lines(columns, range(len(facts.rows))))


def processor_time(facts: Facts, shape: Shape) -> str:
    """Return the table of all rows with their processor times at one shape; empty where none is known."""
    shown = [key for key in CPU_COLUMNS if _has_time(facts, shape, key)]
    columns = [*_configurations(facts), *(_time_column(facts, shape, key) for key in shown)]
    return render_table(_headers(columns), _lines(columns, range(len(facts.rows)))) if shown else ""


def leads_with_cpu(facts: Facts, shape: Shape) -> bool:
    """Return whether the ratio of processor time comes first, because the machine was disturbed at this shape."""
    kinds = {each.kind for noise in facts.noise if noise.shape == shape for each in noise.disturbances}
    return DISTURBED in kinds and _has_time(facts, shape, CPU_RATIO)


def _has_time(facts: Facts, shape: Shape, key: str) -> bool:
    return any(row.time(shape, key) for row in facts.rows)


def noise(facts: Facts) -> str:
    """Return the table of the noise certificates."""
    has_cpu = any(certificate.cpu_ratio for certificate in facts.noise)
    has_length = any(certificate.shape.input_length is not None for certificate in facts.noise)
    has_phase = any(certificate.shape.phase for certificate in facts.noise)
    sizes = ["batch size", *([NOISE_LENGTH] if has_length else []), *([NOISE_PHASE] if has_phase else [])]
    headers = [*sizes, "models", "rounds", "the baseline against itself"]
    headers += [NOISE_CPU] if has_cpu else []
    rows = [
        [
            str(certificate.shape.batch_size),
            *([_number(certificate.shape.input_length)] if has_length else []),
            *([certificate.shape.remark.strip(" ()") or figures.MISSING] if has_phase else []),
            str(certificate.models),
            str(certificate.rounds),
            ratio,
            *([cpu_ratio] if has_cpu else []),
            "; ".join(escape_prose(disturbance.text) for disturbance in certificate.disturbances) or "none",
        ]
        for certificate, (ratio, cpu_ratio) in zip(facts.noise, noise_ratios(facts))
    ]
    if any(certificate.baseline is not None for certificate in facts.noise):
        headers.insert(0, NOISE_BASELINE)
        rows = [[_number(certificate.baseline), *row] for certificate, row in zip(facts.noise, rows)]
    return render_table([*(Column(name, "right") for name in headers), Column("disturbances")], rows)


def noise_ratios(facts: Facts) -> list[tuple[str, str]]:
    """Return for each noise certificate the baseline against itself, by latency and by processor time."""
    ratios, cpu_ratios = ([getattr(each, name) for each in facts.noise] for name in (RATIO, CPU_RATIO))
    decimals, cpu_decimals = map(figures.column_decimals, (ratios, cpu_ratios))
    return [
        (figures.format_figure(ratio, decimals), _figure(cpu_ratio, cpu_decimals))
        for ratio, cpu_ratio in zip(ratios, cpu_ratios)
    ]


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


def figure_headers(metrics: Iterable[str]) -> dict[str, str]:
    """Return the headers of figures: `accuracy against the baseline` for `accuracy_difference`."""
    of_metrics = {metric + ending: metric + suffix for metric in metrics for ending, suffix in _FIGURE_ENDINGS.items()}
    return {**SIZE_COLUMNS, **{name: name for name in COUNTS}, **of_metrics}


def metric_cells(facts: Facts, name: str) -> list[str]:
    """Return the cells of a metric."""
    return _cells(facts, [row.metrics.get(name) for row in facts.rows], figures.quality_decimals)


def figure_cells(facts: Facts, name: str) -> list[str]:
    """Return the cells of another figure."""
    return _cells(facts, [row.figures.get(name) for row in facts.rows], decimals_rule(name))


def time_cells(facts: Facts, shape: Shape, key: str) -> list[str]:
    """Return the cells of a figure of time."""
    return _cells(facts, [row.time(shape, key) for row in facts.rows], decimals_rule(key))


def decimals_rule(name: str) -> DecimalsRule:
    """Return the rule for the decimals of a figure other than a metric."""
    if name in _DECIMALS:
        return lambda values: _DECIMALS[name]
    if name.endswith(P_VALUE):
        return lambda values: 4
    return figures.quality_decimals if name.endswith("_difference") else figures.three_digits


def format_comparison(figure: Interval, name: str, unit: str) -> str:
    """Return a figure that compares a row with its baseline; without a rule, each has three significant digits."""
    if unit in _OF_ONE and name not in _DECIMALS:
        return figures.near_one(figure)
    return figures.format_figure(figure, 1 if unit == "%" else _DECIMALS.get(name))


def is_undetectable(row: Row, shape: Shape) -> bool:
    """Return whether a row has a ratio at a shape that does not count as detectable."""
    detectable = row.time(shape, DETECTABLE)
    return row.time(shape, RATIO) is not None and detectable is not None and detectable.value == 0


def _lines(columns: Sequence[_Column], rows: Sequence[int]) -> list[list[str]]:
    return [[str(row), *(cells[row] for _, cells in columns)] for row in rows]


def _headers(columns: Sequence[_Column]) -> list[Column]:
    return [Column("row", "right"), *(column for column, _ in columns)]


def _configurations(facts: Facts) -> list[_Column]:
    """Return the column of configurations, and that of machines where there are several."""
    names = [escape(name) for name in row_names(facts, with_machine=not facts.machines)]
    machines = [(Column("machine"), [escape(name) for name in facts.machines])] if facts.machines else []
    return [(Column("configuration"), names), *machines]


def _roles(facts: Facts) -> list[str]:
    return [", ".join(roles(facts, index)) for index in range(len(facts.rows))]


def _metric_columns(facts: Facts) -> list[_Column]:
    columns = []
    for metric in facts.metrics:
        cells = metric_cells(facts, metric.name)
        marked = [f"{cell} {figures.AT_RISK}" if row.saturation_risk else cell for row, cell in zip(facts.rows, cells)]
        columns.append(_figure_column(_header_of(metric), marked))
    return columns


def _comparison_columns(facts: Facts) -> list[_Column]:
    columns = []
    for figure in facts.comparisons:
        column = [row.figures.get(figure.name) for row in facts.rows]
        cells = _written(facts, column, partial(format_comparison, name=figure.name, unit=figure.unit))
        columns.append(_figure_column(_header_of(figure), cells))
    return columns


def _header_of(metric: Metric) -> str:
    return escape(f"{metric.name} ({metric.unit})" if metric.unit else metric.name)


def _time_column(facts: Facts, shape: Shape, key: str) -> _Column:
    cells = time_cells(facts, shape, key)
    if key == RATIO:
        baselines = facts.baselines
        for index, row in enumerate(facts.rows):
            if index not in baselines and is_undetectable(row, shape):
                cells[index] += f", {figures.NOT_DETECTABLE}"
    return _figure_column((TIME_COLUMNS | CPU_COLUMNS | PHASE_COLUMNS.get(shape.phase or "", {}))[key], cells)


def _size_columns(facts: Facts) -> list[_Column]:
    """Return the columns of sizes, what they save and bits per weight, as far as there are any; sizes first."""
    known = {name for row in facts.rows for name in SIZE_COLUMNS if row.figures.get(name)}
    return [
        (Column(header, "right"), figure_cells(facts, name)) for name, header in SIZE_COLUMNS.items() if name in known
    ]


def _figure(figure: Interval | None, decimals: int) -> str:
    return figures.MISSING if figure is None else figures.format_figure(figure, decimals)


def _number(number: int | None) -> str:
    return figures.MISSING if number is None else str(number)


def _cells(facts: Facts, column: Sequence[Interval | None], rule: DecimalsRule) -> list[str]:
    return _written(facts, column, partial(figures.format_figure, decimals=figures.column_decimals(column, rule)))


def _written(facts: Facts, column: Sequence[Interval | None], write: Callable[[Interval], str]) -> list[str]:
    absent = [figures.MISSING if row.failure is None else figures.FAILED for row in facts.rows]
    return [word if figure is None else write(figure) for figure, word in zip(column, absent)]


def _figure_column(header: str, cells: Sequence[str]) -> _Column:
    return Column(header, "right"), list(map(_unbreakable, cells))


def _unbreakable(cell: str) -> str:
    """Return a cell with no-break spaces inside its interval, so that it is broken before the interval only."""
    value, bracket, rest = cell.partition("[")
    interval, comma, remark = rest.partition("], ")
    return value + bracket + interval.replace(" ", "\N{NO-BREAK SPACE}") + comma + remark
