"""Compare time, memory and ranges of a calibration pass with plain onnxruntime.

    python benchmarks/calibration.py [--model PATH] [--samples 128] [--plain-samples 8] [--operators Add MatMul]

Both calibrate the same graph on the same samples, each in its own process. benchcard uses `--samples` samples, and once
more `--plain-samples` to compare ranges. onnxruntime does what `quantize_static` does with `--plain-samples`, because
it keeps all activations of all samples. Its time covers `collect_data` and `compute_data` only; that of benchcard
covers everything: reading the model, the pass, writing the statistics, and computing the ranges.

Forward runs of the same graph with the same options are timed before and after. On a shared machine, the ratio to them
is more meaningful than seconds. Without `--model` the graph is a ViT-base with random weights, exported by PyTorch at
opset 13. Inputs are random: normal numbers, token numbers below `--vocabulary`, and masks of ones.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GB = 1e9
Feed = dict[str, NDArray[Any]]


def export_vit(target: Path) -> dict[str, float]:
    """Write a ViT-base with random weights, and return no measurements."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    model: Any = ViTForImageClassification(ViTConfig(attn_implementation="eager")).eval()
    axes = {"pixel_values": {0: "batch"}, "logits": {0: "batch"}}
    with warnings.catch_warnings():
        # The exporter warns that it is deprecated and about every shape that it traces.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, 224, 224),),
            str(target),
            dynamo=False,
            opset_version=13,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_axes=axes,
        )
    return {}


