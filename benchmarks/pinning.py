"""Time OpenVINO beside ONNX Runtime, with and without pinned threads, while other processes take processors.

    python benchmarks/pinning.py [--busy PROCESSES] [--duration SECONDS] [--out RUN]

The model is the ViT of `examples/digits`, at three opsets in ONNX Runtime. The first table has the speed of each row,
the second how long a block of ONNX Runtime's calls takes after a block of each kind, relative to the median of its
process. It needs the extra `openvino`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchcard import Benchmark, Results

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "digits"


def spin() -> None:
    """Keep a processor busy."""
    while True:
        pass


def kinds(results: Results) -> dict[str, str]:
    """Return the kind of each timed model, by the name of its cell."""
    names = {}
    for record in results.records.records:
        pinned = (record.configuration["framework_args"] or {}).get("enable_cpu_pinning")
        kind = f"{record.configuration['framework']}{', pinned' if pinned else ''}"
        names |= {cell.name: kind for cell in record.cells.values()}
    return names


def deviations(results: Results) -> Iterator[tuple[str, float]]:
    """Yield for each block of ONNX Runtime the kind of the block before it, and the logarithm of its median latency
    over the median of all blocks of its process.
    """
    kind_of = kinds(results)
    for parts in results.records.parts.values():
        for part in parts:
            medians: dict[object, list[float]] = {}
            for timed in part.rounds:
                for block in timed.blocks:
                    process = block.name, block.twin, timed.launch
                    medians.setdefault(process, []).append(float(np.log(np.median(block.latencies_ns))))
            for timed in part.rounds:
                for before, block in zip(timed.blocks, timed.blocks[1:]):
                    if kind_of[block.name] == "onnxruntime":
                        level = np.median(medians[block.name, block.twin, timed.launch])
                        yield kind_of[before.name], float(np.log(np.median(block.latencies_ns)) - level)


def measure(path: Path, duration: float) -> Results:
    """Run the grid."""
    return Benchmark(
        task="image-classification",
        model=EXAMPLES / "model",
        dataset={
            "path": EXAMPLES / "data",
            "eval_split": "validation",
            "data_keys": {"primary": "image"},
            "ref_keys": ["label"],
        },
        metrics=["accuracy"],
        grid={
            "framework": ["onnxruntime", "openvino"],
            "framework_args": {
                "onnxruntime": [{"opset": opset} for opset in (17, 18, 20)],
                "openvino": [{"enable_cpu_pinning": False}, {"enable_cpu_pinning": True}],
            },
        },
        max_eval_samples=16,
        batch_sizes=[4],
        duration=duration,
    ).run(path, progress=False)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the grid beside busy processes and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=1, help="processes that keep a processor busy")
    parser.add_argument("--duration", type=float, default=15, help="seconds of timing for each configuration")
    parser.add_argument("--out", type=Path, help="the run directory")
    arguments = parser.parse_args(argv)
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(arguments.busy)]
    for other in others:
        other.start()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            results = measure(arguments.out or Path(temporary) / "run", arguments.duration)
            print(f"others used {results.noise['others_cpus'][0]:.2f} processors on average")
            print(f"{'row':<68} {'times as fast':>13} {'95 % interval':>16}")
            for row, ratio, low, high in results.time[["row", "ratio", "ratio_low", "ratio_high"]].itertuples(False):
                print(f"{results.plan[row].label:<68} {ratio:>13.2f} {f'[{low:.2f}, {high:.2f}]':>16}")
            after: dict[str, list[float]] = {}
            for kind, deviation in deviations(results):
                after.setdefault(kind, []).append(deviation)
    finally:
        for other in others:
            other.terminate()
    print(f"\n{'ONNX Runtime after':<20} {'blocks':>6} {'relative latency':>16}")
    for kind, values in sorted(after.items()):
        middle = np.sort(values)[len(values) // 4 : len(values) - len(values) // 4]
        error = 2 * np.std(values) / np.sqrt(len(values))
        print(f"{kind:<20} {len(values):>6} {np.exp(middle.mean()):>8.3f} ± {error:.3f}")


if __name__ == "__main__":
    main()
