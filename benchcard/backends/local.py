"""The backend `local`: this machine, now."""

from __future__ import annotations

from pathlib import Path

from benchcard.run import runner
from benchcard.spec.spec import Spec


class Local:
    """Runs on this machine, and returns when the run is over."""

    def run(self, spec: Spec, path: Path, *, timeout_s: float | None, show_progress: bool) -> None:
        """Run a spec, or what is left of it, in the run directory `path`."""
        runner.run_spec(spec, path, timeout_s=timeout_s, show_progress=show_progress)
