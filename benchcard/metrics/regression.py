"""Metrics of numbers against numbers, over scipy and scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import datasets
import numpy as np

from benchcard.metrics.examples import Examples, mean_of
from benchcard.metrics.offline import Offline

_NUMBERS = {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}


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


class MeanSquaredError(Offline):
    """The mean of the squared differences."""

    takes = (_NUMBERS,)

    def _compute(self, predictions: Any, references: Any, **arguments: Any) -> dict[str, float]:
        from sklearn.metrics import mean_squared_error

        return {"mse": float(mean_squared_error(references, predictions, **arguments))}

    def examples(self, predictions: Any, references: Any, **arguments: Any) -> dict[str, Examples] | None:
        """The squared difference."""
        return None if arguments else {"mse": mean_of((np.asarray(references) - np.asarray(predictions)) ** 2)}


def _vary(*series: Any) -> bool:
    """Whether each series has two different numbers, without which there is no correlation."""
    return all(len(set(numbers)) > 1 for numbers in series)
