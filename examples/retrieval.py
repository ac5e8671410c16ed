"""Benchmark a model of embeddings for search in float32, dynamically and statically quantized.

Usage: `python examples/retrieval.py [RUN]`. The same from a shell: `benchcard run examples/retrieval.yaml`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="text-retrieval",
    model=HERE / "retrieval" / "model",
    model_name="BERT for retrieval",
    dataset={
        "path": HERE / "retrieval" / "data",
        "name": "advertisements",  # the configuration of the judgements
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "query-id", "secondary": "corpus-id"},
        "ref_keys": ["score"],
    },
    task_args={
        "corpus": {"name": "corpus", "split": "corpus"},
        "queries": {"name": "queries", "split": "queries"},
    },
    metrics=["float_index_ndcg_at_10", "ndcg_at_10", "float_index_recall_at_10", "recall_at_10", "float_top_10_recall"],
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
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/retrieval-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best(max_drop=0.01))
print(results.card().save(results.path / "README.md"))
