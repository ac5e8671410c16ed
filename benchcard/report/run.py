"""The report of a run: its rows with the figures of the frames, and the text of its card around them."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from benchcard.analysis.frames.columns import interval_columns, to_records, with_bounds
from benchcard.analysis.public_names import public_message
from benchcard.analysis.reasons import format_loss
from benchcard.analysis.run_results import RunResults
from benchcard.card.facts import LATENCY_MEAN, THROUGHPUT, Facts, Row
from benchcard.card.layouts import figures, full, full_tables
from benchcard.card.layouts.full_tables import CHANGED, COST, CPU_RATIO, DETECTABLE, RATIO, SIZE
from benchcard.card.markdown.inline import write_value
from benchcard.metrics.info import FIDELITY, RECOVERY, FidelityLimit
from benchcard.publishing import file_table
from benchcard.publishing.facts import default_slug, make_facts
from benchcard.quantization.outcomes import FAR_DB, Loss
from benchcard.report import page
from benchcard.report.page import BASELINE, OTHER, RECOMMENDED, Column, Filter, Rows
from benchcard.utils.values import Shape

# The figures by which rows are ranked, one of each task, and the other ones.
_LEADING, _FURTHER = list(FIDELITY)[:4], list(FIDELITY)[4:]
# The figures that follow the first metric, where they exist, the most important ones first.
_FIRST_FIGURES = (RECOVERY, *_LEADING, RATIO, CPU_RATIO)
_FIGURES = (
    *(LATENCY_MEAN, "tokens_per_s", "cpu_ms", COST),
    *(SIZE, "size_saved", "bits_per_weight", "memory_mb", "memory_saved"),
    *(THROUGHPUT, "latency_p99_ms", "core_seconds_per_1000", "output_snr_db", *_FURTHER, CHANGED),
)
# Those with a column for each phase of generation. In the phase `token`, throughput is the tokens per second; those of
# prompts are in the column of texts that are read without phases.
_OF_PHASES = {
    "token": (LATENCY_MEAN, "tokens_per_s", "core_seconds_per_1000", COST),
    "prompt": (LATENCY_MEAN, THROUGHPUT, "core_seconds_per_1000", COST),
}
Cells: TypeAlias = Mapping[str, Any]
"""The cells of a row of the frames, by column."""


def to_html(results: RunResults, max_drop: float | None = None, fidelity: FidelityLimit = None) -> str:
    """Return the report as HTML; `max_drop` is how much of the first metric the row to ship may lose, `fidelity` how
    far its outputs may be from the baseline's.
    """
    slug = default_slug(results)
    facts = make_facts(results, max_drop, slug, fidelity)
    files = file_table.section(results, max_drop=max_drop)
    intro, _, details = full.body(facts, slug=slug, usage=files).partition(f"{full.COMPARED_TITLE}\n")
    parts = [
        page.fold("Which layers cost the outputs most", _layers(results, facts)),
        page.fold("Why each row is as it is", _reasons(results)),
        page.from_markdown(full.COMPARED_TITLE + "\n" + details),
    ]
    title = facts.title or full.default_title(facts)
    return page.render(title, page.from_markdown(intro), "All rows", _rows(results, facts, max_drop), "".join(parts))


def _rows(results: RunResults, facts: Facts, max_drop: float | None) -> Rows:
    """Return one row for each configuration and shape."""
    models, quality, times = (to_records(frame) for frame in (results.models, results.quality, results.time))
    cells: list[Cells] = []
    for row, (card_row, model, evaluated) in enumerate(zip(facts.rows, models, quality)):
        for timed in [each for each in times if each["row"] == row] or [{}]:
            cells.append({**model, **evaluated, **timed, **_card_columns(card_row, _shape(timed)), "row": row})
    numbers, phase = [each["row"] for each in cells], facts.shapes[0].phase if facts.shapes else None
    names = full_tables.row_names(facts)
    metrics = {metric.name: metric.higher_is_better for metric in facts.metrics}
    all_names = [name for metric in metrics for name in (metric, f"{metric}_difference")]
    titles = {**full_tables.figure_headers(metrics), **full_tables.TIME_COLUMNS, **full_tables.CPU_COLUMNS}
    columns = page.figure_columns(cells, [*all_names[:1], *_FIRST_FIGURES], metrics, titles)
    columns += _phase_columns(facts, cells, titles)
    others = [_without_phase(each, facts.rows[each["row"]]) for each in cells]
    columns += page.figure_columns(others, [*_FIGURES, *all_names[1:]], metrics, titles)
    unsure = [each.get(DETECTABLE) == 0 and each["row"] not in facts.baselines for each in cells]
    columns = [_marked(column, unsure) if column.title == titles[RATIO] else column for column in columns]
    shapes = [figures.format_shape(shape) if (shape := _shape(each)) else "" for each in cells]
    filters = [Filter("inputs", shapes, required=True)] if len(set(shapes)) > 1 else []
    for name in facts.benchmarked:
        values = [write_value(facts.rows[row].parameters[name]) for row in numbers]
        filters += [Filter(name, values)] if len(set(values)) > 1 else []
    if verdicts := {file.row: file.verdict.name for file in results.describe_files(max_drop=max_drop)}:
        columns.insert(0, Column("verdict", [verdicts.get(row, "") for row in numbers]))
    if filters and filters[0].required:
        columns.insert(0, Column("inputs", shapes))
    return Rows(
        labels=list(map(str, numbers)),
        links=[f"#row-{row}" for row in numbers],
        names=[names[row] for row in numbers],
        roles=[_role(facts, row) for row in numbers],
        kinds=[_kind(facts, row) for row in numbers],
        groups=[f"{facts.rows[row].examples} {facts.baseline_of(row)} {shape}" for row, shape in zip(numbers, shapes)],
        columns=columns,
        filters=filters,
        x={**titles, **full_tables.PHASE_COLUMNS.get(phase or "", {})}[_time_axis(facts)],
        y=_quality_axis(facts),
    )


def _time_axis(facts: Facts) -> str:
    """Return the figure of time or cost that the plot begins with."""
    if facts.machines and facts.cheapest is not None:
        return COST
    return CPU_RATIO if any(full_tables.leads_with_cpu(facts, shape) for shape in facts.shapes) else RATIO


def _quality_axis(facts: Facts) -> str:
    """Return the title of the first metric, or, where all rows have the same, of the leading figure of fidelity."""
    first = facts.metrics[0].name if facts.metrics else ""
    values = {figure.value for row in facts.rows if (figure := row.metrics.get(first))}
    return page.title_of(facts.comparisons[0].name) if facts.comparisons and len(values) < 2 else first


def _marked(ratios: Column, unsure: Sequence[bool]) -> Column:
    """Return the column of ratios, with a mark, as on the card, on those that do not count as detectable."""
    mark = f", {figures.NOT_DETECTABLE}"
    return replace(ratios, cells=[text + mark * (text != "" and no) for text, no in zip(ratios.cells, unsure)])


def _role(facts: Facts, index: int) -> str:
    row, roles = facts.rows[index], full_tables.roles(facts, index)
    failed = [] if row.failure is None else [figures.FAILED]
    same = [] if row.same_model_as is None else [f"same model as row {row.same_model_as}"]
    return ", ".join([*roles, *failed, *same])


def _kind(facts: Facts, row: int) -> str:
    return RECOMMENDED if row in facts.recommended else BASELINE if row in facts.baselines else OTHER


def _shape(cells: Cells) -> Shape | None:
    size, length = cells.get("batch_size"), cells.get("input_length")
    # A column with missing values has lengths as floats.
    tokens, phase = int(length) if isinstance(length, (int, float)) else None, cells.get("phase")
    return Shape(size, tokens, phase if isinstance(phase, str) else None) if isinstance(size, int) else None


def _card_columns(row: Row, shape: Shape | None) -> dict[str, float | None]:
    """Return the figures of the card by column: there, the intervals of ratios hold for all rows at once."""
    times = row.times.get(shape, {}) if shape else {}
    shown = {**row.figures, **row.metrics, **times}
    known = {name: value for name, value in shown.items() if value is not None}
    return {key: cell for name, value in known.items() for key, cell in interval_columns(name, value).items()}


def _phase_columns(facts: Facts, cells: Sequence[Cells], titles: Mapping[str, str]) -> list[Column]:
    """Return the times of each phase of generation under its own headers; a row has those of all phases at its size."""
    columns = []
    for phase, names in _OF_PHASES.items():
        timed = [_in_phase(facts.rows[each["row"]], _shape(each), phase) for each in cells]
        columns += page.figure_columns(timed, names, {}, {**titles, **full_tables.PHASE_COLUMNS[phase]})
    return columns


def _in_phase(row: Row, shape: Shape | None, phase: str) -> Cells:
    """Return the figures of the card in a phase, at the size of a shape; empty without phases."""
    return _card_columns(row, replace(shape, phase=phase)) if shape and shape.phase in _OF_PHASES else {}


def _without_phase(cells: Cells, row: Row) -> Cells:
    """Return the cells of a row without those of columns of a phase, and with the tokens per second of prompts."""
    if not (prompt := _in_phase(row, _shape(cells), "prompt")):
        return cells
    others = {name: value for name, value in cells.items() if name not in _OF_PHASES["prompt"]}
    return {**others, **{name: prompt.get(name) for name in with_bounds("tokens_per_s")}}


def _layers(results: RunResults, facts: Facts) -> str:
    """Return a table of the layers of each model that cost its outputs most, when they alone are quantized."""
    names, lines = full_tables.row_names(facts), []
    for index, record in enumerate(results.records.records):
        losses = record.outcomes.explain
        if losses is None or facts.rows[index].same_model_as is not None:
            continue
        for layer in losses.values.layers:
            texts = [page.cell(text) for text in (str(index), names[index], layer.node, layer.operator)]
            lines.append([*texts, *map(_loss_cell, (layer.effect, losses.values.outputs))])
    titles = ["row", "configuration", "layer", "operator", "outputs if it alone is quantized", "outputs of the row"]
    text = (
        "<p>Signal-to-noise ratio of the outputs against float32. Lower is worse; below "
        f"{FAR_DB:g} dB a classifier's decisions begin to change.</p>"
    )
    return text + page.table(titles, lines) if lines else ""


def _loss_cell(loss: Loss) -> str:
    decibels = math.inf if loss.snr_db is None else loss.snr_db
    return page.cell(format_loss(loss), "number", decibels if loss.is_finite else -math.inf)


def _reasons(results: RunResults) -> str:
    sentences = (public_message(results.records, results.explain(row)) for row in range(len(results.plan)))
    return "\n".join(f'<p id="row-{row}">{_with_code(text)}</p>' for row, text in enumerate(sentences))


def _with_code(text: str) -> str:
    """Return text as HTML, with names in backquotes as code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(text))
