"""What a run needs to know of its task and frameworks, kept in `run.json` so that results need neither of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchcard import registry
from benchcard.errors import BenchcardError
from benchcard.spec.plan import Configuration, FrameworkTraits, Plan
from benchcard.tasks import default_metrics, task_phases
from benchcard.utils.plain import canonical_json
from benchcard.utils.values import Shape


@dataclass(frozen=True)
class Traits:
    """What a run needs to know of its task and frameworks; `metrics` are the defaults by task arguments as JSON.

    `decides_by` is empty where configurations are chosen by the first metric. `joins_rows` is whether the task makes
    predictions of all rows at once, with the baseline's outputs. `phases` are those of the task by its arguments as
    JSON, the one that decides first, where there are any. `excludes_by` is the figure of fidelity that
    `node_exclusion: auto` goes by, empty for the first metric, as in runs of earlier versions.
    """

    has_length: bool = False
    metrics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    frameworks: Mapping[str, FrameworkTraits] = field(default_factory=dict)
    decides_by: str = ""
    counts_tokens: bool = False
    joins_rows: bool = False
    phases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    excludes_by: str = ""

    @property
    def deciding_phase(self) -> str | None:
        """The phase by which configurations are chosen; None where there are no phases."""
        return next((phases[0] for phases in self.phases.values()), None)

    def phases_of(self, configuration: Configuration) -> Sequence[str]:
        """Return the phases in which a row is timed; none for most tasks."""
        return self.phases.get(canonical_json(configuration["task_args"]), ())

    def shapes_of(self, configuration: Configuration, only_length: int | None = None) -> list[Shape]:
        """Return the shapes at which a row is timed; `only_length` is the length where the spec gives none."""
        lengths = (self.has_length and configuration["input_lengths"]) or [only_length]
        phases: Sequence[str | None] = self.phases_of(configuration) or [None]
        return [
            Shape(batch_size, length, phase)
            for phase, batch_size, length in itertools.product(phases, configuration["batch_sizes"], lengths)
        ]

    def metrics_of(self, configuration: Configuration) -> Sequence[str]:
        """Return the metrics of a row: its own, or the default ones of the task."""
        names: Sequence[str] | None = configuration["metrics"]
        names = names or self.metrics.get(canonical_json(configuration["task_args"]))
        if names is None:
            raise BenchcardError("the traits in `run.json` are damaged: they lack the default metrics of a row")
        return names


def traits_of(plan: Plan, stored: Traits | None = None) -> Traits:
    """Return the traits of the task of a plan and of its frameworks: stored ones only of a task that is not installed,
    and what a search goes by, which is that of the run it was begun in.

    Raises:
        BenchcardError: The task is not installed, and there are no stored traits.
    """
    if stored and plan.spec.task not in registry.tasks():
        return replace(stored, frameworks=plan.frameworks)
    task = registry.task(plan.spec.task)
    return Traits(
        task.has_length,
        {
            canonical_json(row["task_args"]): tuple(default_metrics(task, row["task_args"] or {}))
            for row in plan
            if not row["metrics"]
        },
        plan.frameworks,
        getattr(task, "decides_by", ""),
        getattr(task, "counts_tokens", False),
        hasattr(task, "predictions"),
        {
            arguments: phases
            for row in plan
            if (phases := task_phases(task, row["task_args"] or {}))
            for arguments in [canonical_json(row["task_args"])]
        },
        stored.excludes_by if stored else getattr(task, "decides_by", ""),
    )
