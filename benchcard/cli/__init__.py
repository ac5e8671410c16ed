"""The command line."""

from __future__ import annotations

from benchcard.cli.commands import main

__all__ = ["main"]
