"""`node_exclusion: auto`: the search for the nodes to keep in float32, as further steps of its row.

Every trial is a `quantize`, an `evaluate` and a `score` step like any other, so a search is resumed and shared. The
resulting set, given as a fixed list, asks for the same steps. The order of trials is left to
`quantization.sensitivity.minimal_set`, the ranking of layers to `quantization.sensitivity.losses`.
"""

from __future__ import annotations

from collections.abc import Callable

from benchcard.metrics.info import default_max_drop
from benchcard.quantization.sensitivity.minimal_set import minimal_set
from benchcard.run.record import Search, Trial
from benchcard.run.row import Make, RowPipeline, scales_by_batch
from benchcard.steps.evaluate import ScoreOutcome
from benchcard.steps.models import ExportOutcome, path_of
from benchcard.steps.quantize import QuantizeOutcome, RankOutcome, RankRequest
from benchcard.steps.step import NotRun, Outcome, StepFailed
from benchcard.utils.values import Failure

# The rounding error of a metric, which is a sum of floating-point numbers.
_ROUNDING = 1e-12
# Number of samples that layers are ranked on. A costly layer shows on any sample.
RANKED_SAMPLES = 4


class AutoExclusion:
    """The search of one row.

    `other` returns a new pipeline of another row, `make` the quantized model with given exclusions. `max_drop` is the
    largest allowed loss of the first metric, in its unit; None for one point of it.
    """

    def __init__(
        self,
        row: RowPipeline,
        other: Callable[[int], RowPipeline],
        graph: Outcome[ExportOutcome],
        make: Make,
        max_drop: float | None,
        max_trials: int,
    ) -> None:
        self._row, self._other, self._graph, self._make = row, other, graph, make
        self._max_drop, self._max_trials = max_drop, max_trials
        self._trials: list[Trial] = []
        self._failed: StepFailed | None = None

    def search(self) -> Search:
        """Return the result of the search.

        Raises:
            StepFailed: The model cannot be quantized, no trial could be evaluated, or the metric has no direction.
        """
        baseline = self._baseline()
        quantized = self._make(())
        if baseline.planned:
            return self._plan(quantized)
        self._metric, value = next(iter(baseline.values.metrics.items()))
        info = baseline.values.readings[self._metric]
        self._sign, value = self._direction(info.higher_is_better, value)
        max_drop = default_max_drop(info.unit) if self._max_drop is None else self._max_drop
        self._floor = self._sign * value - max_drop - _ROUNDING
        ranked: tuple[str, ...] = ()
        nodes: tuple[str, ...] = ()
        is_minimal = True
        if not self._is_enough(()):
            ranked = self._rank(quantized).values.nodes
            result = minimal_set(list(ranked), self._is_enough, self._max_trials)
            nodes, is_minimal = result.nodes, result.is_minimal
        if self._failed is not None and all(trial.value is None for trial in self._trials):
            raise self._failed
        last = next(trial for trial in self._trials if trial.nodes == nodes)
        return Search(
            nodes=nodes,
            is_enough=last.is_enough,
            is_minimal=is_minimal,
            trials=tuple(self._trials),
            candidates=len(ranked),
            metric=self._metric,
            baseline=value,
            value=last.value,
            max_drop=max_drop,
            max_trials=self._max_trials,
        )

    def _score(self, model: Outcome[QuantizeOutcome] | Outcome[ExportOutcome]) -> Outcome[ScoreOutcome]:
        row, file = self._row, self._row.converted(model)
        request = row.evaluating(path_of(file), file.values.digest, scales_by_batch(model))
        return row.shared.ask(row.scoring(row.shared.ask(request)))

    def _baseline(self) -> Outcome[ScoreOutcome]:
        """Return the metrics of the row's baseline, or of its own float graph where it has no baseline."""
        if self._row.failures.quality is not None:
            raise StepFailed(self._row.failures.quality)
        number = self._row.configuration.baseline
        if number is None:
            return self._score(self._graph)
        baseline = self._other(number)
        baseline.prepare()
        baseline.make()
        return baseline.ask(baseline.scoring(baseline.predict()))

    def _rank(self, quantized: Outcome[QuantizeOutcome]) -> Outcome[RankOutcome]:
        """Rank the nodes of a quantized model, the costliest first."""
        inputs = self._row.outcomes.sample or self._row.prepare_outcome()
        fields = self._row.compared(self._graph, quantized)
        return self._row.ask(RankRequest(**fields, samples=RANKED_SAMPLES, inputs=inputs))

    def _is_enough(self, nodes: tuple[str, ...]) -> bool:
        """Return whether a model with these nodes in float32 is near enough; one that cannot be evaluated is not."""
        earlier = next((trial for trial in self._trials if trial.nodes == nodes), None)
        if earlier is not None:
            return earlier.is_enough
        value = None
        try:
            value = self._score(self._make(nodes)).values.metrics.get(self._metric)
        except StepFailed as failed:
            if isinstance(failed.failure, NotRun):
                raise
            self._failed = failed
        enough = value is not None and self._sign * value >= self._floor
        self._trials.append(Trial(nodes, value, enough))
        return enough

    def _direction(self, higher_is_better: bool | None, value: float | None) -> tuple[float, float]:
        """Return 1 where a higher metric is better, else -1, and the value of the baseline."""
        if higher_is_better is not None and value is not None:
            return (1.0 if higher_is_better else -1.0), value
        reason = "its direction is not known" if higher_is_better is None else "the baseline has no value of it"
        raise StepFailed(
            Failure(
                "quantize",
                "ArtifactError",
                f"`node_exclusion: auto` cannot use `{self._metric}`: {reason}. Give its direction in "
                "`higher_is_better`, put another metric first, or give a list of exclusions.",
            )
        )

    def _plan(self, quantized: Outcome[QuantizeOutcome]) -> Search:
        """Ask for the steps of the most trials that are allowed, where the pipeline only lists steps."""
        self._score(quantized)
        self._rank(quantized)
        for number in range(1, self._max_trials):
            self._score(self._make((f"trial {number} within {self._max_drop}",)))
        return Search((), False, False, (), 0, "", 0.0, None, self._max_drop or 0.0, self._max_trials)
