"""The division of a plan between machines.

Parts whose rows are never compared with each other may be done by one machine each. Of one part, several machines may
do the steps whose figures do not depend on the clock, before one of them times its models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from benchcard.run.budget import estimate
from benchcard.run.directory import RunDirectory
from benchcard.run.groups import groups
from benchcard.run.pipeline import Pipeline
from benchcard.run.planned import planned_rows, planned_steps
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import Sources
from benchcard.spec.plan import Plan
from benchcard.steps.evaluate import MetricRequest
from benchcard.steps.step import NotRun, Outcome, Request, V
from benchcard.utils.values import Failure

_Costs: TypeAlias = Mapping[int, Mapping[str, float]]
"""Seconds of the steps of each row, by their keys."""

# Seconds until a worker does its first step, and how many workers more one after another it takes to divide a part.
_START_S, _MORE_STARTS = 10.0, 2
_LEAST_NODES = 2


def independent_parts(plan: Plan, sources: Sources) -> list[tuple[int, ...]]:
    """Return the rows of each part: those that share a baseline or are timed together are in one part."""
    records = [record for _, record in planned_rows(plan, sources, traits_of(plan), 1)]
    together: list[Sequence[int]] = [[row.row, row.baseline] for row in plan if row.baseline is not None]
    together += [[row for row, _ in group.places] for group in groups(records)]
    return _joined(range(len(plan)), together)


def stages_before(
    plan: Plan, sources: Sources, parts: Sequence[Sequence[int]], nodes: int
) -> list[list[tuple[int, ...]]]:
    """Return which rows to run without timing before each part is run on one node, so that all takes less time.

    The stages follow each other; each has the rows of one node at a time. The first has the baselines and rows whose
    steps others share, the second all others, divided so that no two nodes do the same step. There are none where a
    part has one node only, or where starting workers would take as long as they save.
    """
    share = nodes // len(parts)
    if share < _LEAST_NODES:
        return []
    step_s = estimate(plan, sources).step_s
    planned = planned_steps(plan, sources, traits_of(plan), 1)
    costs = [{request.key: step_s.get(request.kind, 1.0) for request in requests} for requests in planned]
    ahead: list[tuple[int, ...]] = []
    spread: list[tuple[int, ...]] = []
    for part in parts:
        baselines = {baseline for row in part if (baseline := plan[row].baseline) is not None}
        own = {row: costs[row] for row in part}
        undivided = _Division(_total_s(own, part) - _MORE_STARTS * _START_S)
        best = min([undivided, *_divisions(own, baselines, share)], key=lambda division: division.seconds)
        ahead += filter(None, [best.first])
        spread += best.chunks
    return [stage for stage in (ahead, spread) if stage]


@dataclass(frozen=True)
class _Division:
    """The rows of a part that are run first, those that each node runs then, and the seconds that all this takes."""

    seconds: float
    first: tuple[int, ...] = ()
    chunks: tuple[tuple[int, ...], ...] = ()


def _divisions(costs: _Costs, baselines: Iterable[int], nodes: int) -> Iterator[_Division]:
    """Yield ways to divide a part, in which ever more rows are run first."""
    first = set(baselines)
    while True:
        done = {key for row in first for key in costs[row]}
        left = {
            row: {key: cost for key, cost in steps.items() if key not in done}
            for row, steps in costs.items()
            if row not in first
        }
        left_s = partial(_total_s, left)
        sharing: dict[str, list[int]] = {}
        for row, steps in left.items():
            for key in steps:
                sharing.setdefault(key, []).append(row)
        units = _joined(left, sharing.values())
        chunks: list[tuple[int, ...]] = [()] * nodes
        loads_s = [0.0] * nodes
        for unit in sorted(units, key=left_s, reverse=True):
            least = loads_s.index(min(loads_s))
            chunks[least] += unit
            loads_s[least] += left_s(unit)
        seconds = _total_s(costs, first) + max(loads_s)
        yield _Division(seconds, tuple(sorted(first)), tuple(tuple(sorted(chunk)) for chunk in chunks if chunk))
        large = [unit for unit in units if len(unit) > 1 and left_s(unit) > left_s(left) / nodes]
        if not large:
            return
        # More than the share of one node: one of its rows does first what they share.
        for unit in large:
            shared_s = {row: sum(cost for key, cost in left[row].items() if len(sharing[key]) > 1) for row in unit}
            first.add(max(unit, key=lambda row: (shared_s[row], -left_s([row]))))


def _total_s(costs: _Costs, rows: Iterable[int]) -> float:
    """Return the seconds of all steps of some rows, each counted once."""
    return sum({key: cost for row in rows for key, cost in costs[row].items()}.values())


def _joined(rows: Iterable[int], together: Iterable[Iterable[int]]) -> list[tuple[int, ...]]:
    """Return the rows in groups, the fewest of which none divides rows that are `together`."""
    joined = {row: {row} for row in rows}
    for group in together:
        distinct = {id(joined[row]): joined[row] for row in group}
        if len(distinct) > 1:
            union = set().union(*distinct.values())
            joined.update(dict.fromkeys(union, union))
    return sorted({tuple(sorted(group)) for group in joined.values()})


def is_complete(directory: RunDirectory, plan: Plan) -> bool:
    """Return whether a run directory has every step of a plan, failed ones included, and all its times."""
    info, missing = directory.info, False

    def look_up(request: Request[V]) -> Outcome[V] | Failure:
        nonlocal missing
        outcome: Outcome[Any] | Failure | None = directory.outcome(request)
        missing = missing or (outcome is None and request.kind != MetricRequest.kind)
        return outcome or NotRun(request.kind, "NotRun", "")

    pipeline = Pipeline(plan, info.sources, traits_of(plan, info.traits), look_up, info.default_threads)
    timed = [directory.stored_parts(group.key) for group in groups([pipeline.record(row) for row in plan])]
    return not missing and all(parts and all(part.outcome for part in parts) for parts in timed)
