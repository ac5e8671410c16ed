"""The record of a row: its outcomes, its timed cells, its failures, and its search for exclusions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchcard.run.failures import Failures
from benchcard.spec.plan import Configuration
from benchcard.steps.data import RowsOutcome, ShapeOutcome
from benchcard.steps.evaluate import CompareOutcome, EvaluateOutcome, ScoreOutcome
from benchcard.steps.models import ConvertOutcome, ExportOutcome
from benchcard.steps.quantize import CalibrateOutcome, ExplainOutcome, QuantizeOutcome, RankOutcome
from benchcard.steps.step import Outcome
from benchcard.utils.plain import digest
from benchcard.utils.values import Shape


@dataclass(frozen=True)
class Cell:
    """A model with its options and inputs of one shape, timed once for all rows that share it.

    `shape` has the length that the inputs have, which may differ from the requested one.
    """

    framework: str
    model: Path
    digest: str
    options: Mapping[str, Any]
    inputs: Outcome[ShapeOutcome]
    shape: Shape

    @cached_property
    def name(self) -> str:
        """A name that is equal for equal cells. Timing uses it for its subjects."""
        model = {"model": self.digest, "framework": self.framework, "options": self.options}
        return digest({**model, "inputs": self.inputs.key})


@dataclass(frozen=True)
class Trial:
    """A quantized model that `node_exclusion: auto` evaluated, with these nodes in float32.

    The `value` of the deciding metric is None if there is none; whether it `is_enough` depends on the baseline's.
    """

    nodes: tuple[str, ...]
    value: float | None
    is_enough: bool


@dataclass(frozen=True)
class Search:
    """The result of `node_exclusion: auto`.

    Attributes:
        nodes: The nodes that stay in float32, the costliest first. As a fixed list they give the same model.
        is_enough: Whether the metric is within `max_drop`, in its unit, of the baseline's.
        is_minimal: Whether every smaller set was tried.
        trials: All sets that were tried, in order; the first is empty.
        candidates: Number of quantized nodes that were ranked.
        metric: The metric, or figure of fidelity, that decided.
        baseline: The metric of the baseline; `value` is that of the resulting model.
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


@dataclass
class Outcomes:
    """The outcomes of a row by kind of step; None where the row did not get there, or does not ask for it."""

    prepare: Outcome[RowsOutcome] | None = None
    sample: Outcome[RowsOutcome] | None = None
    export: Outcome[ExportOutcome] | None = None
    cast: Outcome[ExportOutcome] | None = None
    calibrate: Outcome[CalibrateOutcome] | None = None
    quantize: Outcome[QuantizeOutcome] | None = None
    convert: Outcome[ConvertOutcome] | None = None
    explain: Outcome[ExplainOutcome] | None = None
    rank: Outcome[RankOutcome] | None = None
    evaluate: Outcome[EvaluateOutcome] | None = None
    score: Outcome[ScoreOutcome] | None = None
    compare: Outcome[CompareOutcome] | None = None

    @property
    def float_graph(self) -> Outcome[ExportOutcome] | None:
        """The graph of the row before it is quantized, in float16 where the row has this."""
        return self.cast or self.export

    @property
    def graph(self) -> Outcome[QuantizeOutcome] | Outcome[ExportOutcome] | None:
        """The ONNX graph of the row: the quantized one, or else the float one."""
        return self.quantize or self.float_graph


@dataclass(frozen=True)
class Record:
    """The record of a row, with its cells by shape as the spec has it.

    `digest` is the SHA-256 of its model's content, once the model was made; `search` the result of
    `node_exclusion: auto`, if any.
    """

    configuration: Configuration
    outcomes: Outcomes
    digest: str | None
    cells: Mapping[Shape, Cell]
    failures: Failures
    search: Search | None = None

    @property
    def quantized(self) -> bool:
        """Whether the model was quantized: by benchcard, or by the framework that converted its graph."""
        convert = self.outcomes.convert
        return self.configuration.quantized or bool(convert and convert.values.quantized)
