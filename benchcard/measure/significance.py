"""Intervals of quality figures, and whether two models differ on the same examples.

Owns the intervals, the paired tests against the baseline, the smallest difference that a number of examples can show,
and the correction for many rows. Leaves metrics to `benchcard.metrics` and latency to `intervals`. All functions take
outcomes of examples, or a function that scores a selection of examples, so that they can be repeated on a kept run.

For a share (accuracy) the methods are Wilson's interval and McNemar's exact test. For any other metric (F1, a mean
error, a correlation) it is the bootstrap over examples, paired where two models are compared.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from benchcard.measure.intervals import CONFIDENCE
from benchcard.utils.values import Interval

Indices = NDArray[np.intp]

_POWER = 0.8
# Efron and Tibshirani, An Introduction to the Bootstrap (1993), 14.3: a thousand for an interval.
RESAMPLES = 1000
# The longest time for more resamples than these.
MAX_SECONDS = 30.0
# The bootstrap interval of fewer examples holds the true value far too rarely.
_MIN_EXAMPLES = 10
# Larger than the differences between sums of the same floating-point numbers, and below the digits of any card.
_ROUNDING = 1e-9
# The bias-corrected bootstrap is used up to this number: it scores the metric once more per example, while its
# correction shrinks with the number of examples.
_BCA_EXAMPLES = 1000
# Selections of examples that scipy holds in memory at a time.
_BATCH = 100


@dataclass(frozen=True)
class PairedTest:
    """The comparison of a model with the baseline on the same examples.

    Attributes:
        difference: The model's figure minus the baseline's, with its 95 % interval.
        p_value: The p-value of the hypothesis that they are equal; None where it is undefined.
        examples: Number of examples.
        better: Examples that only the model got right; None where the metric has no right and wrong.
        worse: Examples that only the baseline got right; None likewise.
        detectable: The smallest true difference that this many examples show with a power of 80 %.
        draws: Number of resamples for the p-value; None where it is exact or undefined.
    """

    difference: Interval
    p_value: float | None
    examples: int
    better: int | None
    worse: int | None
    detectable: float
    draws: int | None = None


def wilson(successes: int, examples: int, confidence: float = CONFIDENCE) -> Interval:
    """Return a share with Wilson's interval, which is valid for few examples and for shares near 0 and 1.

    Raises:
        ValueError: There are no examples, or not `0 <= successes <= examples`.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference (JASA 22, 1927);
    Brown, Cai and DasGupta, Interval Estimation for a Binomial Proportion (Statist. Sci. 16, 2001) on why.
    """
    from scipy.stats import binomtest

    if examples < 1:
        raise ValueError("a share needs at least one example")
    if not 0 <= successes <= examples:
        # Newer versions of scipy do not raise an error.
        raise ValueError(f"expected 0 <= successes <= {examples} examples, found {successes} successes")
    bounds = binomtest(successes, examples).proportion_ci(confidence, method="wilson")
    return Interval(successes / examples, float(bounds.low), float(bounds.high))


def mcnemar(
    baseline_right: NDArray[np.bool_], model_right: NDArray[np.bool_], confidence: float = CONFIDENCE
) -> PairedTest:
    """Compare a model's accuracy with the baseline's, by the examples that each got right.

    The p-value is that of McNemar's exact test. The interval adds one half to each cell of the two-by-two table, so
    that it is valid for few changed examples, too.

    Args:
        baseline_right: (examples,) bool.
        model_right: (examples,) bool, the same examples in the same order.
        confidence: Level of the interval.

    Raises:
        ValueError: The lengths differ, or there are no examples.

    Source: Q. McNemar (Psychometrika 12, 1947); A. Agresti and Y. Min, Simple Improved Confidence Intervals for
    Comparing Matched Proportions (Statist. Med. 24, 2005).
    """
    from scipy.stats import binomtest, norm

    examples = len(baseline_right)
    if len(model_right) != examples or examples < 1:
        raise ValueError(f"expected outcomes of the same examples, found {examples} and {len(model_right)}")
    better = int(np.count_nonzero(model_right & ~baseline_right))
    worse = int(np.count_nonzero(baseline_right & ~model_right))
    changed = better + worse
    p_value = float(binomtest(better, changed, 0.5).pvalue) if changed else 1.0
    total = examples + 2
    gained, lost = (better + 0.5) / total, (worse + 0.5) / total
    spread = math.sqrt((gained + lost - (gained - lost) ** 2) / total)
    half = float(norm.ppf(0.5 + confidence / 2)) * spread
    value = (better - worse) / examples
    # The adjusted centre is nearer to zero than the plain difference, which must stay inside its own interval.
    low, high = max(-1.0, min(gained - lost - half, value)), min(1.0, max(gained - lost + half, value))
    return PairedTest(
        difference=Interval(value, low, high),
        p_value=p_value,
        examples=examples,
        better=better,
        worse=worse,
        detectable=smallest_detectable_share(examples, changed),
    )


def bootstrap_metric(
    score: Callable[[Indices], float],
    examples: int,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return a metric with its bootstrap interval: bias-corrected and accelerated up to 1,000 examples.

    Above a level of 95 % the resamples are too few to show a bound. The bounds of 95 % are then moved out by the factor
    of a normal distribution, each on its own side.

    Args:
        score: A function from indices of examples, (k,) intp with repetitions, to the metric.
        examples: Number of examples.
        seed: Seed of the resampling.
        resamples: Number of resamples.
        confidence: Level of the interval.

    Returns:
        The metric. Its bounds are None where the metric is undefined for a resample, where all resamples give the same
        value (which says nothing about other examples), and for fewer than ten examples.

    Raises:
        ValueError: There are no examples.

    Source: B. Efron, Better Bootstrap Confidence Intervals (JASA 82, 1987), as in `scipy.stats.bootstrap`.
    """
    return _bootstrap(score, examples, np.random.default_rng(seed), resamples, confidence)[0]


