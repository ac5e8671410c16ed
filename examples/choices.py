"""Benchmark a language model on a task of lm-eval, in float32, int8, and with weights of 4 bits.

It needs the extra `lm-eval`: `pip install 'benchcard[lm-eval]'`.
Usage: `python examples/choices.py [RUN]`. The same from a shell: `benchcard run examples/choices.yaml`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="lm-eval",
    model=HERE / "generation" / "model",
    model_name="Llama for Python's reference",
    dataset={
        "path": HERE / "choices" / "data",
        "name": "Endings of sentences, in the form of SWAG",
        "eval_split": "validation",
        "calibration_split": "train",
    },
    task_args={"name": "swag"},
    grid={
        "framework": ["onnxruntime", "pytorch"],
        "apply_quantization": [False, True],
        "quantization_approach": ["dynamic", "static", "weight_only"],
        "operators_to_quantize": [["MatMul"]],
        "bits": [4],
    },
    fixed={
        "accuracy_level": 4,  # of weight-only rows: activations are rounded to int8 in each product
        "calibration": {
            "method": "percentile",
            "num_calibration_samples": 32,
            "calibration_histogram_percentile": 99.99,
        },
    },
    input_lengths=[32],  # tokens
    duration=1,  # seconds for each configuration; use 15 for published figures
)
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/choices-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best())
print(results.card().save(results.path / "README.md"))
