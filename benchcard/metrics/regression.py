"""Metrics of numbers against numbers, over scipy and scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from benchcard.metrics.examples import Computed, Examples, Indices, mean_of
from benchcard.metrics.offline import Offline

_NUMBERS = {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}

_Chosen = Callable[[Indices], NDArray[np.float64]]


class Pearson(Offline):
    """The linear correlation; not a number where predictions or references are all equal."""

    takes = (_NUMBERS,)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        from scipy.stats import pearsonr

        return {
            "pearson": float(pearsonr(predictions, references).statistic)
            if _vary(predictions, references)
            else math.nan
        }

    def examples(self, predictions: Any, references: Any) -> dict[str, Computed]:
        """The coefficient of the chosen examples, without the p-value that `pearsonr` computes beside it."""
        return {"pearson": _correlation(np.asarray(predictions).take, np.asarray(references).take, len(references))}


class Spearman(Offline):
    """The correlation of ranks; not a number where predictions or references are all equal."""

    takes = (_NUMBERS,)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        from scipy.stats import spearmanr

        return {
            "spearman": float(spearmanr(predictions, references).statistic)
            if _vary(predictions, references)
            else math.nan
        }

    def examples(self, predictions: Any, references: Any) -> dict[str, Computed]:
        """The coefficient of the chosen examples, which are ranked anew: the same example twice has one rank."""
        return {"spearman": _correlation(_ranks_of(predictions), _ranks_of(references), len(references))}


class MeanSquaredError(Offline):
    """The mean of the squared differences."""

    takes = (_NUMBERS,)

    def _compute(self, predictions: Any, references: Any, **arguments: Any) -> dict[str, float]:
        from sklearn.metrics import mean_squared_error

        return {"mse": float(mean_squared_error(references, predictions, **arguments))}

    def examples(self, predictions: Any, references: Any, **arguments: Any) -> dict[str, Examples] | None:
        """The squared difference."""
        return None if arguments else {"mse": mean_of((np.asarray(references) - np.asarray(predictions)) ** 2)}


def _correlation(found: _Chosen, right: _Chosen, count: int) -> Computed:
    """The linear correlation of what both give for the chosen examples."""

    def compute(indices: Indices) -> float:
        series = found(indices), right(indices)
        varies = all(each.min() < each.max() for each in series)
        return float(np.corrcoef(*series)[0, 1]) if varies else math.nan

    return Computed(compute, count)


def _ranks_of(numbers: Any) -> _Chosen:
    """The ranks of the chosen ones among themselves, equal ones with the mean of theirs, as `scipy.stats.rankdata`
    gives them; not numbers where one of the chosen is none.
    """
    values, places = np.unique(np.asarray(numbers, dtype=np.float64), return_inverse=True)

    def ranks(indices: Indices) -> NDArray[np.float64]:
        chosen = places[indices]
        counts = np.bincount(chosen, minlength=len(values))
        means = np.cumsum(counts) - (counts - 1) / 2
        means[np.isnan(values)] = math.nan
        return means[chosen]

    return ranks


def _vary(*series: Any) -> bool:
    """Whether each series has two different numbers, without which there is no correlation."""
    return all(len(set(numbers)) > 1 for numbers in series)
