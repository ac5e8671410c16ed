"""How sure each figure of a model's quality is, and how it compares with the baseline's on the same examples.

Owns the choice of method for a figure: Wilson's interval and McNemar's exact test for a share of right ones, the
bootstrap over examples for every other. Leaves the methods to `significance`, and what an example adds to a figure to
`benchcard.metrics.examples`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchcard.measure import significance
from benchcard.measure.intervals import CONFIDENCE
from benchcard.measure.significance import PairedTest
from benchcard.metrics.examples import Computed, Examples
from benchcard.utils.values import Interval

# Beyond what the arithmetic of another runtime comes to: single precision has seven digits.
_SAME_NUMBER = 1e-5
# What is quick to draw has a p-value that stands being adjusted for so many models, be there that many or not.
_MODELS = 125


def interval(figure: Examples | Computed, seed: int, confidence: float = CONFIDENCE) -> Interval:
    """A figure with its interval, at 95 % by default: Wilson's for a share, else that of the bootstrap over examples,
    without bounds where the figure is not defined for every choice of examples.
    """
    if figure.right is not None:
        found = significance.wilson(int(figure.right.sum()), len(figure.right), confidence)
        return _scaled(found, figure.whole)
    return significance.bootstrap_metric(figure.score, figure.count, seed=seed, confidence=confidence)


def paired_test(
    baseline: Examples | Computed,
    model: Examples | Computed,
    seed: int,
    confidence: float = CONFIDENCE,
    *,
    models: int = 1,
) -> PairedTest:
    """A figure against the baseline's on the same examples: McNemar's test for a share, else the paired bootstrap.

    Args:
        baseline: The baseline's figure.
        model: The model's, of the same examples.
        seed: Of the resampling.
        confidence: Level of the interval.
        models: How many models are compared: the more, the smaller a p-value must be, and the more draws that takes.
    """
    if baseline.right is not None and model.right is not None:
        found = significance.mcnemar(baseline.right, model.right, confidence)
        return replace(
            found, difference=_scaled(found.difference, model.whole), detectable=found.detectable * model.whole
        )
    # a metric that is computed anew takes as long as it takes, each time: no more often than is needed
    is_slow = isinstance(baseline, Computed) or isinstance(model, Computed)
    most = significance.draws_for(models if is_slow else max(models, _MODELS))
    return significance.paired_bootstrap(
        baseline.score, model.score, model.count, seed=seed, most=most, confidence=confidence
    )


def changed(baseline: Sequence[Any], model: Sequence[Any]) -> int:
    """How many predictions differ. Numbers differ where they do so beyond the digits of single precision; answers by
    their text.
    """
    return sum(not _same(one, other) for one, other in zip(baseline, model))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The 95 % interval of a figure, and its difference from the baseline's; None where it is not known.

    Attributes:
        low: The lower bound of the figure.
        high: The upper bound of the figure.
        difference: The figure minus the baseline's.
        difference_low: The lower bound of the difference.
        difference_high: The upper bound of the difference.
        p_value: Of the paired test.
        detectable_difference: The smallest difference that the test would detect.
        draws: Number of resamples.
    """

    low: float | None = None
    high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    detectable_difference: float | None = None
    draws: int | None = None


def difference(interval: Interval, test: PairedTest | None) -> Difference:
    """Return the interval of a figure and the result of its paired test as one value."""
    if test is None:
        return Difference(low=interval.low, high=interval.high)
    return Difference(
        low=interval.low,
        high=interval.high,
        difference=_finite(test.difference.value),
        difference_low=test.difference.low,
        difference_high=test.difference.high,
        p_value=test.p_value,
        # Models that agree everywhere show no spread, and so no detectable difference.
        detectable_difference=_finite(test.detectable) or None,
        draws=test.draws,
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        return math.isclose(one, other, rel_tol=_SAME_NUMBER, abs_tol=_SAME_NUMBER)
    if isinstance(one, Mapping) and "prediction_text" in one:
        return bool(one["prediction_text"] == other["prediction_text"])
    return bool(np.array_equal(one, other)) if isinstance(one, list) else bool(one == other)


def _scaled(found: Interval, whole: float) -> Interval:
    low, high = (None if bound is None else bound * whole for bound in (found.low, found.high))
    return Interval(found.value * whole, low, high)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
