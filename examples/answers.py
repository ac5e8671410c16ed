"""Benchmark a question-answering model in float32, dynamically and statically quantized.

Usage: `python examples/answers.py [RUN]`. The same from a shell: `benchcard run examples/answers.yaml`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="question-answering",
    model=HERE / "answers" / "model",
    model_name="BERT for answers",
    dataset={
        "path": HERE / "answers" / "data",
        "name": "Generated biographies with questions",
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "question", "secondary": "context"},
        "ref_keys": ["answers"],
    },
    metrics=["f1", "exact_match"],
    grid={
        "framework": ["onnxruntime", "pytorch"],
        "apply_quantization": [False, True],
        "quantization_approach": ["dynamic", "static"],
        "node_exclusion": [[], ["layernorm", "gelu"]],
    },
    fixed={
        "calibration": {
            "method": "percentile",
            "num_calibration_samples": 64,
            "calibration_histogram_percentile": 99.99,
        }
    },
    input_lengths=[48],
    duration=1,  # seconds for each configuration; use 15 for published figures
)
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/answers-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best())
print(results.card().save(results.path / "README.md"))