def feeds(options: argparse.Namespace, count: int) -> Iterator[Feed]:
    """Yield the first `count` samples, the same in every process."""
    import onnx

    graph = onnx.load(options.model, load_external_data=False).graph
    weights = {initializer.name for initializer in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    for number in range(count):
        draw = np.random.default_rng(number)
        yield {value.name: _values(value, draw, options) for value in inputs}


def _values(value: Any, draw: np.random.Generator, options: argparse.Namespace) -> NDArray[Any]:
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = value.type.tensor_type
    dtype = tensor_dtype_to_np_dtype(tensor.elem_type)
    # The first axis without a fixed length is the batch, any other one is the length of a text.
    shape = [axis.dim_value or (options.length if place else 1) for place, axis in enumerate(tensor.shape.dim)]
    if dtype.kind == "f":
        return draw.standard_normal(shape).astype(dtype)
    if "mask" in value.name:
        return np.ones(shape, dtype=dtype)
    return draw.integers(0, 1 if "type" in value.name else options.vocabulary, shape).astype(dtype)


def measure(work: Callable[[], Any], samples: int) -> dict[str, float]:
    """Return seconds per sample of `work`, by the clock and of processor time."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return {"clock_s": (time.perf_counter() - clock) / samples, "cpu_s": (time.process_time() - cpu) / samples}


def forward(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Measure runs of the graph as it is."""
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session_options.intra_op_num_threads = options.threads
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(options.model, session_options, providers=["CPUExecutionProvider"])
    inputs = list(feeds(options, options.plain_samples))
    session.run(None, inputs[0])
    return measure(lambda: [session.run(None, feed) for feed in inputs], len(inputs))


def benchcard_pass(options: argparse.Namespace, folder: Path, count: int) -> dict[str, float]:
    """Measure one pass of benchcard, with the ranges for `--method`."""
    from onnxruntime.quantization.calibrate import save_tensors_data

    from benchcard.quantization.calibration.collect import collect_statistics
    from benchcard.quantization.calibration.ranges import Method, compute_ranges

    target = folder / "statistics.npz"

    def work() -> None:
        report = collect_statistics(
            Path(options.model),
            feeds(options, count),
            target,
            operators=options.operators,
            intra_op_num_threads=options.threads,
        )
        save_tensors_data(compute_ranges(target, Method(options.method)), folder / "benchcard.json")
        print(json.dumps(dataclasses.asdict(report)), file=sys.stderr)

    return measure(work, count)


def plain(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Measure what onnxruntime's `quantize_static` does for the same ranges."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator, save_tensors_data

    class Reader:
        def __init__(self) -> None:
            self._feeds = feeds(options, options.plain_samples)

        def get_next(self) -> Feed | None:
            return next(self._feeds, None)

    methods = {method.name.lower(): method for method in CalibrationMethod}
    calibrator = create_calibrator(
        options.model,
        options.operators,
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=methods[options.method],
    )
    ranges: list[Any] = []

    def work() -> None:
        calibrator.collect_data(Reader())
        ranges.append(calibrator.compute_data())

    result = measure(work, options.plain_samples)
    save_tensors_data(ranges[0], folder / "plain.json")
    histograms = {} if options.method == "minmax" else calibrator.collector.histogram_dict
    widths = {name: float(np.diff(histogram[1]).max()) for name, histogram in histograms.items()}
    (folder / "widths.json").write_text(json.dumps(widths), encoding="utf-8")
    return result


def child(options: argparse.Namespace) -> None:
    """Do one measurement in this process and print the result as JSON."""
    from benchcard.utils.process import peak_memory_bytes

    folder = Path(options.folder)
    work: Callable[[], dict[str, float]] = {
        "export": lambda: export_vit(Path(options.model)),
        "forward": lambda: forward(options, folder),
        "benchcard": lambda: benchcard_pass(options, folder, options.samples),
        "benchcard-few": lambda: benchcard_pass(options, folder, options.plain_samples),
        "plain": lambda: plain(options, folder),
    }[options.child]
    with contextlib.redirect_stdout(io.StringIO()):
        result = work()
    print(json.dumps({**result, "peak_bytes": peak_memory_bytes()}))


def start(name: str, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Do one measurement in a child process and return its result."""
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in vars(options).items() if key in PASSED_ON]
    command = [sys.executable, __file__, "--child", name, "--folder", str(folder), *arguments]
    process = subprocess.run(
        [*command, "--operators", *options.operators], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return result


PASSED_ON = ("model", "samples", "plain_samples", "threads", "method", "length", "vocabulary")


def range_difference(folder: Path) -> str:
    """Return a sentence about the difference between the ranges of both."""
    from onnxruntime.quantization.calibrate import load_tensors_data

    benchcard, plain = load_tensors_data(folder / "benchcard.json"), load_tensors_data(folder / "plain.json")
    widths: Mapping[str, float] = json.loads((folder / "widths.json").read_text(encoding="utf-8"))
    if set(benchcard.keys()) != set(plain.keys()):
        return f"The tensors differ: {sorted(set(benchcard.keys()) ^ set(plain.keys()))}"
    bins, shares = [], []
    for name in plain:
        ends = [np.array([float(np.squeeze(end)) for end in data[name].range_value]) for data in (benchcard, plain)]
        difference = float(np.abs(ends[0] - ends[1]).max())
        bins.append(difference and difference / widths.get(name, np.nan))
        shares.append(difference and difference / float(np.ptp(ends[1])))
    equal = bins.count(0)
    return (
        f"Ranges on the same samples: {equal} of {len(bins)} tensors are equal to the bit; the largest difference is "
        f"{max(bins):.2f} bins of onnxruntime's histogram, {100 * max(shares):.3f} % of the range."
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="ONNX file; default: a ViT-base with random weights")
    parser.add_argument("--samples", type=int, default=128, help="for benchcard (default: %(default)s)")
    parser.add_argument("--plain-samples", type=int, default=8, help="for onnxruntime (default: %(default)s)")
    parser.add_argument("--operators", nargs="+", default=["Add", "MatMul"], help="default: Add MatMul")
    parser.add_argument("--method", default="percentile", choices=["minmax", "percentile", "entropy", "distribution"])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each run (default: all)")
    parser.add_argument(
        "--length", type=int, default=128, help="length of axes without a fixed one (default: %(default)s)"
    )
    parser.add_argument(
        "--vocabulary", type=int, default=1000, help="token numbers are below this (default: %(default)s)"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if not options.model:
            options.model = str(folder / "vit.onnx")
            start("export", options, folder)
        before = start("forward", options, folder)
        passed = start("benchcard", options, folder)
        after = start("forward", options, folder)
        start("benchcard-few", options, folder)
        unmodified = start("plain", options, folder)
        last = start("forward", options, folder)
        runs = [before, after, last]
        alone = {key: sum(run[key] for run in runs) / len(runs) for key in before}
        print(f"{'':34}{'s/sample':>10}{'x forward':>11}{'CPU s/sample':>14}{'x forward':>11}{'peak GB':>9}")
        for label, run, near in (
            ("forward runs alone", alone, [alone]),
            (f"benchcard, {options.samples} samples", passed, [before, after]),
            (f"onnxruntime, {options.plain_samples} samples", unmodified, [after, last]),
        ):
            clock, cpu = (
                run[key] / (sum(forward_run[key] for forward_run in near) / len(near)) for key in ("clock_s", "cpu_s")
            )
            print(
                f"{label:34}{run['clock_s']:10.3f}{clock:11.2f}{run['cpu_s']:14.3f}{cpu:11.2f}"
                f"{run['peak_bytes'] / GB:9.2f}"
            )
        per_sample = (unmodified["peak_bytes"] - alone["peak_bytes"]) / options.plain_samples
        total = alone["peak_bytes"] + per_sample * options.samples
        print(
            f"\nonnxruntime takes {unmodified['clock_s'] / passed['clock_s']:.1f} times as long per sample, and about "
            f"{per_sample / GB:.2f} GB more: {total / GB:.0f} GB for {options.samples}.\n{range_difference(folder)}"
        )


if __name__ == "__main__":
    main()
