"""The machines of a grid of `backend_args`: each runs its rows in a job and a run directory of its own.

Their run directories are in the folder `machines` of the grid's own. Rows of different machines share no steps,
baseline or timing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from benchcard.spec.parameters import BACKEND_ARGUMENTS, PRICES, split_name
from benchcard.spec.plan import Plan, make_plan
from benchcard.utils.plain import canonical_json, digest
from benchcard.utils.text import machine_name

FOLDER = "machines"


@dataclass(frozen=True)
class MachinePlan:
    """The part of a plan that one machine runs.

    Attributes:
        name: The name of its folder, which is that of the same arguments in every grid.
        rows: The numbers of its rows in the whole plan, in the order of its own plan.
        plan: The plan of its run, whose spec has the one value of `backend_args`.
    """

    name: str
    rows: tuple[int, ...]
    plan: Plan


def machine_plans(plan: Plan) -> tuple[MachinePlan, ...]:
    """Return the plan of each machine; none where the grid has no `backend_args`."""
    spec = plan.spec
    if BACKEND_ARGUMENTS not in spec.grid:
        return ()
    grid = {name: values for name, values in spec.grid.items() if name != BACKEND_ARGUMENTS}
    fixed = {name: value for name, value in spec.fixed.items() if split_name(name)[0] != BACKEND_ARGUMENTS}
    rows: dict[str, list[int]] = {}
    for row in plan:
        rows.setdefault(canonical_json(row[BACKEND_ARGUMENTS]), []).append(row.row)
    machines = []
    for numbers in rows.values():
        first = plan[numbers[0]]
        arguments = {name: value for name, value in first[BACKEND_ARGUMENTS].items() if name not in PRICES}
        own = make_plan(replace(spec, fixed={**fixed, BACKEND_ARGUMENTS: arguments}, grid=grid))
        words = re.sub(r"[^A-Za-z0-9._]+", "-", machine_name(first.axes[BACKEND_ARGUMENTS])).strip("-.")
        machines.append(MachinePlan(f"{words[:60]}-{digest(arguments)[:6]}", tuple(numbers), own))
    return tuple(machines)


def run_folders(path: Path) -> list[Path]:
    """Return the run directories of the machines of a run; the run directory itself where it has one machine."""
    return sorted((path / FOLDER).iterdir()) if (path / FOLDER).is_dir() else [path]
