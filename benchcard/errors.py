"""The exceptions of benchcard.

    BenchcardError      also raised itself: an unusable run directory (locked, full, not a run), an invalid argument
    ├── SpecError       mistakes in a spec: all of them at once, each with its place
    ├── MachineError    this machine cannot do it (instructions, memory, timing lock), or the run began on another one
    ├── ArtifactError   a model could not be produced (export, opset, quantization, calibration)
    │   └── UnfitGraphError  a graph has other inputs or outputs than the task, as the decoder beside an encoder has
    ├── BackendError    the place where the grid runs failed; for backends of other packages to raise
    ├── CardError       a card could not be read, rendered or merged
    │   └── NoCardError a README has no card of benchcard, or there is no README
    └── HubError        the Hub refused or could not be reached

A mistake in a spec is an exception. A failure of one configuration is data: a failed record beside the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class BenchcardError(Exception):
    """The base class of all errors of benchcard; its text says what happened and what to do."""

    def __str__(self) -> str:
        # Quoted text of unknown origin may contain characters that cannot be printed.
        return super().__str__().encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Mistake:
    """One mistake in a spec: the value that was `found`, as text, at a JSON path such as `$.grid.per_channel[1]`.

    `expected` describes the values that are allowed, and `hint` is a similar one, or what to do, or empty.
    """

    place: str
    found: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"expected {self.expected}, found {self.found}{hint} @ {self.place}"


class SpecError(BenchcardError):
    """A spec with mistakes; `mistakes` has all of them, in the order in which they were found."""

    def __init__(self, mistakes: Sequence[Mistake] | Mistake) -> None:
        self.mistakes: tuple[Mistake, ...] = (mistakes,) if isinstance(mistakes, Mistake) else tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[Mistake, ...]]]:
        return (type(self), (self.mistakes,))


class MachineError(BenchcardError):
    """The machine cannot do what the spec asks, or it differs from the one on which the run began."""


class ArtifactError(BenchcardError):
    """A model, or a file made from it, could not be produced."""


class UnfitGraphError(ArtifactError):
    """A graph takes other inputs than the task gives, or gives other outputs: it may be one for another task."""


class BackendError(BenchcardError):
    """The place where the grid runs failed; for backends of other packages to raise."""


class CardError(BenchcardError):
    """A card could not be read, rendered or merged."""


class NoCardError(CardError):
    """A README has no card of benchcard, or a repository has no README."""


class HubError(BenchcardError):
    """The Hub refused or could not be reached."""
