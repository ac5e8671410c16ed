"""Benchmark a language model in float32, int8, and with weights of 4 and 8 bits, by how it predicts each next token.

Usage: `python examples/generation.py [RUN]`. The same from a shell: `benchcard run examples/generation.yaml`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="text-generation",
    model=HERE / "generation" / "model",
    model_name="Llama for Python's reference",
    dataset={
        "path": HERE / "generation" / "data",
        "name": "Python's language reference",
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "text"},
    },
    task_args={"window": 128, "stride": 64, "use_cache": True},
    metrics=["perplexity"],
    grid={
        "framework": ["onnxruntime", "pytorch"],
        "apply_quantization": [False, True],
        "quantization_approach": ["dynamic", "static", "weight_only"],
        "operators_to_quantize": [["MatMul"], ["Add", "MatMul"]],
        "bits": [4, 8],
    },
    fixed={
        "accuracy_level": 4,  # of weight-only rows: activations are rounded to int8 in each product
        "calibration": {
            "method": "percentile",
            "num_calibration_samples": 32,
            "calibration_histogram_percentile": 99.99,
        },
    },
    input_lengths=[32, 96],  # tokens of a prompt, and of the context of a next token
    duration=1,  # seconds for each configuration; use 15 for published figures
)
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/generation-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best())
print(results.card().save(results.path / "README.md"))
