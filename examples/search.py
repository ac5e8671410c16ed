"""Benchmark a cross-encoder in float32, dynamically and statically quantized.

Usage: `python examples/search.py [RUN]`. The same from a shell: `benchcard run examples/search.yaml`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="text-ranking",
    model=HERE / "search" / "model",
    model_name="BERT for search",
    dataset={
        "path": HERE / "search" / "data",
        "name": "Generated questions and documents",
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "query", "secondary": "documents"},
        "ref_keys": ["labels"],
    },
    metrics=["ndcg_at_10", "mrr_at_10"],
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
    input_lengths=[32],
    duration=1,  # seconds for each configuration; use 15 for published figures
)
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/search-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best(max_drop=0.01))
print(results.card().save(results.path / "README.md"))
