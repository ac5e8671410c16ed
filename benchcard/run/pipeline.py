"""The pipelines of all rows of a plan, which share steps.

A `Pipeline` asks for steps and does not do them. Whoever it asks may do a step (`runner`), look it up
(`analysis.records`), or only note it (`expected`). So a run, its results and its plan agree about what a row is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from benchcard import registry
from benchcard.run.auto_exclusion import AutoExclusion
from benchcard.run.record import Record, Search
from benchcard.run.row import RowPipeline, calibration_group
from benchcard.sources.resolve import Sources
from benchcard.spec.plan import Configuration, Plan
from benchcard.steps.step import Ask, Outcome, Step, StepFailed

# For so many models the draws that an interval takes anyway are enough, so the step does not name their number.
FEW_MODELS = 25


class Pipeline:
    """The ways of all rows of a plan."""

    def __init__(self, plan: Plan, sources: Sources, ask: Ask, default_threads: int) -> None:
        self._plan = plan
        self.default_threads = default_threads
        self._sources = sources
        self._ask_for = ask
        self._task = registry.task(plan.spec.task)
        self._calibrations = self._union()
        self._steps: dict[tuple[Any, ...], Step] = {}
        self._evaluated_rows: dict[int, Mapping[str, Outcome]] = {}

    def record(self, configuration: Configuration) -> Record:
        """The row's way, as far as it goes."""
        way = RowPipeline(self, configuration)
        try:
            way.prepare()
        except StepFailed as failed:
            way.failures["quality"] = failed.failure
        try:
            way.make()
        except StepFailed as failed:
            way.failures["model"] = failed.failure
            return way.record()
        if configuration["explain"]:
            try:
                way.explain()
            except StepFailed as failed:
                way.failures["reasons"] = failed.failure
        for part, go in (("quality", way.evaluate), ("comparison", lambda: self._compare(way))):
            if "quality" not in way.failures:
                try:
                    go()
                except StepFailed as failed:
                    way.failures[part] = failed.failure
        if configuration["duration"] > 0:
            way.shape()
        return way.record()

    def prepare(self, configuration: Configuration) -> None:
        """Ask for what the row reads of data sets: what is wrong with them shows before anything slow is done."""
        way = RowPipeline(self, configuration)
        with suppress(StepFailed):
            way.prepare()
        if configuration["quantization_approach"] == "static":
            with suppress(StepFailed):
                way.sample()

    def ask(self, step: Step) -> Outcome:
        """The outcome of a step.

        Raises:
            StepFailed: It failed.
        """
        outcome = self._ask_for(step)
        if outcome.failure is not None:
            raise StepFailed(outcome.failure)
        return outcome

    def step(self, token: tuple[Any, ...], make: Callable[[], Step]) -> Step:
        """The step that many rows ask for, made once: its key takes longer to hash than a row to plan."""
        if token not in self._steps:
            self._steps[token] = make()
        return self._steps[token]

    def _union(self) -> dict[str, dict[str, Any]]:
        """The operators whose activations a calibration pass must watch so that it serves every static row that reads
        the same graph and samples.
        """
        wanted: dict[str, set[str] | None] = {}
        for configuration in self._plan:
            if configuration["quantization_approach"] == "static":
                group = calibration_group(configuration)
                operators, others = configuration["operators_to_quantize"], wanted.get(group, set())
                wanted[group] = None if operators is None or others is None else others | set(operators)
        return {
            group: {"operators": None if operators is None else sorted(operators)}
            for group, operators in wanted.items()
        }

    def _row(self, row: int) -> RowPipeline:
        return RowPipeline(self, self._plan[row])

    def search(
        self,
        row: RowPipeline,
        graph: Outcome,
        make: Callable[[Sequence[str]], Outcome],
        limits: Mapping[str, Any],
    ) -> Search:
        """Search for the nodes that `node_exclusion: auto` leaves in float32.

        Raises:
            StepFailed: The model cannot be quantized at all, no trial could be evaluated, or the metric has no
                direction.
        """
        return AutoExclusion(row, self._row, graph, make, **limits).found()

    def _compare(self, row: RowPipeline) -> None:
        """Ask for the comparison of a row that has predictions: with the baseline's predictions of the same examples,
        or without a baseline for the intervals alone.

        Raises:
            StepFailed: It failed.
        """
        needs = {"inputs": row.outcomes["prepare"], "predictions": row.outcomes["evaluate"]}
        if row.row.baseline not in (None, row.row.row):
            baseline = self._evaluated(row.row.baseline)
            if "evaluate" in baseline and baseline["prepare"].key == needs["inputs"].key:
                needs["baseline"] = baseline["evaluate"]
        asked = {"metrics": row.metrics(), "task": self.task_name, "seed": row.row["seed"]}
        if "baseline" in needs and row.row.baseline is not None:
            models = self._plan.compared_with(row.row.baseline)
            asked |= {"models": models} if models > FEW_MODELS else {}
        row.ask(Step("compare", "torch", asked, needs=needs, extra=self.sources.scripts))

    def _evaluated(self, number: int) -> Mapping[str, Outcome]:
        """Return the outcomes of a row as far as its predictions. A baseline may come after the rows that are compared
        with it; without predictions the outcomes end before them.
        """
        if number not in self._evaluated_rows:
            row = self._row(number)
            with suppress(StepFailed):
                row.prepare()
                row.make()
                row.predict()
            self._evaluated_rows[number] = row.outcomes
        return self._evaluated_rows[number]

    @property
    def calibrations(self) -> Mapping[str, Mapping[str, Any]]:
        """The union of what static rows want, by `calibration_group`."""
        return self._calibrations

    @property
    def sources(self) -> Sources:
        """What the names of models and data sets stand for."""
        return self._sources

    @property
    def task_name(self) -> str:
        """The name of the task."""
        return self._plan.spec.task

    @property
    def task(self) -> Any:
        """The task."""
        return self._task
