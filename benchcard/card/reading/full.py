"""A full card, read back into facts.

Owns the grammar of the cards that `full` writes: `full.body(read(lines)) == body`, the picture apart. Leaves labels and
parameters to `asked`, cells to `figures`. What the card does not show (logs, other percentiles) is not in the facts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from typing import Any

from benchcard.card.facts import (
    Data,
    Facts,
    Figure,
    Metric,
    Noise,
    Plain,
    Row,
)
from benchcard.card.layouts import figures, full, full_tables
from benchcard.card.layouts.full_tables import AGAINST, DETECTABLE, RATIO, ROLES, SIZE
from benchcard.card.markdown import tables
from benchcard.card.markdown.inline import uncode, unwords
from benchcard.card.reading import labels
from benchcard.errors import CardError
from benchcard.utils.values import Failure, Shape

_UNFINISHED = re.compile(rf"{re.escape(full.UNFINISHED)}(\d+) of ")
_SHAPE = re.compile(r"Below, time metrics for batch size = (\d+)(?:, input length = (\d+))?\.")
_DURATION = re.compile(r"Time benchmarks were run for (\d+(?:\.\d+)?(?:e[+-]?\d+)?) seconds? per config")
_READING = re.compile(rf"(?:(.*?)(?:; |\Z))??({re.escape(full.HIGHER)}|{re.escape(full.LOWER)})?")
_TIME_KEYS = {header: key for key, header in full_tables.TIME_COLUMNS}


def is_full(lines: Sequence[str]) -> bool:
    """Whether the lines are those of a full card."""
    return full.ASKED_TITLE in lines and full.QUALITY_TITLE in lines


def read_full_card(lines: list[str]) -> Facts:
    """The facts that a full card shows, but for its front matter.

    Raises:
        CardError: a part that every card has is missing, or cannot be read; the message says which.
    """
    said = labels.labels(lines)
    start = lines.index(full.QUALITY_TITLE)
    titled = [table for table in tables.find_tables("\n".join(lines)) if table.first_line > start]
    if not titled:
        raise CardError(f"the card has no table under {full.QUALITY_TITLE!r}")
    under = {_above(lines, table): table for table in titled}
    readings = _readings(lines)
    names = list(said["benchmarked"])
    metrics, rows, roles = _quality(titled[0], names, readings)
    shapes = []
    for above, table in under.items():
        match = _SHAPE.search(above)
        if match is not None:
            shapes.append(labels.shape(match))
            by_row = {cells[0]: cells for cells in reversed(table.rows)}
            rows = [
                _with_times(row, shapes[-1], table, number, by_row.get(str(number)), roles[number])
                for number, row in enumerate(rows)
            ]
    for table in titled[1:]:
        rows = _with_remarks(rows, table)
    bases = [index for index, told in enumerate(roles) if ROLES["baseline"] in told]
    own = frozenset(bases)
    rows = [replace(row, baseline=_baseline(index, told, own)) for index, (row, told) in enumerate(zip(rows, roles))]
    first = bases[0] if bases else None
    chosen = [index for index, told in enumerate(roles) if ROLES["chosen"] in told]
    further = tuple(index for index in chosen if rows[index].baseline not in (None, first))
    recommended = sorted({*chosen} - {*further})
    facts = Facts(
        **said,
        metrics=metrics,
        shapes=tuple(shapes),
        duration_s=next((float(match.group(1)) for line in lines if (match := _DURATION.match(line))), None),
        rows=tuple(rows),
        data=_data(lines),
        baseline=first,
        chosen=next(iter(recommended), None),
        further=further,
        pareto=tuple(index for index, told in enumerate(roles) if ROLES["pareto"] in told),
        reasons=_sentences(lines, full.REASONS_TITLE) or _sentences(lines, full.REASONS_TITLES),
        settings=_nested(lines, full.SETTINGS_TITLE),
        noise=tuple(noise for table in titled for noise in _noise(table)),
        environment=_environment(lines),
        run=_nested(lines, full.RUN_TITLE),
        notes=_sentences(lines, full.NOTES_TITLE),
        done=next(
            (labels.whole(m.group(1), "the rows done") for line in lines if (m := _UNFINISHED.match(line))), None
        ),
    )
    heading = _heading(lines)
    return facts if heading == full.title(facts) else replace(facts, title=heading)


def _baseline(index: int, told: list[str], bases: Collection[int]) -> int | None:
    """The row that a row says to be compared with; None where there is one for all."""
    if len(bases) < 2:
        return None
    said = (role.removeprefix(AGAINST) for role in told if role.startswith(AGAINST))
    return index if index in bases else next((labels.whole(row, f"row {index}, role") for row in said), None)


def _heading(lines: list[str]) -> str:
    above = [line for line in lines[: lines.index(full.ASKED_TITLE)] if line.startswith("## ")]
    return unwords(above[-1].removeprefix("## ")) if above else ""


def _above(lines: list[str], table: tables.Table) -> str:
    """The line that says what a table shows; with its number, so that no two are one."""
    return f"{table.first_line}: {tables.line_above(lines, table)}"


def _nested(lines: list[str], title: str) -> dict[str, Plain]:
    return labels.nested(labels.bullets(lines, title)) if title in lines else {}


def _environment(lines: list[str]) -> dict[str, Plain]:
    """The environment's bullets, which an empty line sets off from their heading."""
    if full.ENVIRONMENT_TITLE not in lines:
        return {}
    place = lines.index(full.ENVIRONMENT_TITLE)
    rest = [full.ENVIRONMENT_TITLE, *lines[place + 2 :]]
    return labels.nested(labels.bullets(rest, full.ENVIRONMENT_TITLE))


