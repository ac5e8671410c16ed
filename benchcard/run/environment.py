"""Whether a run may be continued here: the same machine, instructions and library versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchcard import registry
from benchcard.errors import MachineError
from benchcard.measure.machine import Machine
from benchcard.measure.machine import versions as library_versions
from benchcard.run.directory import RunInfo
from benchcard.run.traits import traits_of
from benchcard.spec.plan import Plan


def versions_of(plan: Plan) -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on, packages with parts of the plan included."""
    traits = traits_of(plan)
    metrics = {name for row in plan for name in traits.metrics_of(row)}
    used = {
        "tasks": [plan.spec.task],
        # `squad_v2.f1` is one figure of a metric that has several.
        "metrics": metrics | {name.partition(".")[0] for name in metrics},
        "frameworks": plan.frameworks,
        "backends": [plan.spec.get("backend")],
    }
    libraries = registry.libraries(plan.frameworks, plan.spec.task)
    return {**library_versions(libraries), **registry.versions(used)}


def expect_same_environment(begun: RunInfo, here: Machine, now: Mapping[str, str | None], path: Path) -> None:
    """Raise `MachineError` if the run at `path` was begun on another machine or with other versions of libraries."""
    if begun.machine.fingerprint != here.fingerprint:
        machines = f"{begun.machine}; this is {here}"
        raise MachineError(f"the run in {path} was begun on another machine ({machines}). Give a new folder")
    changes = [
        f"{name} {begun.versions.get(name)} -> {now.get(name)}"
        for name in sorted({*begun.versions, *now})
        if begun.versions.get(name) != now.get(name)
    ]
    if changes:
        problem = f"the run in {path} was begun with other libraries ({', '.join(changes)})"
        raise MachineError(f"{problem}: give a new folder, or install these versions again")


def expect_instructions(plan: Plan, here: Machine) -> None:
    """Raise `MachineError` if this processor lacks instructions that a row's `backend_args` asks for."""
    requested = [(row["backend_args"] or {}).get("supported_instructions") or [] for row in plan]
    wanted = dict.fromkeys(name for names in requested for name in ([names] if isinstance(names, str) else names))
    synonyms = {"avx512": "avx512f", "avx512_core": "avx512f", "avx512vnni": "avx512_vnni"}
    missing = [name for name in wanted if synonyms.get(name, name) not in here.instructions]
    if missing:
        present = f"this processor ({here.processor}) has {', '.join(here.instructions) or 'none of those known'}"
        raise MachineError(f"backend_args asks for {', '.join(missing)}; {present}")
