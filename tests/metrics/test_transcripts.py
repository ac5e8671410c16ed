"""Error rates of transcripts, against a plain recursion and examples counted by hand."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from benchcard.metrics.compute import MetricInputs, compute_metric
from benchcard.metrics.examples import examples_of
from benchcard.metrics.transcripts import edits


def plain_edits(first, second):
    """The distance by its definition."""

    @functools.cache
    def distance(left, right):
        if not left or not right:
            return left + right
        changed = distance(left - 1, right - 1) + (first[left - 1] != second[right - 1])
        return min(changed, distance(left - 1, right) + 1, distance(left, right - 1) + 1)

    return distance(len(first), len(second))


def test_edits_are_the_least():
    """For random sequences of every length, also empty ones."""
    generator = np.random.default_rng(0)
    for _ in range(200):
        first, second = ("".join(generator.choice(list("abc"), size)) for size in generator.integers(0, 9, 2))
        assert edits(first, second) == plain_edits(first, second)
    assert edits("kitten", "sitting") == 3


def test_rates_are_over_all_words_and_characters():
    """A long text counts more than a short one; lower is better, and resampled texts give the same figure."""
    predictions, references = ["the cat sat on it", "dog", "a b c"], ["the cat sat on a mat", "dog", "a c"]
    inputs = MetricInputs(predictions, references)
    wer = compute_metric("wer", inputs)["wer"]
    assert wer.value == pytest.approx((2 + 0 + 1) / (6 + 1 + 2))
    assert (wer.info.higher_is_better, wer.info.unit) == (False, "share")
    letters = [plain_edits(*pair) for pair in zip(predictions, references)]
    assert compute_metric("cer", inputs)["cer"].value == pytest.approx(sum(letters) / sum(map(len, references)))
    for name in ("wer", "cer"):
        again = examples_of(name, inputs)[name].score(np.arange(3))
        assert again == pytest.approx(compute_metric(name, inputs)[name].value)
