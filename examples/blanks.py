"""Benchmark a masked language model in float32, dynamically and statically quantized.

Usage: `python examples/blanks.py [RUN]`. The same from a shell: `benchcard run examples/blanks.yaml`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="fill-mask",
    model=HERE / "blanks" / "model",
    model_name="BERT for blanks",
    dataset={
        "path": HERE / "blanks" / "data",
        "name": "Generated texts about people and jobs",
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "text"},
    },
    metrics=["accuracy", "top_k_accuracy"],
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
    input_lengths=[16],
    duration=1,  # seconds for each configuration; use 15 for published figures
)
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/blanks-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best(max_drop=0.01))
print(results.card().save(results.path / "README.md"))
