"""Benchmark a speech recognizer in float32, dynamically and statically quantized.

Usage: `python examples/spelling.py [RUN]`. The same from a shell: `benchcard run examples/spelling.yaml`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="automatic-speech-recognition",
    model=HERE / "spelling" / "model",
    model_name="Wav2Vec2 for spelling",
    dataset={
        "path": HERE / "spelling" / "data",
        "name": "Generated words, played as notes",
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "audio"},
        "ref_keys": ["text"],
    },
    metrics=["wer", "cer"],
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
    input_lengths=[840],  # samples
    duration=1,  # seconds for each configuration; use 15 for published figures
)
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/spelling-py")
print(results.quality.dropna(axis="columns", how="all").to_string(index=False))
print(results.best(max_drop=0.01))
print(results.card().save(results.path / "README.md"))
