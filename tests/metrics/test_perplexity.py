"""Perplexity: over the tokens of all texts together, with the interval of texts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchcard import registry
from benchcard.metrics import uncertainty
from benchcard.metrics.compute import MetricInputs, compute_metric
from benchcard.metrics.examples import examples_of


def test_it_is_over_tokens_and_not_over_texts():
    """A text of many tokens counts more than a short one, and one without tokens does not count."""
    inputs = MetricInputs([-40.0, -1.0, 0.0], [10, 1, 0])
    figures = compute_metric("perplexity", inputs)
    assert figures["perplexity"].value == pytest.approx(math.exp(41 / 11))
    assert figures["perplexity"].info.higher_is_better is False
    assert examples_of("perplexity", inputs)["perplexity"].score(np.arange(3)) == pytest.approx(math.exp(41 / 11))


@pytest.mark.parametrize(("predictions", "references"), [([-1e6], [1]), ([0.0], [0]), ([], [])])
def test_a_figure_that_is_too_large_or_of_nothing_is_not_defined(predictions, references):
    """Without tokens, and where the exponential overflows, there is no number, and no exception."""
    if predictions:
        assert compute_metric("perplexity", MetricInputs(predictions, references))["perplexity"].value is None
    else:
        assert math.isnan(registry.metric("perplexity")._compute(predictions, references)["perplexity"])


def test_the_same_texts_show_small_differences():
    """Perplexities of texts differ much more than two models on the same text, whose difference is detected."""
    draw = np.random.default_rng(0)
    tokens = draw.integers(5, 200, 100)
    baseline = -tokens * draw.normal(3, 0.5, 100)
    model = baseline - tokens * draw.normal(0.01, 0.01, 100)
    before, after = (
        examples_of("perplexity", MetricInputs(list(each), list(tokens)))["perplexity"] for each in (baseline, model)
    )
    test = uncertainty.paired_test(before, after, 0)
    assert 0 < test.difference.low < test.difference.value < test.difference.high
    assert test.p_value < 0.05
    interval = uncertainty.interval(before, 0)
    assert interval.low < interval.value < interval.high
    assert interval.high - interval.low > test.difference.high
