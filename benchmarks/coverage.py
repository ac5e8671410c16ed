"""Simulate machines and measure how often the 95 % interval of the ratio contains the true ratio.

    python benchmarks/coverage.py [--runs 1000] [--rounds 150 30] [--seed 0]

Two models of known latency (5 and 2 ms by default) are "timed" by the protocol of `benchcard.measure`: five launches
and blocks of 0.1 s, in random order with other models in each round. A scenario defines how the machine and the
processes change the latencies. Every run is analysed by the functions that analyse real runs. For comparison, the usual
method times the same models one after the other on the same machine for the same time, in one process each, and
computes a normal interval from their calls.

The exit status is 1 if in any scenario the interval contains the true ratio less than 93 or more than 97 times in 100.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchcard.measure.intervals import is_precise, paired_ratio
from benchcard.utils.values import Interval

BLOCK_S = 0.1
LAUNCHES = 5
MODELS = 6  # in a round: the two that are compared and four others
BOUNDS = (0.93, 0.97)

Floats = NDArray[np.float64]
Draw = np.random.Generator


@dataclass(frozen=True)
class Scenario:
    """What changes the latencies; all changes are added to their logarithms.

    Attributes:
        calls: Independent noise of every call, with a median of 0, the same for both models.
        machine: Change by the machine, for each block of time.
        process: Change by a process itself, for each round.
        launch: Standard deviation of the speeds of processes of one model.
        precision: Stop when the interval is within this share on both sides; None runs all rounds.
        latencies_ms: Median latencies of the two models.
    """

    calls: Callable[[Draw, tuple[int, int]], Floats]
    machine: Callable[[Draw, int], Floats] | None = None
    process: Callable[[Draw, int], Floats] | None = None
    launch: float = 0.0
    precision: float | None = None
    latencies_ms: tuple[float, float] = (5.0, 2.0)

    @property
    def ratio(self) -> float:
        """The true ratio."""
        return self.latencies_ms[0] / self.latencies_ms[1]


def light(draw: Draw, shape: tuple[int, int]) -> Floats:
    """Return the noise of calls on a quiet machine: 2 %."""
    return draw.normal(0, 0.02, shape)


def heavy(draw: Draw, shape: tuple[int, int]) -> Floats:
    """Return noise in which one call in ten is delayed by a Pareto time without a variance; its median is 0."""
    noise = light(draw, shape)
    delayed = draw.random(shape) < 0.1
    # Half of the delayed calls would have been below the median, so the median is moved back to 0.
    level = 0.02 * _normal_quantile(0.5 / 0.9)
    return np.where(delayed, np.log1p(draw.pareto(1.5, shape)) + 0.05, noise) - level


def skewed(draw: Draw, shape: tuple[int, int]) -> Floats:
    """Return noise in which every call is delayed by an exponential time of 5 %."""
    return draw.exponential(0.05, shape) - 0.05 * math.log(2)


def drift(draw: Draw, blocks: int) -> Floats:
    """Return a slowdown of 30 % over the run, with oscillations of 5 %."""
    time = np.linspace(0, 1, blocks)
    return 0.3 * time + 0.05 * np.sin(2 * np.pi * (3 * time + draw.random()))


def bursts(draw: Draw, blocks: int) -> Floats:
    """Return slowdowns of 20 to 100 % by other work, for two seconds in every ten on average."""
    slow = np.zeros(blocks)
    place = 0
    while place < blocks:
        place += round(draw.exponential(8 / BLOCK_S))
        length = 1 + round(draw.exponential(2 / BLOCK_S))
        slow[place : place + length] = math.log(draw.uniform(1.2, 2.0))
        place += length
    return slow


def correlated(draw: Draw, blocks: int) -> Floats:
    """Return a random drift of the machine's speed by 5 %, with a correlation time of three seconds."""
    return random_drift(draw, blocks, memory=3 / BLOCK_S, spread=0.05)


def states(draw: Draw, rounds: int) -> Floats:
    """Return a random drift of a process's speed by 2 %, with a correlation time of one round."""
    return random_drift(draw, rounds, memory=1.0, spread=0.02)


def random_drift(draw: Draw, count: int, *, memory: float, spread: float) -> Floats:
    """Return a stationary autoregressive series whose correlation falls to 1/e after `memory` elements."""
    from scipy.signal import lfilter

    keep = math.exp(-1 / memory)
    steps = draw.normal(0, spread * math.sqrt(1 - keep**2), count)
    steps[0] = draw.normal(0, spread)
    series: Floats = lfilter([1.0], [1.0, -keep], steps)
    return series


def everything(draw: Draw, blocks: int) -> Floats:
    """Return the sum of `drift`, `bursts` and `correlated`."""
    return drift(draw, blocks) + bursts(draw, blocks) + correlated(draw, blocks)


