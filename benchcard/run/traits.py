"""What a run needs to know of its task and frameworks, kept in `run.json` so that results need neither of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchcard import registry
from benchcard.spec.plan import Configuration, FrameworkTraits, Plan
from benchcard.tasks import default_metrics
from benchcard.utils.plain import canonical_json


@dataclass(frozen=True)
class Traits:
    """What a run needs to know of its task and frameworks; `metrics` are the defaults by task arguments as JSON."""

    has_length: bool = False
    metrics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    frameworks: Mapping[str, FrameworkTraits] = field(default_factory=dict)

    def metrics_of(self, configuration: Configuration) -> Sequence[str]:
        """Return the metrics of a row: its own, or the default ones of the task."""
        names: Sequence[str] = configuration["metrics"] or self.metrics[canonical_json(configuration["task_args"])]
        return names


def traits_of(plan: Plan) -> Traits:
    """Return the traits of the registered task of a plan, and of its frameworks."""
    task = registry.task(plan.spec.task)
    return Traits(
        task.has_length,
        {
            canonical_json(row["task_args"]): tuple(default_metrics(task, row["task_args"] or {}))
            for row in plan
            if not row["metrics"]
        },
        plan.frameworks,
    )
