"""The tables of a full card: the summary, quality, time, noise, rows of one model, and rows that failed.

Owns their columns and cells, and the short name of a row. Leaves the text around them to `full`, reading them to
`read_full`, and digits to `figures`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf

from benchcard.card.facts import (
    LATENCY_MEAN,
    THROUGHPUT,
    Facts,
    Figure,
    Plain,
    Row,
)
from benchcard.card.layouts import figures, row_groups
from benchcard.card.markdown.inline import code, prose, words, write_value
from benchcard.card.markdown.tables import Column, render_table
from benchcard.utils.values import Shape

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
# Said of a row, before the number of its baseline, where there are several.
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
"""How figures that belong to a metric are called in a header."""

_Cells = list[str]


def labels(facts: Facts) -> list[str]:
    """A short name of each row: the values that tell it from others, `onnxruntime, dynamic, Add+MatMul, per_channel`.

    Where two rows would have one name, all have their parameters in full.
    """
    varied = {name: len({repr(row.parameters[name]) for row in facts.rows}) > 1 for name in facts.benchmarked}
    short = [
        ", ".join(_told(row.parameters, varied))
        or ("quantized" if row.parameters.get("apply_quantization") is True else "as it is")
        for row in facts.rows
    ]
    if len(set(short)) == len({repr(sorted(row.parameters.items())) for row in facts.rows}):
        return short
    return [", ".join(f"{name}={write_value(value)}" for name, value in row.parameters.items()) for row in facts.rows]


def _told(parameters: Mapping[str, Plain], varied: Mapping[str, bool]) -> list[str]:
    told = []
    for name, value in parameters.items():
        # Arguments that follow from the framework tell nothing more: where they do, the names above collide.
        if not varied.get(name) or value is None or isinstance(value, dict):
            continue
        if isinstance(value, bool):
            no = "not quantized" if name == "apply_quantization" else ""
            text = no if not value else "" if name == "apply_quantization" else name
        elif isinstance(value, list):
            text = "+".join(map(str, value))
        else:
            text = str(value) if isinstance(value, str) else f"{name} {value}"
        told += [text] if text else []
    return told


def roles(facts: Facts, index: int) -> list[str]:
    """What a row is: a baseline, a recommended one, one of the Pareto set; of several baselines, whose row it is."""
    bases, mine = row_groups.baselines(facts), row_groups.baseline_of(facts, index)
    named = {
        "baseline": index in bases,
        "chosen": index in row_groups.recommended(facts),
        "pareto": index in facts.pareto,
    }
    told = [ROLES[name] for name, is_it in named.items() if is_it]
    return told if len(bases) < 2 or mine in (None, index) else [*told, f"{AGAINST}{mine}"]


def summary_rows(facts: Facts) -> list[int]:
    """The rows of the summary: recommended, baselines and Pareto set, ten at the most, the fastest first."""
    first = [*row_groups.recommended(facts), *row_groups.baselines(facts)]
    listed = list(dict.fromkeys([*first, *facts.pareto]))[:SUMMARY_ROWS]
    if not listed:
        listed = [index for index, row in enumerate(facts.rows) if row.same_model_as is None][:SUMMARY_ROWS]
    return sorted(listed, key=lambda index: (_latency(facts, facts.rows[index]), index))


def _latency(facts: Facts, row: Row) -> float:
    found = row.times.get(facts.shapes[0], {}).get(LATENCY_MEAN) if facts.shapes else None
    return inf if found is None else found.value


def summary(facts: Facts) -> str:
    """Baselines, Pareto set and recommended rows, these bold, at the first shape."""
    names, listed = labels(facts), summary_rows(facts)
    columns = [Column("row", "right"), Column("configuration"), Column("")]
    cells = [[str(index), words(names[index]), ", ".join(roles(facts, index))] for index in listed]
    for metric in facts.metrics:
        columns.append(Column(words(_with_unit(metric.name, metric.unit)), "right"))
        _add(cells, _metric_cells(facts, metric.name), listed)
    if facts.shapes:
        for key, header in TIME_COLUMNS:
            if key in (LATENCY_MEAN, RATIO):
                columns.append(Column(header, "right"))
                _add(cells, _time_cells(facts, facts.shapes[0], key), listed)
    if any(row.figures.get(SIZE) for row in facts.rows):
        columns.append(Column(SIZE_COLUMN, "right"))
        _add(cells, _size_cells(facts), listed)
    settled = [[*line[:3], *map(_unbroken, line[3:])] for line in cells]
    bold = [
        [f"**{cell}**" if cell else "" for cell in line] if index in row_groups.recommended(facts) else line
        for index, line in zip(listed, settled)
    ]
    return render_table(columns, bold)


def quality(facts: Facts) -> str:
    """All rows with their metrics, what else was found out about them, and their parameters."""
    columns = [Column("row", "right"), Column("role")]
    cells = [[str(index), ", ".join(roles(facts, index))] for index in range(len(facts.rows))]
    every = range(len(facts.rows))
    for metric in facts.metrics:
        columns.append(Column(words(_with_unit(metric.name, metric.unit)), "right"))
        _add(cells, _metric_cells(facts, metric.name), every)
    known = dict.fromkeys(name for row in facts.rows for name, figure in row.figures.items() if figure is not None)
    for name in known:
        if name != SIZE or not facts.shapes:
            columns.append(Column(words(_figure_header(facts, name)), "right"))
            rule = _FIGURE_RULES.get(name, figures.significant)
            if name.endswith("_difference"):
                rule = figures.of_quality
            if name.endswith(P_VALUE):
                rule = _four
            found = [row.figures.get(name) for row in facts.rows]
            told = _cells(found, facts.rows, rule, whole=name in COUNTS)
            if name.endswith(P_VALUE):
                told = [cell.replace("0.0000", figures.BELOW_RESOLUTION) for cell in told]
            _add(cells, told, every)
    for name in facts.benchmarked:
        columns.append(Column(code(name)))
        _add(cells, [code(write_value(row.parameters[name])) for row in facts.rows], every)
    return render_table(columns, cells)


def time(facts: Facts, shape: Shape) -> str:
    """All rows with their times at one shape, and the size of their models."""
    columns = [Column("row", "right"), Column("configuration")]
    cells = [[str(index), words(name)] for index, name in enumerate(labels(facts))]
    every = range(len(facts.rows))
    for key, header in TIME_COLUMNS:
        if key in (LATENCY_MEAN, THROUGHPUT) or any(row.times.get(shape, {}).get(key) for row in facts.rows):
            columns.append(Column(header, "right"))
            _add(cells, _time_cells(facts, shape, key), every)
    if any(row.figures.get(SIZE) for row in facts.rows):
        columns.append(Column(SIZE_COLUMN, "right"))
        _add(cells, _size_cells(facts), every)
    return render_table(columns, cells)


def noise(facts: Facts) -> str:
    """The noise certificates."""
    ratios = [each.ratio for each in facts.noise]
    places = figures.decimals(ratios)
    several = any(each.baseline is not None for each in facts.noise)
    rows = [
        [
            *([figures.MISSING if each.baseline is None else str(each.baseline)] if several else []),
            str(each.shape.batch_size),
            figures.MISSING if each.shape.input_length is None else str(each.shape.input_length),
            str(each.models),
            str(each.rounds),
            figures.format_figure(each.ratio, places),
            "; ".join(prose(warning) for warning in each.warnings) or "none",
        ]
        for each in facts.noise
    ]
    right = (
        *((NOISE_BASELINE,) if several else ()),
        "batch size",
        "input length",
        "models",
        "rounds",
        "the baseline against itself",
    )
    return render_table([*(Column(name, "right") for name in right), Column("disturbances")], rows)


def same_models(facts: Facts) -> str:
    """The rows that run the same model as an earlier one, and why; empty where there are none."""
    rows = [
        [str(index), str(row.same_model_as), prose("; ".join(row.reasons))]
        for index, row in enumerate(facts.rows)
        if row.same_model_as is not None
    ]
    headers = [Column("row", "right"), Column("same model as row", "right"), Column("why")]
    return render_table(headers, rows) if rows else ""


def failures(facts: Facts) -> str:
    """The rows that failed, at which step, and why; empty where there are none."""
    rows = [
        [str(index), words(row.failure.stage), words(row.failure.type), prose(row.failure.message)]
        for index, row in enumerate(facts.rows)
        if row.failure is not None
    ]
    return (
        render_table([Column("row", "right"), Column("step"), Column("error"), Column("what it said")], rows)
        if rows
        else ""
    )


def _with_unit(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _figure_header(facts: Facts, name: str) -> str:
    """A figure's header: `accuracy against the baseline` for `accuracy_difference`."""
    if name == SIZE:
        return SIZE_COLUMN
    for metric in facts.metrics:
        ending = name.removeprefix(metric.name)
        if name.startswith(metric.name) and ending in FIGURE_ENDINGS:
            return metric.name + FIGURE_ENDINGS[ending]
    return name


