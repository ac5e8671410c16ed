"""The uncertainty of figures, and the test of a model's figure against the baseline's on the same examples.

Owns the choice of a method for a figure: Wilson's interval and McNemar's exact test for a share of correct examples,
the bootstrap over examples for every other. Leaves the methods to `benchcard.measure.significance`, and the
contributions of examples to `examples`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchcard.measure import significance
from benchcard.measure.intervals import CONFIDENCE
from benchcard.measure.significance import PairedTest
from benchcard.metrics import boxes
from benchcard.metrics.examples import Computed, FigureOfExamples
from benchcard.metrics.info import FigureUncertainty
from benchcard.utils.values import Interval

# Numbers are equal within this share: another runtime rounds differently, and single precision has seven digits.
_SAME_NUMBER = 1e-5
# The least number of models to draw resamples for, where draws are fast: p-values can be adjusted for so many later.
_MODELS = 125


def interval(figure: FigureOfExamples, seed: int, confidence: float = CONFIDENCE) -> Interval:
    """Return a figure with its interval: Wilson's for a share, else that of the bootstrap over examples.

    The bounds are None where the bootstrap meets a choice of examples for which the figure is not defined.
    """
    if figure.correct is not None:
        share = significance.wilson(int(figure.correct.sum()), len(figure.correct), confidence)
        return _scaled(share, figure.maximum)
    return significance.bootstrap_metric(figure.score, figure.count, seed=seed, confidence=confidence)


def paired_test(
    baseline: FigureOfExamples, model: FigureOfExamples, seed: int, confidence: float = CONFIDENCE, *, models: int = 1
) -> PairedTest:
    """Test a figure against the baseline's on the same examples: McNemar's test for a share, else a paired bootstrap.

    P-values are adjusted for the number of models that are compared, so more models need more draws.
    """
    if baseline.correct is not None and model.correct is not None:
        test = significance.mcnemar(baseline.correct, model.correct, confidence)
        difference, detectable = _scaled(test.difference, model.maximum), test.detectable * model.maximum
        return replace(test, difference=difference, detectable=detectable)
    # Figures that are computed anew are slow to draw, so they get no more draws than needed.
    is_slow = isinstance(baseline, Computed) or isinstance(model, Computed)
    most = significance.draws_for(models if is_slow else max(models, _MODELS))
    return significance.paired_bootstrap(
        baseline.score, model.score, model.count, seed=seed, max_resamples=most, confidence=confidence
    )


def figure_uncertainty(estimate: Interval, test: PairedTest | None) -> FigureUncertainty:
    """Return the bounds of a figure and the values of its paired test, with None for what is not finite."""
    if test is None:
        return FigureUncertainty(estimate.low, estimate.high)
    return FigureUncertainty(
        estimate.low,
        estimate.high,
        _finite(test.difference.value),
        test.difference.low,
        test.difference.high,
        test.p_value,
        # Models that agree on every example have a spread of 0, which does not show what could be detected.
        _finite(test.detectable) or None,
        test.draws,
    )


def count_changed(baseline: Sequence[object], model: Sequence[object]) -> int:
    """Return how many predictions differ; see `is_same`."""
    return sum(not is_same(before, after) for before, after in zip(baseline, model))


def is_same(before: object, after: object) -> bool:
    """Return whether predictions are equal: numbers to the digits of single precision, answers by their text, boxes
    where both detect the same ones, and rankings of a corpus by which of the baseline's first ten documents are among
    the first ten.
    """
    if isinstance(before, (int, float)) and isinstance(after, (int, float)) and float in (type(before), type(after)):
        return math.isclose(before, after, rel_tol=_SAME_NUMBER, abs_tol=_SAME_NUMBER)
    if isinstance(before, Mapping) and isinstance(after, Mapping) and "prediction_text" in before:
        return bool(before["prediction_text"] == after["prediction_text"])
    if isinstance(before, Mapping) and isinstance(after, Mapping) and "boxes" in before:
        return boxes.match(before, after)[1] == 0
    if isinstance(before, Mapping) and isinstance(after, Mapping) and "float_top_10_recall" in before:
        return bool(before["float_top_10_recall"] == after["float_top_10_recall"])
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(is_same, before, after))
    return before == after


def _scaled(estimate: Interval, maximum: float) -> Interval:
    low, high = (None if bound is None else bound * maximum for bound in (estimate.low, estimate.high))
    return Interval(estimate.value * maximum, low, high)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
