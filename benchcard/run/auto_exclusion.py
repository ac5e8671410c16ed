"""`node_exclusion: auto`: the search for the nodes to keep in float32, as further steps of its row.

Every trial is a `quantize`, an `evaluate` and a `score` step like any other, so a search is resumed and shared, and the
set that it finds, given as a fixed list, asks for the same steps. The order of trials is left to
`quantization.sensitivity.minimal_set`, the ranking of layers to `quantization.sensitivity.losses`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from benchcard.metrics.info import default_max_drop
from benchcard.quantization.sensitivity.minimal_set import minimal_set
from benchcard.run.record import Search, Trial
from benchcard.run.row import scales_by_batch
from benchcard.steps.step import Outcome, Step, StepFailed
from benchcard.utils.values import Failure

if TYPE_CHECKING:
    from benchcard.run.row import RowPipeline


# Figures are sums of floating-point numbers: what differs by less is equal.
_ROUNDING = 1e-12
# How many samples each layer is ranked on: what costs much shows on any of them.
RANKED_SAMPLES = 4


class AutoExclusion:
    """The search for one row."""

    def __init__(
        self,
        way: RowPipeline,
        other: Callable[[int], RowPipeline],
        graph: Outcome,
        make: Callable[[Sequence[str]], Outcome],
        max_drop: float | None,
        max_trials: int,
    ) -> None:
        """A search that has not begun.

        Args:
            way: The row's.
            other: Gives the pipeline of another row, by its number, at its start.
            graph: Its graph before it is quantized.
            make: Gives the quantized model in which these nodes are left out.
            max_drop: How much of the first metric may be lost, in its own unit; None for a point of it.
            max_trials: How many quantized models may be evaluated.
        """
        self._way, self._other, self._graph, self._make = way, other, graph, make
        self._max_drop, self._max_trials = max_drop, max_trials
        self._trials: list[Trial] = []
        self._failed: StepFailed | None = None

    def found(self) -> Search:
        """What the search came to.

        Raises:
            StepFailed: The model cannot be quantized at all, no trial could be evaluated, or the metric has no
                direction.
        """
        baseline = self._baseline()
        whole = self._make(())
        if baseline.planned:
            return self._planned(whole)
        self._metric, value = next(iter(baseline.values["metrics"].items()))
        self._sign = self._direction(baseline, value)
        unit = baseline.values["readings"][self._metric]["unit"]
        max_drop = default_max_drop(unit) if self._max_drop is None else self._max_drop
        self._floor = self._sign * value - max_drop - _ROUNDING
        ranked: list[str] = []
        if not self._is_enough(()):
            ranked = self._rank(whole).values["nodes"]
            found = minimal_set(ranked, self._is_enough, self._max_trials)
            nodes, is_minimal = found.nodes, found.is_minimal
        else:
            nodes, is_minimal = (), True
        if self._failed is not None and all(trial.value is None for trial in self._trials):
            raise self._failed
        last = next(trial for trial in self._trials if trial.nodes == nodes)
        return Search(
            nodes,
            last.is_enough,
            is_minimal,
            tuple(self._trials),
            len(ranked),
            self._metric,
            value,
            last.value,
            max_drop,
            self._max_trials,
        )

    def _score(self, made: Outcome) -> Outcome:
        """The metrics of a model."""
        way = self._way
        opened = way.opened(made)
        step = way.evaluating(opened.folder / opened.values["file"], opened.values["digest"], scales_by_batch(made))
        return way.walk.ask(way.scoring(way.walk.ask(step)))

    def _baseline(self) -> Outcome:
        """The metrics to come near to: those of the row's baseline; where it has none, of its own graph in float32."""
        if "quality" in self._way.failures:
            raise StepFailed(self._way.failures["quality"])
        row = self._way.row.baseline
        if row is None:
            return self._score(self._graph)
        baseline = self._other(row)
        baseline.prepare()
        baseline.make()
        baseline.evaluate()
        return baseline.outcomes["score"]

    def _rank(self, whole: Outcome) -> Outcome:
        """The layers of a quantized model, by what they cost."""
        asked = {"model": whole.values["digest"], "float": self._graph.values["digest"], "samples": RANKED_SAMPLES}
        inputs = self._way.outcomes.get("sample") or self._way.outcomes["prepare"]
        where = self._way.compared(self._graph, whole)
        return self._way.ask(Step("rank", "onnx", asked, needs={"inputs": inputs}, extra=where))

    def _is_enough(self, nodes: tuple[str, ...]) -> bool:
        """Whether a model with these nodes in float32 is near enough to the baseline; one that cannot be evaluated,
        for its outputs are not finite, is not.
        """
        known = next((trial for trial in self._trials if trial.nodes == nodes), None)
        if known is not None:
            return known.is_enough
        value = None
        try:
            value = self._score(self._make(nodes)).values["metrics"].get(self._metric)
        except StepFailed as failed:
            if failed.failure.type == "NotRun":
                raise
            self._failed = failed
        enough = value is not None and self._sign * value >= self._floor
        self._trials.append(Trial(nodes, value, enough))
        return enough

    def _direction(self, baseline: Outcome, value: float | None) -> float:
        """1 where more of the metric is better, -1 where less is."""
        better = baseline.values["readings"][self._metric]["higher_is_better"]
        if better is None or value is None:
            reason = "nobody knows which way it is better" if better is None else "the baseline has none"
            raise StepFailed(
                Failure(
                    "quantize",
                    "ArtifactError",
                    f"`node_exclusion: auto` cannot go by `{self._metric}`: {reason}. Say so in "
                    "`higher_is_better`, give another metric first, or a list of what to exclude.",
                )
            )
        return 1.0 if better else -1.0

    def _planned(self, whole: Outcome) -> Search:
        """What the search will ask for at most, where nothing is done: as many trials as it may make."""
        self._score(whole)
        self._rank(whole)
        for number in range(1, self._max_trials):
            self._score(self._make((f"trial {number} within {self._max_drop}",)))
        return Search((), False, False, (), 0, "", 0.0, None, self._max_drop or 0.0, self._max_trials)
