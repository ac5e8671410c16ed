"""Gains: the ratio of each row to its baseline in latency, memory or size, with intervals that hold for all rows at
once.

Among many rows some look better by chance. So the intervals of latency ratios are widened to hold together at 95 %
(Bonferroni: each at 1 - 0.05 / their number).

Source: O. J. Dunn, Multiple Comparisons Among Means (JASA 56, 1961).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import geometric_mean

import pandas as pd

from benchcard.analysis.records import Part, Records
from benchcard.errors import BenchcardError
from benchcard.measure.intervals import CONFIDENCE, paired_ratios
from benchcard.run.groups import LAUNCHES
from benchcard.steps.step import NotRun
from benchcard.utils.text import did_you_mean, join_names
from benchcard.utils.values import Interval, Shape

COSTS = {"latency": "latency_mean_ms", "memory": "memory_mb", "size": "size_mb"}
"""The column of the frames `time` and `models` that has the cost in each objective."""


@dataclass(frozen=True)
class Gain:
    """What a row gains at one shape.

    `ratio` is the baseline's figure over the row's, above 1 where the row is better, which is `sure` beyond chance and
    noise. `floor` is how far two launches of the baseline differ in memory, as a factor; `doubt` says why no latency of
    the run can be sure. `cpu_ratio` is the ratio of processor time, beside that of latency.
    """

    ratio: Interval | None
    sure: bool
    shape: Shape | None
    floor: float | None = None
    doubt: str = ""
    cpu_ratio: Interval | None = None


@dataclass(frozen=True)
class Gains:
    """The gains of all rows in one objective.

    Attributes:
        by_row: The gains of each row with figures, one for each shape at which its baseline has a figure.
        costs: Latency in ms, memory or size in MB, by row: the geometric mean over shapes.
        method: How the intervals were computed, in a sentence.
        untimed_shapes: By baseline, the shapes at which it has no figure, so that no row can be compared there.
        unfinished: The rows that have figures to be measured, where the run is not finished.
        differ: Whether two rows differ detectably, by their own ratio; None where that is not known.
        phase: The phase of generation that they are limited to, if any.
    """

    objective: str
    by_row: Mapping[int, tuple[Gain, ...]]
    costs: Mapping[int, float]
    method: str
    untimed_shapes: Mapping[int | None, tuple[Shape, ...]] = field(default_factory=dict)
    unfinished: frozenset[int] = frozenset()
    differ: Callable[[int, int], bool | None] = lambda row, other: None
    phase: str | None = None

    def is_same(self, row: int, other: int) -> bool:
        """Return whether there is no detectable difference between two rows; by their gains, where their own ratio is
        not known.
        """
        differ = self.differ(row, other)
        if differ is not None:
            return not differ
        first, second = (mean_ratio(self.by_row[each]) for each in (row, other))
        bounds = [bound for ratio in (first, second) for bound in (ratio.low, ratio.high) if bound is not None]
        return len(bounds) == 4 and bounds[0] <= bounds[3] and bounds[2] <= bounds[1]


def compute_gains(
    records: Records, objective: str, time: pd.DataFrame, models: pd.DataFrame, phase: str | None = None
) -> Gains:
    """Return the gains of all rows in `latency`, `memory` or `size`, from the frames `time` and `models` of results.

    With a `phase`, they are those in this phase alone. Their intervals hold together with those in the others.

    Raises:
        BenchcardError: There is no such objective.
    """
    if objective not in COSTS:
        hint = did_you_mean(objective, COSTS)
        message = f"the objective is `{objective}`; it must be {join_names(COSTS)}"
        raise BenchcardError(f"{message} ({hint})" if hint else message)
    unfinished = unfinished_rows(records)
    if phase is not None and "phase" in time:
        time = time[time["phase"].isin([phase, None]) | time["phase"].isna()]
    costs = _mean_by_row(models if objective == "size" else time, COSTS[objective])
    if objective == "size":
        return Gains(objective, _size_gains(records, costs), costs, "sizes are exact", unfinished=unfinished)
    # Rows that share a cell are one comparison.
    compared_cells = {
        (id(part), cell.name)
        for (row, shape), part in records.timed.items()
        if (cell := records.records[row].cells[shape]).name != part.baseline
    }
    gains: dict[int | None, list[Gain]] = {}
    for record in records.records:
        row = record.configuration.row
        gains[row] = [
            _gain(objective, records.timed.get((row, shape)), cell.name, cell.shape, max(1, len(compared_cells)))
            for shape, cell in record.cells.items()
            if _is_in(shape, phase)
        ]
        gains[row] += [Gain(None, False, shape) for shape in record.failures.time if _is_in(shape, phase)]
    by_row: dict[int, tuple[Gain, ...]] = {}
    untimed: dict[int | None, tuple[Shape, ...]] = {}
    for record in records.records:
        row, baseline = record.configuration.row, record.configuration.baseline
        shapes = tuple(gain.shape for gain in gains.get(baseline, ()) if gain.ratio is None and gain.shape)
        if shapes:
            untimed[baseline] = shapes
        if compared := tuple(gain for gain in gains[row] if gain.ratio or gain.shape not in shapes):
            by_row[row] = compared
    differ = partial(_latencies_differ if objective == "latency" else _not_known, records, phase=phase)
    return Gains(objective, by_row, costs, _method(objective, len(compared_cells)), untimed, unfinished, differ, phase)


def _is_in(shape: Shape, phase: str | None) -> bool:
    """Return whether a shape belongs to a phase: those without one belong to each."""
    return None in (phase, shape.phase) or shape.phase == phase


def _latencies_differ(records: Records, row: int, other: int, phase: str | None = None) -> bool | None:
    """Return whether two rows differ detectably at a shape of a phase, paired round by round; None where they were not
    timed together.
    """
    for shape, cell in records.records[row].cells.items():
        if not _is_in(shape, phase):
            continue
        part, beside = records.timed.get((row, shape)), records.records[other].cells.get(shape)
        if part is None or beside is None or records.timed.get((other, shape)) is not part:
            return None
        if beside.name != cell.name:
            ratio = paired_ratios(part.medians_ns(cell.name), {beside.name: part.medians_ns(beside.name)})
            if beside.name in ratio and ratio[beside.name].interval().excludes(1.0):
                return True
    return False


def _not_known(records: Records, row: int, other: int, phase: str | None = None) -> None:
    """Return None: memory and size of two rows are compared by their gains."""


def _method(objective: str, comparisons: int) -> str:
    if not comparisons:
        return "there are no ratios to compare"
    if objective == "latency":
        number = f"all {comparisons} comparisons" if comparisons > 1 else "the one comparison"
        return f"ratios hold together at 95 % for {number} (Bonferroni)"
    return (
        "ratios are over all launches, from the smallest to the largest; a row of at least "
        f"{LAUNCHES} launches takes less memory if it does so beyond the difference between any two launches of the "
        f"baseline and its twin: of equal models at most one in {math.comb(3 * LAUNCHES, LAUNCHES)} does"
    )


def mean_ratio(gains: Sequence[Gain], *, of_cpu: bool = False) -> Interval:
    """Return the geometric mean of the ratios, or of those of processor time, at all shapes, from the lowest to the
    highest bound at any of them.
    """
    ratios = [ratio for gain in gains if (ratio := gain.cpu_ratio if of_cpu else gain.ratio)]
    value = geometric_mean(ratio.value for ratio in ratios)
    low = min((ratio.low for ratio in ratios if ratio.low is not None), default=None)
    high = max((ratio.high for ratio in ratios if ratio.high is not None), default=None)
    return Interval(value, low, high)


def unfinished_rows(records: Records) -> frozenset[int]:
    """Return the rows with figures that are still to be measured. The reasons of the step `explain` do not count."""
    rows = set()
    for record in records.records:
        row = record.configuration.row
        parts = [records.timed.get((row, shape)) for shape in record.cells]
        failures = [failure for missing, failure in record.failures.items() if missing != "reasons"]
        if any(isinstance(failure, NotRun) for failure in failures) or not all(part and part.outcome for part in parts):
            rows.add(row)
    return frozenset(rows)


def _size_gains(records: Records, sizes: dict[int, float]) -> dict[int, tuple[Gain, ...]]:
    gains: dict[int, tuple[Gain, ...]] = {}
    for record in records.records:
        row, baseline = record.configuration.row, record.configuration.baseline
        if row in sizes and baseline in sizes:
            ratio = sizes[baseline] / sizes[row]
            gains[row] = (Gain(Interval(ratio, ratio, ratio), ratio > 1, None),)
    return gains


def _mean_by_row(frame: pd.DataFrame, column: str) -> dict[int, float]:
    """Return the geometric mean of a column by row, of rows that have it at every shape at which any row has it."""
    if "batch_size" in frame:
        shapes = frame["batch_size"].astype(str) + "x" + frame["input_length"].astype(str)
        shapes += frame["phase"].astype(str) if "phase" in frame else ""
        frame = frame[shapes.isin(set(shapes[frame[column].notna()]))]
    values_by_row = frame[column].astype("float64").groupby(frame["row"])
    return {int(str(row)): geometric_mean(values) for row, values in values_by_row if (values > 0).all()}


def _gain(objective: str, part: Part | None, name: str, shape: Shape, comparisons: int) -> Gain:
    # If a process failed, its latencies so far are not used, neither for its row nor as a baseline.
    if part is None or part.baseline is None or part.failure(part.baseline) or part.failure(name):
        return Gain(None, False, shape)
    if objective == "memory":
        return _memory_gain(part, part.baseline, name, shape)
    level = 1 - (1 - CONFIDENCE) / comparisons
    ratio = part.speedup(name, level)
    is_faster = ratio is not None and name != part.baseline and ratio.excludes(1.0) and ratio.value > 1
    sure, cpu_ratio = is_faster and not part.disturbance, part.cpu_speedup(name, level)
    return Gain(ratio, sure, shape, doubt=part.disturbance, cpu_ratio=cpu_ratio)


def _memory_gain(part: Part, baseline: str, name: str, shape: Shape) -> Gain:
    """Return a gain that is sure if, in enough launches, it exceeds that of any two of the baseline and its twin."""
    first, twin, model = part.peaks_bytes(baseline), part.peaks_bytes(baseline, twin=True), part.peaks_bytes(name)
    equal = [*first, *twin]
    if not first or not model or min(*equal, *model) <= 0:
        return Gain(None, False, shape)
    ratio = Interval(max(first) / max(model), min(equal) / max(model), max(equal) / min(model))
    if min(map(len, (first, twin, model))) < LAUNCHES:
        return Gain(ratio, False, shape)
    floor = max(equal) / min(equal)
    return Gain(ratio, ratio.value > floor, shape, floor)
