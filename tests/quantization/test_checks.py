"""What cannot be quantized is refused with a reason and a remedy, and never becomes a wrong model."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import tiny_graphs
from onnx import TensorProto
from tiny_graphs import calibrated, check_runs, normal, saved, written

from benchcard.errors import ArtifactError
from benchcard.quantization import checks
from benchcard.quantization.operators import known_operators
from benchcard.quantization.quantize import quantize_model
from benchcard.quantization.settings import Quantization


def kinds(model):
    return [node.op_type for node in model.graph.node]


def test_stale_types_of_weights_do_not_stop_dynamic_quantization(tmp_path):
    """A second, contradicting type that an exporter wrote for a weight is removed."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]> g (float[B, 4] x) => (float[B, 4] y) { y = MatMul(x, w) }""",
        {"w": normal(4, 4)},
    )
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("w", TensorProto.FLOAT, [7, 7, 7]))
    report = quantize_model(saved(model, tmp_path / "m.onnx"), tmp_path / "q.onnx", Quantization("dynamic"))
    assert report.nodes_quantized == 1


def test_the_standard_attention_is_kept_from_dynamic_quantization(tmp_path):
    """The quantizer mistakes the `Attention` of opset 23 for another one; it stays in float32, and a note says so."""
    model = written(
        """<ir_version: 10, opset_import: ["" : 23]>
        g (float[1, 2, 3, 4] x) => (float[1, 2, 3, 4] y) { h = MatMul(x, w) y = Attention(h, h, h) }""",
        {"w": normal(4, 4)},
    )
    report = quantize_model(saved(model, tmp_path / "m.onnx"), tmp_path / "q.onnx", Quantization("dynamic"))
    assert kinds(onnx.load(tmp_path / "q.onnx")).count("Attention") == 1
    assert any(note.startswith("1 `Attention` stays in float32") for note in report.notes)
    check_runs(tmp_path / "q.onnx", {"x": normal(1, 2, 3, 4)})


def test_known_operators_are_those_of_the_runtime():
    """The registries of ONNX Runtime are read, per approach."""
    assert {"MatMul", "Conv", "Gather", "LSTM"} <= set(known_operators("dynamic"))
    assert "Add" not in known_operators("dynamic")
    assert {"Add", "LayerNormalization", "Softmax"} <= set(known_operators("static"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (Quantization("static", ("MatMull",)), r"no operator `MatMull` \(did you mean `MatMul`\?\).* It knows `Add`, "),
        (Quantization("static", weights_dtype="uint8"), "Use uint8 activations or int8 weights"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "how",
)
def test_unsupported_parameters_are_refused(vit, make, how, message):
    """Each message names the known values, a near miss, or a remedy."""
    with pytest.raises(ArtifactError, match=message):
        make(vit, how)


@tiny_graphs.takes_ranges
def test_missing_and_non_finite_ranges_are_refused(vit, make):
    """Static quantization without ranges, with too few, or with a NaN range says what to do."""
    from onnxruntime.quantization.calibrate import TensorData, TensorsData

    how = Quantization("static", ("MatMul",))
    with pytest.raises(ArtifactError, match="needs the ranges"):
        make(dataclasses.replace(vit, ranges=None), how)
    full = dict(vit.ranges.data)
    name = next(tensor for tensor in full if tensor.endswith("MatMul_output_0"))
    fewer = {tensor: value for tensor, value in full.items() if tensor != name}
    with pytest.raises(ArtifactError, match="no range for 1 of"):
        make(dataclasses.replace(vit, ranges=TensorsData(vit.ranges.calibration_method, fewer)), how)
    full[name] = TensorData(lowest=np.float32(-1), highest=np.float32("nan"))
    with pytest.raises(ArtifactError, match=r"NaN or infinite values on the calibration samples.*MatMul"):
        make(dataclasses.replace(vit, ranges=TensorsData(vit.ranges.calibration_method, full)), how)


def test_a_scale_that_is_not_finite_is_refused():
    """Versions that subtract in float32 give the range of a mask an infinite scale: such a model is refused."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[4] x) => (uint8[4] y) { y = QuantizeLinear(x, mask_scale, zero) }""",
        {"mask_scale": np.float32("inf"), "zero": np.uint8(0)},
    )
    with pytest.raises(ArtifactError, match="The range of `mask` is too wide for a scale"):
        checks.check_finite_scales(model)


def test_the_caller_s_ranges_are_left_as_they_are(vit, make):
    """The quantizer changes its ranges (a `Softmax` is set to 0 to 1), but not those of the caller."""
    before = {name: value.range_value for name, value in vit.ranges.data.items()}
    make(vit, Quantization("static", ("MatMul", "Softmax")))
    assert {name: value.range_value for name, value in vit.ranges.data.items()} == before


def test_a_file_that_is_not_a_model_is_refused(tmp_path):
    """A missing file, an empty one, and one in another format are each refused with a reason."""
    how = Quantization("dynamic")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_text("no model at all")
    for name in ("absent.onnx", "empty.onnx", "text.onnx"):
        with pytest.raises(ArtifactError, match=name):
            quantize_model(tmp_path / name, tmp_path / "q.onnx", how)
    assert not (tmp_path / "q.onnx").exists()


def test_a_graph_that_the_format_cannot_write_is_refused_with_a_remedy(tmp_path):
    """In the format QOperator a `Where` after a quantized layer has no 8-bit form; the message says what to use."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[2, 4] x, bool[2, 4] c) => (float[2, 4] y) { [mm] h = MatMul(x, w) y = Where(c, x, h) }""",
        {"w": normal(4, 4)},
    )
    path = saved(model, tmp_path / "m.onnx")
    ranges = calibrated(path, [{"x": normal(2, 4), "c": np.ones((2, 4), bool)}], tmp_path)
    how = Quantization("static", ("MatMul",), quant_format="QOperator", activations_dtype="uint8")
    with pytest.raises(ArtifactError, match=r"no form for `Where` after `mm`\. Use `quant_format: QDQ`"):
        quantize_model(path, tmp_path / "q.onnx", how, ranges)
    assert (
        quantize_model(path, tmp_path / "q.onnx", dataclasses.replace(how, quant_format="QDQ"), ranges).nodes_quantized
        == 1
    )