def _sentences(lines: list[str], title: str) -> tuple[str, ...]:
    if title not in lines:
        return ()
    found = []
    for line in lines[lines.index(title) + 1 :]:
        if not line.startswith("* "):
            break
        found.append(unwords(line.removeprefix("* ")))
    return tuple(found)


def _data(lines: list[str]) -> Data | None:
    told = _nested(lines, full.DATA_TITLE)
    known = {field.name for field in fields(Data)}
    if "dataset" not in told:
        return None
    return Data(**{name: value for name, value in told.items() if name in known})


def _readings(lines: list[str]) -> dict[str, Metric]:
    """What is said of the metrics, by their names."""
    found = {}
    for _, name, text in labels.bullets(lines, full.METRICS_TITLE) if full.METRICS_TITLE in lines else ():
        match = _READING.fullmatch(text or "")
        definition, direction = match.groups() if match else (text, None)
        higher = None if direction is None else direction == full.HIGHER
        found[name] = Metric(name, "", higher, unwords(definition or ""))
    return found


def _quality(
    table: tables.Table, names: list[str], readings: dict[str, Metric]
) -> tuple[tuple[Metric, ...], list[Row], list[list[str]]]:
    """The metrics, the rows, and the roles of each row."""
    headers = list(table.headers)
    end = len(headers) - len(names)
    if [uncode(header) for header in headers[end:]] != names or headers[:2] != ["row", "role"]:
        raise CardError("the table of quality has not the columns of the benchmarked parameters")
    metrics: dict[str, Metric] = {}
    keys: list[tuple[str, bool]] = []
    for header in map(unwords, headers[2:end]):
        key = _figure_key(header, metrics)
        keys.append((key or header, key is not None))
        if key is None:
            name, unit = _unit(header, readings)
            if name in metrics:
                raise CardError(f"the table of quality has two columns {name!r}")
            metrics[name] = replace(readings.get(name, Metric(name)), unit=unit)
            keys[-1] = (name, False)
    rows, roles = [], []
    for number, cells in enumerate(table.rows):
        own: dict[str, Figure | None] = {}
        others: dict[str, Figure | None] = {}
        for (key, is_other), cell in zip(keys, cells[2:end]):
            (others if is_other else own)[key] = figures.parse_figure(cell, f"row {number}, {key}")
        parameters = {name: labels.value(cell) for name, cell in zip(names, cells[end:])}
        risk = any(figures.AT_RISK in cell for cell in cells[2:end])
        rows.append(Row(parameters=parameters, metrics=own, figures=_known(others), saturation_risk=risk))
        roles.append(cells[1].split(", "))
    return tuple(metrics.values()), rows, roles


