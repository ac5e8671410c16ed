"""Compare the time of a grid on two nodes of a Ray cluster with its time on one.

    unshare -n sh -c 'ip link set lo up && python benchmarks/cluster.py [--grid variants] [--duration 10]'

The grid `models` has two models, which the nodes run side by side; `variants` has one model and eight variants of it,
whose steps they share and which one node times. The nodes are on this machine. Each is held to a core of its own, and
has its own timing lock, as if it were a machine. That overstates what nodes of one machine are good for, which share
caches and memory, and understates what two machines give, since the cluster itself runs on the same cores. Ray listens
on all interfaces, so the script is started where only that of loopback is.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

# Evaluating a variant takes longer than starting a worker, as it does for the usual model.
LARGE: dict[str, Any] = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "intermediate_size": 1536,
    "image_size": 64,
    "patch_size": 8,
}
EXAMPLES = {"models": 24, "variants": 512}


def grid_of(name: str, folder: Path) -> dict[str, Any]:
    """Write the models of a grid, and return its axes."""
    from benchcard import testing

    models = [folder / "one", folder / "two"] if name == "models" else [folder / "one"]
    for seed, model in enumerate(models):
        testing.write_image_model(model, seed=seed, **(LARGE if name == "variants" else {}))
    axes: dict[str, Any] = {"operators_to_quantize": [["MatMul"], ["Add", "MatMul"]]}
    if name == "variants":
        exclusions = [[], ["re:.*attention.*"]]
        axes = {"per_channel": [False, True], "weights_dtype": ["int8", "uint8"], "node_exclusion": exclusions}
    return {"name_or_path": [str(model) for model in models], **axes, "apply_quantization": [False, True]}


def seconds(nodes: int, duration: float, folder: Path, grid: dict[str, Any]) -> float:
    """Return how long a grid takes on a new cluster of this many nodes with a slot."""
    from ray.cluster_utils import Cluster

    from benchcard import Benchmark

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for number, core in zip(range(nodes), sorted(os.sched_getaffinity(0))):
            own = folder / f"tmp-{nodes}-{number}"
            own.mkdir()
            cluster.add_node(num_cpus=1, resources={"benchslot": 1}, env_vars={"TMPDIR": str(own), "CORE": str(core)})
        benchmark = Benchmark(
            task="image-classification",
            dataset={
                "path": str(folder / "data"),
                "eval_split": "validation",
                "data_keys": {"primary": "image"},
                "ref_keys": ["label"],
            },
            fixed={"framework_args": {"intra_op_num_threads": 1}, "quantization_approach": "dynamic"},
            grid=grid,
            batch_sizes=[1],
            duration=duration,
            backend="ray",
            backend_args={"address": cluster.address, "setup": "taskset -cp $CORE $$"},
        )
        started = time.monotonic()
        results = benchmark.run(folder / f"run-{nodes}")
        took = time.monotonic() - started
        if not results.failures.empty:
            raise SystemExit(results.failures.to_string())
        return took
    finally:
        cluster.shutdown()


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", choices=EXAMPLES, default="models")
    parser.add_argument("--duration", type=float, default=10.0, help="seconds of timing of each row")
    arguments = parser.parse_args()
    from benchcard import testing

    # The paths of Ray's sockets must be short.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "token").write_text("0" * 64)
        os.environ |= {"RAY_TMPDIR": name, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": f"{name}/token"}
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        grid = grid_of(arguments.grid, folder)
        testing.write_image_data(folder / "data", rows=EXAMPLES[arguments.grid])
        one, two = (seconds(nodes, arguments.duration, folder, grid) for nodes in (1, 2))
        print(f"one node: {one:.0f} s; two nodes: {two:.0f} s, {two / one:.2f} times as long")


if __name__ == "__main__":
    main()
