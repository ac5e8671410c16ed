"""Metrics of rankings equal those of scikit-learn and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from benchcard import registry
from benchcard.errors import SpecError
from benchcard.metrics.compute import MetricInputs, compute_metric
from benchcard.metrics.examples import examples_of

RNG = np.random.default_rng(0)
SCORES = [RNG.standard_normal(size).tolist() for size in (3, 12, 25, 40, 2, 17)]
RELEVANCE = [RNG.integers(0, 3, len(scores)).astype(float).tolist() for scores in SCORES]
INPUTS = MetricInputs(SCORES, RELEVANCE)


@pytest.mark.parametrize("k", [1, 10, 100])
def test_ndcg_is_that_of_scikit_learn(k):
    """For lists of every length, and graded relevance."""
    from sklearn.metrics import ndcg_score

    figure = registry.metric("ndcg_at_10").compute(predictions=SCORES, references=RELEVANCE, k=k)["ndcg_at_10"]
    expected = [ndcg_score([actual], [scores], k=k, ignore_ties=True) for scores, actual in zip(SCORES, RELEVANCE)]
    assert figure == pytest.approx(np.mean(expected))


def test_the_reciprocal_rank_is_that_of_the_first_relevant_document():
    """It is 0 where that is not among the first ten; equal scores keep the order of the data."""
    late = [0.0] * 10 + [1.0]
    lists = {"predictions": [[1.0, 3.0, 2.0], [5.0, 5.0], [0.0] * 11], "references": [[1, 0, 2], [0, 1], late]}
    assert registry.metric("mrr_at_10").compute(**lists)["mrr_at_10"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


def test_queries_without_a_relevant_document_do_not_count():
    """In the figure and its interval; without any other query the figure is undefined."""
    more = MetricInputs([*SCORES, [1.0, 2.0]], [*RELEVANCE, [0.0, 0.0]])
    for name in ("ndcg_at_10", "mrr_at_10"):
        assert compute_metric(name, more) == compute_metric(name, INPUTS)
        figure = compute_metric(name, more)[name]
        assert examples_of(name, more)[name].score(np.arange(len(SCORES))) == pytest.approx(figure.value)
        assert (figure.info.higher_is_better, figure.info.unit) == (True, "share")
        assert compute_metric(name, MetricInputs([[1.0]], [[0.0]]))[name].value is None


@pytest.mark.parametrize("name", ["float_index_ndcg_at_10", "float_index_recall_at_10"])
def test_figures_of_the_float_index_need_rankings_of_a_corpus(name):
    """Scores of the documents of a query, as those of `text-ranking`, are not a ranking in another index."""
    with pytest.raises(SpecError, match=name):
        compute_metric(name, INPUTS)
