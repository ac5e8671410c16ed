"""How many weights a graph stores, and in how many bits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchcard.graphs.weights import StoredWeights, stored_weights


def saved(tmp_path, weights, nodes, dtypes=()):
    """Write a graph with these weights and nodes, and return its path."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    for name, dtype, dims, raw in dtypes:
        tensors.append(TensorProto(name=name, data_type=dtype, dims=dims, raw_data=raw))
    graph = helper.make_graph(nodes, "g", [], [], tensors)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), str(path))
    return path


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 32), ("float16", 16), ("int8", 8)])
def test_plain_weights(tmp_path, dtype, bits):
    """A weight takes the bits of its type; shapes and masks are no weights."""
    weights = {"w": np.zeros((4, 5), dtype), "shape": np.array([1, 2]), "mask": np.array([True])}
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros(3, dtype)))
    path = saved(tmp_path, weights, [helper.make_node("MatMul", ["x", "w"], ["y"]), constant])
    assert stored_weights(path) == StoredWeights(23, 23 * bits)


def test_scales_add_bits_and_no_weights(tmp_path):
    """Scales and zero points take bits, and are no weights themselves."""
    weights = {"w": np.zeros((4, 5), np.int8), "s": np.float32(0.1), "z": np.int8(0)}
    path = saved(tmp_path, weights, [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["y"])])
    assert stored_weights(path) == StoredWeights(20, 20 * 8 + 32 + 8)


def test_weights_that_share_bytes(tmp_path):
    """Four-bit weights count half a byte each, whether by their type or packed for `MatMulNBits`."""
    typed = [("w", TensorProto.UINT4, [4, 6], b"\0" * 12)]
    path = saved(tmp_path, {"s": np.float32(1)}, [helper.make_node("DequantizeLinear", ["w", "s"], ["y"])], typed)
    assert stored_weights(path) == StoredWeights(24, 24 * 4 + 32)
    weights = {"w": np.zeros((8, 2, 16), np.uint8), "s": np.zeros(16, np.float32)}
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=64, N=8, bits=4, block_size=32
    )
    found = stored_weights(saved(tmp_path, weights, [node]))
    assert found == StoredWeights(64 * 8, 64 * 8 * 4 + 16 * 32)
    assert found.bits / found.count == 5