def _figure_key(header: str, metrics: Collection[str]) -> str | None:
    """The name of a figure that is no metric: `accuracy_difference` for `accuracy against the baseline`."""
    if header == full_tables.SIZE_COLUMN:
        return SIZE
    if header in (*full_tables.COUNTS, full_tables.COSINE):
        return header
    for ending, said in full_tables.FIGURE_ENDINGS.items():
        if header.endswith(said) and (name := header.removesuffix(said)) in metrics:
            return name + ending
    return None


def _unit(header: str, readings: dict[str, Metric]) -> tuple[str, str]:
    match = re.fullmatch(r"(.*) \(([^()]*)\)", header)
    if match is None or header in readings:
        return header, ""
    return match.group(1), match.group(2)


def _with_times(
    row: Row, shape: Shape, table: tables.Table, number: int, cells: Sequence[str] | None, told: list[str]
) -> Row:
    if cells is None:
        raise CardError(f"the table of {shape} has no row {number}")
    times: dict[str, Figure | None] = {}
    size = None
    for header, cell in zip(table.headers[2:], cells[2:]):
        place = f"row {number}, {header}"
        key = _TIME_KEYS.get(header)
        if key is not None:
            times[key] = figures.parse_figure(cell, place)
        elif header == full_tables.SIZE_COLUMN:
            size = figures.parse_figure(cell, place)
        if key == RATIO and times[key] is not None:
            # A baseline bears no mark, and is no other model than itself.
            is_other = ROLES["baseline"] not in told and figures.NOT_DETECTABLE not in cell
            times[DETECTABLE] = Figure(float(is_other))
    known = _known(times)
    sized = row.figures if size is None else {**row.figures, SIZE: size}
    return replace(row, times={**row.times, shape: known}, figures=sized)


def _with_remarks(rows: list[Row], table: tables.Table) -> list[Row]:
    """The rows with what the tables of equal and of failed rows say of them."""
    done = list(rows)
    for cells in table.rows:
        if table.headers[:2] == ("row", "same model as row"):
            index, other = (labels.whole(cell, "a row that is the same model", len(rows)) for cell in cells[:2])
            reason = unwords("".join(cells[2:3]))
            done[index] = replace(done[index], same_model_as=other, reasons=(reason,) if reason else ())
        elif table.headers[:2] == ("row", "step"):
            index = labels.whole(cells[0], "a row without figures", len(rows))
            done[index] = replace(done[index], failure=Failure(*map(unwords, cells[1:4])))
    return done


def _noise(table: tables.Table) -> list[Noise]:
    several = table.headers[:1] == (full_tables.NOISE_BASELINE,)
    if table.headers[several : several + 1] != ("batch size",):
        return []
    found = []
    for baseline, *cells in (row if several else (figures.MISSING, *row) for row in table.rows):
        if len(cells) < 6:
            raise CardError(f"the noise certificate has {len(cells)} columns, and not 6")
        ratio: Any = figures.parse_figure(cells[4], "the noise certificate")
        warnings = () if cells[5] == "none" else tuple(map(unwords, cells[5].split("; ")))
        numbers = (
            None if cell == figures.MISSING else labels.whole(cell, "the noise certificate") for cell in cells[:4]
        )
        batch_size, length, models, rounds = numbers
        shape = Shape(batch_size or 0, length)
        counts = {"models": models or 0, "rounds": rounds or 0}
        place = None if baseline == figures.MISSING else labels.whole(baseline, "the noise certificate, baseline")
        found.append(Noise(shape=shape, ratio=ratio, warnings=warnings, baseline=place, **counts))
    return found


def _known(found: dict[str, Figure | None]) -> dict[str, Figure | None]:
    return {name: figure for name, figure in found.items() if figure is not None}
