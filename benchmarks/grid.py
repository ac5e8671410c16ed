"""Wall time and memory of a whole grid: a plain loop over the same libraries, beside `Benchmark.run`.

    python benchmarks/grid.py [--model digits | vit-base | FOLDER] [--samples 128] [--at-once 16] [--duration 1]

The grid is that of `examples/digits.yaml`, 18 rows, on the data that lies beside it. The plain loop is what a careful
user writes today: each row exports, calibrates, quantizes, evaluates and times for itself, with `torch.onnx.export`,
`quantize_static`, `quantize_dynamic` and `InferenceSession`, on the same calibration rows, the same threads and the
same seconds. It times a row for `--duration` in one stretch, without a second process, intervals or a certificate;
`Benchmark.run` does all that too, and what it costs is in its time. Neither does the loop look for reasons; what the
run would take without them (`explain: false`) is told beside.

Each runs in a process of its own. Memory is the proportional set size of that process and all its children, looked at
every quarter of a second. `vit-base` is a ViT-base with random weights at 224 pixels. onnxruntime keeps every
activation of every sample: on a model of that size 128 samples would take 49 GB. With `--at-once 16` the loop hands
them to its calibrator 16 at a time, as optimum does when it is asked to, which takes 7 GB.

After the ratios come the accuracies of each row, which have to be equal to the example, and what the time of
`Benchmark.run` went into: timed seconds, forward passes (of evaluation and calibration, and those that warm a model up
before it is timed), and everything else.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import shutil
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
LOOK_S = 0.25
WARMUP_RUNS = 10
Rows = list[NDArray[np.float32]]


def spec(options: argparse.Namespace) -> dict[str, Any]:
    """The grid of the digits example, as asked on the command line."""
    from ruamel.yaml import YAML

    given: dict[str, Any] = YAML(typ="safe").load(EXAMPLES / "digits.yaml")
    given["model"] = options.folder_of_model
    given["dataset"]["path"] = str(EXAMPLES / "digits" / "data")
    given["fixed"]["calibration"]["num_calibration_samples"] = options.samples
    given["fixed"]["max_eval_samples"] = options.examples or None
    given["duration"] = options.duration
    given["grid"]["framework_args"][0]["intra_op_num_threads"] = options.threads
    return given


def make_vit_base(target: Path) -> None:
    """Save a ViT-base with random weights, for the labels of the digits, and its image processor."""
    import torch
    from transformers import AutoConfig, ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(0)
    small = AutoConfig.from_pretrained(EXAMPLES / "digits" / "model")
    model: Any = ViTForImageClassification(ViTConfig(id2label=small.id2label, label2id=small.label2id))
    model.save_pretrained(target)
    ViTImageProcessorPil().save_pretrained(target)


def ours(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """`Benchmark.run`, and what its time went into, in seconds."""
    from benchcard import Benchmark

    results = Benchmark.from_spec(spec(options)).run(folder / "run", progress=False)
    parts = {id(part): part for each in results.records.parts.values() for part in each}
    blocks = [block for part in parts.values() for each in part.rounds for block in each.blocks]
    opened = [each for part in parts.values() for each in (part.outcome or {}).get("opened", ())]
    forward = sum(each["first_call_ns"] + sum(each["warmup_ns"]) for each in opened)
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
        "steps_s": {kind: covered(each) for kind, each in spans.items()},
    }


def covered(spans: list[tuple[float, float]]) -> float:
    """The seconds in which at least one of these spans goes on: steps may be done side by side."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def plain(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The loop: every row does everything for itself."""
    from benchcard import Benchmark

    asked = Benchmark.from_spec(spec(options))
    accuracies = []
    for row in asked.configurations:
        place = folder / f"row-{row.row}"
        place.mkdir()
        accuracies.append(plain_row(options, row, place))
        shutil.rmtree(place)
    return {"accuracies": accuracies}


