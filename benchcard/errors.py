"""The mistakes that benchcard reports, as one tree.

    BenchcardError      itself: a run directory that is locked, full or no run, an argument that cannot be
    ├── SpecError       the spec asks for something that cannot be: every mistake at once, each with its place
    ├── MachineError    this machine cannot do what was asked (instructions, memory, lock for timing, another one's run)
    ├── ArtifactError   a model could not be made as asked (export, opset, quantization, calibration)
    ├── BackendError    where the grid runs failed; for backends of other packages to raise
    ├── CardError       a card could not be read, rendered or merged
    └── HubError        the Hub refused, or could not be reached

A spec's mistake is an exception. What goes wrong in one configuration is data: a failed record beside the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class BenchcardError(Exception):
    """Anything that benchcard itself reports; its text says what happened and what to do."""

    def __str__(self) -> str:
        # What is quoted of a stranger's text may hold what cannot be printed.
        return super().__str__().encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Mistake:
    """One mistake in a spec: where it is, what stands there, what should.

    Attributes:
        place: JSON path of the value, as `$.grid.per_channel[1]`.
        found: the value as it was given, as text.
        expected: what may stand there, in words.
        hint: a near miss or a way out; empty where there is none.
    """

    place: str
    found: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"expected {self.expected}, found {self.found}{hint} @ {self.place}"


class SpecError(BenchcardError):
    """A spec with mistakes. `mistakes` holds all of them, in the order in which they were found."""

    def __init__(self, mistakes: Sequence[Mistake] | Mistake) -> None:
        self.mistakes: tuple[Mistake, ...] = (mistakes,) if isinstance(mistakes, Mistake) else tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.mistakes,))


class MachineError(BenchcardError):
    """A machine that cannot do what was asked of it, or is not the one, or not as it was, when the run was begun."""


class ArtifactError(BenchcardError):
    """A model, or something made from it, could not be made as asked."""


class BackendError(BenchcardError):
    """The place where the grid runs failed; for backends of other packages to raise."""


class CardError(BenchcardError):
    """A card could not be read, rendered or merged."""


class HubError(BenchcardError):
    """The Hub refused, or could not be reached."""
