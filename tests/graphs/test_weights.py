"""The numbers that graphs store their weights in."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16
from tiny_graphs import normal, saved, written

from benchcard.graphs.weights import read_weights

SIDE = 64


@pytest.fixture
def graph(tmp_path):
    """A graph with one matrix and a bias."""
    body = "z = MatMul(x, w) y = Add(z, c)"
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[b, 64] x) => (float[b, 64] y) {{ {body} }}'
    saved(written(text, {"w": normal(SIDE, SIDE), "c": normal(SIDE)}), tmp_path / "model.onnx")
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
    weights = read_weights(made(graph, kind))
    assert (weights.dtype, weights.fewest_bits) == (kind, fewest)
    assert least <= weights.bits <= most
    assert sum(weights.counts.values()) == pytest.approx(SIDE * SIDE + SIDE, abs=2)


def test_a_graph_of_two_kinds_has_both(tmp_path):
    """The coarser numbers come first; those of less than a tenth of the weights are not named; shapes do not count."""
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[b, 8] x) => (float[b, 8] y) '
        "{ s = Cast <to: int = 1> (w) z = MatMul(x, s) a = Reshape(z, shape) y = MatMul(a, v) }"
    )
    weights = {"w": normal(8, 8).astype(np.float16), "v": normal(8, 8), "shape": np.array([-1, 8])}
    saved(written(text, weights), tmp_path / "model.onnx")
    found = read_weights(tmp_path / "model.onnx")
    assert (found.dtype, found.bits, found.fewest_bits) == ("float16+float32", 24, 16)


def test_a_graph_without_weights_has_no_numbers(tmp_path):
    """A graph of operators alone."""
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[b, 8] x) => (float[b, 8] y) { y = Neg(x) }'
    saved(written(text, {}), tmp_path / "model.onnx")
    assert read_weights(tmp_path / "model.onnx") is None
