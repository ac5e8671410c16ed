"""Time one model as eight configurations on a noisy machine, interleaved and one after the other.

    python benchmarks/noise.py [--seconds 3] [--models 8] [--threads 1] [--no-load] [--model MODEL --inputs INPUTS]

All configurations are the same model, so every true ratio is 1 and every difference is noise. Another process loads one
core for two seconds of every five. benchcard interleaves; the usual method times one process after the other, each for
the same number of seconds without a break. At the end, a null model of known latency shows what the harness adds to a
call of a millisecond.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchcard.measure import machine_state
from benchcard.measure.blocks import Round, Subject
from benchcard.measure.conductor import time_group
from benchcard.measure.noise import distinguishable, ratios
from benchcard.utils.values import Interval

NULL_MS = 1.0
# Loads one core for two seconds of every five, and ends with its parent.
LOAD = """
import os, sys, time
parent = int(sys.argv[1])
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
while os.getppid() == parent:
    stop = time.monotonic() + 2
    while time.monotonic() < stop:
        pass
    time.sleep(3)
"""


class Null:
    """A model that takes a known time and does nothing."""

    facts: Mapping[str, Any] = {}

    def __call__(self, inputs: Any) -> None:
        """Return after `NULL_MS`."""
        stop = time.perf_counter_ns() + int(NULL_MS * 1e6)
        while time.perf_counter_ns() < stop:
            pass


def open_null(model: Path, options: Mapping[str, Any]) -> Null:
    """Return the null model; both arguments are ignored."""
    return Null()


def overhead(folder: Path, seconds: float) -> tuple[float, float]:
    """Return what the harness adds to a call of 1 ms: to its recorded latency, and between two calls, as shares.

    Both are medians over blocks, of the median latency and of the unrecorded time per call.
    """
    np.savez(folder / "null.npz", x=np.zeros(1, np.float32))
    rounds: list[Round] = []
    subject = Subject("null", f"{Path(__file__).stem}:open_null", folder, folder / "null.npz")
    time_group([subject], duration_s=seconds, keep=rounds.append)
    blocks = [block for timed in rounds for block in timed.blocks]
    latency_ns = float(np.median([block.median_ns for block in blocks]))
    between_ns = np.median([(b.elapsed_ns - int(b.latencies_ns.sum())) / len(b.latencies_ns) for b in blocks])
    return latency_ns / (NULL_MS * 1e6) - 1, float(between_ns) / (NULL_MS * 1e6)


def interleaved(subjects: Sequence[Subject], seconds: float) -> list[Round]:
    """Time the subjects as one group, with the first as baseline, and return the rounds."""
    rounds: list[Round] = []
    result = time_group(subjects, 0, duration_s=seconds, keep=rounds.append)
    _exit_on_failure(result.failures)
    for sentence in machine_state.disturbances([(timed.before, timed.after) for timed in rounds]):
        print(f"  {sentence}")
    return rounds


def in_turn(subjects: Sequence[Subject], seconds: float) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """Time the subjects one after the other, and return all latencies of each in nanoseconds."""
    latencies = {}
    for subject in subjects:
        rounds: list[Round] = []
        _exit_on_failure(
            time_group([subject], duration_s=seconds, launches=1, keep=rounds.append, block_s=seconds).failures
        )
        latencies[subject.name] = np.concatenate([block.latencies_ns for timed in rounds for block in timed.blocks])
    return latencies


def usual_interval(baseline: np.ndarray[Any, Any], subject: np.ndarray[Any, Any]) -> Interval:
    """Return the ratio of mean latencies with a normal interval that treats calls as independent."""
    ratio = float(baseline.mean() / subject.mean())
    half = 1.96 * np.sqrt(sum(part.var() / part.mean() ** 2 / len(part) for part in (baseline, subject)))
    return Interval(ratio, ratio * float(np.exp(-half)), ratio * float(np.exp(half)))


def make_model(folder: Path, width: int = 512, layers: int = 8, rows: int = 32) -> tuple[Path, Path]:
    """Write a small multilayer perceptron of a few milliseconds a call and its inputs, and return both paths."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for layer in range(layers):
        weight = (draw.normal(size=(width, width)) / np.sqrt(width)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"weight{layer}"))
        nodes += [
            helper.make_node("MatMul", [last, f"weight{layer}"], [f"product{layer}"]),
            helper.make_node("Relu", [f"product{layer}"], [f"y{layer}"]),
        ]
        last = f"y{layer}"
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "perceptron", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "inputs.npz", x=draw.normal(size=(rows, width)).astype(np.float32))
    return folder / "model.onnx", folder / "inputs.npz"


