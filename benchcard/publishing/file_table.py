"""The table of model files on a card: what each file is, how good and how fast, and when to use it.

A card that is pushed with models has it, and that of an audit. The figures and verdicts are left to `analysis.files`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchcard.analysis.files import ModelFile, evaluated_examples
from benchcard.analysis.run_results import RunResults
from benchcard.card.layouts import figures
from benchcard.card.layouts.full_tables import CPU_COLUMNS, CPU_RATIO, RATIO, TIME_COLUMNS, format_comparison
from benchcard.card.markdown.inline import code_span, escape, escape_prose
from benchcard.card.markdown.tables import Column, render_table
from benchcard.metrics.info import FIDELITY
from benchcard.utils.values import Interval

TITLE = "### Model files"


def section(
    results: RunResults, files: Mapping[int, tuple[str, Path]] | None = None, max_drop: float | None = None
) -> str:
    """Return the section with the table of the files of rows, by default of those that were audited; empty without any.

    `files` has their paths in the repository and on this machine, by row.
    """
    described = results.describe_files(files, max_drop)
    if not described:
        return ""
    metric = next(iter(results.metrics), "")
    why = [
        f"* {code_span(file.name)} is {file.verdict.name}: {escape_prose(file.verdict.why)}"
        for file in described
        if file.verdict.why
    ]
    examples = evaluated_examples(results.records)
    intro = [f"Evaluated on {escape_prose(str(examples))}.", ""] if examples else []
    return "\n".join([TITLE, "", *intro, _table(described, metric), "", *([*why, ""] if why else [])])


def _table(files: Sequence[ModelFile], metric: str) -> str:
    leading = next((file.leading for file in files if file.leading), None)
    qualities = [file.quality for file in files]
    columns: list[tuple[str, list[str]]] = [
        ("bits", [f"{file.weights.bits_per_weight:.1f}" if file.weights else "" for file in files]),
        ("size (MB)", ["" if file.size_bytes is None else f"{file.size_bytes / 1e6:.3g}" for file in files]),
        (escape(metric), _cells(qualities, figures.column_decimals(qualities, figures.quality_decimals))),
    ]
    if leading is not None:
        unit, fidelity = FIDELITY[leading].unit or "", [file.fidelity.get(leading) for file in files]
        cells = ["" if figure is None else format_comparison(figure, leading, unit) for figure in fidelity]
        columns.append((escape(leading), cells))
    ratios = _cells([file.ratio for file in files], 2)
    mark = f", {figures.NOT_DETECTABLE}"
    ratios = [f"{cell}{mark * (cell != '' and not file.is_detectable)}" for cell, file in zip(ratios, files)]
    columns.append((TIME_COLUMNS[RATIO], ratios))
    columns.append((CPU_COLUMNS[CPU_RATIO], _cells([file.cpu_ratio for file in files], 2)))
    # A column without any figure says nothing, as the ratio of a run without timing.
    columns = [(name, cells) for name, cells in columns if any(cells)]
    headers = [
        Column("file"),
        Column("row", "right"),
        Column("weights"),
        *(Column(name, "right") for name, _ in columns),
    ]
    headers += [Column("verdict"), Column("when to use it")]
    rows = []
    for index, file in enumerate(files):
        dtype = file.weights.dtype if file.weights else ""
        figures_of_file = (cells[index] for _, cells in columns)
        rows.append(
            [code_span(file.name), str(file.row), dtype, *figures_of_file, file.verdict.name, ", ".join(file.uses)]
        )
    return render_table(headers, rows)


def _cells(values: Sequence[Interval | None], decimals: int | None) -> list[str]:
    return ["" if value is None else figures.format_figure(value, decimals) for value in values]
