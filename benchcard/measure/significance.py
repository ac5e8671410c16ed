"""How sure a quality figure is, and whether two models differ on the same examples.

Owns the intervals of quality metrics, the paired tests against the baseline, the smallest difference that a number of
examples can show, and the correction for looking at many rows. Leaves the metrics themselves to `benchcard.metrics`
and latency to `statistics`. Everything here works on per-example outcomes, or on a function that scores a choice of
examples, so that what was kept of a run is enough to do it again.

For a share (accuracy) the methods are Wilson's interval and McNemar's exact test; for any other metric (F1, a mean
error, a correlation) the bootstrap over examples, paired where two models are compared.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchcard.measure.intervals import CONFIDENCE
from benchcard.utils.values import Interval

Indices = NDArray[np.intp]

_POWER = 0.8
# Efron and Tibshirani, An Introduction to the Bootstrap (1993), 14.3: a thousand for an interval.
RESAMPLES = 1000
# Seconds for which more are drawn, at the most.
MOST_SECONDS = 30.0
# Fewer examples look more alike than what they were drawn from: their bootstrap holds the truth far too rarely.
_LEAST_EXAMPLES = 10
# Differences of sums of floating-point numbers, and below what any card shows.
_ROUNDING = 1e-9
# Up to here the bias-corrected bootstrap is used: it scores the metric once more per example, while what it corrects
# shrinks with the number of examples.
_BCA_EXAMPLES = 1000
# Choices of examples that scipy holds in memory at a time.
_BATCH = 100


@dataclass(frozen=True)
class PairedTest:
    """A model against the baseline on the same examples.

    Attributes:
        difference: the model's figure minus the baseline's, with its 95 % interval.
        p_value: of the hypothesis that they are equal; None where the test says nothing.
        examples: number of examples.
        better: examples that only the model got right; None where right and wrong mean nothing for the metric.
        worse: examples that only the baseline got right; None likewise.
        detectable: the smallest true difference that this many examples show four times in five.
        draws: how many times the examples were drawn anew for the p-value; None where it is exact, or there is none.
    """

    difference: Interval
    p_value: float | None
    examples: int
    better: int | None
    worse: int | None
    detectable: float
    draws: int | None = None


def wilson(successes: int, examples: int, confidence: float = CONFIDENCE) -> Interval:
    """A share with Wilson's interval, which stays inside 0 to 1 and holds for few examples and shares near the ends.

    Raises:
        ValueError: there are no examples, or not `0 <= successes <= examples`.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference (JASA 22, 1927);
    Brown, Cai and DasGupta, Interval Estimation for a Binomial Proportion (Statist. Sci. 16, 2001) on why.
    """
    from scipy.stats import binomtest

    if examples < 1:
        raise ValueError("a share needs at least one example")
    if not 0 <= successes <= examples:
        # scipy is not asked: newer versions of it raise no error
        raise ValueError(f"expected 0 <= successes <= {examples} examples, found {successes} successes")
    bounds = binomtest(successes, examples).proportion_ci(confidence, method="wilson")
    return Interval(successes / examples, float(bounds.low), float(bounds.high))


def mcnemar(
    baseline_right: NDArray[np.bool_], model_right: NDArray[np.bool_], confidence: float = CONFIDENCE
) -> PairedTest:
    """A model's accuracy against the baseline's, from which examples each got right.

    The p-value is that of McNemar's exact test; the interval adds one half to each cell of the two-by-two table, which
    holds its level for few changed examples where the plain one does not.

    Args:
        baseline_right: (examples,) bool.
        model_right: (examples,) bool, the same examples in the same order.
        confidence: level of the interval.

    Raises:
        ValueError: the lengths differ, or there are no examples.

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
    # the adjusted centre lies nearer to zero than the plain difference, which must not fall out of its own interval
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
    """A metric over all examples with its bootstrap interval: bias-corrected and accelerated up to 1,000 examples.

    Beyond 95 % there are too few draws to see a bound. Those of 95 % are then moved out as far as those of a normal
    distribution would be, each on its own side.

    Args:
        score: the metric on the examples with these numbers, (k,) intp, which may repeat.
        examples: how many examples there are.
        seed: of the resampling.
        resamples: how many times the examples are drawn anew.
        confidence: level of the interval.

    Returns:
        the metric; its bounds are None where a choice of examples leaves the metric undefined, where all choices give
        the same, which says nothing of other examples, and for fewer than ten examples.

    Raises:
        ValueError: there are no examples.

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
    most: int = RESAMPLES,
    most_s: float = MOST_SECONDS,
    confidence: float = CONFIDENCE,
) -> PairedTest:
    """A model's metric against the baseline's, both scored on the same choices of examples.

    The p-value is twice the share of choices in which the difference has the other sign; where it has it in none, more
    are made, for a p-value that can stand being adjusted for many models. Bounds are None where those of
    `bootstrap_metric` are; the p-value, where it is undefined for a choice and for fewer than ten examples.

    Args:
        baseline: the baseline's metric on the examples with these numbers, (k,) intp, which may repeat.
        model: the model's, likewise.
        examples: how many examples there are.
        seed: of the resampling.
        resamples: how many times the examples are drawn anew.
        most: how many times at the most, for the p-value.
        most_s: seconds that those beyond `resamples` may take, by what these took; where they would take longer, none
            is made, for fewer of them would show no more.
        confidence: level of the interval.

    Raises:
        ValueError: there are no examples.

    Source: P. Koehn, Statistical Significance Tests for Machine Translation Evaluation (EMNLP 2004); A. Davison and
    D. Hinkley, Bootstrap Methods and their Application (1997), 4.4 for counting the observed value in.
    """
    draw = np.random.default_rng(seed)
    scored = 0

    def apart(indices: Indices) -> float:
        nonlocal scored
        scored += 1
        return model(indices) - baseline(indices)

    started = time.perf_counter()
    difference, drawn = _bootstrap(apart, examples, draw, resamples, confidence, corrected=False)
    draw_s = (time.perf_counter() - started) / scored
    if not len(drawn) or not np.all(np.isfinite(drawn)):
        return PairedTest(difference, None, examples, None, None, math.nan)
    detectable = sum(_quantiles()) * float(np.std(drawn, ddof=1)) if len(drawn) > 1 else 0.0
    against = _against(drawn)
    if not against and most > resamples and (most - resamples) * draw_s <= most_s:
        drawn = np.concatenate([drawn, _drawn(apart, examples, draw, most - resamples)])
        against = _against(drawn)
    p_value = min(1.0, (1 + against) * least_p_value(len(drawn)))
    return PairedTest(difference, p_value, examples, None, None, detectable, len(drawn))


def least_p_value(draws: int) -> float:
    """The p-value of a difference that none of so many draws contradicts: with these, none is smaller."""
    return 2 / (draws + 1)


def draws_for(models: int) -> int:
    """How many draws can show that one of so many models differs: so many that `least_p_value`, adjusted for their
    number, is below the level.
    """
    return math.ceil(2 * models / (1 - CONFIDENCE))


def smallest_detectable_share(examples: int, changed: int) -> float:
    """The smallest true difference of two shares that a paired test on this many examples shows four times in five.

    Never below the one with which the six changed examples, all to one side, that the exact test needs are found four
    times in five.

    Args:
        examples: number of examples.
        changed: examples that one of the two got right and the other did not.

    Raises:
        ValueError: there are no examples, or more changed ones than there are.

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
    """The difference of two figures of different examples, from the interval of each (the method of variance estimates
    recovery), at their level; without bounds where one has none.

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
    """The p-values, adjusted so that the chance of even one false finding among all of them stays at the level.

    Source: S. Holm, A Simple Sequentially Rejective Multiple Test Procedure (Scand. J. Statist. 6, 1979).
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda which: p_values[which])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class _Drawn:
    """Figures of resamples, (resamples,) float64, under the name that `scipy.stats.bootstrap` looks for."""

    bootstrap_distribution: NDArray[np.float64]