@contextlib.contextmanager
def loaded_core(wanted: bool) -> Iterator[None]:
    """Load a core now and then from another process within this context."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", LOAD, str(os.getpid())])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables, and return 1 if the harness adds one per cent or more to a call of a millisecond."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="recorded seconds for each configuration")
    parser.add_argument("--models", type=int, default=8, help="number of equal configurations")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-load", action="store_true", help="do not load a core")
    parser.add_argument("--model", type=Path, help="an ONNX file, with --inputs; by default a small perceptron")
    parser.add_argument("--inputs", type=Path, help="the inputs of --model, as .npz")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, inputs = (arguments.model, arguments.inputs) if arguments.model else make_model(folder)
        options = {"intra_op_num_threads": arguments.threads}
        names = [f"same{number}" for number in range(arguments.models)]
        subjects = [Subject(name, "onnxruntime", model, inputs, 1, options) for name in names]
        with loaded_core(not arguments.no_load):
            print(f"interleaved, {arguments.seconds:g} s each:")
            rounds = interleaved(subjects, arguments.seconds)
            print(f"one after the other, {arguments.seconds:g} s each:")
            latencies = in_turn(subjects, arguments.seconds)
        by_name = ratios(rounds, names[0], names)
        intervals = [by_name[name, False].interval() for name in names[1:]]
        usual = [usual_interval(latencies[names[0]], latencies[name]) for name in names[1:]]
        floor = by_name[names[0], True].interval()
        print(f"\n{'':<10} {'interleaved':>24} {'one after the other':>24}")
        for name, ratio, usual_ratio in zip(names[1:], intervals, usual):
            print(f"{name:<10} {_text(ratio):>24} {_text(usual_ratio):>24}")
        print(f"{'spread':<10} {_spread(intervals):>24.2%} {_spread(usual):>24.2%}")
        print(f"{'excludes 1':<10} {_count(intervals):>24} {_count(usual):>24}")
        print(f"noise floor (the baseline against its twin): {_text(floor)}")
        print(f"detectable: {len(distinguishable(by_name) - {(names[0], True)})} of {len(intervals)}\n")
        latency, between = overhead(folder, min(arguments.seconds, 2.0))
        print(f"a call of {NULL_MS:g} ms is recorded as {latency:.2%} longer, with {between:.2%} between two calls")
    return 1 if latency >= 0.01 else 0


def _exit_on_failure(failures: Sequence[Any]) -> None:
    if failures:
        raise SystemExit(f"{failures[0].name} failed ({failures[0].stage}): {failures[0].message}\n{failures[0].log}")


def _text(ratio: Interval) -> str:
    return f"{ratio.value:.3f} [{ratio.low or 0:.3f}, {ratio.high or 0:.3f}]"


def _spread(ratios: Sequence[Interval]) -> float:
    """Return the spread between the fastest and the slowest configuration, the baseline included."""
    values = [1.0, *(ratio.value for ratio in ratios)]
    return max(values) / min(values) - 1


def _count(ratios: Sequence[Interval]) -> str:
    return f"{sum(ratio.excludes(1.0) for ratio in ratios)} of {len(ratios)}"


if __name__ == "__main__":
    sys.exit(main())
