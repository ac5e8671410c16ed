"""Compare the time of a grid of two models on two nodes of a Ray cluster with its time on one.

    unshare -n sh -c 'ip link set lo up && python benchmarks/cluster.py [--duration 10]'

The nodes are on this machine, each row uses one thread, and each node has its own timing lock, as if it were a machine.
That overstates what nodes of one machine are good for, which share caches and memory, and understates what two machines
give, since here they share the cores for everything that is not timed. Ray listens on all interfaces, so the script is
started where only that of loopback is.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path


def seconds(nodes: int, duration: float, folder: Path) -> float:
    """Return how long the grid takes on a new cluster of this many nodes with a slot."""
    from ray.cluster_utils import Cluster

    from benchcard import Benchmark

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for number in range(nodes):
            own = folder / f"tmp-{nodes}-{number}"
            own.mkdir()
            cluster.add_node(num_cpus=1, resources={"benchslot": 1}, env_vars={"TMPDIR": str(own)})
        benchmark = Benchmark(
            task="image-classification",
            dataset={
                "path": str(folder / "data"),
                "eval_split": "validation",
                "data_keys": {"primary": "image"},
                "ref_keys": ["label"],
            },
            fixed={"framework_args": {"intra_op_num_threads": 1}, "quantization_approach": "dynamic"},
            grid={
                "name_or_path": [str(folder / "one"), str(folder / "two")],
                "operators_to_quantize": [["MatMul"], ["Add", "MatMul"]],
                "apply_quantization": [False, True],
            },
            batch_sizes=[1],
            duration=duration,
            backend="ray",
            backend_args={"address": cluster.address, "setup": "true"},
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
    parser.add_argument("--duration", type=float, default=10.0, help="seconds of timing of each row")
    duration = parser.parse_args().duration
    from benchcard import testing

    # The paths of Ray's sockets must be short.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "token").write_text("0" * 64)
        os.environ |= {"RAY_TMPDIR": name, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": f"{name}/token"}
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        for seed, model in enumerate(("one", "two")):
            testing.write_image_model(folder / model, seed=seed)
        testing.write_image_data(folder / "data")
        one, two = seconds(1, duration, folder), seconds(2, duration, folder)
        print(f"one node: {one:.0f} s; two nodes: {two:.0f} s, {two / one:.2f} times as long")


if __name__ == "__main__":
    main()
