"""Benchmark an audio classifier in float32, dynamically and statically quantized.

Usage: `python examples/melodies.py [RUN]`. The same from a shell: `benchcard run examples/melodies.yaml`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="audio-classification",
    model=HERE / "melodies" / "model",
    model_name="Wav2Vec2 for melodies",
    dataset={
        "path": HERE / "melodies" / "data",
        "name": "Generated melodies",
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "audio"},
        "ref_keys": ["label"],
    },
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
    input_lengths=[640],  # samples
    duration=1,  # seconds for each configuration; use 15 for published figures
)
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/melodies-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best(max_drop=0.01))
print(results.card().save(results.path / "README.md"))
