"""Intervals of ratios of latencies, over launches, and what they detect."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from benchcard.utils.values import Interval

CONFIDENCE = 0.95
# Bounds of a ratio that are further from it than this, as a logarithm, are left out: a factor of ten thousand millions.
_UNBOUNDED = 23.0
_FIRST_LOOK = 5
_NEXT_LOOK = 1.5
# Sen's interval of all slopes holds the truth unless all of them are off to one side: for 2 of n! orders.
_DRIFT_LAUNCHES = 5

# A launch of the processes and a round within it.
RoundId = tuple[int, int]
_T = TypeVar("_T")


def paired_ratio(
    baseline: Mapping[RoundId, float], subject: Mapping[RoundId, float], confidence: float = CONFIDENCE
) -> Interval:
    """How many times faster the subject is than the baseline, from the rounds in which both were timed.

    Args:
        baseline: its median latency by launch and round, as from `block_medians`.
        subject: the same of the subject.
        confidence: level of the interval; `1 - 0.05 / rows` for intervals that hold for all of so many rows at once
            (Bonferroni).

    Returns:
        baseline's latency over subject's: above 1 where the subject is faster; without bounds from a single launch.

    Raises:
        ValueError: they have no round in common.
    """
    logs = {place: math.log(baseline[place] / subject[place]) for place in baseline.keys() & subject.keys()}
    if not logs:
        raise ValueError("no round in which both were timed")
    levels = [float(np.median(launch)) for launch in by_launch(logs).values()]
    value = float(np.mean(levels))
    return _around(value, interval_half_width(levels, value, confidence))


def unpaired_ratio(
    baseline: Mapping[RoundId, float], subject: Mapping[RoundId, float], confidence: float = CONFIDENCE
) -> Interval:
    """How many times faster the subject is than the baseline, where they were not timed together: Welch's interval
    over the launches of each.

    Args:
        baseline: its median latency by launch and round, as from `block_medians`.
        subject: the same of the subject, in launches of its own.
        confidence: level of the interval.

    Returns:
        baseline's latency over subject's; without bounds where one was launched once.

    Raises:
        ValueError: one of them was not timed.

    Source: B. L. Welch, The Generalization of Student's Problem (Biometrika 34, 1947).
    """
    from scipy.stats import t

    if not baseline or not subject:
        raise ValueError("a ratio needs times of both")
    levels = [
        np.array([np.median(np.log(launch)) for launch in by_launch(each).values()]) for each in (baseline, subject)
    ]
    value = float(levels[0].mean() - levels[1].mean())
    if min(len(each) for each in levels) < 2:
        return Interval(math.exp(value), None, None)
    errors = [float(each.var(ddof=1)) / len(each) for each in levels]
    if not sum(errors):
        return Interval(math.exp(value), math.exp(value), math.exp(value))
    freedom = sum(errors) ** 2 / sum(error**2 / (len(each) - 1) for error, each in zip(errors, levels))
    return _around(value, float(t.ppf(0.5 + confidence / 2, freedom)) * math.sqrt(sum(errors)))


def _around(value: float, half: float | None) -> Interval:
    """A ratio from its logarithm, with bounds this far from it; without where these would tell nothing."""
    if half is None or half > _UNBOUNDED:
        return Interval(math.exp(value), None, None)
    return Interval(math.exp(value), math.exp(value - half), math.exp(value + half))


def detectable(ratio: Interval, floor: Interval) -> bool:
    """Whether a ratio differs from 1 by more than its own interval and by more than the noise floor of its run.

    The floor is as far from 1 as the interval of the baseline against its twin reaches; where it has none, as from one
    launch, nothing is known of the noise, and no ratio is detectable.
    """
    is_known = floor.low is not None
    return is_known and ratio.excludes(1.0) and abs(math.log(ratio.value)) > floor.reach


def is_precise(baseline: Mapping[RoundId, float], subject: Mapping[RoundId, float], precision: float) -> bool:
    """Whether the ratio has been known within `precision` on either side for long enough to stop timing.

    Whoever looks after every launch stops at the first whose interval is narrow by luck, and such intervals hold the
    truth less often than they say. So there are few looks, after 5 launches and after half as many again each time, and
    timing stops at the look after the one at which the interval was narrow.

    Args:
        baseline: its median latency by launch and round; all the same for the precision of the subject's own latency.
        subject: the same of the subject.
        precision: half the interval's width over the ratio, 0.01 for 1 %.

    Source: C. Stein, A Two-Sample Test for a Linear Hypothesis Whose Power is Independent of the Variance (Ann. Math.
    Statist. 16, 1945) for deciding on the first part of the data; `benchmarks/coverage.py` for these figures.
    """
    launches = sorted({launch for launch, _ in baseline.keys() & subject.keys()})
    earlier, look = 0, _FIRST_LOOK
    while look < len(launches):
        earlier, look = look, math.ceil(_NEXT_LOOK * look)
    if look != len(launches) or not earlier:
        return False
    first = {place: latency for place, latency in subject.items() if place[0] < launches[earlier]}
    return paired_ratio(baseline, first).within(precision)


def drift(launches: Sequence[Sequence[float]]) -> Interval:
    """Relative change of latency from the first launch to the last: 0.02 where it became 2 % slower.

    The Theil-Sen slope of the logarithms of the launches' median latencies, with Sen's interval; without bounds below
    five launches, of which not even all slopes together hold the truth in 95 of 100.

    Args:
        launches: the median latencies of each launch's blocks.

    Source: P. K. Sen, Estimates of the Regression Coefficient Based on Kendall's Tau (JASA 63, 1968).
    """
    from scipy.stats import theilslopes

    levels = [math.log(float(np.median(launch))) for launch in launches]
    if len(levels) < 3:
        return Interval(math.expm1(levels[-1] - levels[0]), None, None)
    fit = theilslopes(levels, alpha=CONFIDENCE)
    value, low, high = (math.expm1(float(slope) * (len(levels) - 1)) for slope in (fit[0], fit[2], fit[3]))
    return Interval(value, low, high) if len(levels) >= _DRIFT_LAUNCHES else Interval(value, None, None)


def by_launch(placed: Mapping[RoundId, _T]) -> dict[int, list[_T]]:
    """The values of each launch, in order of rounds."""
    launches: dict[int, list[_T]] = {}
    for launch, number in sorted(placed):
        launches.setdefault(launch, []).append(placed[launch, number])
    return launches


def interval_half_width(values: Sequence[float], centre: float, confidence: float) -> float | None:
    """Half the width of Student's interval around `centre`, None for a single value."""
    from scipy.stats import t

    count = len(values)
    if count < 2:
        return None
    spread = math.sqrt(sum((value - centre) ** 2 for value in values) / (count * (count - 1)))
    return float(t.ppf(0.5 + confidence / 2, count - 1)) * spread
