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


@dataclass(frozen=True)
class Span:
    """A possible answer: characters of the context, and the sum of both logits."""

    start: int
    end: int
    score: float


def spans(windows: Sequence[Window], n_best: int, max_tokens: int) -> list[Span]:
    """Return the best spans over all windows, best first; of equal ones the earlier window's.

    Args:
        windows: The windows of one context.
        n_best: Number of starts and ends that are combined in a window, and of spans that are returned.
        max_tokens: The most tokens in an answer.
    """
    candidates = []
    for window in windows:
        inside = window.offsets[:, 0] >= 0
        starts = np.argsort(window.start)[-1 : -n_best - 1 : -1].tolist()
        ends = np.argsort(window.end)[-1 : -n_best - 1 : -1].tolist()
        candidates += [
            Span(
                int(window.offsets[start, 0]), int(window.offsets[end, 1]), float(window.start[start] + window.end[end])
            )
            for start in starts
            for end in ends
            if inside[start] and inside[end] and start <= end < start + max_tokens
        ]
    return sorted(candidates, key=lambda span: span.score, reverse=True)[:n_best]


def answer(
    context: str, windows: Sequence[Window], *, answerable: bool, n_best: int, max_tokens: int, null_threshold: float
) -> tuple[str, float]:
    """Return the answer, empty for none, and the probability of no answer, 0 where every question has an answer.

    The score of no answer is its lowest over the windows, since a window without the answer knows nothing of others.

    Args:
        context: The text of the windows.
        windows: The windows.
        answerable: Whether every question has an answer.
        n_best: Number of starts and ends that are combined in a window, and of answers that are compared.
        max_tokens: The most tokens in an answer.
        null_threshold: There is no answer where its score exceeds that of the best answer by more than this.
    """
    best = spans(windows, n_best, max_tokens)
    texts = [context[span.start : span.end] for span in best]
    if answerable:
        return (texts[0] if texts else ""), 0.0
    null = min(float(window.start[window.null] + window.end[window.null]) for window in windows)
    first = next((index for index, text in enumerate(texts) if text), None)
    if first is None:
        return "", 1.0
    scores = np.asarray([span.score for span in best] + [null], dtype=np.float64)
    weights = np.exp(scores - scores.max())
    probability = float(weights[-1] / weights.sum())
    return ("" if null - best[first].score > null_threshold else texts[first]), probability
