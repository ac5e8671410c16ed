"""The pipelines of all rows of a plan, which share steps.

A `Pipeline` asks for steps and does not do them. The function that it asks may do a step (`runner`), read its outcome
(`analysis.records`), or only list it (`planned`). So a run, its results and its plan agree on the steps of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from benchcard.run.auto_exclusion import AutoExclusion
from benchcard.run.record import Outcomes, Record, Search
from benchcard.run.row import Make, R, RowPipeline, calibration_group
from benchcard.run.traits import Traits
from benchcard.sources.resolve import Sources
from benchcard.spec.plan import Configuration, Plan
from benchcard.steps.evaluate import CompareRequest
from benchcard.steps.models import ExportOutcome
from benchcard.steps.step import Ask, Outcome, Request, StepFailed
from benchcard.utils.values import Failure

V = TypeVar("V")

# The resamples of an interval suffice to compare this many models; only a larger number is part of the request.
FEW_MODELS = 25


class Pipeline:
    """The pipelines of all rows of a plan."""

    def __init__(self, plan: Plan, sources: Sources, traits: Traits, ask: Ask, default_threads: int) -> None:
        self.default_threads = default_threads
        self.sources = sources
        self.task_name = plan.spec.task
        self.traits = traits
        self.calibrations: Mapping[str, Sequence[str] | None] = _calibrated_operators(plan)
        self._plan = plan
        self._ask = ask
        self._requests: dict[Hashable, Any] = {}
        self._evaluated_rows: dict[int, Outcomes] = {}

    def record(self, configuration: Configuration) -> Record:
        """Ask for all steps of a row, as far as they succeed, and return its record."""
        row = RowPipeline(self, configuration)
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
        """Ask for the rows of data sets that a row needs, so that mistakes in the data show before slow steps."""
        row = RowPipeline(self, configuration)
        with suppress(StepFailed):
            row.prepare()
        if configuration["quantization_approach"] == "static":
            with suppress(StepFailed):
                row.sample()

    def ask(self, request: Request[V]) -> Outcome[V]:
        """Return the outcome of a step, or raise `StepFailed`."""
        outcome = self._ask(request)
        if isinstance(outcome, Failure):
            raise StepFailed(outcome)
        return outcome

    def once(self, token: Hashable, make: Callable[[], R]) -> R:
        """Return the request that `make` returned for this token at first. Hashing a request anew would be slow."""
        if token not in self._requests:
            self._requests[token] = make()
        request: R = self._requests[token]
        return request

    def search(self, row: RowPipeline, graph: Outcome[ExportOutcome], make: Make, limits: Mapping[str, Any]) -> Search:
        """Search for the nodes that `node_exclusion: auto` keeps in float32; see `AutoExclusion.search`."""
        return AutoExclusion(row, self._row, graph, make, **limits).search()

    def _row(self, row: int) -> RowPipeline:
        return RowPipeline(self, self._plan[row])

    def _compare(self, row: RowPipeline) -> None:
        """Ask for the intervals of a row's metrics, and for their differences from the baseline's where it has one."""
        inputs, predictions, baseline = row.outcomes.prepare, row.outcomes.evaluate, None
        if inputs is None or predictions is None:
            return
        number = row.configuration.baseline
        if number is not None and number != row.configuration.row:
            outcomes = self._evaluated(number)
            # Only predictions of the same examples can be paired.
            if outcomes.prepare is not None and outcomes.prepare.key == inputs.key:
                baseline = outcomes.evaluate
        models = self._plan.compared_with(number) if baseline and number is not None else 0
        row.ask(
            CompareRequest(
                metrics=row.metrics(),
                task=self.task_name,
                seed=row.configuration["seed"],
                models=models if models > FEW_MODELS else 1,
                inputs=inputs,
                predictions=predictions,
                baseline=baseline,
                scripts=self.sources.scripts,
            )
        )

    def _evaluated(self, number: int) -> Outcomes:
        """Return the outcomes of a row up to its predictions. A baseline may come after the rows compared with it."""
        if number not in self._evaluated_rows:
            row = self._row(number)
            with suppress(StepFailed):
                row.prepare()
                row.make()
                row.predict()
            self._evaluated_rows[number] = row.outcomes
        return self._evaluated_rows[number]


def _failure(action: Callable[[], object]) -> Failure | None:
    """Call a function that asks for steps, and return the failure of the one that failed, or None."""
    try:
        action()
    except StepFailed as failed:
        return failed.failure
    return None


def _calibrated_operators(plan: Plan) -> dict[str, Sequence[str] | None]:
    """Return the operators that each calibration pass covers, so that one pass serves all static rows of its group."""
    covered: dict[str, set[str] | None] = {}
    for configuration in plan:
        if configuration["quantization_approach"] == "static":
            group = calibration_group(configuration)
            operators, others = configuration["operators_to_quantize"], covered.get(group, set())
            covered[group] = None if operators is None or others is None else others | set(operators)
    return {group: None if operators is None else sorted(operators) for group, operators in covered.items()}
