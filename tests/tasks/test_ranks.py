"""Ranks of documents equal those of a plain sort, whatever the size of blocks."""

from __future__ import annotations

import numpy as np
import pytest

from benchcard.tasks import ranks
from benchcard.tasks.feature_extraction import SIMILARITIES

RNG = np.random.default_rng(0)
QUERIES, DOCUMENTS = (RNG.standard_normal((count, 8)).astype(np.float32) for count in (7, 50))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_scores_are_those_of_pairs_in_any_blocks(similarity, monkeypatch):
    """Of each pair alone, as `feature-extraction` computes them, with blocks of three documents and two queries."""
    _, of_pairs = SIMILARITIES[similarity]
    expected = [of_pairs(np.repeat(query[None], 50, axis=0).astype(np.float64), DOCUMENTS) for query in QUERIES]
    np.testing.assert_allclose(list(ranks.scores(QUERIES, DOCUMENTS, similarity)), expected, atol=1e-6)
    monkeypatch.setattr(ranks, "_SCORES", 100)
    monkeypatch.setattr(ranks, "_DOCUMENTS", 3)
    np.testing.assert_allclose(list(ranks.scores(QUERIES, DOCUMENTS, similarity)), expected, atol=1e-6)


def test_ranks_are_those_of_a_stable_sort():
    """Equal scores keep the order of the corpus."""
    scores = RNG.integers(0, 5, 40).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    places = [3, 39, 0, 17]
    assert ranks.ranks(scores, places) == [1 + order.tolist().index(place) for place in places]
    for count in (1, 10, 40, 100):
        assert set(ranks.nearest(scores, count)) == set(order[:count])


def test_a_document_that_rounding_moved_counts_as_found():
    """One that is behind the last of the first ones by more does not."""
    scores = np.array([0.9, 0.5, 0.5 - 1e-7, 0.4], dtype=np.float32)
    assert ranks.share_found(scores, np.array([0, 2])) == 1
    assert ranks.share_found(scores, np.array([0, 3])) == 0.5


def test_an_embedding_of_zeros_is_like_nothing():
    """Its cosine is 0, not undefined."""
    (scores,) = ranks.scores(np.zeros((1, 4), np.float32), DOCUMENTS[:, :4], "cosine")
    assert (scores == 0).all()
