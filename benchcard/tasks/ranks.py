"""Ranks of documents by the similarity of their embeddings to that of a query, in bounded memory.

Leaves the choice of embeddings to `retrieval`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
"""The scores `(documents,)` of all documents for one query."""

# A block has this many scores at most, 64 MB, or one query. Documents are converted to float64 in blocks of 32 MB at
# 512 numbers each.
_SCORES, _DOCUMENTS = 1 << 24, 1 << 13
# The scores of one text differ by this share of them where it was in different batches.
_SAME_SCORE = 1e-6


def scores(queries: np.ndarray, documents: np.ndarray, similarity: str) -> Iterator[Scores]:
    """Yield the scores of all documents for one query after the other, from embeddings `(texts, numbers)`.

    They are computed in float64 and rounded, so that equal embeddings have equal scores. `similarity` is a name of
    `feature_extraction.SIMILARITIES`.
    """
    compute, size = _MATRICES[similarity], max(1, _SCORES // max(1, len(documents)))
    for start in range(0, len(queries), size):
        part = queries[start : start + size].astype(np.float64)
        block = np.empty((len(part), len(documents)), dtype=np.float32)
        for at in range(0, len(documents), _DOCUMENTS):
            columns = slice(at, at + _DOCUMENTS)
            block[:, columns] = compute(part, documents[columns].astype(np.float64))
        yield from block


def ranks(scores: Scores, places: Sequence[int]) -> list[int]:
    """Return the ranks, from 1, of the documents at these places; of equal scores, the first document is first."""
    return [
        1 + int(np.count_nonzero(scores > scores[place])) + int(np.count_nonzero(scores[:place] == scores[place]))
        for place in places
    ]


def nearest(scores: Scores, count: int) -> NDArray[np.intp]:
    """Return the places of the documents with the highest scores, in no order; of equal scores, the first ones."""
    if count >= len(scores):
        return np.arange(len(scores))
    least = np.partition(scores, -count)[-count]
    above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    return np.concatenate([above, equal[: count - len(above)]])


def share_found(scores: Scores, places: NDArray[np.intp]) -> float:
    """Return the share of the documents at these places that are among as many with the highest scores. One whose score
    is that of the last of these but for rounding counts as among them.
    """
    least = float(np.partition(scores, -len(places))[-len(places)])
    return float(np.mean(scores[places] >= least - _SAME_SCORE * max(1.0, abs(least))))


def _cosines(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    return np.asarray(_unit(queries) @ _unit(documents).T)


def _unit(embeddings: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.where(norms > 0, norms, 1))


def _negative_distances(metric: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def compute(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        from scipy.spatial.distance import cdist

        return np.asarray(-cdist(queries, documents, metric))

    return compute


_MATRICES: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": _cosines,
    "dot": lambda queries, documents: queries @ documents.T,
    "euclidean": _negative_distances("euclidean"),
    "manhattan": _negative_distances("cityblock"),
}
