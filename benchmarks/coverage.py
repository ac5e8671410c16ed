"""Simulate machines and measure how often the 95 % interval of the ratio contains the true ratio.

    python benchmarks/coverage.py [--runs 1000] [--rounds 30 50 500] [--seed 0]

Six models of known latency are "timed" by the protocol of `benchcard.measure`: blocks of 33 ms, in random order in each
round, in five launches, or in three where there are 30 rounds or fewer, as with a `duration` of up to 1 s. One of them
is the baseline, one its twin. A scenario defines how the machine and the processes change the latencies. Every run is
analysed by the functions that analyse real runs. For comparison, the usual method times two of the models one after the
other on the same machine for the same time, in one process each, and computes a normal interval from their calls.

Ratios of processor time are analysed likewise. Linux counts that of threads which are running at clock ticks only, so
here all of it is counted in steps of 4 ms. Waiting for other work is not part of it: neither delayed calls of heavy
tails nor what others slow down.

Where other work slows models down differently, no interval can hold. Such runs must be marked as disturbed, and nothing
in them is `detectable`; the last column says how many are.

The exit status is 1 if in any scenario the interval contains the true ratio less than 93 or more than 97 times in 100,
runs marked as disturbed left out.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchcard.measure.intervals import RoundId, paired_ratios, precise
from benchcard.measure.machine_state import MachineState, is_disturbed
from benchcard.utils.values import Interval

BLOCK_S = 1 / 30
CYCLE_S = BLOCK_S + 0.005  # with the unrecorded calls before a block
LAUNCHES, FEWEST_LAUNCHES, FEW_ROUNDS = 5, 3, 30
MODELS = 6
TICK_MS = 4.0  # of Linux with 250 clock ticks a second, as most distributions have it
BASELINE, SUBJECT = 0, 1
BOUNDS = (0.93, 0.97)

Floats = NDArray[np.float64]
Launches = NDArray[np.int64]
Draw = np.random.Generator


@dataclass(frozen=True)
class Scenario:
    """What changes the latencies; all changes are added to their logarithms.

    Attributes:
        calls: Independent noise of every call, with a median of 0.
        machine: Change by the machine, for each block of time; the same for all models.
        process: Change by a process itself, for each round.
        launch: Standard deviation of the speeds of processes of one model.
        own_launch: The same for the subject alone, in addition.
        others: The share of the run during which other work uses a processor.
        slowed: How much that slows the baseline and the subject, as logarithms.
        shares: The share of the rounds that each launch has; by default, all have the same.
        precision: Stop when the interval is within this share on both sides; None runs all rounds.
        latencies_ms: Median latencies of the baseline, the subject, and the other models.
    """

    calls: Callable[[Draw, tuple[int, int]], Floats]
    machine: Callable[[Draw, int], Floats] | None = None
    process: Callable[[Draw, int], Floats] | None = None
    launch: float = 0.0
    own_launch: float = 0.0
    others: float = 0.0
    slowed: tuple[float, float] = (0.0, 0.0)
    shares: tuple[float, ...] = ()
    precision: float | None = None
    latencies_ms: tuple[float, float, float] = (5.0, 2.0, 4.0)

    @property
    def ratio(self) -> float:
        """The true ratio."""
        return self.latencies_ms[BASELINE] / self.latencies_ms[SUBJECT]


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


def noisy(draw: Draw, shape: tuple[int, int]) -> Floats:
    """Return the noise of calls with a deviation of 12 %."""
    return draw.normal(0, 0.12, shape)


def drift(draw: Draw, blocks: int) -> Floats:
    """Return a slowdown of 30 % over the run, with oscillations of 5 %."""
    time = np.linspace(0, 1, blocks)
    return 0.3 * time + 0.05 * np.sin(2 * np.pi * (3 * time + draw.random()))


def bursts(draw: Draw, blocks: int) -> Floats:
    """Return slowdowns of 20 to 100 % by other work, for two seconds in every ten on average."""
    slow = np.zeros(blocks)
    place = 0
    while place < blocks:
        place += round(draw.exponential(8 / CYCLE_S))
        length = 1 + round(draw.exponential(2 / CYCLE_S))
        slow[place : place + length] = math.log(draw.uniform(1.2, 2.0))
        place += length
    return slow


def correlated(draw: Draw, blocks: int) -> Floats:
    """Return a random drift of the machine's speed by 5 %, with a correlation time of three seconds."""
    return random_drift(draw, blocks, memory=3 / CYCLE_S, spread=0.05)