def test_a_bias_that_is_computed_is_refused_with_a_remedy(tmp_path):
    """The format QOperator needs a bias stored as a weight, and exporters write equal weights as copies of one."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[1, 2, 4, 4] x) => (float[1, 3, 2, 2] y) { c = Identity(b) [conv] y = Conv(x, w, c) }""",
        {"w": normal(3, 2, 3, 3), "b": normal(3)},
    )
    path = saved(model, tmp_path / "m.onnx")
    ranges = calibrated(path, [{"x": normal(1, 2, 4, 4)}], tmp_path)
    how = Quantization("static", ("Conv",), quant_format="QOperator", activations_dtype="uint8")
    with pytest.raises(ArtifactError, match=r"The bias of `conv` is computed, not stored\. Use `quant_format: QDQ`"):
        quantize_model(path, tmp_path / "q.onnx", how, ranges)
    assert (
        quantize_model(path, tmp_path / "q.onnx", dataclasses.replace(how, quant_format="QDQ"), ranges).nodes_quantized
        == 1
    )


def test_a_refusal_of_the_quantizer_names_its_reason(tmp_path):
    """A bias that is not constant stops the dynamic quantizer at a `Conv`; the error has its message."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[1, 2, 4, 4] x, float[3, 2, 3, 3] w, float[3] b) => (float[1, 3, 2, 2] y) { y = Conv(x, w, b) }"""
    )
    with pytest.raises(ArtifactError, match=r"refused the graph \(dynamic, Conv\): Expected w to be an initializer"):
        quantize_model(saved(model, tmp_path / "m.onnx"), tmp_path / "q.onnx", Quantization("dynamic", ("Conv",)))


