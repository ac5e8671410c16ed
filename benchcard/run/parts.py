"""The division of a plan into parts whose rows are never compared with each other, so that machines may share them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchcard.run.directory import RunDirectory
from benchcard.run.groups import groups
from benchcard.run.pipeline import Pipeline
from benchcard.run.planned import planned_rows
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import Sources
from benchcard.spec.plan import Plan
from benchcard.steps.evaluate import MetricRequest
from benchcard.steps.step import NotRun, Outcome, Request, V
from benchcard.utils.values import Failure


def independent_parts(plan: Plan, sources: Sources) -> list[tuple[int, ...]]:
    """Return the rows of each part: those that share a baseline or are timed together are in one part."""
    records = [record for _, record in planned_rows(plan, sources, traits_of(plan), 1)]
    together: list[Sequence[int]] = [[row.row, row.baseline] for row in plan if row.baseline is not None]
    together += [[row for row, _ in group.places] for group in groups(records)]
    parts = {row.row: {row.row} for row in plan}
    for rows in together:
        joined = set().union(*(parts[row] for row in rows))
        parts.update(dict.fromkeys(joined, joined))
    return sorted({tuple(sorted(part)) for part in parts.values()})


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
