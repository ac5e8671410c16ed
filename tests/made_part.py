"""A timed part of a run with made-up latencies and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchcard.analysis.records import Part
from benchcard.measure.blocks import Block, OpenedModel, Round
from benchcard.measure.machine_state import MachineState
from benchcard.run.directory import PartFailure, PartOutcome

QUIET = MachineState(at_ns=0)
ROUNDS_PER_LAUNCH = 3


def made_part(
    latencies_ns: Mapping[str, float],
    *,
    launches: int = 5,
    memory: Mapping[tuple[str, bool], Sequence[int]] | None = None,
    failures: Sequence[PartFailure] = (),
    cpu_ns: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Part:
    """Return a part with models of these latencies, which vary by some thousandths between launches and calls.

    Args:
        latencies_ns: The latency of each model; the first is the baseline, which has a twin.
        launches: The number of launches of each model.
        memory: The bytes of each launch, by name and whether it is the twin.
        failures: The models that failed, and why.
        cpu_ns: The processor time of a call of each model; 0 by default.
        seed: The seed of the variation.
    """
    draw = np.random.default_rng(seed)
    baseline = next(iter(latencies_ns))
    rounds: list[Round] = []
    speeds: dict[tuple[int, str, bool], float] = {}
    for number in range(ROUNDS_PER_LAUNCH * launches):
        launch = number // ROUNDS_PER_LAUNCH
        blocks: list[Block] = []
        for name, twin in [*((name, False) for name in latencies_ns), (baseline, True)]:
            speed = speeds.setdefault((launch, name, twin), draw.normal(1, 0.002))
            calls = np.rint(latencies_ns[name] * speed * draw.normal(1, 0.002, 9)).astype(np.int64)
            used_ns = round((cpu_ns or {}).get(name, 0) * speed * len(calls))
            blocks.append(Block(name, twin, 0, int(calls.sum()), calls, 1, used_ns, 0, 0, 0, 0))
        rounds.append(Round(number, launch, tuple(blocks), QUIET, QUIET))
    opened = [
        OpenedModel(name, twin, launch, 0, 0, 0, (), 0, peak, {})
        for (name, twin), peaks in (memory or {}).items()
        for launch, peak in enumerate(peaks)
    ]
    outcome = PartOutcome(
        rounds=len(rounds),
        baseline=baseline,
        before=QUIET,
        after=QUIET,
        opened=tuple(opened),
        failures=tuple(failures),
    )
    return Part(tuple(latencies_ns), baseline, tuple(rounds), outcome)


def died(name: str) -> PartFailure:
    """Return the failure of a model whose process was killed while it was timed."""
    return PartFailure(name=name, twin=False, stage="time", type="Died", message="ended by SIGKILL")
