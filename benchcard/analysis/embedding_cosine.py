"""The cosine between each sentence's embedding and the baseline's, as a measure of what quantization changed.

If all embeddings rotate together, a rank correlation with gold scores hardly changes, but a search of an index of old
embeddings with new ones fails.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchcard.analysis.records import Records
from benchcard.run.record import Record

COLUMN = "embedding_cosine"


def embedding_cosine(records: Records, record: Record) -> float | None:
    """Return the mean cosine between the embeddings of a row and its baseline; None where one of them has none."""
    baseline = record.configuration.baseline
    if baseline is None or (embeddings := _embeddings(record)) is None:
        return None
    is_baseline = baseline == record.configuration.row
    expected = embeddings if is_baseline else _embeddings(records.records[baseline])
    if expected is None or expected.shape != embeddings.shape:
        return None
    from benchcard.tasks.feature_extraction import cosines

    return float(cosines(embeddings, expected).mean())


def _embeddings(record: Record) -> NDArray[np.float32] | None:
    """Return the embeddings `(sentences, dimensions) float32` of a row's evaluation; None where it has none."""
    outcome = record.outcomes.evaluate
    if outcome is None:
        return None
    with np.load(outcome.folder / "predictions.npz", allow_pickle=False) as archive:
        return archive["embedding"] if "embedding" in archive.files else None
