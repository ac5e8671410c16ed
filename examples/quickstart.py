"""Benchmark an image classifier in float32, dynamically and statically quantized: the first example.

Usage: `python examples/quickstart.py [RUN]`. The same from a shell: `benchcard run examples/quickstart.yaml`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="image-classification",
    model=HERE / "quickstart" / "model",
    model_name="ViT for digits",
    dataset={
        "path": HERE / "digits" / "data",
        "name": "Handwritten digits",
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "image"},
        "ref_keys": ["label"],
    },
    metrics=["accuracy"],
    grid={
        "framework": ["onnxruntime", "pytorch"],
        "apply_quantization": [False, True],
        "quantization_approach": ["dynamic", "static"],
        "per_channel": [True, False],
    },
    fixed={
        "operators_to_quantize": ["MatMul"],
        "calibration": {
            "method": "percentile",
            "num_calibration_samples": 64,
            "calibration_histogram_percentile": 99.99,
        },
    },
    batch_sizes=[32],
    duration=2,  # seconds for each configuration; use 15 for published figures
)
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best(max_drop=0.01))
print(results.card().save(results.path / "README.md"))
