"""Ratios of latencies with their intervals over launches, and what these ratios can show.

Owns the statistics of medians by round. Leaves raw latencies to `latency`, and quality to `significance`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from benchcard.utils.values import Interval

CONFIDENCE = 0.95

RoundId: TypeAlias = tuple[int, int]
"""The number of a launch, and of a round in it."""

_T = TypeVar("_T")
# Bounds of a ratio whose logarithm is further from it than this (a factor of ten thousand million) are left out.
_UNBOUNDED = 23.0
_FIRST_LOOK = 5
_NEXT_LOOK = 1.5
# With fewer launches even the interval of all slopes holds the true one in less than 95 of 100 cases.
_DRIFT_LAUNCHES = 5


def paired_ratio(
    baseline: Mapping[RoundId, float], subject: Mapping[RoundId, float], confidence: float = CONFIDENCE
) -> Interval:
    """Return how many times faster the subject is than the baseline, from the rounds in which both were timed.

    Args:
        baseline: The baseline's median latency by round, as `block_medians` returns it.
        subject: The subject's.
        confidence: Level of the interval; `1 - 0.05 / rows` for intervals that hold for all of so many rows at once
            (Bonferroni).

    Returns:
        The baseline's latency over the subject's, above 1 where the subject is faster. No bounds for one launch.

    Raises:
        ValueError: The two have no round in common.
    """
    logs = {round_id: math.log(baseline[round_id] / subject[round_id]) for round_id in baseline.keys() & subject.keys()}
    if not logs:
        raise ValueError("no round in which both were timed")
    levels = [float(np.median(launch)) for launch in by_launch(logs).values()]
    value = float(np.mean(levels))
    return _from_log(value, interval_half_width(levels, value, confidence))


def unpaired_ratio(
    baseline: Mapping[RoundId, float], subject: Mapping[RoundId, float], confidence: float = CONFIDENCE
) -> Interval:
    """Return how many times faster the subject is than the baseline, where they were not timed together.

    The interval is Welch's, over the launches of each.

    Args:
        baseline: The baseline's median latency by round, as `block_medians` returns it.
        subject: The subject's, from other launches.
        confidence: Level of the interval.

    Returns:
        The baseline's latency over the subject's. No bounds where one of them was launched once.

    Raises:
        ValueError: One of them was not timed.

    Source: B. L. Welch, The Generalization of Student's Problem (Biometrika 34, 1947).
    """
    from scipy.stats import t

    if not baseline or not subject:
        raise ValueError("a ratio needs latencies of both models")
    baseline_levels, subject_levels = (
        np.array([np.median(np.log(launch)) for launch in by_launch(medians).values()])
        for medians in (baseline, subject)
    )
    samples = (baseline_levels, subject_levels)
    value = float(baseline_levels.mean() - subject_levels.mean())
    if min(len(levels) for levels in samples) < 2:
        return _from_log(value, None)
    errors = [float(levels.var(ddof=1)) / len(levels) for levels in samples]
    if not sum(errors):
        return _from_log(value, 0.0)
    freedom = sum(errors) ** 2 / sum(error**2 / (len(levels) - 1) for error, levels in zip(errors, samples))
    return _from_log(value, float(t.ppf(0.5 + confidence / 2, freedom)) * math.sqrt(sum(errors)))


def _from_log(value: float, half_width: float | None) -> Interval:
    """Return a ratio from its logarithm; without bounds where the half width is None or too large to tell anything."""
    if half_width is None or half_width > _UNBOUNDED:
        return Interval(math.exp(value), None, None)
    return Interval(math.exp(value), math.exp(value - half_width), math.exp(value + half_width))


def detectable(ratio: Interval, floor: Interval) -> bool:
    """Return whether a ratio differs from 1 by more than its interval and by more than the noise floor of its run.

    The floor is the largest distance from 1 in the interval of the baseline against its twin. Where that has no bounds,
    as with one launch, the noise is unknown and no ratio is detectable.
    """
    is_known = floor.low is not None
    return is_known and ratio.excludes(1.0) and abs(math.log(ratio.value)) > floor.reach


def is_precise(baseline: Mapping[RoundId, float], subject: Mapping[RoundId, float], precision: float) -> bool:
    """Return whether the ratio has been known within `precision` on either side for long enough to stop timing.

    A look after every launch would stop at the first interval that is narrow by chance, and such intervals hold the
    true value too rarely. So there are few looks, after 5 launches and then after half as many again each time, and
    timing stops one look after the interval was narrow.

    Args:
        baseline: The baseline's median latency by round; all equal to judge the subject's own latency.
        subject: The subject's.
        precision: Half the width of the interval over the ratio, 0.01 for 1 %.

    Source: C. Stein, A Two-Sample Test for a Linear Hypothesis Whose Power is Independent of the Variance (Ann. Math.
    Statist. 16, 1945) for deciding on the first part of the data; `benchmarks/coverage.py` for these figures.
    """
    launches = sorted({launch for launch, _ in baseline.keys() & subject.keys()})
    earlier, look = 0, _FIRST_LOOK
    while look < len(launches):
        earlier, look = look, math.ceil(_NEXT_LOOK * look)
    if look != len(launches) or not earlier:
        return False
    first = {round_id: latency for round_id, latency in subject.items() if round_id[0] < launches[earlier]}
    return paired_ratio(baseline, first).within(precision)


def drift(launches: Sequence[Sequence[float]]) -> Interval:
    """Return the relative change of latency from the first launch to the last: 0.02 for 2 % slower.

    It is the Theil-Sen slope of the logarithms of the launches' median latencies, with Sen's interval; without bounds
    below five launches.

    Args:
        launches: The median latencies of each launch's blocks.

    Source: P. K. Sen, Estimates of the Regression Coefficient Based on Kendall's Tau (JASA 63, 1968).
    """
    from scipy.stats import theilslopes

    levels = [math.log(float(np.median(launch))) for launch in launches]
    if len(levels) < 3:
        return Interval(math.expm1(levels[-1] - levels[0]), None, None)
    fit = theilslopes(levels, alpha=CONFIDENCE)
    value, low, high = (math.expm1(float(slope) * (len(levels) - 1)) for slope in (fit[0], fit[2], fit[3]))
    return Interval(value, low, high) if len(levels) >= _DRIFT_LAUNCHES else Interval(value, None, None)


def by_launch(by_round: Mapping[RoundId, _T]) -> dict[int, list[_T]]:
    """Return the values of each launch, in order of rounds."""
    launches: dict[int, list[_T]] = {}
    for launch, number in sorted(by_round):
        launches.setdefault(launch, []).append(by_round[launch, number])
    return launches


def interval_half_width(values: Sequence[float], centre: float, confidence: float) -> float | None:
    """Return half the width of Student's interval around `centre`; None for a single value."""
    from scipy.stats import t

    count = len(values)
    if count < 2:
        return None
    spread = math.sqrt(sum((value - centre) ** 2 for value in values) / (count * (count - 1)))
    return float(t.ppf(0.5 + confidence / 2, count - 1)) * spread