SCENARIOS = {
    "quiet": Scenario(light),
    "heavy tails": Scenario(heavy),
    "skewed, few calls": Scenario(skewed, latencies_ms=(20.0, 2.0)),
    "drift": Scenario(light, drift),
    "bursts": Scenario(light, bursts),
    "correlated blocks": Scenario(light, correlated),
    "states of a process": Scenario(light, None, states),
    "processes differ": Scenario(light, launch=0.03),
    "all of these": Scenario(heavy, everything, states, launch=0.03),
    "stopped at 1 %": Scenario(heavy, correlated, launch=0.01, precision=0.01),
}


def interleaved(draw: Draw, scenario: Scenario, rounds: int) -> Interval:
    """Return the ratio of one run by the protocol."""
    per_launch = rounds // LAUNCHES if scenario.precision is None else rounds // (4 * LAUNCHES)
    launch_of = np.arange(rounds) // per_launch
    machine = np.zeros(rounds * MODELS) if scenario.machine is None else scenario.machine(draw, rounds * MODELS)
    places = np.argsort(draw.random((rounds, MODELS)), axis=1)[:, :2] + MODELS * np.arange(rounds)[:, None]
    medians = []
    for model, latency_ms in enumerate(scenario.latencies_ms):
        level = machine[places[:, model]] + draw.normal(0, scenario.launch, rounds)[launch_of]
        if scenario.process is not None:
            processes = [scenario.process(draw, per_launch) for _ in range(launch_of[-1] + 1)]
            level = level + np.concatenate(processes)[:rounds]
        logs = scenario.calls(draw, (rounds, round(BLOCK_S / latency_ms * 1e3)))
        by_round = latency_ms * np.exp(np.median(logs, axis=1) + level)
        medians.append({(int(launch_of[number]), number): value for number, value in enumerate(by_round)})
    baseline, subject = medians
    if scenario.precision is not None:
        for launches in range(1, int(launch_of[-1]) + 1):
            shorter = {place: value for place, value in subject.items() if place[0] < launches}
            if is_precise(baseline, shorter, scenario.precision):
                return paired_ratio(baseline, shorter)
    return paired_ratio(baseline, subject)


def in_turn(draw: Draw, scenario: Scenario, rounds: int) -> Interval:
    """Return the ratio by the usual method: the models one after the other, and a normal interval from the calls."""
    machine = np.zeros(2 * rounds) if scenario.machine is None else scenario.machine(draw, 2 * rounds)
    means, variance = [], 0.0
    for model, latency_ms in enumerate(scenario.latencies_ms):
        calls = round(BLOCK_S / latency_ms * 1e3)
        logs = scenario.calls(draw, (rounds, calls)) + machine[model * rounds : (model + 1) * rounds, None]
        logs = logs + draw.normal(0, scenario.launch)
        if scenario.process is not None:
            logs = logs + scenario.process(draw, rounds)[:, None]
        latencies = latency_ms * np.exp(logs)
        means.append(float(latencies.mean()))
        variance += float(latencies.var(ddof=1)) / latencies.size / means[-1] ** 2
    half = _normal_quantile(0.975) * math.sqrt(variance)
    ratio = means[0] / means[1]
    return Interval(ratio, ratio * math.exp(-half), ratio * math.exp(half))


def coverage(
    method: Callable[[Draw, Scenario, int], Interval], scenario: Scenario, *, runs: int, rounds: int, seed: int
) -> tuple[float, float]:
    """Return the share of runs whose interval contains the true ratio, and the median half-width of the intervals."""
    draw = np.random.default_rng(seed)
    count, widths = 0, []
    for _ in range(runs):
        interval = method(draw, scenario, rounds)
        count += not interval.excludes(scenario.ratio)
        if interval.low is not None and interval.high is not None:
            widths.append((interval.high - interval.low) / 2 / interval.value)
    return count / runs, float(np.median(widths)) if widths else math.nan


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and return 1 if the coverage of an interval is out of bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="simulated runs of each scenario")
    parser.add_argument("--rounds", type=int, nargs="+", default=[150, 30], help="rounds of a run; 150 are 15 s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(
        f"{options.runs} runs each; share of 95 % intervals that contain the true ratio, and their median half-width\n"
    )
    print(f"{'scenario':<20} {'rounds':>6}   {'interleaved':>16}   {'one after the other':>19}")
    wrong = 0
    for rounds in options.rounds:
        for name, scenario in SCENARIOS.items():
            share, width = coverage(interleaved, scenario, runs=options.runs, rounds=rounds, seed=options.seed)
            usual, usual_width = coverage(in_turn, scenario, runs=options.runs, rounds=rounds, seed=options.seed)
            outside = not BOUNDS[0] <= share <= BOUNDS[1]
            wrong += outside
            print(
                f"{name:<20} {rounds:>6}   {share:>7.1%} ± {width:>6.2%}   {usual:>10.1%} ± {usual_width:>6.2%}"
                f"{'   outside 93 to 97 %' if outside else ''}",
                flush=True,
            )
    return 1 if wrong else 0


def _normal_quantile(share: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(share))


if __name__ == "__main__":
    sys.exit(main())
