"""The answer to a question from a model's outputs for overlapping windows of its context, as in the SQuAD script.

Source: `postprocess_qa_predictions` in
https://github.com/huggingface/transformers/blob/main/examples/pytorch/question-answering/utils_qa.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """The outputs of a model for one window.

    Attributes:
        start: The logit of each token to begin the answer, `(tokens,) float32`.
        end: The logit of each token to end it, `(tokens,) float32`.
        offsets: The place of each token in the context, `(tokens, 2) int64`: its first character, and the one after its
            last; -1 outside of the context.
        null: The token whose logits stand for no answer.
    """

    start: NDArray[np.float32]
    end: NDArray[np.float32]
    offsets: NDArray[np.int64]
    null: int


def answer(
    context: str, windows: Sequence[Window], *, answerable: bool, n_best: int, max_tokens: int, null_threshold: float
) -> tuple[str, float]:
    """Return the answer, empty for none, and the probability of no answer, 0 where every question has an answer.

    The score of an answer is the sum of both logits; of equal ones the first window's is taken. The score of no answer
    is its lowest over the windows, since a window without the answer knows nothing of others.

    Args:
        context: The text of the windows.
        windows: The windows.
        answerable: Whether every question has an answer.
        n_best: Number of starts and ends that are combined in a window, and of answers that are compared.
        max_tokens: The most tokens in an answer.
        null_threshold: There is no answer where its score exceeds that of the best answer by more than this.
    """
    candidates: list[tuple[float, str]] = []
    for window in windows:
        inside = window.offsets[:, 0] >= 0
        starts = np.argsort(window.start)[-1 : -n_best - 1 : -1].tolist()
        ends = np.argsort(window.end)[-1 : -n_best - 1 : -1].tolist()
        candidates += [
            (float(window.start[start] + window.end[end]), context[window.offsets[start, 0] : window.offsets[end, 1]])
            for start in starts
            for end in ends
            if inside[start] and inside[end] and start <= end < start + max_tokens
        ]
    best = sorted(candidates, key=lambda candidate: candidate[0], reverse=True)[:n_best]
    if answerable:
        return (best[0][1] if best else ""), 0.0
    null = min(float(window.start[window.null] + window.end[window.null]) for window in windows)
    score, text = next(((score, text) for score, text in best if text), (None, ""))
    if score is None:
        return "", 1.0
    scores = np.asarray([score for score, _ in best] + [null], dtype=np.float64)
    weights = np.exp(scores - scores.max())
    return ("" if null - score > null_threshold else text), float(weights[-1] / weights.sum())
