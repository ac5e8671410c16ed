"""Run the grid of the vit-base-beans card of 2022 on a small ViT trained on handwritten digits.

Usage: `python examples/digits.py [RUN]`. The same from a shell: `benchcard run examples/digits.yaml`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="image-classification",
    model=HERE / "digits" / "model",
    model_name="Small ViT for digits",
    dataset={
        "path": HERE / "digits" / "data",
        "name": "Handwritten digits",
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "image"},
        "ref_keys": ["label"],
    },
    from_transformers=True,
    metrics=["accuracy"],
    grid={
        "framework": ["onnxruntime", "pytorch"],
        "quantization_approach": ["dynamic", "static"],
        "operators_to_quantize": [["Add", "MatMul"], ["Add"]],
        "per_channel": [False, True],
        "framework_args": [{"opset": 13, "optimization_level": 1, "intra_op_num_threads": 2}, {}],
        "reduce_range": [True, False],
        "apply_quantization": [True, False],
    },
    fixed={
        "node_exclusion": [],
        "calibration": {
            "method": "percentile",
            "num_calibration_samples": 128,
            "calibration_histogram_percentile": 99.999,
        },
    },
    batch_sizes=[1],
    duration=1,  # seconds for each configuration; use 15 for published figures
)
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/digits-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best(max_drop=0.01))
print(results.card().save(results.path / "README.md"))
