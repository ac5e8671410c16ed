"""Whether a run may be continued here: the same machine, instructions and library versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.errors import MachineError
from benchcard.measure import machine
from benchcard.spec.plan import Plan
from benchcard.tasks import default_metrics


def versions_of(plan: Plan) -> dict[str, str]:
    """The versions of the libraries that numbers depend on, and of the packages that bring a task, metric, framework or
    backend of this plan.
    """
    task = registry.task(plan.spec.task)
    metrics = {
        each
        for row in plan
        for name in row["metrics"] or default_metrics(task, row["task_args"] or {})
        for each in (name, name.partition(".")[0])
    }
    used = {
        "tasks": [plan.spec.task],
        "metrics": metrics,
        "frameworks": {row["framework"] for row in plan},
        "backends": [plan.spec.get("backend")],
    }
    return {**machine.versions(), **registry.versions(used)}


def expect_same_ground(begun: Mapping[str, Any], here: dict[str, Any], now: Mapping[str, str], path: Path) -> None:
    """Raise where a run would go on with other libraries or on another machine: its numbers could not be put
    together.
    """
    if machine.fingerprint(begun["machine"]) != machine.fingerprint(here):
        raise MachineError(
            f"the run in {path} was begun on another machine "
            f"({begun['machine']['processor']}; this is {here['processor']}): give a new folder"
        )
    moved = [
        f"{name} {begun['versions'].get(name)} -> {now.get(name)}"
        for name in sorted({*begun["versions"], *now})
        if begun["versions"].get(name) != now.get(name)
    ]
    if moved:
        raise MachineError(
            f"the run in {path} was begun with other libraries ({', '.join(moved)}): "
            "give a new folder, or install those again"
        )


def expect_instructions(plan: Plan, here: Mapping[str, Any]) -> None:
    """Raise where `backend_args.supported_instructions` of any row asks for what this processor does not have."""
    asked = [(row["backend_args"] or {}).get("supported_instructions") or [] for row in plan]
    wanted = dict.fromkeys(name for each in asked for name in ([each] if isinstance(each, str) else each))
    other = {"avx512": "avx512f", "avx512_core": "avx512f", "avx512vnni": "avx512_vnni"}
    missing = [name for name in wanted if other.get(name, name) not in here["instructions"]]
    if missing:
        raise MachineError(
            f"backend_args asks for {', '.join(missing)}; "
            f"this processor ({here['processor']}) has {', '.join(here['instructions']) or 'none of those known'}"
        )
