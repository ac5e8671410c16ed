"""The machines of a grid of `backend_args`: each runs its rows in a job and a run directory of its own.

The run directory of the grid has theirs in its folder `machines`. Rows of two machines share no step, no baseline and
no timing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchcard.spec.parameters import BACKEND_ARGUMENTS, PRICES, split_name
from benchcard.spec.plan import Plan, make_plan, shown_arguments
from benchcard.utils.plain import canonical_json
from benchcard.utils.text import machine_name

FOLDER = "machines"


@dataclass(frozen=True)
class MachinePlan:
    """The part of a plan that one machine runs.

    Attributes:
        name: The name of its folder.
        rows: The numbers of its rows in the whole plan, in the order of its own plan.
        plan: The plan of its run, whose spec has the one value of `backend_args`.
    """

    name: str
    rows: tuple[int, ...]
    plan: Plan


def machine_plans(plan: Plan) -> tuple[MachinePlan, ...]:
    """Return the plan of each machine; none where the grid has no `backend_args`."""
    spec = plan.spec
    grid = {name: values for name, values in spec.grid.items() if split_name(name)[0] != BACKEND_ARGUMENTS}
    if len(grid) == len(spec.grid):
        return ()
    fixed = {name: value for name, value in spec.fixed.items() if split_name(name)[0] != BACKEND_ARGUMENTS}
    rows: dict[str, list[int]] = {}
    for row in plan:
        rows.setdefault(canonical_json(row[BACKEND_ARGUMENTS]), []).append(row.row)
    machines = []
    for index, numbers in enumerate(rows.values()):
        given = plan[numbers[0]][BACKEND_ARGUMENTS]
        arguments = {name: value for name, value in given.items() if name not in PRICES}
        own = replace(spec, fixed={**fixed, BACKEND_ARGUMENTS: arguments}, grid=grid)
        machines.append(
            MachinePlan(f"{index}{_words(shown_arguments(spec, arguments))}", tuple(numbers), make_plan(own))
        )
    return tuple(machines)


def run_folders(path: Path) -> list[Path]:
    """Return the run directories of the machines of a run; the run directory itself where it has one machine."""
    return sorted((path / FOLDER).iterdir()) if (path / FOLDER).is_dir() else [path]


def _words(arguments: Mapping[str, Any]) -> str:
    words = re.sub(r"[^A-Za-z0-9._]+", "-", machine_name({BACKEND_ARGUMENTS: arguments})).strip("-.")[:60]
    return f"-{words}" if words else ""
