"""What a configuration came to: outcomes, timed cells, failures, and the search for exclusions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchcard.spec.plan import Configuration
from benchcard.steps.step import Outcome
from benchcard.utils.plain import digest
from benchcard.utils.values import Failure


@dataclass(frozen=True)
class Cell:
    """One model, one way of running it, and inputs of one shape: what is timed, once, for all rows that share it.

    Attributes:
        framework: Its framework's name.
        model: The file or folder that the framework opens.
        digest: Of the model's content.
        options: What the framework is told.
        inputs: The outcome of the step that made them.
        samples: Samples in one forward call: the batch size.
        input_length: Length that the inputs really have; None where the task has none.
    """

    framework: str
    model: Path
    digest: str
    options: Mapping[str, Any]
    inputs: Outcome
    samples: int
    input_length: int | None

    @cached_property
    def name(self) -> str:
        """Equal for cells that are the same; the subject's name in timing."""
        return digest(
            {"model": self.digest, "framework": self.framework, "options": self.options, "inputs": self.inputs.key}
        )


@dataclass(frozen=True)
class Trial:
    """One quantized model that `node_exclusion: auto` evaluated.

    Attributes:
        nodes: The nodes that were left in float32.
        value: The deciding metric; None where the model could not be made or evaluated.
        is_enough: Whether the metric is near enough to the baseline's.
    """

    nodes: tuple[str, ...]
    value: float | None
    is_enough: bool


@dataclass(frozen=True)
class Search:
    """What `node_exclusion: auto` found.

    Attributes:
        nodes: What stays in float32, the costliest node first: as a fixed list, it gives the same model.
        is_enough: Whether this brings the metric within `max_drop` of the baseline's.
        is_minimal: Whether it was tried that no node of it can be left out.
        trials: Every set that was tried, in their order; the first is empty.
        candidates: Number of quantized nodes among which it was searched.
        metric: The metric that decided.
        baseline: Its value for the baseline.
        value: Its value for the model that was found.
        max_drop: How much of it could be lost, in its own unit.
        max_trials: How many sets could be tried.
    """

    nodes: tuple[str, ...]
    is_enough: bool
    is_minimal: bool
    trials: tuple[Trial, ...]
    candidates: int
    metric: str
    baseline: float
    value: float | None
    max_drop: float
    max_trials: int


@dataclass(frozen=True)
class Record:
    """What a configuration came to: the outcomes on its way, or the reason why it ends early.

    Attributes:
        configuration: The row.
        outcomes: By kind of step, as far as the way was gone.
        digest: The model's content digest, once it was made.
        cells: What is timed, by batch size and asked input length.
        failures: By what is missing for it: "model", "quality", "reasons", or a shape as "time 1x64".
        search: What `node_exclusion: auto` found; None for other rows, and where it found nothing yet.
    """

    configuration: Configuration
    outcomes: Mapping[str, Outcome]
    digest: str | None
    cells: Mapping[tuple[int, int | None], Cell]
    failures: Mapping[str, Failure]
    search: Search | None = None
