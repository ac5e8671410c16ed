"""The frame of a plan: its rows, the steps that they share, and what they will cost."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from benchcard.analysis.frames.columns import frame_of
from benchcard.measure.intervals import expected_half_width
from benchcard.run.planned import planned_steps
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import unresolved_sources
from benchcard.spec.plan import Configuration, Plan
from benchcard.utils.plain import canonical_json


def plan_frame(plan: Plan) -> pd.DataFrame:
    """Return one row per configuration: its benchmarked parameters and `threads`, empty where the machine decides;
    `baseline`; `adds`, `shares`, `timed_s`, and `expected_half_width`.

    `adds` names the steps that this row is the first to need, `shares` those that an earlier row needs as well, and
    `timed_s` the seconds of time measurement, twice as many for a baseline. Rows whose models turn out to be the same
    cost less than the plan says. A step that a row needs several times has a count, as `shape x 2`; for
    `node_exclusion: auto` that is the largest number, as `evaluate x 16`. `expected_half_width` is about how far the
    interval of a ratio will reach to either side on a quiet machine, relative to the ratio, or the `precision`.
    """
    seen: set[tuple[str, str]] = set()
    rows = []
    expected = planned_steps(plan, unresolved_sources(plan.spec), traits_of(plan), default_threads=0)
    for configuration, steps in zip(plan, expected):
        # Machines share no steps.
        machine = canonical_json(configuration["backend_args"])
        kinds = {(machine, step.key): step.kind for step in steps}
        # A baseline is timed in two processes, for the noise floor.
        processes = 2 if configuration.baseline == configuration.row else 1
        shapes = sum(step.kind == "shape" for step in steps)
        rows.append(
            {
                "row": configuration.row,
                **configuration.axes,
                "threads": configuration.threads,
                "baseline": configuration.baseline,
                "adds": _join_counted([kind for key, kind in kinds.items() if key not in seen]),
                "shares": _join_counted([kind for key, kind in kinds.items() if key in seen]),
                "timed_s": float(configuration["duration"] * shapes * processes),
                "expected_half_width": _half_width(configuration),
            }
        )
        seen.update(kinds)
    return frame_of(rows, rows[0] if rows else ())


def _half_width(configuration: Configuration) -> float | None:
    """Return the expected half-width of a ratio; None for a row without one."""
    duration, precision = configuration["duration"], configuration["precision"]
    if not duration > 0 or configuration.baseline in (None, configuration.row):
        return None
    return float(precision) if precision else expected_half_width(duration)


def _join_counted(kinds: list[str]) -> str:
    """Return kinds of steps, each once, with their number if it is not one."""
    return ", ".join(kind if count == 1 else f"{kind} x {count}" for kind, count in Counter(kinds).items())
