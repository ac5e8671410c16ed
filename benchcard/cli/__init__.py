"""The command line. Leaves all work to `Benchmark` and `Results`."""

from __future__ import annotations

from benchcard.cli.commands import main

__all__ = ["main"]
