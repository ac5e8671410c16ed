"""Measure how long a plan of 10,000 configurations takes: `python benchmarks/plan.py [--rows 10000]`.

The plan expands the beans grid over calibration settings, sets parameters that do not apply to None and merges equal
rows. It is compared with the bare product of the same values, one dict for each row, the least that any plan must do.
"""

from __future__ import annotations

import argparse
import itertools
import time

from benchcard.spec import spec as specs
from benchcard.spec.plan import make_plan


def grid(rows: int) -> dict[str, list[object]]:
    """Return the grid of the beans card, with enough calibration settings for about `rows` configurations."""
    return {
        "framework": ["onnxruntime", "pytorch"],
        "quantization_approach": ["dynamic", "static"],
        "operators_to_quantize": [["Add", "MatMul"], ["Add"]],
        "per_channel": [False, True],
        "reduce_range": [True, False],
        "apply_quantization": [True, False],
        "calibration.num_calibration_samples": list(range(1, max(2, rows // 8) + 1)),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    axes = grid(arguments.rows)
    spec = specs.read_spec(
        {
            "task": "image-classification",
            "model": "a/model",
            "dataset": {"path": "a/dataset", "eval_split": "validation", "calibration_split": "train"},
            "grid": axes,
        }
    )
    planned, multiplied, rows = [], [], 0
    for _ in range(arguments.repeats):
        started = time.perf_counter()
        rows = len(make_plan(spec))
        planned.append(time.perf_counter() - started)
        started = time.perf_counter()
        points = [dict(zip(axes, point)) for point in itertools.product(*axes.values())]
        multiplied.append(time.perf_counter() - started)
    plan_s, product_s = min(planned), min(multiplied)
    print(f"{rows} configurations of {len(points)} points: {plan_s:.2f} s, {plan_s / product_s:.1f} times the product")


if __name__ == "__main__":
    main()
