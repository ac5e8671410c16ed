"""The answer to a question from a model's outputs over overlapping windows of its context, as the SQuAD reference
script chooses it.

Source: `postprocess_qa_predictions` in
https://github.com/huggingface/transformers/blob/main/examples/pytorch/question-answering/utils_qa.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """What a model says of one window.

    Attributes:
        start: Logits of each token to begin the answer, `(tokens,) float32`.
        end: Logits of each token to end it, `(tokens,) float32`.
        offsets: Where each token stands in the context, `(tokens, 2) int64`: first character and the one after the
            last; -1 outside the context.
        null: The token whose logits stand for no answer.
    """

    start: NDArray[np.float32]
    end: NDArray[np.float32]
    offsets: NDArray[Any]
    null: int


@dataclass(frozen=True)
class Span:
    """A possible answer: characters of the context, and its score, the sum of both logits."""

    start: int
    end: int
    score: float


def spans(windows: Sequence[Window], n_best: int, longest: int) -> list[Span]:
    """The best possible answers over all windows, best first; of equal ones the one that was found first.

    Args:
        windows: The windows of one context.
        n_best: Starts and ends considered in a window, and answers given.
        longest: The most tokens in an answer.
    """
    found = []
    for window in windows:
        inside = window.offsets[:, 0] >= 0
        starts = np.argsort(window.start)[-1 : -n_best - 1 : -1].tolist()
        ends = np.argsort(window.end)[-1 : -n_best - 1 : -1].tolist()
        found += [
            Span(
                int(window.offsets[start, 0]), int(window.offsets[end, 1]), float(window.start[start] + window.end[end])
            )
            for start in starts
            for end in ends
            if inside[start] and inside[end] and start <= end < start + longest
        ]
    return sorted(found, key=lambda span: span.score, reverse=True)[:n_best]


def answer(
    context: str, windows: Sequence[Window], *, answerable: bool, n_best: int, longest: int, null_threshold: float
) -> tuple[str, float]:
    """The answer, empty for none, and how probable it is that there is none: 0 where every question has an answer.

    That there is no answer scores as low as in the window that thinks least of it: a window without the answer knows
    nothing of the others.

    Args:
        context: The text that the windows are of.
        windows: The windows.
        answerable: Whether every question has an answer.
        n_best: Starts and ends considered in a window, and answers compared.
        longest: The most tokens in an answer.
        null_threshold: By how much the score of no answer must be above the best answer's.
    """
    best = spans(windows, n_best, longest)
    texts = [context[span.start : span.end] for span in best]
    if answerable:
        return (texts[0] if texts else ""), 0.0
    null = min(float(window.start[window.null] + window.end[window.null]) for window in windows)
    place = next((index for index, text in enumerate(texts) if text), None)
    if place is None:
        return "", 1.0
    scores = np.asarray([span.score for span in best] + [null], dtype=np.float64)
    weights = np.exp(scores - scores.max())
    probability = float(weights[-1] / weights.sum())
    return ("" if null - best[place].score > null_threshold else texts[place]), probability
