"""Figures with intervals from raw latencies: what a run comes to, and how sure that is.

Owns the estimators and their 95 % intervals for latency, throughput, drift and the ratio to the baseline. Leaves
raw values to `blocks`, quality to `examples`, rounding and units for display to whoever shows them. Pure functions of
raw values; nothing here is stored instead of them.

**The ratio** is what it says: the ratio of median latencies under the same conditions, above 1 where the subject is the
faster one. In each round, the baseline's median latency is divided by the subject's; the median of these over the
rounds of a launch is the launch's ratio, and the mean of their logarithms over the launches is the estimate. Medians,
because a mean would be decided by the few calls that something else on the machine held up, and because a median keeps
its level whether a block has five calls or five hundred, so that slow and fast models can be compared. Within a round
everything that happens to the machine happens to both sides alike, up to the order, which is drawn at random.

**The interval** is Student's, over launches. A process has a speed of its own: where its memory came to lie, which
processor its threads came to share. The same model in two processes can differ by several per cent for as long as both
live, and no number of calls shows it. So each model is launched several times, and what is repeated is what counts:
the launches are the sample, calls and rounds only make each of them precise. Launches are independent by design,
whatever the noise within them looks like and however it hangs together over time.

**Latency and throughput** are figures over all recorded calls; their intervals come from the spread of the same figure
over launches, in the same way, on logarithms too: what slows a machine down multiplies, and no latency is below zero.

Source: T. Kalibera and R. Jones, Rigorous Benchmarking in Reasonable Time (ISMM 2013), on repeating at the highest
level that varies; S. Hurlbert, Pseudoreplication and the Design of Ecological Field Experiments (Ecol. Monogr. 54,
1984); R. A. Fisher, The Design of Experiments (1935), on blocks and random order; S. Asmussen and P. Glynn, Stochastic
Simulation (2007), III.5 (sectioning) for figures that are not means. `benchmarks/coverage.py` shows how often the
intervals hold the truth, and `benchmarks/noise.py` what they say of equal models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchcard.measure.blocks import Block, Round

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
CONFIDENCE = 0.95
# Bounds of a ratio that are further from it than this, as a logarithm, are left out: a factor of ten thousand millions.
_TELLS_NOTHING = 23.0
_FIRST_LOOK = 5
_NEXT_LOOK = 1.5
# Sen's interval of all slopes holds the truth unless all of them are off to one side: for 2 of n! orders.
_DRIFT_LAUNCHES = 5

# A launch of the processes and a round within it.
Place = tuple[int, int]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval; the bounds are None where there are too few values to draw them."""

    value: float
    low: float | None
    high: float | None

    def excludes(self, value: float) -> bool:
        """Whether the interval lies wholly on one side of `value`; False where there is no interval."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high

    @property
    def reach(self) -> float:
        """How far from 1 a ratio may be, bounds included, as a logarithm."""
        return max(abs(math.log(bound)) for bound in (self.low, self.value, self.high) if bound is not None)

    def within(self, share: float) -> bool:
        """Whether the interval reaches no further than this share of the value on either side, taken together."""
        return self.low is not None and self.high is not None and self.high - self.low <= 2 * share * self.value


@dataclass(frozen=True)
class LatencyFigures:
    """What the recorded calls of one process come to.

    Attributes:
        mean_ns: mean latency.
        percentiles_ns: latency percentiles by their rank (50.0, 90.0, ...); None for a rank with no call beyond it,
            without bounds for one with fewer than one in each launch.
        throughput_per_s: samples per really elapsed second.
        drift: relative change of the median latency from the first to the last launch (0.02 for 2 % slower).
        calls: number of recorded calls.
        elapsed_s: recorded seconds.
        rounds: number of blocks.
        launches: number of processes that it ran in, one after the other.
    """

    mean_ns: Interval
    percentiles_ns: Mapping[float, Interval | None]
    throughput_per_s: Interval
    drift: Interval
    calls: int
    elapsed_s: float
    rounds: int
    launches: int


def latency_figures(rounds: Iterable[Round], name: str, samples: int, *, twin: bool = False) -> LatencyFigures:
    """Mean, percentiles, throughput and drift of a subject, with intervals.

    Args:
        rounds: the rounds of its group.
        name: the subject's name.
        samples: samples per call.
        twin: the baseline's second process instead of the first.

    Raises:
        ValueError: there is no block of that name.
    """
    placed = _blocks(rounds, name, twin)
    if not placed:
        raise ValueError(f"no timed block of {name!r}")
    launches = list(_by_launch(placed).values())
    blocks = [block for launch in launches for block in launch]
    calls = sum(len(block.latencies_ns) for block in blocks)

    def rate(part: Sequence[Block]) -> float:
        return samples * sum(len(block.latencies_ns) for block in part) / sum(block.elapsed_ns for block in part) * 1e9

    def percentile(rank: float) -> Interval | None:
        # rounded, for a tenth of ten calls is one call
        beyond = round(calls * (100 - rank) / 100, 6)
        if beyond < 1:
            return None
        whole = over_launches(launches, lambda part: float(np.percentile(_latencies(part), rank)))
        return whole if beyond >= len(launches) else Interval(whole.value, None, None)

    return LatencyFigures(
        mean_ns=over_launches(launches, lambda part: float(_latencies(part).mean())),
        percentiles_ns={rank: percentile(rank) for rank in PERCENTILES},
        throughput_per_s=over_launches(launches, rate),
        drift=drift([[block.median_ns for block in launch] for launch in launches]),
        calls=calls,
        elapsed_s=sum(block.elapsed_ns for block in blocks) / 1e9,
        rounds=len(blocks),
        launches=len(launches),
    )


def block_medians(rounds: Iterable[Round], name: str, *, twin: bool = False) -> dict[Place, float]:
    """A subject's median latency in each round it took part in, in ns, by launch and round."""
    return {place: block.median_ns for place, block in _blocks(rounds, name, twin).items()}


