"""Benchmark a zero-shot classifier in float32, dynamically and statically quantized.

Usage: `python examples/topics.py [RUN]`. The same from a shell: `benchcard run examples/topics.yaml`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="zero-shot-classification",
    model=HERE / "topics" / "model",
    model_name="BERT for inference",
    dataset={
        "path": HERE / "topics" / "data",
        "name": "Generated sentences and topics",
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "text"},
        "ref_keys": ["label"],
    },
    task_args={"hypothesis_template": "this is about {} ."},
    metrics=["accuracy", "f1_macro"],
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
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/topics-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best(max_drop=0.01))
print(results.card().save(results.path / "README.md"))
