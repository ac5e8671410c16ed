"""Shared by the tests of timing: subjects of a framework that is busy for a known time, and ways to time them.

`timed` starts real processes. `simulated` times on a clock of its own, so that the number of calls and blocks does not
depend on the machine.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchcard.measure.blocks import Block, GroupTiming, OpenedModel, Round, Subject, TimedFailure
from benchcard.measure.conductor import time_group
from benchcard.measure.intervals import CONFIDENCE, RoundId, paired_ratios
from benchcard.measure.process import Launchers, Member, ProcessFailed, TimedProcess
from benchcard.utils.values import Failure, Interval


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with inputs in it, and a timing lock that no other run on this machine shares."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    np.savez(tmp_path / "inputs.npz", x=np.zeros(3, np.float32))
    return tmp_path


def subject(folder: Path, name: str, kind: str = "Model", **options: Any) -> Subject:
    return Subject(name, f"fake_framework:{kind}", folder, folder / "inputs.npz", options=options)


def timed(subjects: Sequence[Subject], baseline: int | None = 0, **settings: Any) -> tuple[GroupTiming, list[Round]]:
    rounds: list[Round] = []
    settings = {"duration_s": 0.12, "launches": 2, "warmup_runs": 2, "keep": rounds.append, **settings}
    return time_group(subjects, baseline, **settings), rounds


class SimulatedProcess(TimedProcess):
    """A process whose calls last exactly `ms`, or half as long again in odd launches of a `noisy` model.

    It fails at `stage`, from launch `after` on.
    """

    def __init__(self, subject: Subject, twin: bool, timeout_s: float) -> None:
        self.subject, self.twin, self.timeout_s = subject, twin, timeout_s
        self._call_ns = round(float(subject.options.get("ms", 1)) * 1e6)  # type: ignore[arg-type]
        self._launch = 0

    @property
    def pid(self) -> int:
        return os.getpid()

    def open(self, launch: int, warmup_runs: int, warmup_ns: int) -> OpenedModel:
        self._launch = launch
        if self.subject.options.get("noisy") and launch % 2:
            self._call_ns += self._call_ns // 2
        self.fail_at("load")
        calls = max(0, min(warmup_runs, math.ceil(warmup_ns / self._call_ns) - 1))
        warmup_ns_each = (self._call_ns,) * calls
        return OpenedModel(self.subject.name, self.twin, launch, 1, 1, self._call_ns, warmup_ns_each, 1, 1, {})

    def time_block(self, block_ns: int, warm_ns: int) -> Block:
        self.fail_at("time")
        calls = max(1, math.ceil(block_ns / self._call_ns))
        warm_calls = max(1, math.ceil(warm_ns / self._call_ns))
        latencies = np.full(calls, self._call_ns, np.int64)
        return Block(self.subject.name, self.twin, 1, calls * self._call_ns, latencies, warm_calls, 1, 0, 0, 0, 1)

    def kill(self) -> None:
        pass

    def close(self) -> None:
        pass

    def fail_at(self, stage: str) -> None:
        if self.subject.options.get("stage") == stage and self._launch >= int(self.subject.options.get("after", 0)):  # type: ignore[call-overload]
            failure = Failure(stage, "RuntimeError", "simulated")
            raise ProcessFailed(TimedFailure(self.subject.name, self.twin, failure))


class SimulatedLaunchers(Launchers):
    """Simulated processes; those whose framework cannot be imported fail."""

    def start(
        self, members: Sequence[Member], processes: ExitStack, affordable_ns: float
    ) -> list[TimedProcess | ProcessFailed]:
        started: list[TimedProcess | ProcessFailed] = []
        for member in members:
            process = SimulatedProcess(*member, 0.0)
            try:
                process.fail_at("import")
                started.append(process)
            except ProcessFailed as failed:
                started.append(failed)
        return started


def simulated(
    subjects: Sequence[Subject], baseline: int | None = 0, **settings: Any
) -> tuple[GroupTiming, list[Round]]:
    return timed(subjects, baseline, launchers=SimulatedLaunchers(), **settings)


def recorded_s(rounds: Sequence[Round], name: str, twin: bool = False) -> float:
    blocks = [block for timed in rounds for block in timed.blocks if (block.name, block.twin) == (name, twin)]
    return sum(block.elapsed_ns for block in blocks) / 1e9


def order(timed: Round) -> list[tuple[str, bool]]:
    return [(block.name, block.twin) for block in timed.blocks]


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def paired_ratio(
    baseline: Mapping[RoundId, float], subject: Mapping[RoundId, float], confidence: float = CONFIDENCE
) -> Interval:
    """The ratio of a single subject; KeyError where the two have no round in common."""
    return paired_ratios(baseline, {"": subject})[""].interval(confidence)
