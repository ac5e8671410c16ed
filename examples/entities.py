"""Benchmark a model that finds people, places and companies in float32, dynamically and statically quantized.

Usage: `python examples/entities.py [RUN]`. The same from a shell: `benchcard run examples/entities.yaml`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="token-classification",
    model=HERE / "entities" / "model",
    model_name="BERT for entities",
    dataset={
        "path": HERE / "entities" / "data",
        "name": "Generated sentences with entities",
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "tokens"},
        "ref_keys": ["ner_tags"],
    },
    metrics=["f1", "precision", "recall", "accuracy"],
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
    input_lengths=[16],
    duration=1,  # seconds for each configuration; use 15 for published figures
)
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/entities-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best(max_drop=0.01))
print(results.card().save(results.path / "README.md"))
