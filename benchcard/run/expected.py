"""The steps that each row of a plan would ask for if no two models were the same."""

from __future__ import annotations

from pathlib import Path

from benchcard.run.pipeline import Pipeline
from benchcard.sources import resolve
from benchcard.spec.plan import Plan
from benchcard.steps.step import Outcome, Step


def expected_steps(plan: Plan, found: resolve.Sources, default_threads: int) -> list[list[Step]]:
    """The steps that each row would ask for, if no two models were the same. Nothing is done."""
    rows: list[list[Step]] = []
    nowhere = Path()

    def ask(step: Step) -> Outcome:
        rows[-1].append(step)
        return Outcome(
            step.kind,
            step.key,
            nowhere,
            {"file": "", "digest": step.key, "input_length": step.asked.get("input_length")},
            planned=True,
        )

    walk = Pipeline(plan, found, ask, default_threads)
    for configuration in plan:
        rows.append([])
        walk.record(configuration)
    return rows
