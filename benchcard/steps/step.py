"""What a step is: its request, its key, its outcome, and its failure.

How a step of each kind is done is left to the other modules of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchcard.utils.plain import digest
from benchcard.utils.values import Failure


@dataclass(frozen=True)
class Outcome:
    """What a step came to: values and files, or the reason why there are none.

    Attributes:
        kind: The step's kind.
        key: The step's key.
        folder: Where its files lie.
        values: What it found out, as plain data.
        seconds: Wall time it took.
        failure: Why it failed, or None.
        planned: Whether nothing was done, since only the steps of a plan are asked for.
    """

    kind: str
    key: str
    folder: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    failure: Failure | None = None
    planned: bool = False


@dataclass(frozen=True)
class Need:
    """What an earlier step made: its folder and its values."""

    folder: Path
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One expensive thing.

    Attributes:
        kind: What to do: the name of a function in `actions`.
        engine: The kind of child process it runs in: "onnx", "torch", or a name of a framework's own.
        asked: All that determines the result, beside what the step needs; plain data.
        needs: Finished steps whose files it reads, by the name under which it knows them.
        extra: What it must know that does not determine the result: where folders lie, on this machine, at this moment.
    """

    kind: str
    engine: str
    asked: Mapping[str, Any]
    needs: Mapping[str, Outcome] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """SHA-256 of what determines the result."""
        needs = {name: outcome.key for name, outcome in self.needs.items()}
        return digest({"kind": self.kind, "asked": self.asked, "needs": needs})


Ask = Callable[[Step], Outcome]


class StepFailed(Exception):
    """The way of a row ends at a step that failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


Progress = Callable[[int, int], None]
Asked = Mapping[str, Any]
Needs = Mapping[str, Need]
