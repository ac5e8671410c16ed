"""The backend `noted`: this machine, and a note beside the run directory of what ran there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchcard.backends.local import Local


class Noted:
    """A backend that runs where `local` runs."""

    def run(self, plan: Any, path: Path, **settings: Any) -> None:
        """Run a plan, or what is left of it, in the run directory `path`."""
        Local().run(plan, path, **settings)
        note = plan.spec.get("backend_args").get("note", "done")
        path.with_suffix(".note").write_text(f"{plan.spec.task}: {note}\n", encoding="utf-8")
