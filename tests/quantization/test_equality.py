"""Configurations that give the same model are found, and the reason is explained."""

from __future__ import annotations

import dataclasses

import pytest
from tiny_graphs import calibrated, normal, saved, written

from benchcard.graphs.files import model_digest
from benchcard.quantization.equality import why_same
from benchcard.quantization.quantize import quantize_model
from benchcard.quantization.settings import Quantization


def test_nothing_quantized_is_the_float_model(vit, make, tmp_path):
    """Dynamic `Add` has no kernel: the written file is the float model's, byte for byte, whatever else was asked."""
    for extra in ({}, {"per_channel": True}, {"reduce_range": True}, {"weights_dtype": "uint8"}):
        _, report = make(vit, Quantization("dynamic", ("Add",), **extra))
        assert (tmp_path / "quantized.onnx").read_bytes() == vit.path.read_bytes()
        assert report.digest == model_digest(vit.path)
        assert report.is_float_model
    assert "nothing was quantized: this is the float model" in report.notes
    assert "`Add` has no dynamic kernel: it stays in float32" in report.notes


def test_equal_models_have_equal_digests_and_others_not(vit, make):
    """`Add` beside `MatMul` changes nothing in a dynamic model; `per_channel` and `reduce_range` do."""
    digests = {}
    for name, how in {
        "matmul": Quantization("dynamic", ("MatMul",)),
        "add": Quantization("dynamic", ("Add", "MatMul")),
        "channel": Quantization("dynamic", ("Add", "MatMul"), per_channel=True),
        "range": Quantization("dynamic", ("Add", "MatMul"), reduce_range=True),
    }.items():
        _, report = make(vit, how)
        digests[name] = report.digest
    assert digests["matmul"] == digests["add"]
    assert len(set(digests.values())) == 3


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        (
            {"operators_to_quantize": ("Add",)},
            None,
            "`Add` has no dynamic kernel: nothing was quantized, this is the float model",
        ),
        (
            {"operators_to_quantize": ("Add",)},
            {"operators_to_quantize": ("Add",), "per_channel": True},
            "`Add` has no dynamic kernel: nothing was quantized, this is the float model",
        ),
        (
            {"operators_to_quantize": ("LSTM",)},
            None,
            "the graph has no `LSTM`: nothing was quantized, this is the float model",
        ),
        (
            {"operators_to_quantize": ("Gemm",)},
            None,
            "`Gemm` has no dynamic kernel: nothing was quantized, this is the float model",
        ),
        (
            {"operators_to_quantize": ("Add", "MatMul")},
            {"operators_to_quantize": ("MatMul",)},
            "`Add` has no dynamic kernel",
        ),
        (
            {"operators_to_quantize": ("Gemm", "MatMul")},
            {"operators_to_quantize": ("MatMul",)},
            "`Gemm` is quantized as `MatMul` already",
        ),
        (
            {"operators_to_quantize": ("Add", "Gemm", "MatMul"), "nodes_to_exclude": ("/classifier/Gemm",)},
            {"operators_to_quantize": ("MatMul",), "nodes_to_exclude": ("/classifier/Gemm",)},
            "`Gemm` is taken for `MatMul`; `Add` has no dynamic kernel",
        ),
        (
            {"operators_to_quantize": ("MatMul", "LSTM")},
            {"operators_to_quantize": ("MatMul",)},
            "`LSTM` is not in the graph",
        ),
        (
            {"operators_to_quantize": ("Conv",), "per_channel": True},
            {"operators_to_quantize": ("Conv",)},
            "per_channel changes nothing: no quantized operator has a scale per channel",
        ),
        (
            {"operators_to_quantize": ("MatMul",), "weights_dtype": "int8"},
            {"operators_to_quantize": ("MatMul",)},
            "weights_dtype is `int8` by default",
        ),
        (
            {"operators_to_quantize": ("MatMul",), "activations_dtype": "int8"},
            {"operators_to_quantize": ("MatMul",)},
            "activations_dtype changes nothing: dynamic activations are always uint8",
        ),
        (
            {"operators_to_quantize": ("MatMul",), "quant_format": "QDQ"},
            {"operators_to_quantize": ("MatMul",)},
            "quant_format changes nothing: it applies to static quantization only",
        ),
        (
            {"operators_to_quantize": ("MatMul",), "weights_symmetric": True},
            {"operators_to_quantize": ("MatMul",)},
            "weights_symmetric is `true` by default",
        ),
        (
            {"operators_to_quantize": ("MatMul",), "matmul_const_b_only": True},
            {"operators_to_quantize": ("MatMul",)},
            "matmul_const_b_only is `true` by default",
        ),
        (
            {"operators_to_quantize": ("MatMul",), "nodes_to_exclude": ("/vit/layers.0/Add",)},
            {"operators_to_quantize": ("MatMul",)},
            "the nodes excluded in only one of them would not have been quantized",
        ),
    ],
)
def test_the_reason_for_equal_models_is_explained(vit, make, a, b, words):
    """For each pair of configurations that give the same model, the parameter that changed nothing is named."""
    how_a = Quantization("dynamic", **a)
    _, report_a = make(vit, how_a)
    how_b, report_b, digest = None, None, model_digest(vit.path)
    if b is not None:
        how_b = Quantization("dynamic", **b)
        _, report_b = make(vit, how_b)
        digest = report_b.digest
    assert report_a.digest == digest
    assert why_same(report_a, how_a, report_b, how_b) == words
    assert why_same(report_b, how_b, report_a, how_a) == words


