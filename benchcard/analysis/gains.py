"""What each row gains over its baseline in one objective: latency, memory or size, with intervals that hold for all
rows at once.

Looking at many rows, some will look better by chance. So intervals of latency ratios are widened to hold together at
95 % (Bonferroni: each at 1 - 0.05 / their number).

Source: O. J. Dunn, Multiple Comparisons Among Means (JASA 56, 1961).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from benchcard.analysis.records import Part, Records
from benchcard.analysis.times import peak_bytes
from benchcard.errors import BenchcardError
from benchcard.run.groups import LAUNCHES
from benchcard.run.record import Record
from benchcard.steps.step import NotRun
from benchcard.utils.text import did_you_mean, join_names
from benchcard.utils.values import Shape

if TYPE_CHECKING:
    from benchcard.utils.values import Interval


OBJECTIVES = ("latency", "memory", "size")
# The type of the failure that stands for a step of which there is no outcome yet.


@dataclass(frozen=True)
class Gain:
    """What a row gains at one shape.

    Attributes:
        ratio: The baseline's latency, memory or size over the row's, above 1 where the row is better; None where it is
            not known.
        sure: Whether it is better beyond chance and noise.
        shape: What it was measured with, as `1x64`; empty for size.
        floor: How far from 1 the noise floor reaches, as a factor above 1; None where none is known.
    """

    ratio: Interval | None
    sure: bool
    shape: str
    floor: float | None = None


@dataclass(frozen=True)
class Gains:
    """The gains of all rows in one objective.

    Attributes:
        objective: `latency`, `memory` or `size`.
        by_row: The gains of each row, one a shape at which its baseline has a figure; rows that have no figures at all
            are left out.
        costs: Latency in ms, memory or size in MB, by row: the geometric mean over shapes.
        method: How the intervals were drawn, in a sentence.
        lost: By baseline, the shapes at which it has no figure, so that no row can be compared with it there.
        waiting: The rows of which figures are still to be measured, where the run is not finished.
    """

    objective: str
    by_row: Mapping[int, tuple[Gain, ...]]
    costs: Mapping[int, float]
    method: str
    lost: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    waiting: frozenset[int] = frozenset()


def gains(records: Records, objective: str, time: Any, models: Any) -> Gains:
    """The gains of all rows in one objective.

    Args:
        records: The records.
        objective: `latency`, `memory` or `size`.
        time: The frame of `Results.time`.
        models: The frame of `Results.models`.

    Raises:
        BenchcardError: There is no such objective.
    """
    if objective not in OBJECTIVES:
        hint = did_you_mean(objective, OBJECTIVES)
        raise BenchcardError(
            f"the objective is `{objective}`; there is {join_names(OBJECTIVES)}" + (f" ({hint})" if hint else "")
        )
    if objective == "size":
        return replace(_sizes(records, models), waiting=waiting(records))
    column = "latency_mean_ms" if objective == "latency" else "memory_mb"
    pairs = list(_pairs(records))
    distinct = {(id(part), name) for _, _, part, name in pairs if part and name != part.baseline}
    by_row: dict[int, list[Gain]] = {}
    for record, shape, part, name in pairs:
        gain = _gain(objective, part, name, shape, max(1, len(distinct)))
        by_row.setdefault(record.configuration.row, []).append(gain)
    for record in records.records:
        for untimed in record.failures.time:
            missing = Gain(None, False, text_of(untimed))
            by_row.setdefault(record.configuration.row, []).append(missing)
    count = len(distinct)
    method = (
        f"ratios hold together at 95 % for {_counted(count)} (Bonferroni)"
        if objective == "latency"
        else "ratios are over all launches, from the least to the most; less is believed of a row in "
        f"{LAUNCHES} launches or more, beyond what any two of the baseline and its twin are apart: of equal models at "
        f"most one in {math.comb(3 * LAUNCHES, LAUNCHES)} seems so"
    )
    method = method if count else "there are no ratios to compare"
    lost = _lost(records, by_row)
    compared = {
        row: tuple(gain for gain in each if gain.ratio or gain.shape not in _at(lost, _baseline(records, row)))
        for row, each in by_row.items()
    }
    known = {row: each for row, each in compared.items() if each}
    return Gains(objective, known, _costs(time, column), method, lost, waiting(records))


def waiting(records: Records) -> frozenset[int]:
    """The rows of which figures are still to be measured: those of a run that was stopped, or goes on. Why a row is as
    it is (`explain`) is no figure.
    """
    found = set()
    for record in records.records:
        row = record.configuration.row
        parts = [records.timed.get((row, shape)) for shape in record.cells]
        stopped = any(isinstance(each, NotRun) for place, each in record.failures.items() if place != "reasons")
        if stopped or any(part is None or part.outcome is None for part in parts):
            found.add(row)
    return frozenset(found)


def _lost(records: Records, by_row: Mapping[int, Sequence[Gain]]) -> dict[int, tuple[str, ...]]:
    """The shapes at which a baseline has no figure, by its row."""
    bases = sorted({row for row in (_baseline(records, each) for each in by_row) if row is not None})
    lost = {row: tuple(gain.shape for gain in by_row.get(row, ()) if gain.ratio is None) for row in bases}
    return {row: shapes for row, shapes in lost.items() if shapes}


def _at(lost: Mapping[int, tuple[str, ...]], baseline: int | None) -> tuple[str, ...]:
    return lost.get(baseline, ()) if baseline is not None else ()


def _baseline(records: Records, row: int) -> int | None:
    return records.records[row].configuration.baseline


def _counted(comparisons: int) -> str:
    return f"all {comparisons} comparisons" if comparisons > 1 else "the one comparison"


def _sizes(records: Records, models: Any) -> Gains:
    from benchcard.utils.values import Interval

    sizes = _costs(models, "size_mb")
    by_row = {}
    for record in records.records:
        row, baseline = record.configuration.row, record.configuration.baseline
        if row in sizes and baseline in sizes:
            ratio = sizes[baseline] / sizes[row]
            by_row[row] = (Gain(Interval(ratio, ratio, ratio), ratio > 1, ""),)
    return Gains("size", by_row, sizes, "sizes are exact")


def _costs(frame: Any, column: str) -> dict[int, float]:
    """The geometric mean of a column by row, for rows that have it everywhere; shapes at which no row has it apart."""
    import numpy as np

    told: dict[int, float] = {}
    if "batch_size" in frame:
        shapes = frame["batch_size"].astype(str) + "x" + frame["input_length"].astype(str)
        frame = frame[shapes.isin(set(shapes[frame[column].notna()]))]
    for row, each in frame.groupby("row")[column]:
        values = each.astype("float64")
        if values.notna().all() and (values > 0).all():
            told[int(row)] = float(np.exp(np.log(values).mean()))
    return told


def _pairs(records: Records) -> Iterator[tuple[Record, str, Part | None, str]]:
    """Every timed cell of every row: the row, the shape in words, the part beside its baseline, and the cell's name."""
    for record in records.records:
        for shape, cell in record.cells.items():
            yield record, text_of(cell.shape), records.timed.get((record.configuration.row, shape)), cell.name


