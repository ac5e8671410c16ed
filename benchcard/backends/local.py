"""The backend `local`: this machine."""

from __future__ import annotations

from pathlib import Path

from benchcard.run.runner import run_plan
from benchcard.spec.plan import Plan
from benchcard.utils.events import Listener


class Local:
    """A backend that runs on this machine, and returns when the run has ended."""

    def run(self, plan: Plan, path: Path, *, timeout_s: float | None, progress: Listener | bool) -> None:
        """Run a plan, or what is left of it, in the run directory `path`."""
        run_plan(plan, path, timeout_s=timeout_s, progress=progress)