def _metric_cells(facts: Facts, name: str) -> _Cells:
    cells = _cells([row.metrics.get(name) for row in facts.rows], facts.rows, figures.of_quality)
    return [f"{cell} {figures.AT_RISK}" if row.saturation_risk else cell for row, cell in zip(facts.rows, cells)]


def _size_cells(facts: Facts) -> _Cells:
    return _cells([row.figures.get(SIZE) for row in facts.rows], facts.rows)


def _time_cells(facts: Facts, shape: Shape, key: str) -> _Cells:
    found = [row.times.get(shape, {}) for row in facts.rows]
    cells = _cells([times.get(key) for times in found], facts.rows, rule_of(key))
    if key != RATIO:
        return cells
    bases = row_groups.baselines(facts)
    hidden = [
        times.get(RATIO) is not None and _is_zero(times.get(DETECTABLE)) and index not in bases
        for index, times in enumerate(found)
    ]
    return [f"{cell}, {figures.NOT_DETECTABLE}" if is_hidden else cell for cell, is_hidden in zip(cells, hidden)]


def rule_of(key: str) -> Callable[[Sequence[float]], int]:
    """How many decimals a column of times has."""
    return _two if key == RATIO else figures.significant


def _two(values: Sequence[float]) -> int:
    return 2


def _four(values: Sequence[float]) -> int:
    return 4


# A cosine of 0.9996 is not 1.000: whoever searches an index of old embeddings sees the difference.
_FIGURE_RULES = {COSINE: _four}


def _is_zero(figure: Figure | None) -> bool:
    return figure is not None and figure.value == 0


def _cells(
    found: Sequence[Figure | None],
    rows: Sequence[Row],
    rule: Callable[[Sequence[float]], int] = figures.significant,
    *,
    whole: bool = False,
) -> _Cells:
    places = 0 if whole else figures.decimals(found, rule)
    return [
        figures.format_figure(figure, places)
        if figure is not None
        else figures.MISSING
        if row.failure is None
        else figures.FAILED
        for figure, row in zip(found, rows)
    ]


def _unbroken(cell: str) -> str:
    """A cell whose interval stays on one line, below its figure where there is no room beside it."""
    value, bracket, rest = cell.partition("[")
    interval, comma, remark = rest.partition("], ")
    return value + bracket + interval.replace(" ", "\N{NO-BREAK SPACE}") + comma + remark


def _add(cells: list[_Cells], column: _Cells, indices: Sequence[int]) -> None:
    for line, index in zip(cells, indices):
        line.append(column[index])
