"""The events of a run, for programs that show its progress themselves: `benchmark.run(progress=function)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from benchcard.utils.text import pluralize
from benchcard.utils.values import Failure, Shape


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a run; its text is a line for a person. `left_s` is the estimated time to the end."""

    left_s: float


@dataclass(frozen=True, kw_only=True)
class StepEvent(Event):
    """A step, or the timing of a group of models, has ended. Steps that an earlier run did have no event.

    Attributes:
        kind: The kind of step, such as `export`; `time` for the timing of a group of models.
        description: The step in words.
        seconds: Its elapsed time.
        failures: Why it failed; for `time`, why models of the group could not be timed. Empty where it succeeded.
        done: The steps that are done or turned out not to be needed, of `total`.
    """

    kind: str
    description: str
    seconds: float
    failures: tuple[Failure, ...]
    done: int
    total: int

    def __str__(self) -> str:
        failures = "; ".join(map(str, self.failures))
        return f"{self.description}: {f'failed: {failures}' if failures else f'{self.seconds:.1f} s'}"


@dataclass(frozen=True, kw_only=True)
class RowEvent(Event):
    """All steps of a row have ended. Times follow when all rows are there, since models are timed together.

    Attributes:
        row: The number of the row, from 0, of `rows`.
        label: Its benchmarked parameters.
        failures: What is missing in the row, such as `model` or `quality`, and why.
    """

    row: int
    rows: int
    label: str
    failures: tuple[tuple[str, Failure], ...]

    def __str__(self) -> str:
        missing = "; ".join(f"no {name}: {failure}" for name, failure in self.failures)
        return f"row {self.row} ({self.label}): {missing or 'all steps done'}"


@dataclass(frozen=True, kw_only=True)
class RoundEvent(Event):
    """A round of timing, one short block of each model of a group, was recorded.

    Attributes:
        number: The number of the round, from 0; `launch` is that of the launch.
        models: How many models the group has, without the second process of the baseline.
        shape: The shape of their inputs.
        done_s: Recorded seconds of the group, of `total_s`, as far as is known.
        half_width: Half the width of the intervals so far over their ratios, the median; None before the second launch.
    """

    number: int
    launch: int
    models: int
    shape: Shape
    done_s: float
    total_s: float
    half_width: float | None

    def __str__(self) -> str:
        ratios = "" if self.half_width is None else f", ratios ±{self.half_width:.2%}"
        time = f"{self.done_s:.1f} of {self.total_s:.1f} s"
        return f"round {self.number} of {pluralize(self.models, 'model')}, {self.shape}: {time}{ratios}"


Listener: TypeAlias = Callable[[Event], None]
"""A function that is called with each event, between steps and between timed blocks."""
