"""Nodes that ONNX Runtime's quantizer would get wrong are excluded, and the outputs stay close to float32."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from tiny_graphs import calibrated, check_runs, normal, saved, written

from benchcard.graphs.graph import load_graph
from benchcard.quantization.operators import FloatReason, quantized_nodes
from benchcard.quantization.quantize import quantize_model
from benchcard.quantization.settings import Quantization

LAYOUTS = {
    "dynamic": Quantization("dynamic"),
    "QDQ": Quantization("static", activations_dtype="uint8"),
    "QOperator": Quantization("static", activations_dtype="uint8", quant_format="QOperator"),
}


@pytest.fixture(params=LAYOUTS)
def how(request):
    """A quantization of each layout."""
    return LAYOUTS[request.param]


def quantized(path, feed, how, folder):
    """Return the report of a quantization, and the signal-to-noise ratio of each output in dB."""
    ranges = calibrated(path, [feed], folder) if how.approach == "static" else None
    report = quantize_model(path, folder / "q.onnx", how, ranges)
    check_runs(folder / "q.onnx", feed)
    pairs = zip(*(outputs(each, feed) for each in (path, folder / "q.onnx")), strict=True)
    return report, [float(10 * np.log10((a**2).sum() / max(((a - b) ** 2).sum(), 1e-30))) for a, b in pairs]


def outputs(path, feed):
    """Return the outputs of a model."""
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)


@pytest.mark.parametrize("branch", ["h", "r"])
def test_what_a_branch_reads_is_what_the_float_graph_gives(tmp_path, how, branch):
    """A branch of an `If` that reads the output or the input of a `Relu` gets that tensor and not the other."""
    model = written(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[B, 32] x, bool c) => (float[B, 4] y, float[B, 4] z) {{
            m = MatMul(x, w) [add] h = Add(m, b) [relu] r = Relu(h) z = MatMul(r, v)
            y = If(c) <then_branch = then () => (float[B, 4] t) {{ t = MatMul({branch}, v) }},
                       else_branch = other () => (float[B, 4] e) {{ e = MatMul(h, v) }}>
        }}""",
        {"w": normal(32, 16), "b": normal(16), "v": normal(16, 4, seed=1)},
    )
    path = saved(model, tmp_path / "m.onnx")
    assert load_graph(path).captured == {"h", branch, "v"}
    assert [node.op_type for node in load_graph(path).readers("h")] == ["Relu", "If"]
    for condition in (True, False):
        report, ratios = quantized(path, {"x": normal(4, 32), "c": np.array(condition)}, how, tmp_path)
        assert report.nodes_quantized == len(quantized_nodes(path, how)) > 0
        assert min(ratios) > 25
    kept = {} if how.approach == "dynamic" else {"QDQ": {"Relu"}, "QOperator": {"Relu", "Add"}}[how.layout]
    noted = {note.split("`")[1] for note in report.notes if FloatReason.CAPTURED in note}
    assert noted == (set(kept) if branch == "r" else set(kept) - ({"Relu"} if how.layout == "QOperator" else set()))


def test_a_table_that_a_branch_reads_is_kept_in_float(tmp_path, how):
    """A `Gather` whose output a branch reads stays in float32: in 8 bits, the branch would have no input."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (int64[B] i, bool c) => (float[B, 16] y, float[B, 4] z) {
            e = Gather(table, i) z = MatMul(e, v)
            y = If(c) <then_branch = then () => (float[B, 16] t) { t = Identity(e) },
                       else_branch = other () => (float[B, 16] s) { s = Add(e, e) }>
        }""",
        {"table": normal(20, 16), "v": normal(16, 4, seed=1)},
    )
    report, ratios = quantized(
        saved(model, tmp_path / "m.onnx"), {"i": np.arange(4), "c": np.array(True)}, how, tmp_path
    )
    assert report.nodes_quantized == (2 if how.layout == "QDQ" else 1)
    assert min(ratios) > 25


def test_names_inside_a_loop_hide_those_outside(tmp_path):
    """Tensors that a subgraph computes or has as inputs are not captured from the enclosing graph."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[B, 4] x, int64 n, bool c) => (float[B, 4] y) {
            y = Loop(n, c, x) <body = b (int64 i, bool go, float[B, 4] a) => (bool on, float[B, 4] d) {
                on = Identity(go) h = MatMul(a, w) d = Relu(h) }>
        }""",
        {"w": normal(4, 4)},
    )
    assert load_graph(saved(model, tmp_path / "m.onnx")).captured == {"w"}


def test_float64_is_reported_as_such(tmp_path, how):
    """A layer of double precision is reported to stay in float64, and not in float32."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (double[B, 4] x) => (double[B, 4] y) { y = MatMul(x, w) }""",
        {"w": normal(4, 4).astype(np.float64)},
    )
    path = saved(model, tmp_path / "m.onnx")
    ranges = calibrated(path, [{"x": np.ones((2, 4))}], tmp_path) if how.approach == "static" else None
    notes = quantize_model(path, tmp_path / "q.onnx", how, ranges).notes
    assert "1 of 1 `MatMul` stays in float64: only float32 and float16 are quantized" in notes


@pytest.mark.parametrize("also", ["float[B, 16] h", "float[B, 4] z"])
def test_a_relu_whose_input_others_read_is_no_range_of_theirs(tmp_path, how, also):
    """Negative numbers that another layer reads, or that are an output, are neither cut nor let through the `Relu`."""
    model = written(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[B, 32] x) => (float[B, 4] y, {also}) {{
            h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) {"z = MatMul(h, u)" if "z" in also else ""}
        }}""",
        {"w": normal(32, 16), "v": normal(16, 4, seed=1), "u": normal(16, 4, seed=2)},
    )
    path = saved(model, tmp_path / "m.onnx")
    report, ratios = quantized(path, {"x": normal(4, 32)}, how, tmp_path)
    assert report.nodes_quantized == len(quantized_nodes(path, how))
    assert min(ratios) > 25
