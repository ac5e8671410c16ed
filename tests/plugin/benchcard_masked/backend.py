"""The backend `noted`: this machine, and a note beside the run directory of what ran there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchcard.backends.local import Local


class Noted:
    """Runs where `local` runs."""

    def run(self, spec: Any, path: Path, **settings: Any) -> None:
        """Run a spec, or what is left of it, in the run directory `path`."""
        Local().run(spec, path, **settings)
        note = spec.get("backend_args").get("note", "done")
        path.with_suffix(".note").write_text(f"{spec.task}: {note}\n", encoding="utf-8")
