"""`node_exclusion: auto`: the search for the nodes to keep in float32, as further steps of its row.

Every trial is a `quantize`, an `evaluate`, and a `score` or `compare` step like any other, so a search is resumed and
shared. The resulting set, given as a fixed list, asks for the same steps. The order of trials is left to
`quantization.sensitivity.minimal_set`, the ranking of layers to `quantization.sensitivity.losses`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from benchcard.metrics.info import FIDELITY, default_max_drop
from benchcard.quantization.sensitivity.minimal_set import minimal_set
from benchcard.run.record import Search, Trial
from benchcard.run.row import Make, RowPipeline
from benchcard.steps.evaluate import CompareOutcome, EvaluateOutcome, ScoreOutcome
from benchcard.steps.models import ExportOutcome
from benchcard.steps.quantize import QuantizeOutcome, RankOutcome, RankRequest
from benchcard.steps.step import NotRun, Outcome, StepFailed
from benchcard.utils.values import Failure

# The rounding error of a metric, which is a sum of floating-point numbers.
_ROUNDING = 1e-12
# Number of samples that layers are ranked on. A costly layer shows on any sample.
RANKED_SAMPLES = 4


@dataclass
class AutoExclusion:
    """The search of one row.

    It goes by the first metric, or by the figure of fidelity by which the task chooses, where there is a baseline to
    compare with. `make` returns the quantized model with given exclusions. `max_drop` is the largest allowed loss of
    what it goes by, in its unit; None for one point of it, or 0.05 nats.
    """

    row: RowPipeline
    graph: Outcome[ExportOutcome]
    make: Make
    max_drop: float | None
    max_trials: int
    _trials: dict[tuple[str, ...], Trial] = field(default_factory=dict)
    _failed: StepFailed | None = None
    # The figure of fidelity that the search goes by; empty for the first metric.
    _figure: str = ""

    def search(self) -> Search:
        """Return the result of the search; `StepFailed` if no trial could be evaluated, or the metric is unsuited."""
        baseline = self._baseline()
        quantized = self.make(())
        self._figure = self.row.shared.traits.excludes_by if self.row.baseline() else ""
        if baseline.planned:
            return self._plan(quantized)
        if self._figure and self._is_measured(quantized):
            self._metric, info = self._figure, FIDELITY[self._figure]
            value: float | None = float(bool(info.higher_is_better))  # that of equal outputs
        else:
            self._figure = ""
            self._metric, value = next(iter(baseline.values.metrics.items()))
            info = baseline.values.readings[self._metric]
        self._sign, value = self._direction(info.higher_is_better, value)
        max_drop = default_max_drop(info.unit) if self.max_drop is None else self.max_drop
        self._floor = self._sign * value - max_drop - _ROUNDING
        ranked: tuple[str, ...] = ()
        nodes: tuple[str, ...] = ()
        is_minimal = True
        if not self._is_enough(()):
            ranked = self._rank(quantized).values.nodes
            result = minimal_set(list(ranked), self._is_enough, self.max_trials)
            nodes, is_minimal = result.nodes, result.is_minimal
        trials = tuple(self._trials.values())
        if self._failed is not None and all(trial.value is None for trial in trials):
            raise self._failed
        return Search(
            nodes=nodes,
            is_enough=self._trials[nodes].is_enough,
            is_minimal=is_minimal,
            trials=trials,
            candidates=len(ranked),
            metric=self._metric,
            baseline=value,
            value=self._trials[nodes].value,
            max_drop=max_drop,
            max_trials=self.max_trials,
        )

    def _predict(self, model: Outcome[QuantizeOutcome] | Outcome[ExportOutcome]) -> Outcome[EvaluateOutcome]:
        return self.row.shared.ask(self.row.evaluating(*self.row.converted(model)))

    def _score(self, model: Outcome[QuantizeOutcome] | Outcome[ExportOutcome]) -> Outcome[ScoreOutcome]:
        return self.row.shared.ask(self.row.scoring(self._predict(model)))

    def _compare(self, model: Outcome[QuantizeOutcome]) -> Outcome[CompareOutcome]:
        return self.row.shared.ask(self.row.comparing(self._predict(model)))

    def _is_measured(self, model: Outcome[QuantizeOutcome]) -> bool:
        """Return whether there is the figure of fidelity; also where a model has none, as one that cannot be run."""
        try:
            return self._figure in (self._compare(model).values.fidelity or {})
        except StepFailed as failed:
            if isinstance(failed.failure, NotRun):
                raise
            return self._figure in FIDELITY

    def _value(self, model: Outcome[QuantizeOutcome]) -> float | None:
        """Return what the search goes by, of a model."""
        if not self._figure:
            return self._score(model).values.metrics.get(self._metric)
        interval = (self._compare(model).values.fidelity or {}).get(self._figure)
        return None if interval is None else interval.value

    def _baseline(self) -> Outcome[ScoreOutcome]:
        """Return the metrics of the row's baseline, or of its own float graph where it has no baseline."""
        if self.row.failures.quality is not None:
            raise StepFailed(self.row.failures.quality)
        number = self.row.configuration.baseline
        if number is None:
            return self._score(self.graph)
        baseline = self.row.shared.row(number)
        baseline.prepare()
        baseline.make()
        return baseline.evaluate()

    def _rank(self, quantized: Outcome[QuantizeOutcome]) -> Outcome[RankOutcome]:
        inputs = self.row.outcomes.sample or self.row.prepare_outcome()
        fields = self.row.compared(self.graph, quantized)
        return self.row.ask(RankRequest(**fields, samples=RANKED_SAMPLES, inputs=inputs))

    def _is_enough(self, nodes: tuple[str, ...]) -> bool:
        """Return whether a model with these nodes in float32 is near enough; one that cannot be evaluated is not."""
        if nodes in self._trials:
            return self._trials[nodes].is_enough
        value = None
        try:
            value = self._value(self.make(nodes))
        except StepFailed as failed:
            if isinstance(failed.failure, NotRun):
                raise
            self._failed = failed
        enough = value is not None and self._sign * value >= self._floor
        self._trials[nodes] = Trial(nodes, value, enough)
        return enough

    def _direction(self, higher_is_better: bool | None, value: float | None) -> tuple[float, float]:
        """Return 1 where a higher metric is better, else -1, and the value of the baseline."""
        if higher_is_better is not None and value is not None:
            return (1.0 if higher_is_better else -1.0), value
        reason = "its direction is not known" if higher_is_better is None else "the baseline has no value of it"
        advice = "Give its direction in `higher_is_better`, put another metric first, or give a list of exclusions."
        message = f"`node_exclusion: auto` cannot use `{self._metric}`: {reason}. {advice}"
        raise StepFailed(Failure("quantize", "ArtifactError", message))

    def _plan(self, quantized: Outcome[QuantizeOutcome]) -> Search:
        """Ask for the most steps that a search can have, where the pipeline only lists steps."""
        ask = self._compare if self._figure else self._score
        ask(quantized)
        self._rank(quantized)
        for number in range(1, self.max_trials):
            ask(self.make((f"trial {number} within {self.max_drop}",)))
        return Search((), False, False, (), 0, "", 0.0, None, self.max_drop or 0.0, self.max_trials)
