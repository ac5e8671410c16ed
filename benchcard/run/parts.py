"""The division of a plan between machines.

Parts whose rows are never compared with each other may be done by one machine each. Of one part, several machines may
do the steps whose figures do not depend on the clock, before one of them times its models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

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
    plan: Plan, sources: Sources, parts: Sequence[tuple[int, ...]], nodes: int
) -> list[list[tuple[int, ...]]]:
    """Return which rows to run without timing before each part is run on one node, so that this takes less time.

    The stages follow each other; each has the rows of one node at a time. The first has the baselines and rows whose
    steps others share, the second all others, divided so that no two nodes do the same step. There are none where a
    part has one node only, or where starting workers would take as long as they save.
    """
    share = nodes // len(parts)
    if share < _LEAST_NODES:
        return []
    step_s = estimate(plan, sources).step_s
    planned = planned_steps(plan, sources, traits_of(plan), 1)
    seconds = [{request.key: step_s.get(request.kind, 1.0) for request in requests} for requests in planned]
    divided = [_divide(plan, part, seconds, share) for part in parts]
    ahead = [rows for rows, chunks in divided if rows and chunks]
    spread = [rows for _, chunks in divided for rows in chunks]
    return [stage for stage in (ahead, spread) if stage]


def _divide(
    plan: Plan, part: Sequence[int], seconds: Sequence[Mapping[str, float]], nodes: int
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Return the rows of a part to run at first, and the others in chunks, at most one a node; none if it does not pay.

    `seconds` has those of each step of each row, by its key.
    """
    own = {row: seconds[row] for row in part}
    first = {baseline for row in part if (baseline := plan[row].baseline) is not None}
    best: tuple[tuple[int, ...], list[tuple[int, ...]]] = ((), [])
    best_s = _total_s(own, part) - _MORE_STARTS * _START_S
    while True:
        done = {key for row in first for key in own[row]}
        left = {
            row: {key: each for key, each in own[row].items() if key not in done} for row in part if row not in first
        }
        cost_s = partial(_total_s, left)
        sharing: dict[str, list[int]] = {}
        for row, steps in left.items():
            for key in steps:
                sharing.setdefault(key, []).append(row)
        units = _joined(left, sharing.values())
        chunks: list[list[int]] = [[] for _ in range(nodes)]
        for unit in sorted(units, key=cost_s, reverse=True):
            min(chunks, key=cost_s).extend(unit)
        divided_s = _total_s(own, first) + max(map(cost_s, chunks))
        if divided_s < best_s:
            best, best_s = (tuple(sorted(first)), [tuple(sorted(chunk)) for chunk in chunks if chunk]), divided_s
        large = [unit for unit in units if len(unit) > 1 and cost_s(unit) > cost_s(left) / nodes]
        if not large:
            return best
        # More than the share of one node: one of its rows does first what they share.
        for unit in large:
            shared = {row: sum(each for key, each in left[row].items() if len(sharing[key]) > 1) for row in unit}
            first.add(max(unit, key=lambda row: (shared[row], -cost_s([row]))))


def _total_s(left: Mapping[int, Mapping[str, float]], rows: Iterable[int]) -> float:
    """Return the seconds of all steps of some rows, each counted once."""
    return sum({key: each for row in rows for key, each in left[row].items()}.values())


def _joined(rows: Iterable[int], together: Iterable[Iterable[int]]) -> list[tuple[int, ...]]:
    """Return the rows in groups, the fewest of which none divides rows that are `together`."""
    joined = {row: {row} for row in rows}
    for group in together:
        union = set().union(*(joined[row] for row in group))
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

    pipeline = Pipeline(plan, info.sources, traits_of(plan), look_up, info.default_threads)
    timed = [directory.stored_parts(group.key) for group in groups([pipeline.record(row) for row in plan])]
    return not missing and all(parts and all(part.outcome for part in parts) for parts in timed)
