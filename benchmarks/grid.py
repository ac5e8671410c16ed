"""Compare time and memory of `Benchmark.run` on a whole grid with a plain loop over the same libraries.

    python benchmarks/grid.py [--model digits | vit-base | FOLDER] [--samples 128] [--at-once 16] [--repeats 3]

The grid is that of `examples/digits.yaml`, 18 rows, with its data. The plain loop is what a careful user would write:
each row exports, calibrates, quantizes, evaluates and times on its own, with `torch.onnx.export`, `quantize_static`,
`quantize_dynamic` and `InferenceSession`, on the same calibration rows, threads and seconds. It times a row for
`--duration` without a break, a second process, intervals or a noise certificate. `Benchmark.run` does all that, and its
time includes it. The loop makes no explanations either; the script also prints the ratio without them.

Each runs in its own process, one after the other, `--repeats` times in turn; wall time and memory are medians. Memory
is the proportional set size of that process and all its children, sampled every second. `vit-base` is a ViT-base with
random weights at 224 pixels. onnxruntime keeps every activation of every sample: on a model of that size 128 samples
would take 49 GB. With `--at-once 16` the loop passes them to its calibrator 16 at a time, as optimum can do, which
takes 7 GB.

After the ratios, the script prints the accuracies of each row, which must be equal to the example, and how
`Benchmark.run` spends its time: timed seconds, forward passes (of evaluation, calibration and warm-up), and everything
else.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import io
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SAMPLE_INTERVAL_S = 1.0  # reading the memory of a dozen processes takes a tenth of that
WARMUP_RUNS = 10
Rows = list[NDArray[np.float32]]


def spec(options: argparse.Namespace) -> dict[str, Any]:
    """Return the spec of the digits example with the options of the command line."""
    from ruamel.yaml import YAML

    content: dict[str, Any] = YAML(typ="safe").load(EXAMPLES / "digits.yaml")
    content["model"] = options.folder_of_model
    content["dataset"]["path"] = str(EXAMPLES / "digits" / "data")
    content["fixed"]["calibration"]["num_calibration_samples"] = options.samples
    content["fixed"]["max_eval_samples"] = options.examples or None
    content["duration"] = options.duration
    content["grid"]["framework_args"][0]["intra_op_num_threads"] = options.threads
    return content


def make_vit_base(target: Path) -> None:
    """Write a ViT-base with random weights and the labels of the digits, and its image processor."""
    import torch
    from transformers import AutoConfig, ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(0)
    small = AutoConfig.from_pretrained(EXAMPLES / "digits" / "model")
    model: Any = ViTForImageClassification(ViTConfig(id2label=small.id2label, label2id=small.label2id))
    model.save_pretrained(target)
    ViTImageProcessorPil().save_pretrained(target)


def run_benchcard(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the grid with benchcard, and return accuracies, failures, and how the time was spent."""
    from benchcard import Benchmark

    results = Benchmark.from_spec(spec(options)).run(folder / "run", progress=False)
    parts = {id(part): part for group in results.records.parts.values() for part in group}
    blocks = [block for part in parts.values() for timed in part.rounds for block in timed.blocks]
    opened = [launch for part in parts.values() for launch in (part.outcome.opened if part.outcome else ())]
    forward = sum(launch.first_call_ns + sum(launch.warmup_ns) for launch in opened)
    forward += sum(block.warm_calls * block.median_ns for block in blocks)
    spans: dict[str, list[tuple[float, float]]] = {}
    for path in (folder / "run").glob("steps/*/outcome.json"):
        outcome = json.loads(path.read_text(encoding="utf-8"))
        end = path.stat().st_mtime
        spans.setdefault(outcome["kind"], []).append((end - outcome["seconds"], end))
        values = outcome["values"]
        forward += values.get("forward_ns", 0) or values.get("report", {}).get("forward_ns", 0)
    return {
        "accuracies": [float(value) for value in results.quality["accuracy"]],
        "failures": results.failures["message"].tolist(),
        "timed_s": sum(block.elapsed_ns for block in blocks) / 1e9,
        "forward_s": forward / 1e9,
        "steps_s": {kind: covered_s(kind_spans) for kind, kind_spans in spans.items()},
    }


