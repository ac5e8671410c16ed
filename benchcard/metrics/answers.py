"""Metrics of answers as text: exact match, and F1 of words as the official SQuAD scorers count them.

Sources: evaluate-v1.1.py and evaluate-v2.0.py of https://rajpurkar.github.io/SQuAD-explorer/. They differ where an
answer has no word left without articles and punctuation, and for questions without an answer.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets

from benchcard.metrics.examples import Examples, mean_of
from benchcard.metrics.offline import Offline

_TEXT, _NUMBER = datasets.Value("string"), datasets.Value("float64")
_REFERENCES = {
    "id": _TEXT,
    "answers": {"text": datasets.List(_TEXT), "answer_start": datasets.List(datasets.Value("int64"))},
}
_PREDICTIONS = {"id": _TEXT, "prediction_text": _TEXT}

_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
_PUNCTUATION, _DIGITS = (str.maketrans("", "", letters) for letters in (string.punctuation, string.digits))


# Predictions, or references, in the form that the official scorers take.
Rows = Sequence[Mapping[str, Any]]


def normalize(text: str) -> str:
    """Return the text in lower case, without ASCII punctuation, without articles, and with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(prediction: str, answer: str) -> float:
    """Return 1 where the normalized texts are equal, else 0."""
    return float(normalize(prediction) == normalize(answer))


