"""Figures of raw times: mean latency, percentiles, throughput, processor time, and medians of blocks.

Owns what is computed from blocks. Leaves intervals and ratios to `intervals`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchcard.measure.blocks import Block, Round
from benchcard.measure.intervals import CONFIDENCE, RoundId, by_launch, drift, interval_half_width
from benchcard.utils.values import Interval

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class LatencyFigures:
    """The figures of the recorded calls of one subject.

    Attributes:
        mean_ns: Mean latency.
        percentiles_ns: Latency percentiles by their rank (50.0, 90.0, ...). None for a rank with no call beyond it;
            without bounds for a rank with fewer calls beyond it than launches.
        throughput_per_s: Samples per elapsed second.
        cpu_ns: Processor time per call, of all threads; None where the clock counted none.
        drift: Relative change of the median latency from the first to the last launch (0.02 for 2 % slower).
        calls: Number of recorded calls.
        elapsed_s: Recorded seconds.
        rounds: Number of blocks.
        launches: Number of processes, one after the other.
    """

    mean_ns: Interval
    percentiles_ns: Mapping[float, Interval | None]
    throughput_per_s: Interval
    cpu_ns: Interval | None
    drift: Interval
    calls: int
    elapsed_s: float
    rounds: int
    launches: int


def latency_figures(rounds: Iterable[Round], name: str, samples: int, *, twin: bool = False) -> LatencyFigures:
    """Return mean, percentiles, throughput, processor time and drift of a subject, with intervals.

    Args:
        rounds: The rounds of its group.
        name: The subject's name.
        samples: Samples per call.
        twin: Whether to use the baseline's second process.

    Raises:
        ValueError: There is no block of that name.
    """
    by_round = _blocks(rounds, name, twin)
    if not by_round:
        raise ValueError(f"no timed block of {name!r}")
    launches = list(by_launch(by_round).values())
    blocks = [block for launch in launches for block in launch]
    calls = sum(len(block.latencies_ns) for block in blocks)

    def rate(part: Sequence[Block]) -> float:
        return samples * sum(len(block.latencies_ns) for block in part) / sum(block.elapsed_ns for block in part) * 1e9

    def percentile(rank: float) -> Interval | None:
        # Rounded, because a tenth of ten calls is one call.
        beyond = round(calls * (100 - rank) / 100, 6)
        if beyond < 1:
            return None
        interval = over_launches(launches, lambda part: float(np.percentile(_latencies(part), rank)))
        return interval if beyond >= len(launches) else Interval(interval.value, None, None)

    counted = [launch for launch in launches if _cpu_per_call_ns(launch)]
    return LatencyFigures(
        mean_ns=over_launches(launches, lambda part: float(_latencies(part).mean())),
        percentiles_ns={rank: percentile(rank) for rank in PERCENTILES},
        throughput_per_s=over_launches(launches, rate),
        cpu_ns=over_launches(counted, _cpu_per_call_ns) if counted else None,
        drift=drift([[block.median_ns for block in launch] for launch in launches]),
        calls=calls,
        elapsed_s=sum(block.elapsed_ns for block in blocks) / 1e9,
        rounds=len(blocks),
        launches=len(launches),
    )


def block_medians(rounds: Iterable[Round], name: str, *, twin: bool = False) -> dict[RoundId, float]:
    """Return a subject's median latency in ns, by round."""
    return {round_id: block.median_ns for round_id, block in _blocks(rounds, name, twin).items()}


def cpu_times(rounds: Iterable[Round], name: str, *, twin: bool = False) -> dict[RoundId, float]:
    """Return a subject's processor time per call in ns, one value for each launch, as if that had a single round.

    Blocks are too short for values of their own: the time of threads that are running is counted at clock ticks only,
    every 1 to 10 ms (4 ms on most Linux systems). Launches in which the clock counted nothing are left out.

    Source: `account_process_tick` and `thread_group_cputime` of Linux; `benchmarks/coverage.py` for the intervals.
    """
    launches: dict[int, list[Block]] = {}
    for (launch, _), block in _blocks(rounds, name, twin).items():
        launches.setdefault(launch, []).append(block)
    return {(launch, 0): cpu_ns for launch, blocks in launches.items() if (cpu_ns := _cpu_per_call_ns(blocks))}


def over_launches(launches: Sequence[Sequence[Block]], figure: Callable[[Sequence[Block]], float]) -> Interval:
    """Return a figure over all blocks, with an interval from the spread of its logarithm over the launches.

    Args:
        launches: The blocks of each launch.
        figure: A function from blocks to a figure above zero.

    Source: Asmussen and Glynn (2007), III.5.
    """
    value = figure([block for launch in launches for block in launch])
    half = interval_half_width([math.log(figure(launch)) for launch in launches], math.log(value), CONFIDENCE)
    if half is None:
        return Interval(value, None, None)
    return Interval(value, value * math.exp(-half), value * math.exp(half))


def _blocks(rounds: Iterable[Round], name: str, twin: bool) -> dict[RoundId, Block]:
    return {
        (timed.launch, timed.number): block
        for timed in rounds
        for block in timed.blocks
        if block.name == name and block.twin == twin and len(block.latencies_ns)
    }


def _cpu_per_call_ns(blocks: Sequence[Block]) -> float:
    return sum(block.cpu_ns for block in blocks) / sum(len(block.latencies_ns) for block in blocks)


def _latencies(blocks: Sequence[Block]) -> NDArray[np.int64]:
    return np.concatenate([block.latencies_ns for block in blocks])
