"""A plan as a frame: the rows, what they share, and what they will cost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from benchcard.run.expected import expected_steps
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import unresolved
from benchcard.spec.plan import Plan

if TYPE_CHECKING:
    import pandas as pd


def plan_frame(plan: Plan) -> pd.DataFrame:
    """One row per configuration: its benchmarked parameters, `threads`, `baseline`, `adds`, `shares` and `timed_s`.

    `adds` names the steps that this row is the first to ask for, `shares` those that an earlier row asks for too, and
    `timed_s` the seconds that it is timed, a baseline twice over. Threads are left empty where the machine decides.
    Rows whose models turn out byte for byte the same will cost less than is said here. A step that a row asks for
    several times is counted, `shape x 2`; those of `node_exclusion: auto` are as many as its search may make, `evaluate
    x 16`.
    """
    import pandas as pd

    from benchcard.analysis.frames.columns import column

    steps = expected_steps(plan, unresolved(plan.spec), traits_of(plan), default_threads=0)
    seen: set[str] = set()
    rows: list[dict[str, Any]] = []
    for configuration, asked in zip(plan, steps):
        mine = {step.key: step.kind for step in asked}
        adds = [kind for key, kind in mine.items() if key not in seen]
        shares = [kind for key, kind in mine.items() if key in seen]
        seen.update(mine)
        shapes = sum(step.kind == "shape" for step in asked)
        # A baseline is timed in two processes, for the noise certificate.
        processes = 2 if configuration.baseline == configuration.row else 1
        rows.append(
            {
                "row": configuration.row,
                **configuration.axes,
                "threads": configuration.threads,
                "baseline": configuration.baseline,
                "adds": _counted(adds),
                "shares": _counted(shares),
                "timed_s": float(configuration["duration"] * shapes * processes),
            }
        )
    return pd.DataFrame({name: column([row[name] for row in rows]) for name in rows[0]} if rows else {})


def _counted(kinds: list[str]) -> str:
    """Kinds of steps, each once, with their number where it is not one."""
    return ", ".join(kind if count == 1 else f"{kind} x {count}" for kind, count in Counter(kinds).items())
