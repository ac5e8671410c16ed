"""Metrics of numbers, over scipy and scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import datasets
import numpy as np
from numpy.typing import NDArray

from benchcard.metrics.examples import Computed, Examples, Indices, mean_of
from benchcard.metrics.offline import Offline

_NUMBERS = {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}

Numbers = Sequence[float]
Select = Callable[[Indices], NDArray[np.float64]]


class _Correlation(Offline):
    """A correlation coefficient (`figure`); NaN where predictions or references are all equal."""

    takes = (_NUMBERS,)
    figure: ClassVar[str]

    def _compute(self, predictions: Numbers, references: Numbers) -> dict[str, float]:
        import scipy.stats

        if len(set(predictions)) < 2 or len(set(references)) < 2:
            return {self.figure: math.nan}
        correlate = getattr(scipy.stats, f"{self.figure}r")
        return {self.figure: float(correlate(predictions, references).statistic)}

    def _select(self, numbers: Numbers) -> Select:
        """Return a function that gives the numbers to correlate for the chosen examples."""
        return np.asarray(numbers).take

    def examples(self, predictions: Numbers, references: Numbers) -> dict[str, Computed]:
        """Return the coefficient of the chosen examples, without the p-value that scipy computes beside it."""
        selects = self._select(predictions), self._select(references)

        def compute(indices: Indices) -> float:
            first, second = (select(indices) for select in selects)
            varies = all(numbers.min() < numbers.max() for numbers in (first, second))
            return float(np.corrcoef(first, second)[0, 1]) if varies else math.nan

        return {self.figure: Computed(compute, len(references))}


class Pearson(_Correlation):
    """The linear correlation; NaN where predictions or references are all equal."""

    figure = "pearson"


class Spearman(_Correlation):
    """The correlation of ranks; NaN where predictions or references are all equal."""

    figure = "spearman"

    def _select(self, numbers: Numbers) -> Select:
        """Return a function that ranks the chosen numbers as `scipy.stats.rankdata` does: equal ones get their mean
        rank. All ranks from a NaN on are NaN.
        """
        values, places = np.unique(np.asarray(numbers, dtype=np.float64), return_inverse=True)

        def ranks(indices: Indices) -> NDArray[np.float64]:
            chosen = places[indices]
            counts = np.bincount(chosen, minlength=len(values))
            means = np.cumsum(counts) - (counts - 1) / 2
            means[np.isnan(values)] = math.nan
            return np.asarray(means[chosen])

        return ranks


class MeanSquaredError(Offline):
    """The mean of the squared differences."""

    takes = (_NUMBERS,)

    def _compute(self, predictions: Numbers, references: Numbers, **arguments: object) -> dict[str, float]:
        from sklearn.metrics import mean_squared_error

        return {"mse": float(mean_squared_error(references, predictions, **arguments))}

    def examples(self, predictions: Numbers, references: Numbers, **arguments: object) -> dict[str, Examples] | None:
        """Return the squared difference of each example."""
        return None if arguments else {"mse": mean_of((np.asarray(references) - np.asarray(predictions)) ** 2)}
