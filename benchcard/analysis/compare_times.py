"""The times of two runs: what changed in the models, and what only in the machine.

What a machine does on one day and not on another, it does to a baseline and to the models that are timed beside it
alike. So rows are compared by their ratios to a baseline that is the same in both runs, with the same libraries; it is
the control, and what it moved by is the machine's doing. Where it is not the same, or the libraries are not, that may
be their doing as well: rows are compared by milliseconds, and differ where they moved further than it. Without a
baseline in both runs nothing can be said.

This module owns that; what becomes of it in the comparison of two runs is told in `two_runs`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchcard.analysis.records import Records
from benchcard.run.record import Record

if TYPE_CHECKING:
    from benchcard.utils.values import Interval


# Why there is no verdict.
CONTROL, NO_CONTROL = "not compared: the control", "not compared: no baseline in common"


@dataclass(frozen=True)
class Change:
    """How the latency of a row at one shape changed from run A to run B.

    Attributes:
        a_ms: Its median in A; None where there is none.
        b_ms: Its median in B.
        ratio: How many times faster B is, with an interval that the noise floor widens; None where a median is missing.
        unjudged: Why it says nothing of the model; None where it does.
    """

    a_ms: float | None
    b_ms: float | None
    ratio: Interval | None = None
    unjudged: str | None = None


def compare_latencies(
    cells: Sequence[tuple[tuple[Record, Record], Any]], a: Records, b: Records
) -> tuple[list[Change], tuple[str, ...]]:
    """The change of every row of both runs at every shape, and how the baselines moved meanwhile, in sentences.

    Args:
        cells: A row in both runs, and a shape.
        a: The earlier run.
        b: The later one.
    """
    from benchcard.measure.intervals import CONFIDENCE, unpaired_ratio

    level = 1 - (1 - CONFIDENCE) / max(1, len(cells))
    alike = a.info.versions == b.info.versions
    rows = {(one.configuration.row, other.configuration.row) for (one, other), _ in cells}
    found = []
    moved: dict[bool, dict[Any, float]] = {True: {}, False: {}}
    for (one, other), shape in cells:
        first, second = _timed(a, one, shape), _timed(b, other, shape)
        if not first.latencies or not second.latencies:
            found.append(Change(_middle(first), _middle(second)))
            continue
        compared, reach = (first.latencies, second.latencies), max(first.reach, second.reach)
        unjudged: str | None = None
        same = alike and first.baseline == second.baseline
        counterparts = same or (one.configuration.baseline, other.configuration.baseline) in rows
        if not (first.ratios and second.ratios and counterparts):
            unjudged = NO_CONTROL
        else:
            move = unpaired_ratio(first.control, second.control, level)
            moved[same][first.baseline, second.baseline, shape] = move.value
            if (first.name, second.name) == (first.baseline, second.baseline):
                unjudged = CONTROL
            elif same:
                compared = first.ratios, second.ratios
            else:
                reach += move.reach
        ratio = _widened(unpaired_ratio(*compared, level), reach)
        found.append(Change(_middle(first), _middle(second), ratio, unjudged))
    notes = [_describe_control(moves.values(), same) for same, moves in moved.items() if moves]
    if any(change.unjudged == NO_CONTROL for change in found):
        notes.append("times without a baseline in common have no verdict: the machine may be the reason for any change")
    return found, tuple(notes)


def _describe_control(moves: Iterable[float], same: bool) -> str:
    """How the baselines moved from A to B, in a sentence."""
    ends = sorted(1 / move for move in moves)
    took = " to ".join(dict.fromkeys(f"{end:.2f}" for end in (ends[0], ends[-1])))
    told = f"the baseline took {took} times as long in B as in A, by the machine"
    if same:
        return f"{told}: rows are compared by their ratios to it, and it has no verdict on time"
    return (
        f"{told} or by what differs between the runs: rows are compared by milliseconds, and differ only where they "
        "moved further; to tell the two apart, run both again, one after the other"
    )


@dataclass(frozen=True)
class _Timed:
    """A row at one shape in one run.

    Attributes:
        name: The name of its cell.
        baseline: The name of its baseline's.
        latencies: Its median latencies by launch and round, ns; none where it has no figure.
        control: The baseline's.
        ratios: Its latencies over the baseline's, in the rounds in which both were timed.
        reach: How far from 1 the noise floor beside them reaches, as a logarithm.
    """

    name: str = ""
    baseline: str | None = None
    latencies: Mapping[Any, float] = field(default_factory=dict)
    control: Mapping[Any, float] = field(default_factory=dict)
    ratios: Mapping[Any, float] = field(default_factory=dict)
    reach: float = 0.0


def _timed(records: Records, record: Record, shape: Any) -> _Timed:
    from benchcard.measure import latency as statistics

    cell = record.cells.get(shape)
    part = records.timed.get((record.configuration.row, shape))
    if cell is None or part is None or part.failure(cell.name):
        return _Timed()
    latencies = statistics.block_medians(part.rounds, cell.name)
    if part.baseline is None or part.failure(part.baseline):
        return _Timed(cell.name, None, latencies)
    control = statistics.block_medians(part.rounds, part.baseline)
    ratios = {place: latency / control[place] for place, latency in latencies.items() if place in control}
    # Where the baseline's twin could not be timed, or once alone, nothing is known of the noise.
    reach = math.inf
    with suppress(ValueError):
        floor = statistics.noise_floor(part.rounds, part.baseline)
        reach = floor.reach if floor.low is not None else math.inf
    return _Timed(cell.name, part.baseline, latencies, control, ratios, reach)


def _middle(timed: _Timed) -> float | None:
    from statistics import median

    return median(timed.latencies.values()) / 1e6 if timed.latencies else None


def _widened(found: Interval, reach: float) -> Interval:
    """A ratio whose interval reaches further on both sides, by a logarithm."""
    from benchcard.utils.values import Interval

    if found.low is None or found.high is None or math.isinf(reach):
        return Interval(found.value, None, None)
    return Interval(found.value, found.low * math.exp(-reach), found.high * math.exp(reach))
