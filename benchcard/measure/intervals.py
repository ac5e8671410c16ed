"""Ratios of latencies with their intervals, and what these ratios can show.

Owns the statistics of medians by round. Leaves raw latencies to `latency`, and quality to `significance`.

Two things vary from one measurement to the next: rounds, because the machine and the threads of a process change their
state, and launches, because each process has a speed of its own. The interval of a ratio is over the rounds where
launches add nothing beyond them, and over its own launches where they do. Whether they do is tested on all ratios of a
group together, at a level of 30 %: a test that overlooks more of the small effects would make intervals too narrow. A
model that launches affect far more than the others is judged alone.

Source: R. Wilcox, Introduction to Robust Estimation and Hypothesis Testing (2012), 3.3 and 4.3, for trimmed means with
winsorized variances; T. Bancroft, Analysis and Inference for Incompletely Specified Models (Biometrics 20, 1964) for
the level of a preliminary test; R. DerSimonian and N. Laird, Meta-Analysis in Clinical Trials (Controlled Clinical
Trials 7, 1986) for the weights of launches with unequal numbers of rounds, and J. Hartung and G. Knapp (Statist. Med.
20, 2001) for the interval of their mean; `benchmarks/coverage.py` for how often the intervals hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np

from benchcard.utils.values import Interval

CONFIDENCE = 0.95

RoundId: TypeAlias = tuple[int, int]
"""The number of a launch, and of a round in it."""

_K = TypeVar("_K")
_T = TypeVar("_T")
# Bounds of a ratio whose logarithm is further from it than this (a factor of ten thousand million) are left out.
_UNBOUNDED = 23.0
# The share of rounds that is left out at either end.
_TRIMMED = 0.25
# Levels of the tests for effects of launches: on all ratios of a group, and on one that differs from the others.
_GROUP_LEVEL, _OWN_LEVEL = 0.3, 0.01
# Ratios to the same baseline are correlated: at most this many of them count as independent.
_INDEPENDENT = 2
_FIRST_LOOK = 8
# With fewer launches even the interval of all slopes holds the true one in less than 95 of 100 cases.
_DRIFT_LAUNCHES = 5


@dataclass(frozen=True)
class Ratio:
    """How many times faster a model is than the baseline.

    Attributes:
        log: The logarithm of the ratio.
        error: Its standard error; None where there is only one launch.
        freedom: Degrees of freedom of the error.
        launches_add: The variance of the ratio over launches, relative to what the rounds in them make expect: 1 where
            launches add nothing. None where this is not known.
    """

    log: float
    error: float | None
    freedom: float
    launches_add: float | None = None

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Return the ratio with its interval at a level; `1 - 0.05 / rows` holds for all rows at once (Bonferroni)."""
        half = None if self.error is None else _quantile(confidence, self.freedom) * self.error
        return _from_log(self.log, half)

    @property
    def p_value(self) -> float | None:
        """The p-value of the hypothesis that both are equally fast; None where there is no error."""
        from scipy.special import stdtr

        if self.error is None:
            return None
        if self.error == 0:
            return float(self.log == 0)
        return float(2 * stdtr(self.freedom, -abs(self.log) / self.error))


@dataclass(frozen=True)
class _Levels:
    """The log ratio of one model in each launch.

    Attributes:
        values: The trimmed mean over the rounds of each launch.
        rounds: The number of rounds of each launch.
        variance: The variance of one launch's level, as the rounds in it make expect, times its number of rounds; 0
            where rounds do not vary, or each launch has one round only.
        freedom: Degrees of freedom of the variance.
    """

    values: tuple[float, ...]
    rounds: tuple[int, ...]
    variance: float
    freedom: int

    @property
    def launches_add(self) -> float | None:
        """The variance between launches, relative to what the rounds make expect."""
        return self.effect(0.0) if self.variance and len(self.values) > 1 else None

    @property
    def added(self) -> float:
        """The variance of launches relative to that of a round, estimated by moments."""
        total = sum(self.rounds)
        size = (total - sum(count**2 for count in self.rounds) / total) / (len(self.rounds) - 1)
        return max(0.0, (self.launches_add or 0.0) - 1) / size

    def weights(self, added: float) -> list[float]:
        """Return the weight of each launch: the variance of a round over that of the launch's level."""
        return [1 / (1 / count + added) for count in self.rounds]

    def mean(self, added: float) -> float:
        """Return the weighted mean over the launches."""
        return float(np.average(self.values, weights=self.weights(added)))

    def effect(self, added: float) -> float:
        """Return the weighted variance between launches over the variance of a round: 1 where `added` is right."""
        squares = np.square(np.subtract(self.values, self.mean(added)))
        return float(np.dot(self.weights(added), squares)) / (len(self.values) - 1) / self.variance


def paired_ratios(baseline: Mapping[RoundId, float], subjects: Mapping[_K, Mapping[RoundId, float]]) -> dict[_K, Ratio]:
    """Return how many times faster each subject is than the baseline, from the rounds in which both were timed.

    Args:
        baseline: The baseline's median latency by round, as `block_medians` returns it; equal numbers for the
            subjects' own latencies.
        subjects: The same for each subject. Those without a common round are left out.
    """
    levels = {
        name: _levels({place: math.log(baseline[place] / medians[place]) for place in baseline.keys() & medians.keys()})
        for name, medians in subjects.items()
        if baseline.keys() & medians.keys()
    }
    effects = {name: level.launches_add for name, level in levels.items() if level.launches_add is not None}
    apart = _apart(effects, levels)
    alike = [effect for name, effect in effects.items() if name not in apart]
    return {name: _ratio(level, name in apart or _launches_differ(alike, level)) for name, level in levels.items()}


