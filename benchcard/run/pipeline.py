"""The pipelines of all rows of a plan, which share steps.

A `Pipeline` asks for steps and does not do them. The function that it asks may do a step (`runner`), read its outcome
(`analysis.records`), or only list it (`planned`). So a run, its results and its plan agree on the steps of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchcard.run.auto_exclusion import AutoExclusion
from benchcard.run.record import Record, Search
from benchcard.run.row import RowPipeline, Shared
from benchcard.run.traits import Traits
from benchcard.sources.resolve import Sources
from benchcard.spec.plan import Configuration, Plan
from benchcard.steps.step import Ask, StepFailed
from benchcard.utils.values import Failure


class Pipeline:
    """The pipelines of all rows of a plan."""

    def __init__(self, plan: Plan, sources: Sources, traits: Traits, ask: Ask, default_threads: int) -> None:
        self._shared = Shared(plan, sources, traits, default_threads, ask, _search)

    def record(self, configuration: Configuration) -> Record:
        """Ask for all steps of a row, as far as they succeed, and return its record."""
        row = RowPipeline(self._shared, configuration)
        failures = row.failures
        failures.quality = _failure(row.prepare)
        failures.model = _failure(row.make)
        if failures.model is not None:
            return row.record()
        if configuration["explain"]:
            failures.reasons = _failure(row.explain)
        failures.quality = failures.quality or _failure(row.evaluate)
        if failures.quality is None:
            failures.comparison = _failure(lambda: self._compare(row))
        if configuration["duration"] > 0:
            row.shape()
        return row.record()

    def prepare(self, configuration: Configuration) -> None:
        """Ask for the rows of data sets that a row needs, and for its inputs in phases, whose lengths the task checks,
        so that mistakes in data and lengths show before slow steps.
        """
        row = RowPipeline(self._shared, configuration)
        _failure(row.prepare)
        if row.calibrates:
            _failure(row.sample)
        if configuration["duration"] > 0 and self._shared.traits.phases_of(configuration):
            row.shape()

    def _compare(self, row: RowPipeline) -> None:
        """Ask for the intervals of a row's metrics, and for their differences from the baseline's where it has one."""
        if row.outcomes.prepare is not None and row.outcomes.evaluate is not None:
            row.ask(row.comparing(row.outcomes.evaluate))


def _failure(action: Callable[[], object]) -> Failure | None:
    """Call a function that asks for steps, and return the failure of the one that failed, or None."""
    try:
        action()
    except StepFailed as failed:
        return failed.failure
    return None


def _search(*model: Any, **limits: Any) -> Search:
    return AutoExclusion(*model, **limits).search()
