"""Metrics of answers in words: exact match and F1 of words as the official SQuAD scorers count them.

Sources: evaluate-v1.1.py and evaluate-v2.0.py of https://rajpurkar.github.io/SQuAD-explorer/. The two differ where an
answer has no word left once articles and punctuation are gone, and for questions without an answer.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import datasets

from benchcard.metrics.examples import Examples, mean_of
from benchcard.metrics.offline import Offline

_TEXT, _NUMBER = datasets.Value("string"), datasets.Value("float64")
_ANSWERS = {
    "id": _TEXT,
    "answers": {"text": datasets.List(_TEXT), "answer_start": datasets.List(datasets.Value("int64"))},
}
_PLAIN = {"predictions": {"id": _TEXT, "prediction_text": _TEXT}, "references": _ANSWERS}
_SURE = {
    "predictions": {"id": _TEXT, "prediction_text": _TEXT, "no_answer_probability": _NUMBER},
    "references": _ANSWERS,
}

_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """The text in lower case, without ASCII punctuation, without articles, and with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(prediction: str, answer: str) -> float:
    """1 where the normalized texts are equal, else 0."""
    return float(normalized(prediction) == normalized(answer))


def word_f1(prediction: str, answer: str, empty_agree: bool = False) -> float:
    """The harmonic mean of the shares of words that prediction and answer have in common.

    Args:
        prediction: What was predicted.
        answer: What is right.
        empty_agree: Whether two texts without words agree: in SQuAD v2 they do, in v1.1 nothing in common is 0.
    """
    found, right = normalized(prediction).split(), normalized(answer).split()
    if empty_agree and not (found and right):
        return float(found == right)
    same = sum((Counter(found) & Counter(right)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(found), same / len(right)
    return 2 * precision * recall / (precision + recall)


class Squad(Offline):
    """Exact match and F1, in percent, the best over the answers of each question (SQuAD v1.1)."""

    takes = (_PLAIN,)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **rest: Any) -> None:
        """Take predictions with or without a `no_answer_probability`, which SQuAD v1.1 does not know."""
        known = [{name: each[name] for name in _PLAIN["predictions"]} for each in predictions]
        super().add_batch(predictions=known, references=references, **rest)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {name: _percent(values) for name, values in self._each(predictions, references).items()}

    def examples(self, predictions: Any, references: Any) -> dict[str, Examples]:
        """The score of each question, in percent."""
        return {
            name: mean_of([100.0 * value for value in values], 100.0)
            for name, values in self._each(predictions, references).items()
        }

    @staticmethod
    def _each(predictions: Any, references: Any) -> dict[str, list[float]]:
        found = {each["id"]: each["prediction_text"] for each in predictions}
        pairs = [(found[each["id"]], each["answers"]["text"]) for each in references]
        if not all(answers for _, answers in pairs):
            raise ValueError("a question has no answer: `squad_v2` is the metric for such questions")
        return {
            "exact_match": [max(exact(text, answer) for answer in answers) for text, answers in pairs],
            "f1": [max(word_f1(text, answer) for answer in answers) for text, answers in pairs],
        }


class SquadV2(Offline):
    """Exact match and F1, in percent, where a question may have no answer (SQuAD v2): of all, of those with an answer,
    and of those without.

    An answer whose `no_answer_probability` is above `no_answer_threshold` counts as none. `best_*` are the figures at
    the threshold that is best.
    """

    takes = (_SURE,)

    def _compute(self, predictions: Any, references: Any, no_answer_threshold: float = 1.0) -> dict[str, float]:
        scores, raw, answerable = self._each(predictions, references, no_answer_threshold)
        told: dict[str, float] = {}
        for part, keys in _parts(answerable).items():
            if keys:
                told |= {f"{part}{name}": _percent(each[key] for key in keys) for name, each in scores.items()} | {
                    f"{part}total": len(keys)
                }
        found = {each["id"]: each["prediction_text"] for each in predictions}
        doubt = {each["id"]: each["no_answer_probability"] for each in predictions}
        for name, each in raw.items():
            told[f"best_{name}"], told[f"best_{name}_thresh"] = _best_threshold(found, each, doubt, answerable)
        return told

    def examples(self, predictions: Any, references: Any, no_answer_threshold: float = 1.0) -> dict[str, Examples]:
        """The score of each question, in percent: of all, of those with an answer, of those without. The figures at
        the best threshold are none of single questions.
        """
        scores, _, answerable = self._each(predictions, references, no_answer_threshold)
        return {
            f"{part}{name}": mean_of([100.0 * each[key] for key in keys], 100.0)
            for part, keys in _parts(answerable).items()
            if keys
            for name, each in scores.items()
        }

    @staticmethod
    def _each(
        predictions: Any, references: Any, no_answer_threshold: float
    ) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]], dict[str, bool]]:
        """The scores of each question, by figure and id, with the threshold and without it, and whether it has an
        answer.
        """
        found = {each["id"]: each["prediction_text"] for each in predictions}
        doubt = {each["id"]: each["no_answer_probability"] for each in predictions}
        answerable = {each["id"]: bool(each["answers"]["text"]) for each in references}
        # An answer that is nothing but articles and punctuation is none.
        right = {
            each["id"]: [text for text in each["answers"]["text"] if normalized(text)] or [""] for each in references
        }
        measures: Mapping[str, Callable[[str, str], float]] = {
            "exact": exact,
            "f1": lambda text, answer: word_f1(text, answer, empty_agree=True),
        }
        raw = {
            name: {key: max(measure(found[key], answer) for answer in answers) for key, answers in right.items()}
            for name, measure in measures.items()
        }
        scores = {
            name: {
                key: float(not answerable[key]) if doubt[key] > no_answer_threshold else value
                for key, value in each.items()
            }
            for name, each in raw.items()
        }
        return scores, raw, answerable


