"""Benchmark an object detector in float32, dynamically and statically quantized.

Usage: `python examples/shapes.py [RUN]`. The same from a shell: `benchcard run examples/shapes.yaml`.
Both need the extra `detection`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="object-detection",
    model=HERE / "shapes" / "model",
    model_name="YOLOS for shapes",
    dataset={
        "path": HERE / "shapes" / "data",
        "name": "Drawn shapes",
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "image"},
        "ref_keys": ["objects"],
    },
    metrics=["map"],
    grid={
        "framework": ["onnxruntime", "pytorch"],
        "apply_quantization": [False, True],
        "quantization_approach": ["dynamic", "static"],
    },
    fixed={
        "calibration": {
            "method": "percentile",
            "num_calibration_samples": 64,
            "calibration_histogram_percentile": 99.99,
        }
    },
    batch_sizes=[1],
    duration=1,  # seconds for each configuration; use 15 for published figures
)
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/shapes-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best(max_drop=0.01))
print(results.card().save(results.path / "README.md"))