def paired_ratio(
    baseline: Mapping[Place, float], subject: Mapping[Place, float], confidence: float = CONFIDENCE
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
    levels = [float(np.median(launch)) for launch in _by_launch(logs).values()]
    value = float(np.mean(levels))
    return _around(value, _half_width(levels, value, confidence))


def unpaired_ratio(
    baseline: Mapping[Place, float], subject: Mapping[Place, float], confidence: float = CONFIDENCE
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
        np.array([np.median(np.log(launch)) for launch in _by_launch(each).values()]) for each in (baseline, subject)
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
    if half is None or half > _TELLS_NOTHING:
        return Interval(math.exp(value), None, None)
    return Interval(math.exp(value), math.exp(value - half), math.exp(value + half))


def noise_floor(rounds: Sequence[Round], baseline: str) -> Interval:
    """The baseline against its twin, the same model in a process that does not know of it: 1 but for noise.

    Raises:
        ValueError: the twin was never timed.
    """
    return paired_ratio(block_medians(rounds, baseline), block_medians(rounds, baseline, twin=True))


def detectable(ratio: Interval, floor: Interval) -> bool:
    """Whether a ratio differs from 1 by more than its own interval and by more than the noise floor of its run.

    The floor is as far from 1 as the interval of the baseline against its twin reaches; where it has none, as from one
    launch, nothing is known of the noise, and no ratio is detectable.
    """
    is_known = floor.low is not None
    return is_known and ratio.excludes(1.0) and abs(math.log(ratio.value)) > floor.reach


def settled(baseline: Mapping[Place, float], subject: Mapping[Place, float], precision: float) -> bool:
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


def over_launches(launches: Sequence[Sequence[Block]], figure: Callable[[Sequence[Block]], float]) -> Interval:
    """A figure over all blocks, with the interval that the spread of its logarithm over the launches gives.

    Args:
        launches: the blocks of each launch.
        figure: what to take of any number of blocks; above zero.

    Source: Asmussen and Glynn (2007), III.5.
    """
    value = figure([block for launch in launches for block in launch])
    half = _half_width([math.log(figure(launch)) for launch in launches], math.log(value), CONFIDENCE)
    if half is None:
        return Interval(value, None, None)
    return Interval(value, value * math.exp(-half), value * math.exp(half))


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


def _blocks(rounds: Iterable[Round], name: str, twin: bool) -> dict[Place, Block]:
    return {
        (timed.launch, timed.number): block
        for timed in rounds
        for block in timed.blocks
        if block.name == name and block.twin == twin and len(block.latencies_ns)
    }


def _by_launch(placed: Mapping[Place, _T]) -> dict[int, list[_T]]:
    """The values of each launch, in order of rounds."""
    launches: dict[int, list[_T]] = {}
    for launch, number in sorted(placed):
        launches.setdefault(launch, []).append(placed[launch, number])
    return launches


def _latencies(blocks: Sequence[Block]) -> NDArray[np.int64]:
    return np.concatenate([block.latencies_ns for block in blocks])


def _half_width(values: Sequence[float], centre: float, confidence: float) -> float | None:
    """Half the width of Student's interval around `centre`, None for a single value."""
    from scipy.stats import t

    count = len(values)
    if count < 2:
        return None
    spread = math.sqrt(sum((value - centre) ** 2 for value in values) / (count * (count - 1)))
    return float(t.ppf(0.5 + confidence / 2, count - 1)) * spread