def _apart(effects: Mapping[_K, float], levels: Mapping[_K, _Levels]) -> set[_K]:
    """Return the models that launches affect far more than most others."""
    typical = max(1.0, sorted(effects.values())[(len(effects) - 1) // 2]) if effects else 1.0
    return {
        name
        for name, effect in effects.items()
        if effect > typical * _largest_effect(_OWN_LEVEL, len(levels[name].values) - 1, levels[name].freedom)
    }


def _launches_differ(effects: Sequence[float], levels: _Levels) -> bool:
    """Return whether launches add something to what rounds vary, by their effects on all ratios together."""
    if not effects or not levels.variance:
        return True
    freedom = (len(levels.values) - 1) * min(len(effects), _INDEPENDENT)
    return sum(effects) / len(effects) > _largest_effect(_GROUP_LEVEL, freedom, levels.freedom)


def _largest_effect(level: float, launches: int, rounds: int) -> float:
    """Return the relative variance of launches that chance exceeds at this level: a quantile of the F distribution."""
    from scipy.special import fdtri

    return float(fdtri(launches, rounds, 1 - level))


def _quantile(confidence: float, freedom: float) -> float:
    """Return how many standard errors Student's interval at this level reaches on either side."""
    # `scipy.stats` has this too, and takes seconds to import while models wait to be timed.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + confidence / 2))


def _levels(logs: Mapping[RoundId, float]) -> _Levels:
    values, counts, squares, freedom = [], [], 0.0, 0
    for launch in by_launch(logs).values():
        ordered = np.sort(launch)
        count = len(ordered)
        cut = int(_TRIMMED * count)
        kept = ordered[cut : count - cut]
        values.append(float(kept.mean()))
        counts.append(count)
        if len(kept) > 1:
            winsorized = np.clip(ordered, kept[0], kept[-1])
            # The variance of the trimmed mean, times `count`, weighted by its degrees of freedom.
            squares += float(winsorized.var() * count**2 / len(kept))
            freedom += len(kept) - 1
    return _Levels(tuple(values), tuple(counts), squares / freedom if freedom else 0.0, freedom)


def _ratio(levels: _Levels, over_launches: bool) -> Ratio:
    """Return a ratio whose interval is over launches, or over all rounds."""
    launches = len(levels.values)
    if launches < 2:
        return Ratio(levels.mean(0.0), None, 0)
    if not levels.variance:
        # The rounds do not vary, or each launch has one of them, so that all launches weigh alike.
        error = float(np.std(levels.values, ddof=1)) / math.sqrt(launches)
        return Ratio(float(np.mean(levels.values)), error, launches - 1)
    if not over_launches:
        error = math.sqrt(levels.variance / sum(levels.rounds))
        return Ratio(levels.mean(0.0), error, levels.freedom, levels.launches_add)
    added = levels.added
    error = math.sqrt(levels.variance * levels.effect(added) / sum(levels.weights(added)))
    return Ratio(levels.mean(added), error, launches - 1, levels.launches_add)


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
    return _from_log(value, _quantile(confidence, freedom) * math.sqrt(sum(errors)))


def _from_log(value: float, half_width: float | None) -> Interval:
    """Return a ratio from its logarithm; without bounds where the half width is None or too large to tell anything."""
    if half_width is None or half_width > _UNBOUNDED:
        return Interval(math.exp(value), None, None)
    return Interval(math.exp(value), math.exp(value - half_width), math.exp(value + half_width))


def expected_half_width(duration_s: float) -> float:
    """Return about how far on either side the interval of a ratio reaches, relative to it, on a quiet machine.

    Source: `benchmarks/precision.py`, 1.5 to 2.8 % with one second for models of 0.4 to 50 ms.
    """
    return 0.02 / math.sqrt(duration_s)


def precise(
    baseline: Mapping[RoundId, float], subjects: Mapping[_K, Mapping[RoundId, float]], precision: float
) -> set[_K]:
    """Return the subjects whose ratio has been known within `precision` on either side for long enough to stop timing.

    A look after every launch would stop at the first interval that is narrow by chance, and such intervals hold the
    true value too rarely. So the first look is after eight launches, and timing stops one launch after the interval was
    narrow.

    Args:
        baseline: The baseline's median latency by round; all equal to judge the subjects' own latencies.
        subjects: The same for each subject.
        precision: Half the width of the interval over the ratio, 0.01 for 1 %.

    Source: C. Stein, A Two-Sample Test for a Linear Hypothesis Whose Power is Independent of the Variance (Ann. Math.
    Statist. 16, 1945) for deciding on the first part of the data; `benchmarks/coverage.py` for these figures.
    """
    launches = {
        name: sorted({launch for launch, _ in baseline.keys() & medians.keys()}) for name, medians in subjects.items()
    }
    earlier = {
        name: {place: median for place, median in medians.items() if place[0] < launches[name][-1]}
        for name, medians in subjects.items()
        if len(launches[name]) > _FIRST_LOOK
    }
    ratios = paired_ratios(baseline, earlier)
    return {name for name, ratio in ratios.items() if ratio.interval().within(precision)}


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
    count = len(values)
    if count < 2:
        return None
    spread = math.sqrt(sum((value - centre) ** 2 for value in values) / (count * (count - 1)))
    return _quantile(confidence, count - 1) * spread
