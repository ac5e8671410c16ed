"""Show where the noise of timed blocks comes from: between blocks of one process, or between processes.

    python benchmarks/blocks.py [--model MODEL --inputs INPUTS] [--processes 6] [--rounds 40]
    python benchmarks/blocks.py --width 2000 --layers 3 --rows 1  # 48 MB of weights: bound by memory

Processes of one model are timed in turn, round by round, under several settings: idle threads that spin or sleep,
pinned to cores or not, blocks and unrecorded calls of several lengths, one thread or two. For each setting the script
prints

- the median latency of a call,
- the standard deviation of the logarithms of block medians within a process,
- that of the medians of processes, and what the blocks alone make expect of it: where the two agree, processes add
  nothing.

By default it times a perceptron of a few milliseconds, with `--layers` products of `--rows` by `--width` by `--width`.
`steps/*/model.onnx` of a run directory and the `inputs.npz` of one of its `shape` steps are other models.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from noise import make_model
from numpy.typing import NDArray

from benchcard.measure.blocks import Subject
from benchcard.measure.process import Launchers, ProcessFailed, TimedProcess


@dataclass(frozen=True)
class Setting:
    """How processes are timed, with the lengths of blocks and of the unrecorded calls before them."""

    spinning: bool = True
    block_ms: float = 40.0
    warm_ms: float = 5.0
    threads: int = 2
    pinned: bool = False
    paused: bool = True

    def __str__(self) -> str:
        spinning = "spin" if self.spinning else "sleep"
        notes = f"{', pinned' if self.pinned else ''}{'' if self.paused else ', others not stopped'}"
        return f"{self.threads} threads {spinning}, {self.warm_ms:g} + {self.block_ms:g} ms{notes}"


SETTINGS = (
    Setting(),
    Setting(paused=False),
    Setting(warm_ms=0),
    Setting(warm_ms=30),
    Setting(block_ms=5),
    Setting(block_ms=20),
    Setting(block_ms=100),
    Setting(pinned=True),
    Setting(spinning=False),
    Setting(spinning=False, warm_ms=30),
    Setting(spinning=False, pinned=True),
    Setting(threads=1),
)


def block_medians(subject: Subject, setting: Setting, processes: int, rounds: int) -> NDArray[np.float64]:
    """Return the median latency in milliseconds of each block, (processes, rounds) float64."""
    options = {"intra_op_num_threads": setting.threads, "allow_spinning": setting.spinning}
    members = [(replace(subject, name=str(number), options=options), False) for number in range(processes)]
    with Launchers(600.0) as launchers, ExitStack() as stack:
        started = launchers.start(members, stack, affordable_ns=0.0)
        opened = [process for process in started if isinstance(process, TimedProcess)]
        if failed := next((process for process in started if isinstance(process, ProcessFailed)), None):
            raise failed
        for process in opened:
            if not setting.paused:
                process.pause = lambda: None  # type: ignore[method-assign]
            if setting.pinned:
                os.sched_setaffinity(process.pid, set(sorted(os.sched_getaffinity(0))[: setting.threads]))
            process.open(0, 10, 10**9)
        return np.array(
            [
                [
                    process.time_block(round(setting.block_ms * 1e6), round(setting.warm_ms * 1e6)).median_ns / 1e6
                    for process in opened
                ]
                for _ in range(rounds)
            ]
        ).T


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="an ONNX file, with --inputs")
    parser.add_argument("--inputs", type=Path, help="the inputs of --model, as .npz")
    for name, default in (("width", 512), ("layers", 8), ("rows", 32)):
        parser.add_argument(f"--{name}", type=int, default=default, help="of the perceptron")
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args(argv)
    print(f"{'setting':<42} {'call':>9} {'blocks':>7} {'processes':>9} {'expected':>8}")
    with tempfile.TemporaryDirectory() as temporary:
        model, inputs = (
            (options.model, options.inputs)
            if options.model
            else make_model(Path(temporary), options.width, options.layers, options.rows)
        )
        subject = Subject("model", "onnxruntime", model.resolve(), inputs.resolve())
        for setting in SETTINGS:
            logs = np.log(block_medians(subject, setting, options.processes, options.rounds))
            within = float(np.sqrt(logs.var(axis=1, ddof=1).mean()))
            # The median of so many blocks varies by this much.
            expected = within * np.sqrt(np.pi / 2 / options.rounds)
            print(
                f"{setting!s:<42} {np.exp(np.median(logs)):>6.3f} ms {within:>7.1%} "
                f"{np.median(logs, axis=1).std(ddof=1):>9.2%} {expected:>8.2%}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
