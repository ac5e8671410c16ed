"""A whole run of a tiny image model, made once for all tests that need one: its spec, its ground and its results."""

from __future__ import annotations

import pytest
import tiny

from benchcard import Benchmark

GRID = """
grid:
  framework: [onnxruntime, pytorch]
  quantization_approach: [dynamic, static]
  operators_to_quantize: [[Add, MatMul], [Add]]
  framework_args: [{opset: 13, optimization_level: 1, intra_op_num_threads: 1}, {}]
  apply_quantization: [true, false]
fixed:
  calibration: {method: percentile, num_calibration_samples: 9, calibration_histogram_percentile: 99.9}
batch_sizes: [1, 3]
duration: 0.2
"""

SPEC = """
task: image-classification
model: ./model
dataset:
  {path: ./data, eval_split: validation, calibration_split: train, data_keys: {primary: image}, ref_keys: [label]}
"""


def spec_with(ground, text, name="other.yaml"):
    """A spec of this text beside the model."""
    (ground / name).write_text(text)
    return ground / name


@pytest.fixture(scope="session")
def ground(tmp_path_factory):
    """A folder with the tiny model, its data, and a spec of a small grid."""
    folder = tmp_path_factory.mktemp("ground")
    tiny.write_model(folder / "model")
    tiny.write_data(folder / "data")
    (folder / "spec.yaml").write_text(SPEC + GRID)
    return folder


@pytest.fixture(scope="session")
def results(ground):
    """The results of the small grid."""
    return Benchmark.from_spec(ground / "spec.yaml").run(ground / "run", progress=False)