def paired_bootstrap(
    baseline: Callable[[Indices], float],
    model: Callable[[Indices], float],
    examples: int,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    max_resamples: int = RESAMPLES,
    max_s: float = MAX_SECONDS,
    confidence: float = CONFIDENCE,
    clock: Callable[[], float] = time.perf_counter,
) -> PairedTest:
    """Compare a model's metric with the baseline's, both scored on the same resamples.

    The p-value is twice the share of resamples in which the difference has the other sign. Where there are none, more
    resamples are drawn, so that the p-value stays small after the adjustment for many models. Bounds are None where
    those of `bootstrap_metric` are. The p-value is None where the metric is undefined for a resample, and below ten
    examples.

    Args:
        baseline: A function from indices of examples, (k,) intp with repetitions, to the baseline's metric.
        model: The same for the model.
        examples: Number of examples.
        seed: Seed of the resampling.
        resamples: Number of resamples.
        max_resamples: The largest number of resamples for the p-value.
        max_s: The longest expected time for the additional resamples. Where they would take longer, none is drawn,
            because fewer of them would show nothing more.
        confidence: Level of the interval.
        clock: Returns seconds.

    Raises:
        ValueError: There are no examples.

    Source: P. Koehn, Statistical Significance Tests for Machine Translation Evaluation (EMNLP 2004); A. Davison and
    D. Hinkley, Bootstrap Methods and their Application (1997), 4.4 for counting the observed value in.
    """
    generator = np.random.default_rng(seed)
    scored = 0

    def difference_of(indices: Indices) -> float:
        nonlocal scored
        scored += 1
        return model(indices) - baseline(indices)

    started = clock()
    difference, drawn = _bootstrap(difference_of, examples, generator, resamples, confidence, corrected=False)
    draw_s = (clock() - started) / scored
    if not len(drawn) or not np.all(np.isfinite(drawn)):
        return PairedTest(difference, None, examples, None, None, math.nan)
    detectable = sum(_quantiles()) * float(np.std(drawn, ddof=1)) if len(drawn) > 1 else 0.0
    against = _contradicting(drawn)
    if not against and max_resamples > resamples and (max_resamples - resamples) * draw_s <= max_s:
        drawn = np.concatenate([drawn, _draw_scores(difference_of, examples, generator, max_resamples - resamples)])
        against = _contradicting(drawn)
    p_value = min(1.0, (1 + against) * least_p_value(len(drawn)))
    return PairedTest(difference, p_value, examples, None, None, detectable, len(drawn))


def least_p_value(draws: int) -> float:
    """Return the smallest p-value that this many resamples can give."""
    return 2 / (draws + 1)


def draws_for(models: int) -> int:
    """Return how many resamples can show that one of so many models differs, after the adjustment for their number."""
    return math.ceil(2 * models / (1 - CONFIDENCE))


def smallest_detectable_share(examples: int, changed: int) -> float:
    """Return the smallest true difference of two shares that a paired test shows with a power of 80 %.

    It is at least the difference at which the six changed examples, all in one direction, that the exact test needs are
    found with that power.

    Args:
        examples: Number of examples.
        changed: Examples that one of the two got right and the other did not.

    Raises:
        ValueError: There are no examples, or more changed ones than examples.

    Source: R. J. Connor, Sample Size for Testing Differences in Proportions for the Paired-Sample Design (Biometrics
    43, 1987), solved for the difference.
    """
    if examples < 1 or not 0 <= changed <= examples:
        raise ValueError(f"expected 0 <= changed <= examples and examples >= 1, found {changed} and {examples}")
    at_level, at_power = _quantiles()
    share = changed / examples
    # Connor: difference sqrt(n) = a sqrt(share) + b sqrt(share - difference^2); squared, a quadratic in the difference
    spread = math.sqrt(share)
    n, b2 = examples, at_power**2
    root = math.sqrt(max(0.0, b2 * share * (n + b2 - at_level**2)))
    difference = (math.sqrt(n) * at_level * spread + root) / (n + b2)
    return min(1.0, max(difference, _exact_share(examples)))


