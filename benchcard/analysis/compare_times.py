"""The comparison of the latencies of two runs: changes of the models, and not of the machine.

The state of the machine on a day affects a baseline and the models that are timed beside it equally. If both runs have
the same baseline and libraries, rows are compared by their ratios to it: it is the control, whose own change is that of
the machine. If baseline or libraries differ, these may have changed the control too: rows are compared by milliseconds,
and differ if they changed by more than it did. Without a baseline in both runs there is no verdict.

Intervals are Welch's over launches, widened by the noise floor of both runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchcard.analysis.records import Records
from benchcard.measure.intervals import CONFIDENCE, RoundId, unpaired_ratio
from benchcard.run.record import Record
from benchcard.utils.values import Interval, Shape

Pair = tuple[Record, Record]
"""A row in run A and the same row in run B."""

# Why there is no verdict on a latency.
CONTROL, NO_CONTROL = "not compared: the control", "not compared: no baseline in common"


@dataclass(frozen=True)
class LatencyChange:
    """The change of the latency of a row at one shape from run A to run B.

    Attributes:
        medians_ms: Its median in both runs; None where there is none.
        ratio: How many times faster B is, with an interval that the noise floor widens; None where a median is missing.
        not_compared: Why there is no verdict; empty where there is one.
    """

    medians_ms: Sequence[float | None]
    ratio: Interval | None = None
    not_compared: str = ""


@dataclass(frozen=True)
class _Latencies:
    """The median latencies of a row's cell at one shape in one run, ns, by launch and round.

    Attributes:
        control: Those of the baseline's cell, if it has any.
        ratios: The row's latencies over the baseline's, in the rounds in which both were timed.
        reach: How far from 1 the noise floor reaches, as a logarithm; infinite where it is not known.
    """

    name: str
    model: Mapping[RoundId, float]
    baseline: str | None = None
    control: Mapping[RoundId, float] = field(default_factory=dict)
    ratios: Mapping[RoundId, float] = field(default_factory=dict)
    reach: float = 0.0


def compare_latencies(
    cells: Sequence[tuple[Pair, Shape]], a: Records, b: Records
) -> tuple[list[LatencyChange], list[str]]:
    """Return the change of every row at every shape, and notes on how the baselines changed."""
    level = 1 - (1 - CONFIDENCE) / max(1, len(cells))
    same_versions = a.info.versions == b.info.versions
    matched = {(first.configuration.row, second.configuration.row) for (first, second), _ in cells}
    changes = []
    # The ratios of the baselines, by whether they and the libraries are the same in both runs.
    control_ratios: dict[bool, dict[tuple[str | None, str | None, Shape], float]] = {True: {}, False: {}}
    for (first, second), shape in cells:
        one, other = _latencies(a, first, shape), _latencies(b, second, shape)
        medians_ms = [median(run.model.values()) / 1e6 if run else None for run in (one, other)]
        if one is None or other is None:
            changes.append(LatencyChange(medians_ms))
            continue
        compared, reach, not_compared = (one.model, other.model), max(one.reach, other.reach), ""
        same = same_versions and one.baseline == other.baseline
        has_control = same or (first.configuration.baseline, second.configuration.baseline) in matched
        if not (one.ratios and other.ratios and has_control):
            not_compared = NO_CONTROL
        else:
            control = unpaired_ratio(one.control, other.control, level)
            control_ratios[same][one.baseline, other.baseline, shape] = control.value
            if (one.name, other.name) == (one.baseline, other.baseline):
                not_compared = CONTROL
            elif same:
                compared = one.ratios, other.ratios
            else:
                reach += control.reach
        ratio = _widened(unpaired_ratio(*compared, level), reach)
        changes.append(LatencyChange(medians_ms, ratio, not_compared))
    notes = [_control_note(ratios.values(), same) for same, ratios in control_ratios.items() if ratios]
    if any(change.not_compared == NO_CONTROL for change in changes):
        notes.append("times without a baseline in common have no verdict: any change may be due to the machine")
    return changes, notes


def _control_note(ratios: Iterable[float], same: bool) -> str:
    slowdowns = sorted(1 / ratio for ratio in ratios)
    slowdown = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (slowdowns[0], slowdowns[-1])))
    note = f"the baseline took {slowdown} times as long in B as in A, due to the machine"
    if same:
        return f"{note}: rows are compared by their ratios to it, and it has no verdict on time"
    return (
        f"{note} or to what differs between the runs: rows are compared by milliseconds, and differ only where they "
        "changed by more; to tell the two apart, run both again, one after the other"
    )


def _latencies(records: Records, record: Record, shape: Shape) -> _Latencies | None:
    """Return the latencies of a row at a shape; None where it has none."""
    cell = record.cells.get(shape)
    part = records.timed.get((record.configuration.row, shape))
    if cell is None or part is None or part.failure(cell.name) or not (model := part.medians_ns(cell.name)):
        return None
    if part.baseline is None or part.failure(part.baseline):
        return _Latencies(cell.name, model)
    control = part.medians_ns(part.baseline)
    ratios = {place: latency / control[place] for place, latency in model.items() if place in control}
    floor = part.noise_floor
    reach = math.inf if floor is None or floor.low is None else floor.reach
    return _Latencies(cell.name, model, part.baseline, control, ratios, reach)


def _widened(ratio: Interval, reach: float) -> Interval:
    if ratio.low is None or ratio.high is None or math.isinf(reach):
        return Interval(ratio.value)
    return Interval(ratio.value, ratio.low * math.exp(-reach), ratio.high * math.exp(reach))