def plain_row(options: argparse.Namespace, row: Any, place: Path) -> float:
    """The accuracy of one row, which was timed as well."""
    import datasets
    from transformers import AutoModelForImageClassification

    rows = datasets.load_dataset(str(EXAMPLES / "digits" / "data"), split="validation")
    if options.examples:
        rows = rows.select([index * len(rows) // options.examples for index in range(options.examples)])
    pixels = processed(options, rows)
    model: Any = AutoModelForImageClassification.from_pretrained(options.folder_of_model).eval()
    numbers = {model.config.id2label[index]: index for index in model.config.id2label}
    names = rows.features["label"].names
    right = np.array([numbers[names[label]] for label in rows["label"]])
    if row["framework"] == "pytorch":
        return run_pytorch(options, model, pixels, right)
    graph = export(options, model, place)
    batch = 32
    if row["apply_quantization"]:
        graph = quantized(options, row, graph, place)
        # The scale of a dynamically quantized activation is taken over the whole batch.
        batch = 1 if row["quantization_approach"] == "dynamic" else 32
    return run_graph(options, graph, pixels, right, batch)


def processed(options: argparse.Namespace, rows: Any) -> Rows:
    """The images as the model's processor gives them, each `(channels, height, width) float32`."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(options.folder_of_model, backend="pil")
    return [processor(images=row["image"].convert("RGB"), return_tensors="np")["pixel_values"][0] for row in rows]


def run_pytorch(options: argparse.Namespace, model: Any, pixels: Rows, right: NDArray[Any]) -> float:
    """The accuracy of the model in PyTorch, and its time."""
    import torch

    torch.set_num_threads(options.threads)
    guesses = []
    with torch.inference_mode():
        for start in range(0, len(pixels), 32):
            batch = torch.from_numpy(np.stack(pixels[start : start + 32]))
            guesses += model(pixel_values=batch).logits.argmax(-1).tolist()
        one = torch.from_numpy(pixels[0][None])
        repeat(lambda: model(pixel_values=one), options.duration)
    return float((np.array(guesses) == right).mean())


def export(options: argparse.Namespace, model: Any, place: Path) -> Path:
    """The model as a graph of opset 13."""
    import torch

    model.set_attn_implementation("eager")
    size = model.config.image_size
    target = place / "model.onnx"
    axes = {"pixel_values": {0: "batch"}, "logits": {0: "batch"}}
    with warnings.catch_warnings():
        # The exporter warns of its own age and of every shape that it traces.
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
    """Make initializers of the `Constant` nodes of a graph, as simplifiers do before a graph is quantized.

    A constant that is a node is quantized by onnxruntime as if it were an activation, with a range of one value, which
    costs a few examples.
    """
    import onnx_ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    model = onnx_ir.load(graph)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    onnx_ir.save(model, graph)


def quantized(options: argparse.Namespace, row: Any, graph: Path, place: Path) -> Path:
    """The graph, quantized as the row asks."""
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
    """Feeds in the form in which onnxruntime's calibrators ask for them."""

    def __init__(self, feeds: Iterator[Mapping[str, Any]]) -> None:
        self.feeds = feeds

    def get_next(self) -> Mapping[str, Any] | None:
        """The next feed, or None."""
        return next(self.feeds, None)


def calibrate_in_parts(
    options: argparse.Namespace, graph: Path, operators: list[str], percentile: float, cache: Path
) -> None:
    """Write the ranges of a graph to onnxruntime's cache, calibrated on a few samples after the other.

    As optimum's `ORTQuantizer.partial_fit` does it, for models whose activations do not fit into memory at once.
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
    """The rows that benchcard draws, one at a time."""
    import datasets

    from benchcard.tasks import data

    rows = datasets.load_dataset(str(EXAMPLES / "digits" / "data"), split="train")
    chosen, _ = data.stratified_sample(rows, options.samples, 0, "label", "train")
    return iter([{"pixel_values": pixels[None]} for pixels in processed(options, chosen)])


def run_graph(options: argparse.Namespace, graph: Path, pixels: Rows, right: NDArray[Any], batch: int) -> float:
    """The accuracy of a graph in ONNX Runtime, and its time."""
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
    return float((np.array(guesses) == right).mean())


def repeat(call: Any, duration_s: float) -> list[float]:
    """Latencies in seconds, after unrecorded calls."""
    for _ in range(WARMUP_RUNS):
        call()
    latencies: list[float] = []
    while sum(latencies) < duration_s:
        start = time.perf_counter()
        call()
        latencies.append(time.perf_counter() - start)
    return latencies


def start(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What a child came to, with its seconds and the most memory that it and its children had together."""
    given = [f"--{key.replace('_', '-')}={value}" for key, value in vars(options).items() if key in PASSED_ON]
    command = [sys.executable, __file__, "--child", name, "--folder", str(folder), *given]
    begun, peak = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_S)
                break
            peak = max(peak, memory_bytes(process.pid))
        seconds = time.perf_counter() - begun
        said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        sys.exit(f"{name} ended with status {process.returncode}")
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    return {**result, "wall_s": seconds, "peak_bytes": peak}


def memory_bytes(pid: int) -> int:
    """The proportional set size of a process and its children: memory that several of them share counts once."""
    total = 0
    with contextlib.suppress(psutil.Error):
        whole = psutil.Process(pid)
        for process in (whole, *whole.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total


PASSED_ON = ("folder_of_model", "samples", "at_once", "examples", "duration", "threads")


def report(options: argparse.Namespace, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Print what both came to."""
    print(f"{'18 rows, ' + options.model:28}{'wall s':>10}{'peak GB':>10}")
    for label, run in (("plain loop", theirs), ("Benchmark.run", mine)):
        print(f"{label:28}{run['wall_s']:10.1f}{run['peak_bytes'] / 1e9:10.2f}")
    print(f"{'ratio':28}{theirs['wall_s'] / mine['wall_s']:10.2f}{theirs['peak_bytes'] / mine['peak_bytes']:10.2f}")
    reasons = mine["steps_s"].get("explain", 0.0)
    without = mine["wall_s"] - reasons
    print(f"{'ratio without reasons':28}{theirs['wall_s'] / without:10.2f}")
    print("\nrow  plain loop  Benchmark.run  difference")
    pairs = list(zip(theirs["accuracies"], mine["accuracies"]))
    for number, (first, second) in enumerate(pairs):
        print(f"{number:3}{first:12.4f}{second:15.4f}{second - first:12.4f}")
    print(f"largest difference of an accuracy: {max(abs(first - second) for first, second in pairs):.4f}")
    rest = mine["wall_s"] - mine["timed_s"] - mine["forward_s"] - reasons
    told = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in sorted(mine["steps_s"].items()))
    print(
        f"\nBenchmark.run: {mine['timed_s']:.1f} s timed, {mine['forward_s']:.1f} s of forward passes, {reasons:.1f} s "
        f"for reasons (most of it forward passes, too), everything else {rest:.1f} s: "
        f"{100 * rest / mine['wall_s']:.0f} % of the wall time.\nSeconds by step: {told}."
    )
    for failure in mine["failures"]:
        print(f"failed: {failure}")


def main() -> None:
    """Run both and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits", help="digits, vit-base, or a folder (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=128, help="for calibration (default: %(default)s)")
    parser.add_argument(
        "--at-once", type=int, default=0, help="samples that the loop calibrates on at a time; 0 for all"
    )
    parser.add_argument("--examples", type=int, default=0, help="evaluated; 0 for the whole split (default)")
    parser.add_argument("--duration", type=float, default=1.0, help="seconds a row is timed (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of every runtime (default: %(default)s)")
    parser.add_argument("--folder-of-model", default="", help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        with contextlib.redirect_stdout(io.StringIO()):
            result = {"ours": ours, "plain": plain}[options.child](options, Path(options.folder))
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        options.folder_of_model = str(EXAMPLES / "digits" / "model") if options.model == "digits" else options.model
        if options.model == "vit-base":
            options.folder_of_model = str(folder / "vit-base")
            make_vit_base(folder / "vit-base")
        runs = {name: start(name, options, folder) for name in ("plain", "ours")}
        report(options, runs["plain"], runs["ours"])


if __name__ == "__main__":
    main()