def independent(baseline: Interval, model: Interval) -> Interval:
    """Return the difference of two figures on different examples, with an interval from the interval of each.

    This is the method of variance estimates recovery. There are no bounds where one of them has none.

    Source: R. G. Newcombe, Interval Estimation for the Difference Between Independent Proportions (Statist. Med. 17,
    1998), method 10; G. Zou and A. Donner (Statist. Med. 27, 2008) for any other figure.
    """
    value = model.value - baseline.value
    if baseline.low is None or baseline.high is None or model.low is None or model.high is None:
        return Interval(value, None, None)
    below = math.hypot(model.value - model.low, baseline.high - baseline.value)
    above = math.hypot(model.high - model.value, baseline.value - baseline.low)
    return Interval(value, value - below, value + above)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that the probability of one false positive among all of them stays at the level.

    Source: S. Holm, A Simple Sequentially Rejective Multiple Test Procedure (Scand. J. Statist. 6, 1979).
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _bootstrap(
    score: Callable[[Indices], float],
    examples: int,
    generator: np.random.Generator,
    resamples: int,
    confidence: float,
    *,
    corrected: bool = True,
) -> tuple[Interval, NDArray[np.float64]]:
    """Return the figure with its interval, and the scores of all resamples, (resamples,) float64.

    Args:
        score: A function from indices of examples to the figure.
        examples: Number of examples.
        generator: Source of randomness.
        resamples: Number of resamples.
        confidence: Level of the interval.
        corrected: Whether bounds are corrected for bias and skewness where examples are few. For a difference, in which
            few examples count, the correction would exclude 0 about twice as often as it should.
    """
    if examples < 1:
        raise ValueError("a metric needs at least one example")
    indices = np.arange(examples)
    value = float(score(indices))
    if examples < _MIN_EXAMPLES:
        return Interval(value, None, None), np.empty(0)
    drawn = _draw_scores(score, examples, generator, resamples)
    # Equal scores are no certainty: F1 is 1 on every resample of examples that are all right, however few they are.
    if not np.all(np.isfinite(drawn)) or np.ptp(drawn) <= _ROUNDING * max(1.0, abs(value)):
        return Interval(value, None, None), drawn
    low, high, level = math.nan, math.nan, min(confidence, CONFIDENCE)
    if corrected and examples <= _BCA_EXAMPLES:
        low, high = _bias_corrected(score, indices, drawn, level)
    if math.isnan(low) or math.isnan(high):
        tail = (1 - level) / 2
        low, high = (float(bound) for bound in np.quantile(drawn, (tail, 1 - tail)))
    # Examples that repeat move some metrics, as the mean average precision of many labels. The interval is widened to
    # hold its own figure.
    low, high = min(low, value), max(high, value)
    if confidence > CONFIDENCE:
        factor = _quantile(confidence) / _quantile(CONFIDENCE)
        low, high = min(low, value - factor * (value - low)), max(high, value + factor * (high - value))
    if high - low <= _ROUNDING * max(1.0, abs(value)):
        return Interval(value, None, None), drawn
    return Interval(value, low, high), drawn


def _draw_scores(
    score: Callable[[Indices], float], examples: int, generator: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Return the scores of resamples, (resamples,) float64."""
    return np.array([score(generator.integers(0, examples, examples)) for _ in range(resamples)], dtype=np.float64)


def _contradicting(drawn: NDArray[np.float64]) -> int:
    """Return how many resamples do not have the sign of the majority; an undefined one has no sign."""
    return len(drawn) - max(int(np.count_nonzero(drawn > _ROUNDING)), int(np.count_nonzero(drawn < -_ROUNDING)))


def _bias_corrected(
    score: Callable[[Indices], float], indices: Indices, drawn: NDArray[np.float64], confidence: float
) -> tuple[float, float]:
    """Return the bounds of the bias-corrected and accelerated interval; NaN where all resamples have one score."""
    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # The caller handles equal scores.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        result = bootstrap(
            (indices,),
            lambda selected: float(score(selected)),
            n_resamples=0,
            batch=_BATCH,
            vectorized=False,
            confidence_level=confidence,
            method="BCa",
            bootstrap_result=SimpleNamespace(bootstrap_distribution=drawn),
        )
    low, high = result.confidence_interval
    return float(low), float(high)


def _quantile(confidence: float) -> float:
    """Return the normal quantile of a two-sided level."""
    from scipy.stats import norm

    return float(norm.ppf(0.5 + confidence / 2))


def _quantiles() -> tuple[float, float]:
    """Return the normal quantiles of the two-sided level and of the power."""
    from scipy.stats import norm

    return _quantile(CONFIDENCE), float(norm.ppf(_POWER))


def _exact_share(examples: int) -> float:
    """Return the smallest share, all changed in one direction, that McNemar's exact test shows with that power."""
    from scipy.stats import beta

    least = math.ceil(1 - math.log2(1 - CONFIDENCE))
    # P(at least k of n, each with probability p) is the distribution function of Beta(k, n - k + 1) at p.
    return float(beta.ppf(_POWER, least, examples - least + 1)) if examples >= least else 1.0