def block_states(draw: Draw, rounds: int) -> Floats:
    """Return a state for each block, as of threads that wake up on one core or on two: 0.5, 0.65 or 1.05 ms."""
    return np.log(draw.choice([0.5, 0.65, 1.05], rounds, p=[0.2, 0.6, 0.2]) / 0.65)


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
    "noisy calls": Scenario(noisy),
    "heavy tails": Scenario(heavy),
    "skewed, few calls": Scenario(skewed, latencies_ms=(6.0, 2.0, 4.0)),
    "drift": Scenario(light, drift),
    "bursts": Scenario(light, bursts),
    "correlated blocks": Scenario(light, correlated),
    "states of blocks": Scenario(light, None, block_states),
    "states of a process": Scenario(light, None, states),
    "processes differ a bit": Scenario(light, launch=0.003),
    "processes differ": Scenario(light, launch=0.03),
    "one model's differ": Scenario(light, own_launch=0.03),
    "unequal launches": Scenario(light, launch=0.03, shares=(0.3, 0.3, *[0.04] * 10)),
    "a third disturbed": Scenario(light, others=0.3, slowed=(0.5, 0.5)),
    "moved differently": Scenario(light, others=0.3, slowed=(0.3, 0.9)),
    "all of these": Scenario(heavy, everything, states, launch=0.03),
    "stopped at 1 %": Scenario(heavy, correlated, launch=0.005, precision=0.01),
}


def block_medians(draw: Draw, latencies_ms: Floats, launch_of: Launches) -> dict[RoundId, float]:
    """Return the median latency of each block, as the function of this name in `measure.latency`."""
    medians = np.median(latencies_ms, axis=1)
    return {(int(launch), number): value for number, (launch, value) in enumerate(zip(launch_of, medians))}


def cpu_times(draw: Draw, latencies_ms: Floats, launch_of: Launches) -> dict[RoundId, float]:
    """Return the processor time of each launch per call, counted in ticks, as the function in `measure.latency`."""
    rounds, calls = latencies_ms.shape
    counted_ms = TICK_MS * np.floor(draw.random(rounds) + latencies_ms.sum(axis=1) / TICK_MS)
    per_block_ms = np.bincount(launch_of, counted_ms) / np.bincount(launch_of)
    return {(launch, 0): float(value) / calls for launch, value in enumerate(per_block_ms)}


def processor_time(draw: Draw, scenario: Scenario, rounds: int) -> tuple[Interval, bool]:
    """Return the ratio of processor time of one run by the protocol; no run is marked."""
    calls = light if scenario.calls is heavy else scenario.calls
    return interleaved(draw, replace(scenario, others=0.0, calls=calls), rounds, cpu_times)


def interleaved(
    draw: Draw,
    scenario: Scenario,
    rounds: int,
    times: Callable[[Draw, Floats, Launches], dict[RoundId, float]] = block_medians,
) -> tuple[Interval, bool]:
    """Return the ratio of one run by the protocol, and whether the run is marked as disturbed.

    `times` are the times that are compared, from the latencies of each block and the launch that it is of.
    """
    launches = FEWEST_LAUNCHES if rounds <= FEW_ROUNDS else LAUNCHES
    per_launch = rounds // launches if scenario.precision is None else rounds // (4 * LAUNCHES)
    launch_of = np.arange(rounds) // per_launch
    if scenario.shares:
        launch_of = np.searchsorted(np.cumsum(scenario.shares[:-1]) * rounds, np.arange(rounds), side="right")
    blocks = rounds * MODELS
    machine = np.zeros(blocks) if scenario.machine is None else scenario.machine(draw, blocks)
    begin = draw.random() * (1 - scenario.others) * blocks
    busy = (np.arange(blocks) >= begin) & (np.arange(blocks) < begin + scenario.others * blocks)
    places = np.argsort(draw.random((rounds, MODELS)), axis=1) + MODELS * np.arange(rounds)[:, None]
    compared = []
    for model in range(MODELS):
        latency_ms = scenario.latencies_ms[min(model, 2)]
        spread = math.hypot(scenario.launch, scenario.own_launch if model == SUBJECT else 0.0)
        level = machine[places[:, model]] + draw.normal(0, spread, rounds)[launch_of]
        level = level + busy[places[:, model]] * scenario.slowed[model == SUBJECT]
        if scenario.process is not None:
            processes = [scenario.process(draw, per_launch) for _ in range(launch_of[-1] + 1)]
            level = level + np.concatenate(processes)[:rounds]
        calls = round(BLOCK_S / latency_ms * 1e3)
        logs = scenario.calls(draw, (rounds, (calls - 1) | 1))  # of an even number the last one is left out
        compared.append(times(draw, latency_ms * np.exp(logs + level[:, None]), launch_of))
    others = dict(enumerate(compared))
    baseline = others.pop(BASELINE)
    if scenario.precision is not None:
        for launches in range(1, int(launch_of[-1]) + 1):
            shorter = {
                model: {place: value for place, value in by_round.items() if place[0] < launches}
                for model, by_round in others.items()
            }
            if SUBJECT in precise(baseline, shorter, scenario.precision):
                others = shorter
                break
    return paired_ratios(baseline, others)[SUBJECT].interval(), is_disturbed(states_of(busy))


