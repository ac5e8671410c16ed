"""Graphs in float16 compute what the float32 graphs compute, take and give float32, and store half of the bits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny_graphs
from onnx import TensorProto
from tiny_graphs import normal, saved, written

from benchcard.graphs.float16 import convert_to_float16
from benchcard.graphs.runtime import open_session
from benchcard.graphs.weights import stored_weights


def outputs(path, feeds):
    session = open_session(path, 1, threads=1)
    return session.run(None, {each.name: feeds[each.name] for each in session.get_inputs()})


@pytest.mark.parametrize(("kind", "opset"), [("bert", 17), ("vit", 13), ("resnet", 13)])
def test_a_converted_model_is_close_to_its_float32_graph(tmp_path, kind, opset):
    """Inputs and outputs keep their types, nodes are in order, and weights take 16 bits."""
    path, half = tiny_graphs.export(kind, opset, tmp_path / "float.onnx"), tmp_path / "half.onnx"
    convert_to_float16(path, half)
    before, after = onnx.load(path), onnx.load(half)
    onnx.checker.check_model(after)
    for part in ("input", "output"):
        types = [[value.type.tensor_type.elem_type for value in getattr(each.graph, part)] for each in (before, after)]
        assert types[0] == types[1]
    assert stored_weights(half).dtype == "float16"
    assert stored_weights(half).bits < 0.6 * stored_weights(path).bits
    feeds = tiny_graphs.samples(kind, 1)[0]
    for exact, given in zip(outputs(path, feeds), outputs(half, feeds)):
        assert 0 < np.abs(exact - given).max() < 0.01 * np.abs(exact).max()


def test_weights_beside_the_graph_are_read(tmp_path):
    """External weights are converted too, and a mask with the lowest float32 becomes the lowest float16."""
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[N, 64] x) => (float[N, 64] y) { m = MatMul (x, w) y = Add (m, mask) }
    """
    mask = np.full(64, np.finfo(np.float32).min)
    model = written(text, {"w": normal(64, 64), "mask": mask})
    onnx.save(model, tmp_path / "float.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    convert_to_float16(tmp_path / "float.onnx", tmp_path / "half.onnx")
    kept = {weight.name: weight for weight in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert kept["w"].data_type == kept["mask"].data_type == TensorProto.FLOAT16
    assert onnx.numpy_helper.to_array(kept["mask"]).tolist() == [-65504.0] * 64
    assert saved(onnx.load(tmp_path / "half.onnx"), tmp_path / "again.onnx").stat().st_size < 64 * 64 * 2 + 2000
