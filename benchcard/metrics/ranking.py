"""Metrics of rankings: how far up the relevant documents of a query are.

Predictions are the scores of the documents of a query, references their relevance: 0 for none, and more for more of it.
Of equal scores, the document that the data have first is first. Where a whole corpus is searched, predictions are the
ranks, from 1, of the documents in the reference instead, as `tasks.retrieval` makes them. Queries without a relevant
document do not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias

import datasets
import numpy as np
from numpy.typing import NDArray

from benchcard.metrics.examples import Examples, mean_of, ratio
from benchcard.metrics.offline import Offline

_NUMBERS = datasets.List(datasets.Value("float64"))
_RANKED = {
    "ranks": _NUMBERS,
    "float_index_ranks": _NUMBERS,
    "float_top_10_recall": datasets.Value("float64"),
}

Floats: TypeAlias = NDArray[np.float64]
Lists: TypeAlias = Sequence[Sequence[float]]
Ranked: TypeAlias = Mapping[str, Sequence[float]]
Predictions: TypeAlias = Sequence[Sequence[float] | Ranked]


class _OfQueries(Offline):
    """The mean over queries of a figure of the first `k` documents."""

    # `evaluate` takes the first form that fits, and a mapping would fit a list.
    takes: ClassVar[tuple[dict[str, object], ...]] = (
        {"predictions": _RANKED, "references": _NUMBERS},
        {"predictions": _NUMBERS, "references": _NUMBERS},
    )
    figure: ClassVar[str]
    ranks: ClassVar[str] = "ranks"
    depth: ClassVar[int] = 10

    @staticmethod
    def score(ranks: Floats, relevance: Floats, k: int) -> float:
        """Return the figure of one query from the ranks of documents, the first first, and their relevance."""
        raise NotImplementedError

    def _compute(self, predictions: Predictions, references: Lists, k: int | None = None) -> dict[str, float]:
        examples = self.examples(predictions, references, k).get(self.figure)
        return {self.figure: examples.score(np.arange(examples.count)) if examples else math.nan}

    def examples(self, predictions: Predictions, references: Lists, k: int | None = None) -> dict[str, Examples]:
        """Return the figure of each query; nothing where it has none, as one of the float index without a baseline."""
        depth = self.depth if k is None else k
        if depth < 1:
            raise ValueError(f"k is {k}; expected 1 or more documents")
        values = [self._of_query(*each, depth) for each in zip(predictions, references, strict=True)]
        return {} if np.isnan(values).all() else {self.figure: mean_of(values)}

    def _of_query(self, prediction: Sequence[float] | Ranked, relevance: Sequence[float], k: int) -> float:
        ranks = prediction.get(self.ranks) if isinstance(prediction, Mapping) else ranks_of(prediction)
        if ranks is None:
            return math.nan
        order = np.argsort(ranks)
        return self.score(np.asarray(ranks, np.float64)[order], np.asarray(relevance, np.float64)[order], k)


def ranks_of(scores: Sequence[float]) -> NDArray[np.intp]:
    """Return the ranks `(documents,)`, from 1, of documents with these scores, the highest first."""
    ranks = np.empty(len(scores), dtype=np.intp)
    ranks[np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


class Ndcg(_OfQueries):
    """The normalized discounted cumulative gain of the first `k` documents, 10 by default."""

    figure = "ndcg_at_10"

    @staticmethod
    def score(ranks: Floats, relevance: Floats, k: int) -> float:
        """Return the gain of one query; NaN where nothing is relevant.

        Source: K. Järvelin and J. Kekäläinen, Cumulated Gain-Based Evaluation of IR Techniques (ACM TOIS 20, 2002),
        with the logarithmic discount and linear gains, as in trec_eval, scikit-learn, and
        `InformationRetrievalEvaluator` of sentence-transformers.
        """
        is_first = ranks <= k
        best = np.sort(relevance)[::-1][:k]
        gain = float(np.sum(relevance[is_first] * (1 / np.log2(ranks[is_first] + 1))))
        ideal = float(np.sum(best * (1 / np.log2(np.arange(2, len(best) + 2)))))
        return gain / ideal if ideal > 0 else math.nan


class MeanReciprocalRank(_OfQueries):
    """The mean of 1 / the rank of the first relevant document among the first `k`, 10 by default."""

    figure = "mrr_at_10"

    @staticmethod
    def score(ranks: Floats, relevance: Floats, k: int) -> float:
        """Return 1 / the rank of the first relevant document, 0 where none is among the first `k`; NaN where nothing is
        relevant.
        """
        relevant = ranks[relevance > 0]
        if not relevant.size:
            return math.nan
        return 1 / float(relevant[0]) if relevant[0] <= k else 0.0


class Recall(_OfQueries):
    """The share of the relevant documents of a query that are among the first `k`, 10 by default; the mean of it."""

    figure = "recall_at_10"

    @staticmethod
    def score(ranks: Floats, relevance: Floats, k: int) -> float:
        """Return the share of one query; NaN where nothing is relevant. Source: `recall` of trec_eval."""
        relevant = ranks[relevance > 0]
        return float(np.mean(relevant <= k)) if relevant.size else math.nan


class Recall100(Recall):
    """The share of the relevant documents that are among the first 100."""

    figure, depth = "recall_at_100", 100


class FloatIndexNdcg(Ndcg):
    """nDCG of a model's queries on the index of the float model."""

    takes = Ndcg.takes[:1]
    figure, ranks = "float_index_ndcg_at_10", "float_index_ranks"


class FloatIndexRecall(Recall):
    """The recall of a model's queries on the index of the float model."""

    takes = Recall.takes[:1]
    figure, ranks = "float_index_recall_at_10", "float_index_ranks"


class FloatTopRecall(Offline):
    """The share of the float model's own first ten documents that a model's queries find among their first ten, on the
    index of the float model. It needs no references.
    """

    takes = ({"predictions": _RANKED},)

    def _compute(self, predictions: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
        figure = self.examples(predictions).get("float_top_10_recall")
        return {"float_top_10_recall": figure.score(np.arange(figure.count)) if figure else math.nan}

    def examples(self, predictions: Sequence[Mapping[str, float | None]]) -> dict[str, Examples]:
        """Return the share of each query; nothing where there is no baseline."""
        shares = [prediction["float_top_10_recall"] for prediction in predictions]
        if None in shares:
            return {}
        values = np.asarray(shares, dtype=np.float64)
        # No share of correct examples: that of the float model is 1 by definition, and has no interval.
        return {"float_top_10_recall": Examples(np.stack([values, np.ones_like(values)], axis=1), ratio)}
