"""Benchmark one model in PyTorch, ONNX Runtime and OpenVINO: float32, int8 by calibration, and weights of 8 and 4 bits.

Usage: `python examples/frameworks.py [RUN]`. It needs the extra `openvino`: `pip install 'benchcard[openvino]'`.
"""

import sys
from pathlib import Path

from benchcard import Benchmark

HERE = Path(__file__).parent

benchmark = Benchmark(
    task="image-classification",
    model=HERE / "quickstart" / "model",
    model_name="ViT for digits",
    dataset={
        "path": HERE / "digits" / "data",
        "name": "Handwritten digits",
        "eval_split": "validation",
        "calibration_split": "train",
        "data_keys": {"primary": "image"},
        "ref_keys": ["label"],
    },
    metrics=["accuracy"],
    grid={
        "framework": ["onnxruntime", "openvino", "pytorch"],
        # For ONNX Runtime; the others do not know it.
        "quantization_approach": ["dynamic", "static", "weight_only"],
        "apply_quantization": [False, True],
        # For OpenVINO. int8 is calibrated on the samples of ONNX Runtime's static model.
        "framework_args.dtype": [None, "fp16", "int8", "int8_weights", "int4_weights"],
    },
    fixed={
        "bits": 4,
        "accuracy_level": 4,
        "activations_dtype": "uint8",
        "calibration": {"num_calibration_samples": 64},
    },
    batch_sizes=[32],
    duration=1,  # seconds for each configuration; use 15 for published figures
)
results = benchmark.run(sys.argv[1] if len(sys.argv) > 1 else "runs/frameworks")
print(results.models[["row", "size_mb", "bits_per_weight", "nodes_in_8_bits"]].to_string(index=False))
for row in results.models["row"]:
    print(results.explain(row))
print(results.best(max_drop=0.01))
print(results.card().save(results.path / "README.md"))
