"""A timed part as a run keeps it, made up: models of known latency and memory in so many launches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchcard.analysis.records import Part
from benchcard.measure.blocks import Block, Round
from benchcard.measure.noise import MachineState

QUIET = MachineState(at_ns=0)
ROUNDS_PER_LAUNCH = 3


def made_part(
    latencies_ns: Mapping[str, float],
    *,
    launches: int = 5,
    memory: Mapping[tuple[str, bool], Sequence[int]] | None = None,
    failures: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
) -> Part:
    """Models of these latencies, each launch within some thousandths of it; the first is the baseline, and has a twin.

    Args:
        latencies_ns: by name.
        launches: of each model.
        memory: by name, and whether it is the twin: the bytes that each launch took.
        failures: which models failed, and why.
        seed: of what launches and calls differ by.
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
            blocks.append(Block(name, twin, 0, int(calls.sum()), calls, 1, 0, 0, 0, 0, 0))
        rounds.append(Round(number, launch, tuple(blocks), QUIET, QUIET))
    opened = [
        {"name": name, "twin": twin, "launch": launch, "base_bytes": 0, "peak_bytes": peak}
        for (name, twin), peaks in (memory or {}).items()
        for launch, peak in enumerate(peaks)
    ]
    now = asdict(QUIET)
    outcome = {"rounds": len(rounds), "baseline": baseline, "opened": opened, "failures": failures}
    return Part(tuple(latencies_ns), baseline, tuple(rounds), {**outcome, "before": now, "after": now})


def died(name: str) -> dict[str, Any]:
    """The failure of a model whose process was killed while it was timed."""
    told = {"stage": "time", "type": "Died", "message": "ended by SIGKILL", "log": ""}
    return {"name": name, "twin": False, **told}
