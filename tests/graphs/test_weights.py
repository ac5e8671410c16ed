"""How many weights a graph stores, in which numbers, and in how many bits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny_graphs
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16
from tiny_graphs import normal, written

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


SIDE = 64


@pytest.fixture
def graph(tmp_path):
    """A graph with one matrix and a bias."""
    body = "z = MatMul(x, w) y = Add(z, c)"
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[b, 64] x) => (float[b, 64] y) {{ {body} }}'
    tiny_graphs.saved(written(text, {"w": normal(SIDE, SIDE), "c": normal(SIDE)}), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def made(graph, kind):
    """The graph with other numbers, as the tools of ONNX Runtime make it."""
    target = graph.with_name(f"{kind}.onnx")
    if kind == "float16":
        onnx.save(convert_float_to_float16(onnx.load(graph)), str(target))
    elif kind in ("int8", "uint8"):
        quantize_dynamic(graph, target, weight_type=QuantType.QInt8 if kind == "int8" else QuantType.QUInt8)
    elif kind == "int4":
        quantizer = MatMulNBitsQuantizer(onnx.load(graph), block_size=32, is_symmetric=True, bits=4)
        quantizer.process()
        onnx.save(quantizer.model.model, str(target))
    else:
        quantizer = MatMulBnb4Quantizer(onnx.load(graph), quant_type=kind == "nf4", block_size=64)
        quantizer.process()
        onnx.save(quantizer.model.model, str(target))
    return target


@pytest.mark.parametrize(
    ("kind", "fewest", "least", "most"),
    [
        ("float16", 16, 16, 16),
        ("int8", 8, 8, 9),
        ("uint8", 8, 8, 9),
        # A block of 32 weights has a scale in float32, and one of 64 too.
        ("int4", 4, 5, 5.5),
        ("nf4", 4, 4.5, 5),
        ("fp4", 4, 4.5, 5),
    ],
)
def test_the_numbers_of_each_kind_of_quantization_are_found(graph, kind, fewest, least, most):
    """Eight bits with their scales, blocks of four bits that are packed into bytes, and float16."""
    weights = stored_weights(made(graph, kind))
    assert (weights.dtype, weights.fewest_bits) == (kind, fewest)
    assert least <= weights.bits_per_weight <= most
    assert weights.count == pytest.approx(SIDE * SIDE + SIDE, abs=2)


def test_a_graph_of_two_kinds_has_both(tmp_path):
    """The coarser numbers come first; those of less than a tenth of the weights are not named; shapes do not count."""
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[b, 8] x) => (float[b, 8] y) '
        "{ s = Cast <to: int = 1> (w) z = MatMul(x, s) a = Reshape(z, shape) y = MatMul(a, v) }"
    )
    weights = {"w": normal(8, 8).astype(np.float16), "v": normal(8, 8), "shape": np.array([-1, 8])}
    tiny_graphs.saved(written(text, weights), tmp_path / "model.onnx")
    found = stored_weights(tmp_path / "model.onnx")
    assert (found.dtype, found.bits_per_weight, found.fewest_bits) == ("float16+float32", 24, 16)


def test_a_graph_without_weights_has_no_numbers(tmp_path):
    """A graph of operators alone."""
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[b, 8] x) => (float[b, 8] y) { y = Neg(x) }'
    tiny_graphs.saved(written(text, {}), tmp_path / "model.onnx")
    assert stored_weights(tmp_path / "model.onnx") == StoredWeights(0, 0)
