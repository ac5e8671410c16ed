"""How much of a sentence's embedding quantization left: its cosine with the baseline's embedding of the same sentence.

A rank correlation with gold scores hardly moves while every embedding turns; whoever searches with new embeddings in an
index of old ones must know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchcard.run.record import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchcard.analysis.records import Records


COLUMN = "embedding_cosine"


def embedding_cosine(records: Records, record: Record) -> float | None:
    """The mean cosine, over all sentences of the evaluation split, between a row's embeddings and its baseline's; 1 for
    the baseline itself. None where the task gives no embeddings, or one of the two rows has none.
    """
    reference = record.configuration.baseline
    if reference is None or record.outcomes.evaluate is None:
        return None
    these = _embeddings(record)
    those = these if reference == record.configuration.row else _embeddings(records.records[reference])
    if these is None or those is None or these.shape != those.shape:
        return None
    from benchcard.tasks.feature_extraction import cosines

    return float(cosines(these, those).mean())


def _embeddings(record: Record) -> NDArray[Any] | None:
    """The embeddings `(sentences, numbers) float32` that a row's evaluation kept, if it did."""
    import numpy as np

    outcome = record.outcomes.evaluate
    if outcome is None:
        return None
    with np.load(outcome.folder / "predictions.npz", allow_pickle=False) as archive:
        return archive["embedding"] if "embedding" in archive.files else None