def text_of(shape: Shape) -> str:
    """Return a shape in words: `8x64`, or `8` where there is no length."""
    return f"{shape.batch_size}" + (f"x{shape.input_length}" if shape.input_length else "")


def _gain(objective: str, part: Part | None, name: str, shape: str, comparisons: int) -> Gain:
    from benchcard.measure import intervals, latency
    from benchcard.measure.intervals import CONFIDENCE

    # What a process gave before it died is no figure of its row, nor one to compare others with.
    if part is None or part.baseline is None or part.failure(part.baseline) or part.failure(name):
        return Gain(None, False, shape)
    if objective == "memory":
        return _memory(part, part.baseline, name, shape)
    medians = [latency.block_medians(part.rounds, each) for each in (part.baseline, name)]
    if not medians[0].keys() & medians[1].keys():
        return Gain(None, False, shape)
    ratio = intervals.paired_ratio(medians[0], medians[1], 1 - (1 - CONFIDENCE) / comparisons)
    sure, reach = False, None
    # Where the baseline's twin could not be timed, there is no floor, and nothing is sure.
    with suppress(ValueError):
        floor = latency.noise_floor(part.rounds, part.baseline)
        sure, reach = intervals.detectable(ratio, floor), math.exp(floor.reach)
    return Gain(ratio, sure and name != part.baseline and ratio.value > 1, shape, reach)


def _memory(part: Part, baseline: str, name: str, shape: str) -> Gain:
    """What a row gains in memory: surely, where in enough launches it is further from the baseline than any two
    launches of the baseline and its twin are from each other; then all of its launches took less than all of theirs.
    """
    from benchcard.utils.values import Interval

    first, twin, model = (
        [peak_bytes(part, opened) for opened in part.opened(each, twin=is_twin)]
        for each, is_twin in ((baseline, False), (baseline, True), (name, False))
    )
    equal = [*first, *twin]
    if not first or not model or min(*equal, *model) <= 0:
        return Gain(None, False, shape)
    ratio = Interval(max(first) / max(model), min(equal) / max(model), max(equal) / min(model))
    if min(map(len, (first, twin, model))) < LAUNCHES:
        return Gain(ratio, False, shape)
    floor = max(equal) / min(equal)
    return Gain(ratio, ratio.value > floor, shape, floor)
