"""What noise does to timing: one model as eight configurations, interleaved and one after the other.

    python benchmarks/noise.py [--seconds 3] [--models 8] [--threads 1] [--no-load] [--model MODEL --inputs INPUTS]

All configurations are the same model, so every ratio is 1 and every difference is noise. Meanwhile another process
loads one core for two seconds of every five. Interleaved is what `benchcard` does; one after the other is what is
usually done: one process for each, the same number of seconds without a break. At the end, a null model of known
latency shows what the harness itself adds to a call of a millisecond.
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

from benchcard.measure import noise
from benchcard.measure.blocks import Round, Subject
from benchcard.measure.conductor import time_group
from benchcard.measure.intervals import detectable, paired_ratio
from benchcard.measure.latency import block_medians, noise_floor
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
    """A model that takes a known time by the clock and does nothing."""

    facts: Mapping[str, Any] = {}

    def __call__(self, inputs: Any) -> None:
        """Returns after `NULL_MS`."""
        stop = time.perf_counter_ns() + int(NULL_MS * 1e6)
        while time.perf_counter_ns() < stop:
            pass


def open_null(model: Path, options: Mapping[str, Any]) -> Null:
    """The null model, whatever is asked for."""
    return Null()


def overhead(folder: Path, seconds: float) -> tuple[float, float]:
    """What the harness adds to a call of 1 ms: to the recorded latency, and to the time from call to call, as shares.

    Medians over blocks, of the median latency and of the elapsed time per call.
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
    """All rounds of the subjects as one group, the first being the baseline."""
    rounds: list[Round] = []
    result = time_group(subjects, 0, duration_s=seconds, keep=rounds.append)
    _stop_at(result.failures)
    for sentence in noise.disturbances([(timed.before, timed.after) for timed in rounds]):
        print(f"  {sentence}")
    return rounds


def in_turn(subjects: Sequence[Subject], seconds: float) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """All latencies of each subject, each timed for itself when the one before it is done."""
    latencies = {}
    for subject in subjects:
        rounds: list[Round] = []
        _stop_at(time_group([subject], duration_s=seconds, launches=1, keep=rounds.append, block_s=seconds).failures)
        latencies[subject.name] = np.concatenate([block.latencies_ns for timed in rounds for block in timed.blocks])
    return latencies


def usual_interval(baseline: np.ndarray[Any, Any], subject: np.ndarray[Any, Any]) -> Interval:
    """The ratio of mean latencies with a normal interval that takes calls for independent."""
    ratio = float(baseline.mean() / subject.mean())
    half = 1.96 * np.sqrt(sum(part.var() / part.mean() ** 2 / len(part) for part in (baseline, subject)))
    return Interval(ratio, ratio * float(np.exp(-half)), ratio * float(np.exp(half)))


def make_model(folder: Path) -> tuple[Path, Path]:
    """A small multilayer perceptron, a few milliseconds a call, and its inputs."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    width, layers, rows = 512, 8, 32
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
    """Another process loads a core now and then while this is held."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", LOAD, str(os.getpid())])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Both tables, and 1 if the harness adds one per cent or more to a call of a millisecond."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="recorded seconds for each configuration")
    parser.add_argument("--models", type=int, default=8, help="number of equal configurations")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-load", action="store_true", help="leave the other core alone")
    parser.add_argument("--model", type=Path, help="an ONNX file, with --inputs; by default a small perceptron")
    parser.add_argument("--inputs", type=Path, help="its inputs, as .npz")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, inputs = (asked.model, asked.inputs) if asked.model else make_model(folder)
        options = {"intra_op_num_threads": asked.threads}
        names = [f"same{number}" for number in range(asked.models)]
        subjects = [Subject(each, "onnxruntime", model, inputs, 1, options) for each in names]
        with loaded_core(not asked.no_load):
            print(f"interleaved, {asked.seconds:g} s each:")
            rounds = interleaved(subjects, asked.seconds)
            print(f"one after the other, {asked.seconds:g} s each:")
            latencies = in_turn(subjects, asked.seconds)
        baseline = block_medians(rounds, names[0])
        ratios = [paired_ratio(baseline, block_medians(rounds, each)) for each in names[1:]]
        usual = [usual_interval(latencies[names[0]], latencies[each]) for each in names[1:]]
        floor = noise_floor(rounds, names[0])
        print(f"\n{'':<10} {'interleaved':>24} {'one after the other':>24}")
        for each, ours, theirs in zip(names[1:], ratios, usual):
            print(f"{each:<10} {_text(ours):>24} {_text(theirs):>24}")
        print(f"{'spread':<10} {_spread(ratios):>24.2%} {_spread(usual):>24.2%}")
        print(f"{'excludes 1':<10} {_count(ratios):>24} {_count(usual):>24}")
        print(f"twin of the baseline, the noise floor: {_text(floor)}")
        print(f"called detectable: {sum(detectable(ratio, floor) for ratio in ratios)} of {len(ratios)}\n")
        latency, between = overhead(folder, min(asked.seconds, 2.0))
        print(f"a call of {NULL_MS:g} ms is recorded {latency:.2%} longer, and {between:.2%} lie between two calls")
    return 1 if latency >= 0.01 else 0


def _stop_at(failures: Sequence[Any]) -> None:
    if failures:
        raise SystemExit(f"{failures[0].name} failed ({failures[0].stage}): {failures[0].message}\n{failures[0].log}")


def _text(ratio: Interval) -> str:
    return f"{ratio.value:.3f} [{ratio.low or 0:.3f}, {ratio.high or 0:.3f}]"


def _spread(ratios: Sequence[Interval]) -> float:
    """From the slowest to the fastest of all configurations, the baseline included."""
    values = [1.0, *(ratio.value for ratio in ratios)]
    return max(values) / min(values) - 1


def _count(ratios: Sequence[Interval]) -> str:
    return f"{sum(ratio.excludes(1.0) for ratio in ratios)} of {len(ratios)}"


if __name__ == "__main__":
    sys.exit(main())
