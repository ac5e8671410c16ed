"""Benchmark a model of sentence embeddings in float32, dynamically and statically quantized.

Usage: `python examples/sentences.py [RUN]`. The same from a shell: `benchcard run examples/sentences.yaml`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="sentence-similarity",
    model=HERE / "sentences" / "model",
    model_name="BERT for sentences",
    dataset={
        "path": HERE / "sentences" / "data",
        "name": "Generated pairs of sentences",
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "sentence1", "secondary": "sentence2"},
        "ref_keys": ["score"],
    },
    metrics=["spearman", "pearson"],
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
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/sentences-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best(max_drop=0.01))
print(results.card().save(results.path / "README.md"))