def states_of(busy: NDArray[np.bool_]) -> list[tuple[MachineState, MachineState]]:
    """Return the machine before and after each round."""
    seconds = np.concatenate([[0.0], np.cumsum(busy.reshape(-1, MODELS).sum(axis=1) * CYCLE_S)])
    states = [
        MachineState(at_ns=1 + round(number * MODELS * CYCLE_S * 1e9), busy_s=float(used), own_s=0.0)
        for number, used in enumerate(seconds)
    ]
    return list(itertools.pairwise(states))


def in_turn(draw: Draw, scenario: Scenario, rounds: int) -> tuple[Interval, bool]:
    """Return the ratio by the usual method: the models one after the other, and a normal interval from the calls."""
    machine = np.zeros(2 * rounds) if scenario.machine is None else scenario.machine(draw, 2 * rounds)
    means, variance = [], 0.0
    for model, latency_ms in enumerate(scenario.latencies_ms[:2]):
        calls = max(1, round(BLOCK_S / latency_ms * 1e3))
        logs = scenario.calls(draw, (rounds, calls)) + machine[model * rounds : (model + 1) * rounds, None]
        logs = logs + draw.normal(0, scenario.launch)
        if scenario.process is not None:
            logs = logs + scenario.process(draw, rounds)[:, None]
        latencies = latency_ms * np.exp(logs)
        means.append(float(latencies.mean()))
        variance += float(latencies.var(ddof=1)) / latencies.size / means[-1] ** 2
    half = _normal_quantile(0.975) * math.sqrt(variance)
    ratio = means[0] / means[1]
    return Interval(ratio, ratio * math.exp(-half), ratio * math.exp(half)), False


def coverage(
    method: Callable[[Draw, Scenario, int], tuple[Interval, bool]],
    scenario: Scenario,
    *,
    runs: int,
    rounds: int,
    seed: int,
) -> tuple[float, float, float]:
    """Return the share of runs whose interval contains the true ratio, the median half-width, and the share disturbed.

    Disturbed runs count only in the last figure, unless all are.
    """
    draw = np.random.default_rng(seed)
    every = [method(draw, scenario, rounds) for _ in range(runs)]
    kept = [interval for interval, disturbed in every if not disturbed] or [interval for interval, _ in every]
    holds = [not interval.excludes(scenario.ratio) for interval in kept]
    widths = [
        (interval.high - interval.low) / 2 / interval.value
        for interval in kept
        if interval.low is not None and interval.high is not None
    ]
    width = float(np.median(widths)) if widths else math.nan
    return sum(holds) / len(holds), width, sum(disturbed for _, disturbed in every) / runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and return 1 if the coverage of an interval is out of bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="simulated runs of each scenario")
    parser.add_argument("--rounds", type=int, nargs="+", default=[30, 50, 500], help="rounds of a run; 30 are 1 s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(
        f"{options.runs} runs each; share of 95 % intervals that contain the true ratio, and their median half-width\n"
    )
    headers = f"{'interleaved':>16}   {'processor time':>16}   {'one after the other':>19}   {'disturbed':>9}"
    print(f"{'scenario':<23} {'rounds':>6}   {headers}")
    wrong = 0
    for rounds in options.rounds:
        for name, scenario in SCENARIOS.items():
            settings = {"runs": options.runs, "rounds": rounds, "seed": options.seed}
            share, width, disturbed = coverage(interleaved, scenario, **settings)
            cpu, cpu_width, _ = coverage(processor_time, scenario, **settings)
            usual, usual_width, _ = coverage(in_turn, scenario, **settings)
            shown = [cpu] if disturbed == 1 else [share, cpu]
            outside = any(not BOUNDS[0] <= each <= BOUNDS[1] for each in shown)
            wrong += outside
            print(
                f"{name:<23} {rounds:>6}   {share:>7.1%} ± {width:>6.2%}   {cpu:>7.1%} ± {cpu_width:>6.2%}"
                f"   {usual:>10.1%} ± {usual_width:>6.2%}   {disturbed:>9.0%}"
                f"{'   outside 93 to 97 %' if outside else ''}",
                flush=True,
            )
    return 1 if wrong else 0


def _normal_quantile(share: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(share))


if __name__ == "__main__":
    sys.exit(main())
