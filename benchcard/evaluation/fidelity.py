"""The comparison of a model's outputs with its baseline's: which of the kept arrays are compared, and how.

Leaves the figures to `benchcard.metrics.fidelity`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchcard.evaluation.rows import Rows, items_of, read_predictions
from benchcard.metrics import fidelity
from benchcard.metrics.fidelity import NextTokens, Owners
from benchcard.tasks import ComparedOutput, Task
from benchcard.tasks.feature_extraction import cosines
from benchcard.utils.values import Interval

Arrays = Mapping[str, np.ndarray]


def compare_outputs(task: Task, rows: Rows, baseline: Path, model: Path, seed: int) -> dict[str, Interval]:
    """Return the figures of fidelity of a model to its baseline, from the folders with what was kept of their outputs.

    They are empty where the task does not say how outputs are compared, and where there is nothing to compare.
    """
    describe = getattr(task, "compared_output", None)
    output: ComparedOutput | None = describe(rows.context) if describe else None
    if output is None or not len(rows):
        return {}
    (before, expected_arrays), (after, actual_arrays) = map(read_predictions, (baseline, model))
    if output.kind == "number":
        return {"rms_difference": fidelity.rms_difference(np.asarray(before), np.asarray(after))}
    every = np.arange(len(rows))
    if output.kind == "next_token":
        return _next_token_figures(rows, expected_arrays, actual_arrays, output.positions)
    if output.kind == "detections":
        of_images = list[dict[str, object]]
        return fidelity.detection_figures(msgspec.convert(before, of_images), msgspec.convert(after, of_images))
    if output.kind == "prediction":
        return fidelity.prediction_figures(before, after, None, every)
    expected, owners = _units(rows, items_of(expected_arrays, output.kept), output.positions)
    actual, _ = _units(rows, items_of(actual_arrays, output.kept), output.positions)
    if expected.shape != actual.shape or not expected.size:
        return {}
    if output.kind == "embedding":
        return _embedding_figures(expected, actual, owners, seed)
    if expected.shape[-1] == 1:  # The one output of a model is a number.
        return {"rms_difference": fidelity.rms_difference(expected[:, 0], actual[:, 0])}
    references: Sequence[object] | None = rows.references
    if all(reference is None for reference in rows.references):
        references = None
    if output.positions:
        before, after = _flat(before), _flat(after)
        references = None if references is None else _flat(references)
    divergences = fidelity.label_divergences if output.kind == "label" else fidelity.binary_divergences
    return {
        **fidelity.divergence_figures(divergences(expected, actual), owners),
        **fidelity.prediction_figures(before, after, references, owners if output.positions else every),
    }


def _next_token_figures(
    rows: Rows, expected_arrays: Arrays, actual_arrays: Arrays, positions: str
) -> dict[str, Interval]:
    def read(arrays: Arrays) -> tuple[NextTokens, Owners]:
        units = [_units(rows, items_of(arrays, name), positions) for name in ("top", "top_log_probs", "rest")]
        return NextTokens(*(values for values, _ in units)), units[0][1]

    (expected, owners), (actual, _) = read(expected_arrays), read(actual_arrays)
    return {
        **fidelity.divergence_figures(fidelity.next_token_divergences(expected, actual), owners),
        "agreement": fidelity.share(expected.tokens[:, 0] == actual.tokens[:, 0], owners),
    }


def _flat(lists: Sequence[object]) -> list[object]:
    """Return the entries of all lists, one for each position."""
    return [entry for entries in msgspec.convert(lists, list[list[object]]) for entry in entries]


def _units(rows: Rows, items: Sequence[np.ndarray], positions: str) -> tuple[np.ndarray, Owners]:
    """Return what is compared one by one, `(units, numbers)`, and the number of the example of each."""
    if not positions:
        units, owners = np.asarray(items), np.asarray(rows.owners)
    else:
        parts = [item[rows.items.beside(index)[positions]] for index, item in enumerate(items)]
        units, owners = np.concatenate(parts), np.repeat(rows.owners, list(map(len, parts)))
    return units, np.unique(owners, return_inverse=True)[1]


def _embedding_figures(expected: np.ndarray, actual: np.ndarray, owners: Owners, seed: int) -> dict[str, Interval]:
    of_texts = cosines(actual, expected)
    figures = {
        "cosine_mean": fidelity.mean(of_texts, owners, least=-1.0, most=1.0),
        "neighbor_overlap": fidelity.neighbor_overlap(expected, actual, seed),
        "cosine_p1": fidelity.quantile(of_texts, owners, 0.01),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}
