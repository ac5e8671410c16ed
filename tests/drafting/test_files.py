"""Drafts of audits: which files are rows, and what they are compared with."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_text
from tiny_graphs import saved, written

from benchcard import SpecError
from benchcard.drafting.files import draft_audit

FILE = "framework_args.file_name"


def graph(path, dtype=np.float32):
    """A graph with weights of this type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "s = Cast <to: int = 1> (w) y = MatMul(x, s)"
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[b, 4] x) => (float[b, 4] y) {{ {body} }}'
    saved(written(text, {"w": np.ones((4, 4), dtype)}), path)


@pytest.fixture
def model(tmp_path):
    """A classifier without graphs and weights, and the path of data for it."""
    folder = tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", ["no", "yes"])
    tiny_text.write_tokenizer(folder)
    data = tiny_text.write_data(tmp_path / "data", {"text": ["good", "bad"] * 5, "label": ["yes", "no"] * 5})
    (folder / "model.safetensors").rename(tmp_path / "weights")
    return folder, data


def drafted(model, **parameters):
    """The grid, the baseline and the spec that are drafted."""
    values = draft_audit(*model, **parameters).values()
    return values["grid"], values["baseline"], values


def test_every_onnx_file_is_a_row_compared_with_the_float_graph(model):
    """In every folder; the float graph in the usual place comes before another with float weights."""
    for name in ("a.onnx", "onnx/model.onnx", "onnx/model_quantized.onnx"):
        graph(model[0] / name, np.int8 if "quantized" in name else np.float32)
    graph(model[0] / "onnx" / "model_fp16.onnx", np.float16)
    grid, baseline, values = drafted(model, duration=0)
    assert grid == {FILE: ["a.onnx", "onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_quantized.onnx"]}
    assert baseline == {FILE: "onnx/model.onnx"}
    assert values["from_transformers"] is False
    assert values["duration"] == 0
    # Nothing is quantized, and so nothing calibrated.
    assert "calibration" not in values
    assert "calibration_split" not in values["dataset"]
    graph(model[0] / "model.onnx")
    assert drafted(model)[1] == {FILE: "model.onnx"}
    assert drafted(model, baseline={FILE: "a.onnx"})[1] == {FILE: "a.onnx"}


def test_without_a_float_graph_pytorch_is_the_baseline(model, tmp_path):
    """Where the model has weights for it; else the file of the most bits, whatever its name."""
    graph(model[0] / "b_fp16.onnx", np.float16)
    graph(model[0] / "model.onnx", np.int8)
    (model[0] / "damaged.onnx").write_bytes(b"not a graph")
    grid, baseline, _ = drafted(model)
    assert grid == {FILE: ["b_fp16.onnx", "damaged.onnx", "model.onnx"]}
    assert baseline == {FILE: "b_fp16.onnx"}
    (tmp_path / "weights").rename(model[0] / "model.safetensors")
    grid, baseline, _ = drafted(model)
    assert grid["framework"] == ["onnxruntime", "pytorch"]
    assert baseline == {"framework": "pytorch"}


def test_a_model_without_onnx_files_is_a_mistake(model):
    """The message says what it needs, and what to do."""
    with pytest.raises(SpecError, match=r"a model with ONNX files.*`benchcard run` exports"):
        draft_audit(*model)