@pytest.mark.parametrize(
    ("nodes", "left", "count"),
    [
        ("[g] h = Gemm(x, w, b) [a] y = Add(h, b)", "g", 2),
        ("h = MatMul(x, w) k = Add(h, b) [g] y = Gemm(k, v, b)", "g", 2),
        ("[f] h = Gemm(x, w, b) [g] y = Gemm(h, v, b)", "g", 2),
    ],
)
def test_a_bias_that_two_nodes_share_is_refused_with_a_remedy(tmp_path, nodes, left, count):
    """The format QOperator stores one form of a weight, which fits one of two scales; each named remedy works."""
    model = written(
        f"""<ir_version: 8, opset_import: ["" : 13]> g (float[2, 4] x) => (float[2, 4] y) {{ {nodes} }}""",
        {"w": normal(4, 4), "v": normal(4, 4, seed=1), "b": normal(4)},
    )
    path, feed = saved(model, tmp_path / "m.onnx"), {"x": normal(2, 4)}
    ranges = calibrated(path, [feed], tmp_path)
    how = Quantization("static", quant_format="QOperator", activations_dtype="uint8")
    with pytest.raises(ArtifactError, match=f"`b`.* read by {count} .* Use `quant_format: QDQ`, or exclude `{left}`"):
        quantize_model(path, tmp_path / "q.onnx", how, ranges)
    for way in (dataclasses.replace(how, quant_format="QDQ"), dataclasses.replace(how, nodes_to_exclude=(left,))):
        quantize_model(path, tmp_path / "q.onnx", way, ranges)
        check_runs(tmp_path / "q.onnx", feed)


def test_biases_of_zeros_may_be_shared(tmp_path):
    """Zeros have the same form at any scale, and untrained biases are one weight in an exported graph."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[2, 4] x) => (float[2, 4] y) { h = Gemm(x, w, b) y = Gemm(h, v, b) }""",
        {"w": normal(4, 4), "v": normal(4, 4, seed=1), "b": np.zeros(4, np.float32)},
    )
    path, feed = saved(model, tmp_path / "m.onnx"), {"x": normal(2, 4)}
    how = Quantization("static", quant_format="QOperator", activations_dtype="uint8")
    assert quantize_model(path, tmp_path / "q.onnx", how, calibrated(path, [feed], tmp_path)).nodes_quantized == 2
    check_runs(tmp_path / "q.onnx", feed)


@pytest.mark.parametrize("came", ["dynamic", "QDQ", "QOperator"])
@pytest.mark.parametrize("layout", ["dynamic", "QDQ", "QOperator"])
def test_a_quantized_graph_is_recognized(tmp_path, came, layout):
    """Quantized again, it either runs or is refused as a quantized graph, and never reported as a float model."""
    ways = {
        "dynamic": Quantization("dynamic"),
        "QDQ": Quantization("static", activations_dtype="uint8"),
        "QOperator": Quantization("static", quant_format="QOperator", activations_dtype="uint8"),
    }
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[2, 4] x) => (float[2, 4] y) { h = MatMul(x, w) a = Add(h, b) r = Relu(a) y = MatMul(r, v) }""",
        {"w": normal(4, 4), "v": normal(4, 4, seed=1), "b": normal(4)},
    )
    path, feed = saved(model, tmp_path / "m.onnx"), {"x": normal(2, 4)}
    given = tmp_path / "given.onnx"
    quantize_model(path, given, ways[came], calibrated(path, [feed], tmp_path))
    ranges = calibrated(given, [feed], tmp_path)
    if (came, layout) == ("dynamic", "QOperator"):
        assert quantize_model(given, tmp_path / "q.onnx", ways[layout], ranges).nodes_quantized
        check_runs(tmp_path / "q.onnx", feed)
        return
    message = r"The graph is quantized already, with .*: run it as it is \(`apply_quantization: false`\), or give"
    with pytest.raises(ArtifactError, match=message):
        quantize_model(given, tmp_path / "q.onnx", ways[layout], ranges)
    assert not (tmp_path / "q.onnx").exists()


def test_the_remedy_for_an_error_without_a_message_speaks_of_no_node(tmp_path, monkeypatch):
    """Where the quantizer gives no message, the remedy does not refer to a node that the message names."""

    def refuse(model, *arguments, **options):
        raise AssertionError

    model = written(
        """<ir_version: 8, opset_import: ["" : 13]> g (float[2, 4] x) => (float[2, 4] y) { y = MatMul(x, w) }""",
        {"w": normal(4, 4)},
    )
    path = saved(model, tmp_path / "m.onnx")
    monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", refuse)
    with pytest.raises(
        ArtifactError, match=r"AssertionError\. The message names no node: use fewer `operators_to_quantize`"
    ):
        quantize_model(path, tmp_path / "q.onnx", Quantization("dynamic"))

    def fail(model, *arguments, **options):
        raise ValueError(f"cannot read {model}")

    monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", fail)
    with pytest.raises(ArtifactError, match=r": cannot read float\.onnx\. Exclude"):
        quantize_model(path, tmp_path / "q.onnx", Quantization("dynamic"))
