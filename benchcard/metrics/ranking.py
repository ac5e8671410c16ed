"""Metrics of rankings: how far up the relevant documents of a query are.

Predictions are the scores of the documents of a query, references their relevance: 0 for none, and more for more of it.
Queries without a relevant document do not count. Of equal scores, the document that the data have first is first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import datasets
import numpy as np
from numpy.typing import NDArray

from benchcard.metrics.examples import Examples, mean_of
from benchcard.metrics.offline import Offline

_LISTS = {
    "predictions": datasets.List(datasets.Value("float64")),
    "references": datasets.List(datasets.Value("float64")),
}
_DEPTH = 10

Lists = Sequence[Sequence[float]]


class _OfQueries(Offline):
    """The mean over queries of a figure of the first `k` documents."""

    takes = (_LISTS,)
    figure: ClassVar[str]

    @staticmethod
    def score(relevance: NDArray[np.float64], k: int) -> float:
        """Return the figure of one query."""
        raise NotImplementedError

    def _compute(self, predictions: Lists, references: Lists, k: int = _DEPTH) -> dict[str, float]:
        examples = self.examples(predictions, references, k)[self.figure]
        return {self.figure: examples.score(np.arange(examples.count))}

    def examples(self, predictions: Lists, references: Lists, k: int = _DEPTH) -> dict[str, Examples]:
        """Return the figure of each query."""
        if k < 1:
            raise ValueError(f"k is {k}; expected 1 or more documents")
        return {
            self.figure: mean_of([self.score(ranked(*each), k) for each in zip(predictions, references, strict=True)])
        }


def ranked(scores: Sequence[float], relevance: Sequence[float]) -> NDArray[np.float64]:
    """Return the relevance `(documents,) float64` of documents in the order of their scores, the highest first."""
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    return np.asarray(relevance, dtype=np.float64)[order]


class Ndcg(_OfQueries):
    """The normalized discounted cumulative gain of the first `k` documents, 10 by default."""

    figure = "ndcg_at_10"

    @staticmethod
    def score(relevance: NDArray[np.float64], k: int) -> float:
        """Return the gain of one query; NaN where nothing is relevant.

        Source: K. Järvelin and J. Kekäläinen, Cumulated Gain-Based Evaluation of IR Techniques (ACM TOIS 20, 2002),
        with the logarithmic discount and linear gains, as in trec_eval and scikit-learn.
        """
        discounts = 1 / np.log2(np.arange(2, len(relevance) + 2))
        gain, ideal = (float(np.sum(each[:k] * discounts[:k])) for each in (relevance, np.sort(relevance)[::-1]))
        return gain / ideal if ideal > 0 else math.nan


class MeanReciprocalRank(_OfQueries):
    """The mean of 1 / the rank of the first relevant document among the first `k`, 10 by default."""

    figure = "mrr_at_10"

    @staticmethod
    def score(relevance: NDArray[np.float64], k: int) -> float:
        """Return 1 / the rank of the first relevant document, 0 where none is among the first `k`; NaN where nothing is
        relevant.
        """
        places = np.flatnonzero(relevance > 0)
        if not places.size:
            return math.nan
        return 1 / float(places[0] + 1) if places[0] < k else 0.0
