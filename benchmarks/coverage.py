"""How often the 95 % interval of the ratio holds the true ratio, on simulated machines of every mood.

    python benchmarks/coverage.py [--runs 1000] [--rounds 150 30] [--seed 0]

Two models of known latency (5 and 2 ms, where nothing else is said) are "timed" by the protocol of `benchcard.measure`:
five launches, blocks of 0.1 s, in random order with other models in each round. A scenario says what the machine and
the processes do to them meanwhile. Every run is analysed by the functions that analyse real runs. Beside them stands
what is usually done: the same models one after the other on the same machine for the same time, in one process each,
and a normal interval on their calls.

Exit status 1 if an interval holds the truth less than 93 or more than 97 times in 100 in any scenario.
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
MODELS = 6  # in a round; the two that are compared and others between them
BOUNDS = (0.93, 0.97)

Floats = NDArray[np.float64]
Draw = np.random.Generator


@dataclass(frozen=True)
class Scenario:
    """What happens to latencies, all of it as factors on the logarithm.

    Attributes:
        calls: noise of every call by itself; its median is 0, the same for both models.
        machine: what the machine does to whoever runs, by time in units of a block.
        process: what a process does to itself, by round.
        launch: by how much the speed of one process differs from that of another of the same model.
        precision: stop once the interval is within this share on either side; None to run all rounds.
        latencies_ms: median latencies of the two models.
    """

    calls: Callable[[Draw, tuple[int, int]], Floats]
    machine: Callable[[Draw, int], Floats] | None = None
    process: Callable[[Draw, int], Floats] | None = None
    launch: float = 0.0
    precision: float | None = None
    latencies_ms: tuple[float, float] = (5.0, 2.0)

    @property
    def ratio(self) -> float:
        """The true one."""
        return self.latencies_ms[0] / self.latencies_ms[1]


def light(draw: Draw, shape: tuple[int, int]) -> Floats:
    """Noise of calls on a quiet machine: 2 %."""
    return draw.normal(0, 0.02, shape)


def heavy(draw: Draw, shape: tuple[int, int]) -> Floats:
    """One call in ten is held up, by a Pareto time without a variance, and the median is still 0."""
    noise = light(draw, shape)
    held = draw.random(shape) < 0.1
    # half of the held calls would have been below the median: move the centre back to where it was
    level = 0.02 * _normal_quantile(0.5 / 0.9)
    return np.where(held, np.log1p(draw.pareto(1.5, shape)) + 0.05, noise) - level


def skewed(draw: Draw, shape: tuple[int, int]) -> Floats:
    """Every call is held up a little, by an exponential time of 5 %."""
    return draw.exponential(0.05, shape) - 0.05 * math.log(2)


def drift(draw: Draw, blocks: int) -> Floats:
    """The machine becomes 30 % slower over the run, and swings by 5 % meanwhile."""
    time = np.linspace(0, 1, blocks)
    return 0.3 * time + 0.05 * np.sin(2 * np.pi * (3 * time + draw.random()))


def bursts(draw: Draw, blocks: int) -> Floats:
    """Somebody else works for two seconds every ten, on average, and slows us down by 20 to 100 %."""
    slow = np.zeros(blocks)
    place = 0
    while place < blocks:
        place += round(draw.exponential(8 / BLOCK_S))
        length = 1 + round(draw.exponential(2 / BLOCK_S))
        slow[place : place + length] = math.log(draw.uniform(1.2, 2.0))
        place += length
    return slow


def correlated(draw: Draw, blocks: int) -> Floats:
    """The machine's speed wanders by 5 %, with a memory of three seconds."""
    return wander(draw, blocks, memory=3 / BLOCK_S, spread=0.05)


def states(draw: Draw, rounds: int) -> Floats:
    """A process's own speed wanders by 2 %, with a memory of one round."""
    return wander(draw, rounds, memory=1.0, spread=0.02)


def wander(draw: Draw, count: int, *, memory: float, spread: float) -> Floats:
    """A stationary autoregressive series whose correlation falls to 1/e after `memory` places."""
    from scipy.signal import lfilter

    keep = math.exp(-1 / memory)
    steps = draw.normal(0, spread * math.sqrt(1 - keep**2), count)
    steps[0] = draw.normal(0, spread)
    series: Floats = lfilter([1.0], [1.0, -keep], steps)
    return series


def everything(draw: Draw, blocks: int) -> Floats:
    """Drift, bursts and a wandering speed at once."""
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
    """The interval of one run by the protocol."""
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
    """What is usually done: the same time for each, one after the other, and a normal interval on the calls."""
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
    """Share of runs whose interval holds the true ratio, and the median half-width of the intervals."""
    draw = np.random.default_rng(seed)
    held, widths = 0, []
    for _ in range(runs):
        found = method(draw, scenario, rounds)
        held += not found.excludes(scenario.ratio)
        if found.low is not None and found.high is not None:
            widths.append((found.high - found.low) / 2 / found.value)
    return held / runs, float(np.median(widths)) if widths else math.nan


def main(arguments: Sequence[str] | None = None) -> int:
    """The table, and 1 if an interval is not what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="simulated runs of each scenario")
    parser.add_argument("--rounds", type=int, nargs="+", default=[150, 30], help="rounds of a run; 150 are 15 s")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    print(f"{asked.runs} runs each; share of 95 % intervals that hold the true ratio, and their median half-width\n")
    print(f"{'scenario':<20} {'rounds':>6}   {'interleaved':>16}   {'one after the other':>19}")
    wrong = 0
    for rounds in asked.rounds:
        for name, scenario in SCENARIOS.items():
            share, width = coverage(interleaved, scenario, runs=asked.runs, rounds=rounds, seed=asked.seed)
            usual, usual_width = coverage(in_turn, scenario, runs=asked.runs, rounds=rounds, seed=asked.seed)
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
