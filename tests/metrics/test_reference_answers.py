"""Question answering against its reference, on a thousand drawn cases each: the scorer of SQuAD v2, and the choice of
an answer over windows. Both are written down here anew, from their published definitions, by other ways.
"""

from __future__ import annotations

import string

import numpy as np
import pytest

from benchcard import registry

WORDS = [
    "the",
    "a",
    "An",
    "THE",
    "cat",
    "Cat.",
    "mat",
    "it's",
    "-",
    "U.S.",
    "café",
    "“cat”",
    "ﬁne",
    "1,000",
    "İ",
    "\u00a0",
]
CASES = 1000


def squad_words(text):
    """The words that the scorer compares: without ASCII punctuation, articles and case; other marks stay."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation).split()
    return [word for word in bare if word not in ("a", "an", "the")]


def pair(prediction, answer):
    """Exact match and F1 of SQuAD v2."""
    found, right = squad_words(prediction), squad_words(answer)
    if not found or not right:
        return float(found == right), float(found == right)
    left, same = list(right), 0
    for word in found:
        if word in left:
            left.remove(word)
            same += 1
    return float(found == right), 2 * same / (len(found) + len(right))


def expected(cases, threshold):
    """The figures of SQuAD v2 for cases of a text, its answers and a doubt, all doubts different."""
    told, shares = {}, []
    for text, answers, _ in cases:
        real = [answer for answer in answers if squad_words(answer)] or [""]
        shares.append([max(pair(text, answer)[which] for answer in real) for which in (0, 1)])
    held = [[float(not case[1])] * 2 if case[2] > threshold else share for case, share in zip(cases, shares)]
    for part, wanted in (("", None), ("HasAns_", True), ("NoAns_", False)):
        rows = [score for case, score in zip(cases, held) if wanted is None or bool(case[1]) == wanted]
        if rows:
            told |= {f"{part}{name}": 100 * np.mean([row[i] for row in rows]) for i, name in enumerate(("exact", "f1"))}
            told[f"{part}total"] = len(rows)
    for which, name in enumerate(("exact", "f1")):
        best = {}
        for limit in (-1.0, *sorted(case[2] for case in cases)):
            gained = [
                (share[which] if case[1] else float(not case[0])) if case[2] <= limit else float(not case[1])
                for case, share in zip(cases, shares)
            ]
            best[max(limit, 0.0)] = round(100 * float(np.mean(gained)), 9)
        highest = max(best.values())
        told[f"best_{name}"] = highest
        told[f"best_{name}_thresh"] = next(limit for limit, value in best.items() if value == highest)
    return told


def drawn(generator):
    """A text, its answers (none for a question without one) and how doubtful it is."""
    phrases = [" ".join(generator.choice(WORDS, generator.integers(0, 4))) for _ in range(3)]
    answers = phrases[: generator.integers(0, 4)]
    text = phrases[0] if generator.random() < 0.4 else phrases[2] if generator.random() < 0.7 else ""
    return text, answers, float(generator.random())


def test_squad_v2_agrees_with_its_scorer():
    """A thousand questions in groups of five: every figure is the one that follows from the scorer's definition."""
    generator = np.random.default_rng(11)
    metric = registry.metric("squad_v2")
    for _ in range(CASES // 5):
        cases = [drawn(generator) for _ in range(5)]
        threshold = float(generator.choice([1.0, 0.5]))
        predictions = [
            {"id": str(index), "prediction_text": text, "no_answer_probability": doubt}
            for index, (text, _, doubt) in enumerate(cases)
        ]
        references = [
            {"id": str(index), "answers": {"text": answers, "answer_start": [0] * len(answers)}}
            for index, (_, answers, _) in enumerate(cases)
        ]
        told = metric._compute(predictions, references, no_answer_threshold=threshold)
        assert told == {name: pytest.approx(value) for name, value in expected(cases, threshold).items()}, cases


def test_the_answer_is_the_best_of_all_spans():
    """In a thousand drawn contexts of one to three windows the answer is that of the best span of all, found by trying
    every one; no answer wins where it scores higher in the window that thinks least of it.
    """
    generator = np.random.default_rng(12)
    letters, task = "abcdefghijklmnopqrst", registry.task("question-answering")
    none = 0
    for _ in range(CASES):
        told, spans, nulls = [], [], []
        for _ in range(generator.integers(1, 4)):
            first, tokens = int(generator.integers(0, 12)), int(generator.integers(2, 9))
            start, end = generator.normal(size=(2, tokens)).astype(np.float32) * 3
            start[0], end[0] = start[0] + 3, end[0] + 3
            places = [(-1, -1), *((first + token, first + token + 1) for token in range(tokens - 1))]
            logits = {"start_logits": start, "end_logits": end}
            told.append({**logits, "offsets": np.asarray(places), "null": np.asarray([0])})
            nulls.append(float(start[0] + end[0]))
            spans += [
                (float(start[one] + end[other]), letters[places[one][0] : places[other][1]])
                for one in range(1, tokens)
                for other in range(one, min(tokens, one + 4))
            ]
        score, text = max(spans)
        memo, settings = {"id": "0", "context": letters}, {"max_answer_length": 4}
        assert task.prediction(told, memo, settings)["prediction_text"] == text
        found = task.prediction(told, memo, {**settings, "answerable": False})
        assert found["prediction_text"] == ("" if min(nulls) > score else text)
        assert 0 < found["no_answer_probability"] < 1
        none += not found["prediction_text"]
    assert 100 < none < 900
