"""A metric as a function of the chosen examples, so that it can be resampled a thousand times in a second.

benchcard's own metrics have a method `examples`, which returns what each example contributes and how a sum of
contributions becomes a figure: right or wrong for accuracy, counts of each label for F1, counts of entities of each
sentence for seqeval. Any other metric is computed anew from the chosen examples.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchcard.metrics.compute import MetricCall, MetricInputs, compute_metric, prepare_call

Indices = NDArray[np.intp]
Totals = NDArray[np.float64]


@dataclass(frozen=True)
class Examples:
    """What each example contributes to one figure of a metric.

    Attributes:
        tallies: `(examples, k) float64`, the contributions.
        figure: Computes the figure from a sum of contributions, `(k,) float64`; NaN where it is not defined.
        correct: `(examples,) bool`, where the figure is the share of correct examples; else None.
        maximum: The figure where all examples are correct: 1, or 100 for a metric in percent.
    """

    tallies: NDArray[np.float64]
    figure: Callable[[Totals], float]
    correct: NDArray[np.bool_] | None = None
    maximum: float = 1.0

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.tallies)

    def score(self, indices: Indices) -> float:
        """Return the figure of the examples with these indices, `(n,) intp`, which may repeat."""
        # Weighting each row by its count reads far less memory than selecting the rows.
        weights = np.bincount(indices, minlength=self.count).astype(np.float64)
        return self.figure(np.einsum("i,ij->j", weights, self.tallies))


@dataclass(frozen=True)
class Computed:
    """A figure of `count` examples that `score` computes anew from the examples with these indices; NaN where it is not
    defined. Its metric has no contributions of examples.
    """

    score: Callable[[Indices], float]
    count: int
    correct: None = None
    maximum: float = 1.0


FigureOfExamples = Examples | Computed


def mean_of(values: ArrayLike, maximum: float = 1.0) -> Examples:
    """Return a figure that is the mean of one value per example `(examples,)`, without those that are NaN.

    Where all values are 0 or `maximum`, the figure is a share of correct examples.
    """
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    correct = numbers == maximum if np.isin(numbers, (0.0, maximum)).all() else None
    return Examples(np.stack([numbers, np.ones_like(numbers)], axis=1), ratio, correct, maximum)


def examples_of(name: str, inputs: MetricInputs, script: str | None = None) -> dict[str, FigureOfExamples]:
    """Return the figures of a metric as functions of examples, by the name of their column, as in `compute_metric`.

    Figures that do not depend on single examples, as a count or the best threshold, are left out where the metric has
    a method `examples`.
    """
    call = prepare_call(name, inputs, script)
    own = getattr(call.metric, "examples", None)
    figures: Mapping[str, FigureOfExamples] | None = own(**call.inputs, **call.arguments) if own else None
    if figures is None:
        names = [call.figure] if call.figure else list(compute_metric(name, inputs, script))
        count = len(next(iter(call.inputs.values())))
        figures = {figure: Computed(partial(_recompute, call, figure), count) for figure in names}
    if call.figure:
        return {name: figures[call.figure]} if call.figure in figures else {}
    return dict(figures)


def _recompute(call: MetricCall, figure: str, indices: Indices) -> float:
    chosen = {name: [values[index] for index in indices] for name, values in call.inputs.items()}
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # A figure that is undefined for these examples becomes NaN, which the caller handles.
            warnings.simplefilter("ignore")
            result = call.metric._compute(**chosen, **call.arguments)
            return float(result[figure] if isinstance(result, Mapping) else result)
    except (ValueError, TypeError, KeyError, ZeroDivisionError):
        return math.nan


def label_counts(predictions: ArrayLike, references: ArrayLike) -> NDArray[np.float64]:
    """Return what each example contributes to the counts of labels, given label ids `(examples,)`, or 0 or 1 for each
    label `(examples, labels)`: hits, then predictions, then references, `(examples, 3 * labels)`.
    """
    predicted, actual = np.asarray(predictions), np.asarray(references)
    if predicted.ndim == 1:
        labels = np.union1d(predicted, actual)
        predicted, actual = np.equal.outer(predicted, labels), np.equal.outer(actual, labels)
    predicted, actual = predicted.astype(bool), actual.astype(bool)
    return np.concatenate([predicted & actual, predicted, actual], axis=1).astype(np.float64)


def score_of_counts(
    figure: str, hits: Totals | np.float64, predicted: Totals | np.float64, actual: Totals | np.float64
) -> Totals:
    """Return precision, recall or F1 of counts; 0 where it is not defined, as in scikit-learn and seqeval."""
    divisor = {"precision": predicted, "recall": actual, "f1": (predicted + actual) / 2}[figure]
    return np.divide(hits, divisor, out=np.zeros_like(hits, dtype=np.float64), where=np.asarray(divisor) > 0)


def ratio(sums: Totals) -> float:
    """Return the first of two sums as a share of the second; NaN where that is 0."""
    return float(sums[0] / sums[1]) if sums[1] else math.nan