def _bootstrap(
    score: Callable[[Indices], float],
    examples: int,
    draw: np.random.Generator,
    resamples: int,
    confidence: float,
    *,
    corrected: bool = True,
) -> tuple[Interval, NDArray[np.float64]]:
    """The figure with its interval, and the figures of all resamples, (resamples,) float64.

    Args:
        score: The figure of some of the examples.
        examples: How many there are.
        draw: Where chance comes from.
        resamples: How often examples are drawn.
        confidence: The level of the interval.
        corrected: Whether bounds are corrected for bias and skewness, where examples are few. Not of a difference: few
            examples differ, and the correction then excludes 0 about twice as often as it should.
    """
    if examples < 1:
        raise ValueError("a metric needs at least one example")
    everything = np.arange(examples)
    value = float(score(everything))
    if examples < _LEAST_EXAMPLES:
        return Interval(value, None, None), np.empty(0)
    drawn = _drawn(score, examples, draw, resamples)
    # all draws alike are no certainty: F1 is 1 on every draw from examples that are all right, however few they are
    if not np.all(np.isfinite(drawn)) or np.ptp(drawn) <= _ROUNDING * max(1.0, abs(value)):
        return Interval(value, None, None), drawn
    low, high, level = math.nan, math.nan, min(confidence, CONFIDENCE)
    if corrected and examples <= _BCA_EXAMPLES:
        low, high = _bias_corrected(score, everything, drawn, level)
    if math.isnan(low) or math.isnan(high):
        tail = (1 - level) / 2
        low, high = (float(bound) for bound in np.quantile(drawn, (tail, 1 - tail)))
    if confidence > CONFIDENCE:
        further = _quantile(confidence) / _quantile(CONFIDENCE)
        low, high = min(low, value - further * (value - low)), max(high, value + further * (high - value))
    if high - low <= _ROUNDING * max(1.0, abs(value)):
        return Interval(value, None, None), drawn
    return Interval(value, low, high), drawn


