"""Where ONNX Runtime cannot load or run a model, the error names the operator, the node and the reason."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnxruntime
import pytest
from tiny_graphs import calibrated, check_runs, normal, saved, written

from benchcard.errors import ArtifactError
from benchcard.quantization.loading import check_loads, loading_note
from benchcard.quantization.quantize import quantize_model
from benchcard.quantization.settings import Quantization


def test_the_error_on_a_missing_kernel_names_operator_and_node(tmp_path):
    """A `Conv` of double precision has no kernel on the CPU, as `ConvInteger` has none on some; the node is named."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (double[1, 1, 4, 4] x, double[1, 1, 3, 3] w) => (double[1, 1, 2, 2] y) { [conv_quant] y = Conv(x, w) }"""
    )
    with pytest.raises(ArtifactError, match=r"no kernel for `Conv` \(opset 11\) .* Exclude the node `conv`"):
        check_loads(saved(model, tmp_path / "m.onnx"))


def test_the_error_on_a_missing_integer_convolution_has_a_remedy(tmp_path, monkeypatch):
    """Versions without a kernel for `ConvInteger` of signed weights raise this error; later ones have the kernel."""
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as Missing

    def session(*arguments, **options):
        raise Missing(
            "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for ConvInteger(10) node with "
            "name '/embeddings/Conv_quant'"
        )

    monkeypatch.setattr("onnxruntime.InferenceSession", session)
    with pytest.raises(
        ArtifactError, match=r"no kernel for `ConvInteger` \(opset 10\) .* Exclude the node `/embeddings/Conv`.*: uint8"
    ):
        check_loads(tmp_path / "m.onnx")


def test_a_file_that_is_no_model_is_named(tmp_path):
    """A model that can be loaded has no note, and the error on another file has its name."""
    model = written("""<ir_version: 8, opset_import: ["" : 13]> g (float[4] x) => (float[4] y) { y = Relu(x) }""")
    assert loading_note(saved(model, tmp_path / "m.onnx")) == ""
    (tmp_path / "no.onnx").write_text("no model")
    with pytest.raises(ArtifactError, match=r"cannot run no\.onnx: .*INVALID_PROTOBUF"):
        check_loads(tmp_path / "no.onnx")


def test_a_model_that_only_later_optimizations_break_is_noted_with_a_remedy(tmp_path, monkeypatch):
    """At opset 21 versions 1.23 to 1.32 move int8 pairs through a `Transpose` wrongly: without that the model loads."""
    model = written(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[2, 2] x) => (float[2, 2] y) {
            a = Transpose<perm = [1, 0]>(x)
            q = QuantizeLinear<output_dtype = 3>(a, s, z) b = DequantizeLinear(q, s, z)
            y = Add(b, b)
        }""",
        {"s": np.float32(0.1), "z": np.int8(0)},
    )
    path = saved(model, tmp_path / "m.onnx")
    real = onnxruntime.InferenceSession

    def session(name, options, **more):
        if options.graph_optimization_level.value > 1:
            raise RuntimeError("Node (x_q) Op (QuantizeLinear) output_dtype INT8 does not match y_zero_point UINT8.")
        return real(name, options, **more)

    monkeypatch.setattr("onnxruntime.InferenceSession", session)
    assert "`optimization_level` of 0 or 1 only" in loading_note(path)
    with pytest.raises(ArtifactError, match="Use `activations_dtype: uint8`, an `opset` of at most 20"):
        check_loads(path)
    (tmp_path / "no.onnx").write_text("no model")
    with pytest.raises(ArtifactError, match=r"no\.onnx"):
        loading_note(tmp_path / "no.onnx")


def half(opset, nodes):
    """A graph of float16 between two conversions, with weights `w` and `b`."""
    return written(
        f"""<ir_version: 9, opset_import: ["" : {opset}]>
        g (float[2, 4] x) => (float[2, 4] y) {{ h = Cast<to = 10>(x) {nodes} y = Cast<to = 1>(k) }}""",
        {"w": normal(4, 4).astype(np.float16), "b": normal(4).astype(np.float16)},
    )


def test_the_error_on_float16_says_how_it_can_be_quantized(tmp_path):
    """Static QDQ from opset 19 on works; every other error says so, without the folder of the model."""
    ways = {
        layout: Quantization(*asked, activations_dtype="uint8")
        for layout, asked in {"dynamic": ("dynamic",), "QDQ": ("static",)}.items()
    }
    ways["QOperator"] = dataclasses.replace(ways["QDQ"], quant_format="QOperator")
    for opset in (17, 19):
        path = saved(half(opset, "m = MatMul(h, w) k = Add(m, b)"), tmp_path / "m.onnx")
        ranges = calibrated(path, [{"x": normal(2, 4)}], tmp_path)
        for layout, how in ways.items():
            quantize_model(path, tmp_path / "q.onnx", how, ranges)
            if (opset, layout) == (19, "QDQ"):
                check_runs(tmp_path / "q.onnx", {"x": normal(2, 4)})
                continue
            with pytest.raises(ArtifactError, match="in the format QDQ and at opset 19 or later") as error:
                check_loads(tmp_path / "q.onnx")
            assert str(tmp_path) not in str(error.value)


def test_the_error_on_a_float16_softmax_says_to_leave_it_out(tmp_path):
    """The quantizer gives its output a scale of float32; without it the same graph runs."""
    path = saved(half(21, "m = MatMul(h, w) s = Softmax(m) k = Add(s, b)"), tmp_path / "m.onnx")
    ranges = calibrated(path, [{"x": normal(2, 4)}], tmp_path)
    how = Quantization("static", activations_dtype="uint8")
    quantize_model(path, tmp_path / "q.onnx", how, ranges)
    with pytest.raises(ArtifactError, match=r"The scale of `s` is float32.*Leave `Softmax` out"):
        check_loads(tmp_path / "q.onnx")
    quantize_model(path, tmp_path / "q.onnx", dataclasses.replace(how, operators_to_quantize=("MatMul", "Add")), ranges)
    check_runs(tmp_path / "q.onnx", {"x": normal(2, 4)})