class ExactMatch(Offline):
    """The share of predicted texts that are the reference, letter by letter."""

    takes = ({"predictions": _TEXT, "references": _TEXT},)

    def _compute(
        self,
        predictions: Any,
        references: Any,
        regexes_to_ignore: Sequence[str] | None = None,
        ignore_case: bool = False,
        ignore_punctuation: bool = False,
        ignore_numbers: bool = False,
    ) -> dict[str, float]:
        def bare(text: str) -> str:
            for pattern in regexes_to_ignore or ():
                text = re.sub(pattern, "", text)
            text = text.lower() if ignore_case else text
            text = text.translate(_PUNCTUATION) if ignore_punctuation else text
            return text.translate(str.maketrans("", "", string.digits)) if ignore_numbers else text

        same = [bare(found) == bare(right) for found, right in zip(predictions, references)]
        return {"exact_match": sum(same) / len(same)}

    def examples(self, predictions: Any, references: Any, **arguments: Any) -> dict[str, Examples]:
        """Right or wrong."""
        pairs = zip(predictions, references)
        return {
            "exact_match": mean_of([self._compute([one], [other], **arguments)["exact_match"] for one, other in pairs])
        }


def _parts(answerable: Mapping[str, bool]) -> dict[str, list[str]]:
    """The ids of all questions, of those with an answer and of those without, by what stands before their figures."""
    return {
        "": list(answerable),
        "HasAns_": [key for key, has in answerable.items() if has],
        "NoAns_": [key for key, has in answerable.items() if not has],
    }


def _percent(values: Iterable[float]) -> float:
    numbers = list(values)
    return 100.0 * sum(numbers) / len(numbers)


def _best_threshold(
    found: Mapping[str, str], scores: Mapping[str, float], doubt: Mapping[str, float], answerable: Mapping[str, bool]
) -> tuple[float, float]:
    """The best score in percent, and the no-answer threshold that gives it: from answering nothing on, one more
    question answered at a time.
    """
    current = best = float(sum(not each for each in answerable.values()))
    threshold = 0.0
    for key in sorted(doubt, key=lambda each: doubt[each]):
        current += scores[key] if answerable[key] else (-1 if found[key] else 0)
        if current > best:
            best, threshold = current, doubt[key]
    return 100.0 * best / len(scores), threshold