def _drawn(
    score: Callable[[Indices], float], examples: int, draw: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """The figures of so many choices of examples, (resamples,) float64."""
    return np.array([score(draw.integers(0, examples, examples)) for _ in range(resamples)], dtype=np.float64)


def _against(drawn: NDArray[np.float64]) -> int:
    """How many draws do not have the sign that most have; one that is undefined has none."""
    return len(drawn) - max(int(np.count_nonzero(drawn > _ROUNDING)), int(np.count_nonzero(drawn < -_ROUNDING)))


def _bias_corrected(
    score: Callable[[Indices], float], everything: Indices, drawn: NDArray[np.float64], confidence: float
) -> tuple[float, float]:
    """The bounds of the bias-corrected and accelerated interval, NaN where every resample gives the same figure."""
    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        # all figures alike is for the caller to say, not for a warning
        warnings.simplefilter("ignore", DegenerateDataWarning)
        result = bootstrap(
            (everything,),
            lambda indices: float(score(indices)),
            n_resamples=0,
            batch=_BATCH,
            vectorized=False,
            confidence_level=confidence,
            method="BCa",
            bootstrap_result=_Drawn(drawn),
        )
    low, high = result.confidence_interval
    return float(low), float(high)


def _quantile(confidence: float) -> float:
    """The normal quantile of a two-sided level."""
    from scipy.stats import norm

    return float(norm.ppf(0.5 + confidence / 2))


def _quantiles() -> tuple[float, float]:
    """Normal quantiles of the two-sided level and of the power."""
    from scipy.stats import norm

    return _quantile(CONFIDENCE), float(norm.ppf(_POWER))


def _exact_share(examples: int) -> float:
    """The smallest share of changed examples, all to one side, that McNemar's exact test shows four times in five."""
    from scipy.stats import beta

    least = math.ceil(1 - math.log2(1 - CONFIDENCE))
    # P(at least k of n, each with chance p) is the distribution function of Beta(k, n - k + 1) at p
    return float(beta.ppf(_POWER, least, examples - least + 1)) if examples >= least else 1.0