def test_parameters_of_weights_change_nothing_without_weights(tmp_path):
    """Where only activations are quantized, parameters of weights change nothing, and the report says so."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[2, 4] x, float[2, 4] z) => (float[2, 4] y) { y = Add(x, z) }"""
    )
    path = saved(model, tmp_path / "m.onnx")
    ranges = calibrated(path, [{"x": normal(2, 4), "z": normal(2, 4, seed=1)}], tmp_path)
    plain = Quantization("static", ("Add",))
    report = quantize_model(path, tmp_path / "q.onnx", plain, ranges)
    for name in ("per_channel", "reduce_range"):
        how = dataclasses.replace(plain, **{name: True})
        other = quantize_model(path, tmp_path / "q.onnx", how, ranges)
        assert other.digest == report.digest
        assert f"{name} changes nothing: no weight is quantized" in other.notes
        assert why_same(other, how, report, plain) == f"{name} changes nothing: no weight is quantized"


@pytest.mark.parametrize(
    ("extra", "differ", "words"),
    [
        ({}, {"calibration"}, "both calibrations give the same scales"),
        (
            {},
            {"calibration", "node_exclusion"},
            "both calibrations give the same scales; the same nodes are excluded",
        ),
        (
            {"weights_dtype": "int8"},
            {"calibration"},
            "weights_dtype is `int8` by default; both calibrations give the same scales",
        ),
        (
            {"nodes_to_exclude": ("/vit/layers.0/Add",)},
            {"node_exclusion"},
            "the nodes excluded in only one of them would not have been quantized",
        ),
    ],
)
def test_each_parameter_that_differs_has_its_reason(vit, make, extra, differ, words):
    """Calibrations that give the same scales are named beside parameters that change nothing, and exclusions once."""
    plain = Quantization("static", ("MatMul",))
    how = dataclasses.replace(plain, **extra)
    (_, one), (_, other) = make(vit, plain), make(vit, how)
    assert one.digest == other.digest
    assert why_same(other, how, one, plain, differ) == words


def test_what_was_not_quantized_needs_no_calibration(vit, make):
    """Where nothing was quantized, that is the reason, whatever the calibrations and exclusions are."""
    how = Quantization("static", ("LSTM",))
    _, report = make(vit, how)
    words = "the graph has no `LSTM`: nothing was quantized, this is the float model"
    assert why_same(report, how, report, how, {"calibration", "node_exclusion"}) == words