def word_f1(prediction: str, answer: str, empty_agree: bool = False) -> float:
    """Return the F1 of the words that prediction and answer have in common.

    Two texts without words score 1 where `empty_agree`, as in SQuAD v2, else 0, as in v1.1.
    """
    predicted, actual = normalize(prediction).split(), normalize(answer).split()
    if empty_agree and not (predicted and actual):
        return float(predicted == actual)
    same = sum((Counter(predicted) & Counter(actual)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(predicted), same / len(actual)
    return 2 * precision * recall / (precision + recall)


class Squad(Offline):
    """Exact match and F1, in percent, the best over the answers of each question (SQuAD v1.1)."""

    takes = ({"predictions": _PREDICTIONS, "references": _REFERENCES},)

    def add_batch(self, *, predictions: Rows, references: Rows, **others: object) -> None:
        """Take predictions with or without a `no_answer_probability`, which SQuAD v1.1 does not have."""
        known = [{"id": given["id"], "prediction_text": given["prediction_text"]} for given in predictions]
        super().add_batch(predictions=known, references=references, **others)

    def _compute(self, predictions: Rows, references: Rows) -> dict[str, float]:
        return {name: _percent(scores) for name, scores in self._scores(predictions, references).items()}

    def examples(self, predictions: Rows, references: Rows) -> dict[str, Examples]:
        """Return the score of each question, in percent."""
        return {name: _examples(scores) for name, scores in self._scores(predictions, references).items()}

    @staticmethod
    def _scores(predictions: Rows, references: Rows) -> dict[str, list[float]]:
        texts = {prediction["id"]: prediction["prediction_text"] for prediction in predictions}
        pairs = [(texts[reference["id"]], reference["answers"]["text"]) for reference in references]
        if not all(answers for _, answers in pairs):
            raise ValueError("a question has no answer; use `squad_v2`, the metric for such questions")
        return {
            "exact_match": [max(exact(text, answer) for answer in answers) for text, answers in pairs],
            "f1": [max(word_f1(text, answer) for answer in answers) for text, answers in pairs],
        }


@dataclass(frozen=True)
class _Question:
    """A question of SQuAD v2; `exact` and `f1` are the scores of its predicted text, whatever the probability is."""

    answerable: bool
    prediction: str
    no_answer_probability: float
    exact: float
    f1: float

    def score(self, figure: str, threshold: float) -> float:
        """Return the score of a figure where a probability above the threshold predicts that there is no answer."""
        return float(not self.answerable) if self.no_answer_probability > threshold else float(getattr(self, figure))


class SquadV2(Offline):
    """Exact match and F1, in percent, where a question may have no answer (SQuAD v2): of all questions, of those with
    an answer, and of those without.

    A prediction whose `no_answer_probability` is above `no_answer_threshold` counts as no answer. `best_*` are the
    figures at the best threshold.
    """

    takes = ({"predictions": {**_PREDICTIONS, "no_answer_probability": _NUMBER}, "references": _REFERENCES},)

    def _compute(self, predictions: Rows, references: Rows, no_answer_threshold: float = 1.0) -> dict[str, float]:
        questions = _questions(predictions, references)
        # The official scorer looks for thresholds in the order of the predictions.
        predicted = [questions[key] for key in dict.fromkeys(prediction["id"] for prediction in predictions)]
        figures: dict[str, float] = {}
        for prefix, part in _parts(questions):
            for name in ("exact", "f1"):
                figures[f"{prefix}{name}"] = _percent([question.score(name, no_answer_threshold) for question in part])
            figures[f"{prefix}total"] = len(part)
        for name in ("exact", "f1"):
            figures[f"best_{name}"], figures[f"best_{name}_thresh"] = _best_threshold(predicted, name)
        return figures

    def examples(self, predictions: Rows, references: Rows, no_answer_threshold: float = 1.0) -> dict[str, Examples]:
        """Return the score of each question, in percent. Figures at the best threshold have no scores of questions."""
        return {
            f"{prefix}{name}": _examples([question.score(name, no_answer_threshold) for question in part])
            for prefix, part in _parts(_questions(predictions, references))
            for name in ("exact", "f1")
        }


class ExactMatch(Offline):
    """The share of predicted texts that equal the reference, character by character."""

    takes = ({"predictions": _TEXT, "references": _TEXT},)

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        regexes_to_ignore: Sequence[str] | None = None,
        ignore_case: bool = False,
        ignore_punctuation: bool = False,
        ignore_numbers: bool = False,
    ) -> dict[str, float]:
        def reduced(text: str) -> str:
            for pattern in regexes_to_ignore or ():
                text = re.sub(pattern, "", text)
            text = text.lower() if ignore_case else text
            text = text.translate(_PUNCTUATION) if ignore_punctuation else text
            return text.translate(_DIGITS) if ignore_numbers else text

        same = [reduced(predicted) == reduced(actual) for predicted, actual in zip(predictions, references)]
        return {"exact_match": sum(same) / len(same)}

    def examples(self, predictions: Sequence[str], references: Sequence[str], **arguments: Any) -> dict[str, Examples]:
        """Return whether each text is right."""
        pairs = zip(predictions, references)
        same = [self._compute([text], [answer], **arguments)["exact_match"] for text, answer in pairs]
        return {"exact_match": mean_of(same)}


def _questions(predictions: Rows, references: Rows) -> dict[str, _Question]:
    """Return the questions by id, in the order of the references."""
    by_id = {prediction["id"]: prediction for prediction in predictions}
    questions = {}
    for reference in references:
        prediction, answers = by_id[reference["id"]], reference["answers"]["text"]
        text = prediction["prediction_text"]
        # An answer of nothing but articles and punctuation is no answer.
        accepted = [answer for answer in answers if normalize(answer)] or [""]
        questions[reference["id"]] = _Question(
            bool(answers),
            text,
            prediction["no_answer_probability"],
            max(exact(text, answer) for answer in accepted),
            max(word_f1(text, answer, empty_agree=True) for answer in accepted),
        )
    return questions


def _parts(questions: Mapping[str, _Question]) -> Iterator[tuple[str, list[_Question]]]:
    """Yield all questions, those with an answer and those without, with the prefix of their figures; none empty."""
    for prefix, kinds in (("", (True, False)), ("HasAns_", (True,)), ("NoAns_", (False,))):
        if part := [question for question in questions.values() if question.answerable in kinds]:
            yield prefix, part


def _percent(scores: Sequence[float]) -> float:
    return 100.0 * sum(scores) / len(scores)


def _examples(scores: Sequence[float]) -> Examples:
    return mean_of([100.0 * score for score in scores], 100.0)


def _best_threshold(questions: Sequence[_Question], figure: str) -> tuple[float, float]:
    """Return the best score in percent over all no-answer thresholds, and its threshold.

    The search starts with no answers at all, and answers one more question at a time.
    """
    current = best = float(sum(not question.answerable for question in questions))
    threshold = 0.0
    for question in sorted(questions, key=lambda question: question.no_answer_probability):
        current += getattr(question, figure) if question.answerable else (-1 if question.prediction else 0)
        if current > best:
            best, threshold = current, question.no_answer_probability
    return 100.0 * best / len(questions), threshold
