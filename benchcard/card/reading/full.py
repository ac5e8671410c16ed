"""A full card, parsed into facts: `full.body(read_full_card(lines)) == body`, apart from the picture.

The facts do not contain what the card does not show, such as logs and other percentiles.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import takewhile

import msgspec

from benchcard.card.facts import DISTURBED, OTHERS, Data, Facts, Metric, Noise, Plain, Row
from benchcard.card.layouts import figures, full, full_tables
from benchcard.card.layouts.full_tables import AGAINST, CPU_COLUMNS, DETECTABLE, RATIO, ROLES, SIZE_COLUMNS
from benchcard.card.markdown.inline import parse_code_span, unescape
from benchcard.card.markdown.tables import Table
from benchcard.card.reading import labels
from benchcard.errors import CardError
from benchcard.utils.values import Disturbance, Failure, Interval, Shape

_UNFINISHED = re.compile(rf"{re.escape(full.UNFINISHED)}(\d+) of ")
_DEFINITION = re.compile(rf"(?:(.*?)(?:; |\Z))??({re.escape(full.HIGHER)}|{re.escape(full.LOWER)})?")
_UNIT = re.compile(r"(.*) \(([^()]*)\)")
_TIME_KEYS = {header: key for key, header in (full_tables.TIME_COLUMNS | CPU_COLUMNS).items()}
_TIME_KEYS |= {header: name for name, header in SIZE_COLUMNS.items()}
_TIME_KEYS |= {header: key for columns in full_tables.PHASE_COLUMNS.values() for key, header in columns.items()}
# The title of the notes in cards of benchcard 0.1 and before.
_OLD_NOTES_TITLE = "Of this run:"
# The name of a figure in cards of benchcard 0.1 and before, and the present one.
_OLD_COSINE, _COSINE = "embedding_cosine", "cosine_mean"
# How the texts of disturbances begin, by their kind.
_KINDS = {OTHERS: "others used the processors", DISTURBED: "the machine was disturbed"}


def read_full_card(lines: list[str]) -> Facts:
    """Return the facts of a full card, without its front matter."""
    facts = labels.read_labels(lines)
    tables = labels.find_tables_below(lines, full.QUALITY_TITLE)
    definitions = _definitions(lines)
    metrics, rows, roles = _quality(tables[0], list(facts.benchmarked), definitions)
    comparisons: tuple[Metric, ...] = ()
    if full.COMPARISON_TITLE in lines:
        table = labels.find_tables_below(lines, full.COMPARISON_TITLE)[0]
        comparisons, rows = _comparisons(rows, table, definitions)
    elif any(_OLD_COSINE in row.figures for row in rows):
        comparisons, rows = (Metric(_COSINE, "", True),), [_with_cosine(row) for row in rows]
    shapes = []
    for table in tables:
        if shape := labels.find_shape(lines, table):
            shapes += [] if shape in shapes else [shape]
            rows = _with_times(rows, roles, shape, table)
    for table in tables[1:]:
        rows = _with_remarks(rows, table)
    holders = {role: [index for index, names in enumerate(roles) if word in names] for role, word in ROLES.items()}
    baselines = holders["baseline"]
    if len(baselines) > 1:
        rows = [replace(row, baseline=_baseline(index, roles[index], baselines)) for index, row in enumerate(rows)]
    first = baselines[0] if baselines else None
    further = tuple(index for index in holders["chosen"] if rows[index].baseline not in (None, first))
    unfinished = (match.group(1) for line in lines if (match := _UNFINISHED.match(line)))
    facts = replace(
        facts,
        metrics=metrics,
        comparisons=comparisons,
        shapes=tuple(shapes),
        rows=tuple(rows),
        data=_data(lines),
        baseline=first,
        chosen=min({*holders["chosen"]} - {*further}, default=None),
        further=further,
        cheapest=next(iter(holders["cheapest"]), None),
        pareto=tuple(holders["pareto"]),
        reasons=_sentences(lines, full.REASON_TITLE, full.REASONS_TITLE),
        settings=_parameters(lines, full.SETTINGS_TITLE),
        noise=tuple(noise for table in tables for noise in _noise(table)),
        # In older cards, the bullets are below the heading of the section.
        environment=_parameters(lines, full.MACHINE_TITLE) or _parameters(lines, full.ENVIRONMENT_TITLE),
        run=_parameters(lines, full.RUN_TITLE),
        notes=_sentences(lines, full.NOTES_TITLE, _OLD_NOTES_TITLE),
        needed=_sentences(lines, full.NEEDED_TITLE),
        done=next((labels.parse_count(done, "the number of measured rows") for done in unfinished), None),
    )
    headings = [line for line in lines[: lines.index(full.COMPARED_TITLE)] if line.startswith("## ")]
    heading = unescape(headings[-1].removeprefix("## ")) if headings else ""
    return facts if heading == full.default_title(facts) else replace(facts, title=heading)


def _baseline(index: int, roles: list[str], baselines: Collection[int]) -> int | None:
    """Return which of several baselines a row is compared with."""
    if index in baselines:
        return index
    numbers = (role.removeprefix(AGAINST) for role in roles if role.startswith(AGAINST))
    return next((labels.parse_count(number, f"row {index}, role") for number in numbers), None)


def _parameters(lines: list[str], title: str) -> dict[str, Plain]:
    return labels.nest_bullets(labels.read_bullets(lines, title)) if title in lines else {}


def _sentences(lines: list[str], *titles: str) -> tuple[str, ...]:
    """Return the sentences below the first of the titles that the card has."""
    below = next((lines[lines.index(title) + 1 :] for title in titles if title in lines), [])
    bullets = takewhile(lambda line: line.startswith("* "), below)
    return tuple(unescape(bullet.removeprefix("* ")) for bullet in bullets)


def _data(lines: list[str]) -> Data | None:
    values = _parameters(lines, full.DATA_TITLE)
    if "dataset" not in values:
        return None
    try:
        return msgspec.convert(values, Data)
    except msgspec.ValidationError as error:
        raise CardError(f"the list below {full.DATA_TITLE!r} cannot be read: {error}") from error


def _definitions(lines: list[str]) -> dict[str, Metric]:
    """Return the metrics that the card defines, by name, without their units."""
    metrics = {}
    for _, name, text in labels.read_bullets(lines, full.METRICS_TITLE) if full.METRICS_TITLE in lines else ():
        match = _DEFINITION.fullmatch(text or "")
        definition, direction = match.groups() if match else (text, None)
        higher = None if direction is None else direction == full.HIGHER
        metrics[name] = Metric(name, "", higher, unescape(definition or ""))
    return metrics


def _quality(
    table: Table, names: list[str], definitions: dict[str, Metric]
) -> tuple[tuple[Metric, ...], list[Row], list[list[str]]]:
    """Return the metrics, the rows, and the roles of each row."""
    headers = list(table.headers)
    end = len(headers) - len(names)
    if [parse_code_span(header) for header in headers[end:]] != names or headers[:2] != ["row", "role"]:
        raise CardError("the quality table must begin with row and role and end with the benchmarked parameters")
    metrics: dict[str, Metric] = {}
    keys: list[str] = []
    figure_names = {text: name for name, text in full_tables.figure_headers([]).items()} | {_OLD_COSINE: _OLD_COSINE}
    for header in map(unescape, headers[2:end]):
        key = figure_names.get(header)
        if key is None:
            metric = _metric(header, definitions)
            key = metric.name
            if key in metrics:
                raise CardError(f"the quality table has two columns {key!r}")
            metrics[key] = metric
            figure_names |= {text: name for name, text in full_tables.figure_headers([key]).items()}
        keys.append(key)
    rows = []
    for index, cells in enumerate(table.rows):
        parsed = _figures(index, zip(keys, cells[2:end]))
        rows.append(
            Row(
                parameters={name: labels.parse_span(cell) for name, cell in zip(names, cells[end:])},
                metrics={key: parsed.get(key) for key in metrics},
                figures={key: figure for key, figure in parsed.items() if key not in metrics},
                saturation_risk=any(figures.AT_RISK in cell for cell in cells[2:end]),
            )
        )
    return tuple(metrics.values()), rows, [cells[1].split(", ") for cells in table.rows]


def _metric(header: str, definitions: dict[str, Metric]) -> Metric:
    """Return the metric of a column, with the unit that its header has behind the name."""
    match = None if header in definitions else _UNIT.fullmatch(header)
    name, unit = match.groups() if match else (header, "")
    return replace(definitions.get(name, Metric(name)), unit=unit)


def _comparisons(rows: list[Row], table: Table, definitions: dict[str, Metric]) -> tuple[tuple[Metric, ...], list[Row]]:
    """Return the figures of the table that compares rows with their baseline, and the rows with them."""
    comparisons = tuple(_metric(unescape(header), definitions) for header in table.headers[2:])
    if len(table.rows) != len(rows):
        raise CardError(f"the table below {full.COMPARISON_TITLE!r} has {len(table.rows)} rows, expected {len(rows)}")
    names = [comparison.name for comparison in comparisons]
    return comparisons, [
        replace(row, figures={**row.figures, **_figures(index, zip(names, cells[2:]))})
        for index, (row, cells) in enumerate(zip(rows, table.rows))
    ]


def _with_cosine(row: Row) -> Row:
    """Return a row of an older card with the figure by its present name."""
    figures = {_COSINE if name == _OLD_COSINE else name: figure for name, figure in row.figures.items()}
    return replace(row, figures=figures)


def _with_times(rows: list[Row], roles: list[list[str]], shape: Shape, table: Table) -> list[Row]:
    """Return the rows with the figures of one time table."""
    by_number = {cells[0]: cells for cells in reversed(table.rows)}
    timed = []
    for index, row in enumerate(rows):
        if str(index) not in by_number:
            raise CardError(f"the time table of {shape} has no row {index}")
        row_cells = zip(table.headers[2:], by_number[str(index)][2:])
        cells = {_TIME_KEYS[header]: cell for header, cell in row_cells if header in _TIME_KEYS}
        times = _figures(index, cells.items())
        sizes = {name: times.pop(name) for name in SIZE_COLUMNS if name in times}
        if RATIO in times:
            # The baseline has no mark, although it does not differ from itself.
            is_baseline = ROLES["baseline"] in roles[index]
            times[DETECTABLE] = Interval(float(not is_baseline and figures.NOT_DETECTABLE not in cells[RATIO]))
        all_times = {**row.times, shape: {**row.times.get(shape, {}), **times}}
        timed.append(replace(row, times=all_times, figures={**row.figures, **sizes}))
    return timed


def _with_remarks(rows: list[Row], table: Table) -> list[Row]:
    """Return the rows with what a table of equal models or of failed rows says of them; other tables say nothing."""
    rows = list(rows)
    for cells in table.rows:
        if table.headers[:2] == ("row", "same model as row"):
            index, other = (labels.parse_count(cell, "a row with the same model", len(rows)) for cell in cells[:2])
            reason = unescape("".join(cells[2:3]))
            rows[index] = replace(rows[index], same_model_as=other, reasons=(reason,) if reason else ())
        elif table.headers[:2] == ("row", "step"):
            index = labels.parse_count(cells[0], "a failed row", len(rows))
            rows[index] = replace(rows[index], failure=Failure(*map(unescape, cells[1:4])))
    return rows


def _noise(table: Table) -> list[Noise]:
    """Return the noise certificates of a table; none for another table."""
    several = table.headers[:1] == (full_tables.NOISE_BASELINE,)
    if table.headers[several : several + 1] != ("batch size",):
        return []
    place, has_length = "the noise certificate", full_tables.NOISE_LENGTH in table.headers
    has_phase = full_tables.NOISE_PHASE in table.headers
    has_cpu = full_tables.NOISE_CPU in table.headers
    certificates = []
    for baseline, size, *others in (row if several else (figures.MISSING, *row) for row in table.rows):
        cells = [size, *others] if has_length else [size, figures.MISSING, *others]
        phase = labels.parse_phase(cells.pop(2)) if has_phase and len(cells) > 2 else None
        cells = cells if has_cpu else [*cells[:5], figures.MISSING, *cells[5:]]
        if len(cells) < 7:
            raise CardError(f"{place} has {len(cells) - 1} columns, expected 6")
        row, batch_size, length, models, rounds = (
            None if cell == figures.MISSING else labels.parse_count(cell, place) for cell in (baseline, *cells[:4])
        )
        ratio = figures.parse_figure(cells[4], place)
        if ratio is None:
            raise CardError(f"{place} has no ratio of the baseline to itself")
        cpu_ratio = figures.parse_figure(cells[5], place)
        texts = [] if cells[6] == "none" else map(unescape, cells[6].split("; "))
        disturbances = tuple(
            Disturbance(next((kind for kind, start in _KINDS.items() if text.startswith(start)), ""), text)
            for text in texts
        )
        shape = Shape(batch_size or 0, length, None if phase == figures.MISSING else phase)
        certificates.append(
            Noise(
                shape=shape,
                ratio=ratio,
                models=models or 0,
                rounds=rounds or 0,
                disturbances=disturbances,
                baseline=row,
                cpu_ratio=cpu_ratio,
            )
        )
    return certificates


def _figures(index: int, cells: Iterable[tuple[str, str]]) -> dict[str, Interval]:
    """Return the figures in the cells of a row that have one."""
    parsed = ((key, figures.parse_figure(cell, f"row {index}, {key}")) for key, cell in cells)
    return {key: figure for key, figure in parsed if figure is not None}
