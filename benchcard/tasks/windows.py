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
    """The outputs of a model for one window: the logits of each token to begin and to end the answer.

    Attributes:
        offsets: The place of each token in the context: its first character, and the one after its last; -1 outside of
            the context.
        null: The token whose logits stand for no answer.
    """

    start: NDArray[np.float32]  # (tokens,)
    end: NDArray[np.float32]  # (tokens,)
    offsets: NDArray[np.int64]  # (tokens, 2)
    null: int


def answer(
    context: str, windows: Sequence[Window], *, answerable: bool, n_best: int, max_tokens: int, null_threshold: float
) -> tuple[str, float]:
    """Return the answer, empty for none, and the probability of no answer, 0 where every question has an answer.

    The score of an answer of at most `max_tokens` is the sum of both logits; of equal ones the first window's is taken.
    `n_best` starts and ends are combined in a window, and as many answers compared. The score of no answer is its
    lowest over the windows, since a window without the answer knows nothing of others. There is no answer where that
    exceeds the score of the best one by more than `null_threshold`.
    """
    from scipy.special import softmax

    candidates: list[tuple[float, str]] = []
    for window in windows:
        inside = window.offsets[:, 0] >= 0
        starts, ends = (np.argsort(logits)[::-1][:n_best].tolist() for logits in (window.start, window.end))
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
    probability = softmax([*(score for score, _ in best), null])[-1]
    return ("" if null - score > null_threshold else text), float(probability)
