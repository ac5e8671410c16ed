"""The cosine between a row's embeddings and its baseline's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchcard.analysis.row_facts import embedding_cosine
from benchcard.run.record import Outcomes
from benchcard.steps.evaluate import EvaluateOutcome
from benchcard.steps.step import Outcome


def record(folder: Path, row: int, baseline: int | None, **kept: np.ndarray) -> SimpleNamespace:
    """Return a row whose evaluation stored these arrays."""
    (folder / str(row)).mkdir()
    np.savez(folder / str(row) / "predictions.npz", **kept)
    evaluated = Outcome("evaluate", str(row), folder / str(row), EvaluateOutcome(elapsed_ns=1))
    outcomes = Outcomes(evaluate=evaluated)
    return SimpleNamespace(configuration=SimpleNamespace(row=row, baseline=baseline), outcomes=outcomes)


def test_the_mean_over_all_sentences_of_each_with_itself(tmp_path):
    """The mean cosine is over sentences, for embeddings of any length; it is 1 for the baseline, and None for rows
    without embeddings, evaluation or baseline.
    """
    float32 = np.array([[1, 0], [0, 2], [3, 3]], dtype=np.float32)
    turned = np.array([[5, 0], [1, 0], [-1, -1]], dtype=np.float32)
    rows = [
        record(tmp_path, 0, 0, embedding=float32),
        record(tmp_path, 1, 0, embedding=turned),
        record(tmp_path, 2, 0, scores=float32),
        record(tmp_path, 3, None, embedding=float32),
    ]
    rows.append(SimpleNamespace(configuration=SimpleNamespace(row=4, baseline=0), outcomes=Outcomes()))
    records = SimpleNamespace(records=rows)
    found = [embedding_cosine(records, row) for row in rows]
    assert found[:2] == [pytest.approx(1.0), pytest.approx((1 + 0 - 1) / 3)]
    assert found[2:] == [None, None, None]