def covered_s(spans: list[tuple[float, float]]) -> float:
    """Return the seconds during which at least one span is active, since steps may run in parallel."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def run_plain_loop(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the plain loop, in which every row does everything on its own, and return the accuracies."""
    from benchcard import Benchmark

    benchmark = Benchmark.from_spec(spec(options))
    accuracies = []
    for row in benchmark.configurations:
        place = folder / f"row-{row.row}"
        place.mkdir()
        accuracies.append(plain_row(options, row, place))
        shutil.rmtree(place)
    return {"accuracies": accuracies}


def plain_row(options: argparse.Namespace, row: Any, place: Path) -> float:
    """Do everything for one row, timing included, and return its accuracy."""
    import datasets
    from transformers import AutoModelForImageClassification

    rows = datasets.load_dataset(str(EXAMPLES / "digits" / "data"), split="validation")
    if options.examples:
        rows = rows.select([index * len(rows) // options.examples for index in range(options.examples)])
    pixels = processed(options, rows)
    model: Any = AutoModelForImageClassification.from_pretrained(options.folder_of_model).eval()
    numbers = {model.config.id2label[index]: index for index in model.config.id2label}
    names = rows.features["label"].names
    labels = np.array([numbers[names[label]] for label in rows["label"]])
    if row["framework"] == "pytorch":
        return run_pytorch(options, model, pixels, labels)
    graph = export(options, model, place)
    batch = 32
    if row["apply_quantization"]:
        graph = quantize(options, row, graph, place)
        # The scale of a dynamically quantized activation is taken over the whole batch.
        batch = 1 if row["quantization_approach"] == "dynamic" else 32
    return run_graph(options, graph, pixels, labels, batch)


def processed(options: argparse.Namespace, rows: Any) -> Rows:
    """Return the preprocessed images, each `(channels, height, width) float32`."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(options.folder_of_model, backend="pil")
    return [processor(images=row["image"].convert("RGB"), return_tensors="np")["pixel_values"][0] for row in rows]


def run_pytorch(options: argparse.Namespace, model: Any, pixels: Rows, labels: NDArray[Any]) -> float:
    """Time the model in PyTorch and return its accuracy."""
    import torch

    torch.set_num_threads(options.threads)
    guesses = []
    with torch.inference_mode():
        for start in range(0, len(pixels), 32):
            batch = torch.from_numpy(np.stack(pixels[start : start + 32]))
            guesses += model(pixel_values=batch).logits.argmax(-1).tolist()
        one = torch.from_numpy(pixels[0][None])
        repeat(lambda: model(pixel_values=one), options.duration)
    return float((np.array(guesses) == labels).mean())


def export(options: argparse.Namespace, model: Any, place: Path) -> Path:
    """Export the model at opset 13 and return the path of the graph."""
    import torch

    model.set_attn_implementation("eager")
    size = model.config.image_size
    target = place / "model.onnx"
    axes = {"pixel_values": {0: "batch"}, "logits": {0: "batch"}}
    with warnings.catch_warnings():
        # The exporter warns that it is deprecated and about every shape that it traces.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, model.config.num_channels, size, size),),
            str(target),
            dynamo=False,
            opset_version=13,
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_axes=axes,
        )
    lift_constants(target)
    return target


def lift_constants(graph: Path) -> None:
    """Convert the `Constant` nodes of a graph to initializers, as graph simplifiers do before quantization.

    onnxruntime quantizes a `Constant` node like an activation, with a range of one value, which changes the prediction
    of a few examples.
    """
    import onnx_ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    model = onnx_ir.load(graph)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    onnx_ir.save(model, graph)


def quantize(options: argparse.Namespace, row: Any, graph: Path, place: Path) -> Path:
    """Quantize the graph with the parameters of the row and return the path of the result."""
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_dynamic, quantize_static

    target = place / "quantized.onnx"
    shared = {
        "op_types_to_quantize": row["operators_to_quantize"],
        "per_channel": row["per_channel"],
        "reduce_range": row["reduce_range"],
        "weight_type": QuantType.QInt8,
    }
    if row["quantization_approach"] == "dynamic":
        quantize_dynamic(graph, target, **shared)
        return target
    percentile = row["calibration"]["calibration_histogram_percentile"]
    cache = None
    if options.at_once:
        cache = place / "ranges.json"
        calibrate_in_parts(options, graph, shared["op_types_to_quantize"], percentile, cache)
    quantize_static(
        graph,
        target,
        None if cache else Reader(calibration_feeds(options)),
        activation_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.Percentile,
        calibration_cache_path=cache,
        extra_options={"CalibPercentile": percentile},
        **shared,
    )
    return target


class Reader:
    """Feeds in the form that onnxruntime's calibrators expect."""

    def __init__(self, feeds: Iterator[Mapping[str, Any]]) -> None:
        self.feeds = feeds

    def get_next(self) -> Mapping[str, Any] | None:
        """Return the next feed, or None at the end."""
        return next(self.feeds, None)


def calibrate_in_parts(
    options: argparse.Namespace, graph: Path, operators: list[str], percentile: float, cache: Path
) -> None:
    """Calibrate a graph on a few samples at a time, and write the ranges to onnxruntime's cache.

    optimum's `ORTQuantizer.partial_fit` does the same for models whose activations do not fit into memory at once.
    """
    from onnxruntime.quantization import CalibrationMethod, create_calibrator
    from onnxruntime.quantization.calibrate import save_tensors_data

    calibrator = create_calibrator(
        graph,
        operators,
        augmented_model_path=str(cache.with_name("augmented.onnx")),
        calibrate_method=CalibrationMethod.Percentile,
        extra_options={"percentile": percentile},
    )
    feeds = calibration_feeds(options)
    while part := list(itertools.islice(feeds, options.at_once)):
        calibrator.collect_data(Reader(iter(part)))
    save_tensors_data(calibrator.compute_data(), cache)


def calibration_feeds(options: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    """Yield the calibration rows that benchcard draws, one at a time."""
    import datasets

    from benchcard.tasks import data

    rows = datasets.load_dataset(str(EXAMPLES / "digits" / "data"), split="train")
    chosen, _ = data.stratified_sample(rows, options.samples, 0, "label", "train")
    return iter([{"pixel_values": pixels[None]} for pixels in processed(options, chosen)])


def run_graph(options: argparse.Namespace, graph: Path, pixels: Rows, labels: NDArray[Any], batch: int) -> float:
    """Time a graph in ONNX Runtime and return its accuracy."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])
    guesses: list[int] = []
    for start in range(0, len(pixels), batch):
        (logits,) = session.run(None, {"pixel_values": np.stack(pixels[start : start + batch])})
        guesses += logits.argmax(-1).tolist()
    one = {"pixel_values": pixels[0][None]}
    repeat(lambda: session.run(None, one), options.duration)
    return float((np.array(guesses) == labels).mean())


def repeat(call: Any, duration_s: float) -> list[float]:
    """Return the latencies of calls in seconds, after unrecorded calls."""
    for _ in range(WARMUP_RUNS):
        call()
    latencies: list[float] = []
    while sum(latencies) < duration_s:
        start = time.perf_counter()
        call()
        latencies.append(time.perf_counter() - start)
    return latencies


def start(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one side in a child process, and return its result with wall time and peak memory of all its processes."""
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in vars(options).items() if key in PASSED_ON]
    command = [sys.executable, __file__, "--child", name, "--folder", str(folder), *arguments]
    begin, peak = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLE_INTERVAL_S)
                break
            peak = max(peak, memory_bytes(process.pid))
        seconds = time.perf_counter() - begin
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        sys.exit(f"The child process {name} failed with exit status {process.returncode}; see its output above.")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return {**result, "wall_s": seconds, "peak_bytes": peak}


def memory_bytes(pid: int) -> int:
    """Return the proportional set size of a process and its children, which counts shared memory once."""
    total = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total


PASSED_ON = ("folder_of_model", "samples", "at_once", "examples", "duration", "threads")


def report(options: argparse.Namespace, plain: Mapping[str, Any], benchcard: Mapping[str, Any]) -> None:
    """Print the results of both sides and their ratios."""
    print(f"{'18 rows, ' + options.model:28}{'wall s':>10}{'peak GB':>10}")
    for label, run in (("plain loop", plain), ("Benchmark.run", benchcard)):
        print(f"{label:28}{run['wall_s']:10.1f}{run['peak_bytes'] / 1e9:10.2f}")
    time_ratio, memory_ratio = (plain[name] / benchcard[name] for name in ("wall_s", "peak_bytes"))
    print(f"{'ratio':28}{time_ratio:10.2f}{memory_ratio:10.2f}")
    explain_s = benchcard["steps_s"].get("explain", 0.0)
    without = benchcard["wall_s"] - explain_s
    print(f"{'ratio without explanations':28}{plain['wall_s'] / without:10.2f}")
    print("\nrow  plain loop  Benchmark.run  difference")
    pairs = list(zip(plain["accuracies"], benchcard["accuracies"]))
    for number, (first, second) in enumerate(pairs):
        print(f"{number:3}{first:12.4f}{second:15.4f}{second - first:12.4f}")
    print(f"largest difference of an accuracy: {max(abs(first - second) for first, second in pairs):.4f}")
    rest = benchcard["wall_s"] - benchcard["timed_s"] - benchcard["forward_s"] - explain_s
    steps = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in sorted(benchcard["steps_s"].items()))
    print(
        f"\nBenchmark.run: {benchcard['timed_s']:.1f} s timed, {benchcard['forward_s']:.1f} s of forward passes, "
        f"{explain_s:.1f} s of explanations (mostly forward passes too), everything else {rest:.1f} s: "
        f"{100 * rest / benchcard['wall_s']:.0f} % of the wall time.\nSeconds by kind of step: {steps}."
    )
    for failure in benchcard["failures"]:
        print(f"failed: {failure}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits", help="digits, vit-base, or a folder (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=128, help="calibration samples (default: %(default)s)")
    parser.add_argument(
        "--at-once", type=int, default=0, help="samples in each calibration batch of the loop; 0 for all"
    )
    parser.add_argument("--examples", type=int, default=0, help="evaluated examples; 0 for the whole split (default)")
    parser.add_argument("--duration", type=float, default=1.0, help="timed seconds for each row (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of every runtime (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=1, help="times that both are run (default: %(default)s)")
    parser.add_argument("--folder-of-model", default="", help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=["benchcard", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        with contextlib.redirect_stdout(io.StringIO()):
            result = {"benchcard": run_benchcard, "plain": run_plain_loop}[options.child](options, Path(options.folder))
        print(json.dumps(result))
        return
    # As an installed package is; a clone may be run where Python writes no compiled modules.
    compileall.compile_dir(EXAMPLES.parent / "benchcard", quiet=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        options.folder_of_model = str(EXAMPLES / "digits" / "model") if options.model == "digits" else options.model
        if options.model == "vit-base":
            options.folder_of_model = str(folder / "vit-base")
            make_vit_base(folder / "vit-base")
        pairs = []
        for number in range(options.repeats):
            (place := folder / str(number)).mkdir()
            pairs.append([start(name, options, place) for name in ("plain", "benchcard")])
            print(*(f"{run['wall_s']:.1f} s" for run in pairs[-1]), flush=True)
            shutil.rmtree(place)
        plain, benchcard = (
            {**runs[-1], **{name: statistics.median(run[name] for run in runs) for name in ("wall_s", "peak_bytes")}}
            for runs in zip(*pairs)
        )
        report(options, plain, benchcard)


if __name__ == "__main__":
    main()
