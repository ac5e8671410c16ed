"""The scores of lm-eval: the task's own `process_results` for each row, and its aggregation over rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from benchcard.metrics.examples import Computed, FigureOfExamples, Indices, mean_of
from benchcard.metrics.offline import Offline
from benchcard.utils.harness import load_task

Requests = Sequence[Sequence[Sequence[float]]]


class LmEval(Offline):
    """The metrics of the task's `metric_list`, as `acc` and `acc_norm`, computed by lm-eval.

    Predictions are the log-probability of each request of a row, and whether greedy decoding gives it; references are
    the documents in JSON.
    """

    takes = (
        {
            "predictions": datasets.List(datasets.List(datasets.Value("float64"))),
            "references": datasets.Value("string"),
        },
    )

    def _compute(self, predictions: Requests, references: Sequence[str], task: str | Path = "") -> dict[str, float]:
        every = np.arange(len(references))
        return {name: figure.score(every) for name, figure in self.examples(predictions, references, task).items()}

    def examples(
        self, predictions: Requests, references: Sequence[str], task: str | Path = ""
    ) -> dict[str, FigureOfExamples]:
        """Return the figures of a task, a name or a file, by the name that it gives them."""
        docs = [json.loads(reference) for reference in references]
        loaded = load_task(task, datasets.Dataset.from_list(docs), prepared=True)
        scores: dict[str, list[Any]] = {}
        for doc, requests in zip(docs, predictions):
            results = loaded.process_results(doc, [(log_prob, bool(greedy)) for log_prob, greedy in requests])
            for name, value in results.items():
                scores.setdefault(name, []).append(value)
        aggregations = loaded.aggregation()
        return {name: _figure(values, aggregations[name]) for name, values in scores.items() if name in aggregations}


def _figure(values: Sequence[Any], aggregation: Callable[[Sequence[Any]], float]) -> FigureOfExamples:
    """Return the figure of one value per row; the mean is known to be one, which is faster to resample."""
    if aggregation.__name__ == "mean":
        return mean_of(values)
    return Computed(partial(_aggregated, values, aggregation), len(values))


def _aggregated(values: Sequence[Any], aggregation: Callable[[Sequence[Any]], float], indices: Indices) -> float:
    return float(aggregation([values[index] for index in indices]))
