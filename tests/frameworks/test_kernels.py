"""The kernels that a model comes to are read from the runtime's own notes."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_graphs import case, normal, saved, takes_ranges, written

from benchcard.errors import ArtifactError
from benchcard.frameworks.kernels import Kernel, operators, partly_fused, read_kernels
from benchcard.frameworks.onnxruntime import OnnxRuntime
from benchcard.graphs.runtime import session_options
from benchcard.quantization.quantize import quantize_model
from benchcard.quantization.settings import Quantization


def call(start, *events):
    """The notes of one call: what each kernel is given, and how long it takes."""
    notes, now = [], start
    for place, (name, took, *types) in enumerate(events):
        given = {"op_name": name, "input_type_shape": [{kind: [2, 3]} for kind in types]}
        notes.append({"cat": "Node", "name": f"n{place}/{name}_kernel_time", "ts": now, "dur": took, "args": given})
        notes.append({"cat": "Node", "name": f"n/{name}_fence_after", "ts": now, "dur": 0, "args": {"op_name": name}})
        now += took
    return [*notes, {"cat": "Session", "name": "model_run", "ts": start, "dur": now - start, "args": {}}]


def profile(path, *calls):
    """A file of notes, whose calls follow each other."""
    loading = {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 900, "args": {}}
    path.write_text(json.dumps([loading, *(event for each in calls for event in each)]))
    return path


def test_kernels_are_told_by_numbers_and_share_of_time(tmp_path):
    """The first call is left out of the shares; a node that only moves 8 bits computes nothing; nodes that hold others
    are not counted beside them.
    """
    late = [
        ("DynamicQuantizeLinear", 10, "float"),
        ("MatMulIntegerToFloat", 50, "uint8", "float", "int8"),
        ("Reshape", 5, "uint8", "int64"),
        ("MatMul", 20, "float", "float"),
        ("MatMul", 10, "float16", "float16"),
        ("MatMulNBits", 2, "float", "uint8"),
        ("Concat", 1, "int64"),
        ("Mul", 2, "int64"),
        ("If", 500, "bool"),
    ]
    first = [(name, 1000, *types) for name, _, *types in late]
    assert read_kernels(profile(tmp_path / "p.json", call(1000, *first), call(20_000, *late), call(30_000, *late))) == (
        Kernel("MatMulIntegerToFloat", "8 bits", 1, 0.50),
        Kernel("MatMul", "float", 2, 0.30),
        Kernel("DynamicQuantizeLinear", "conversion", 1, 0.10),
        Kernel("Reshape", "other", 1, 0.05),
        Kernel("MatMulNBits", "float", 1, 0.02),
        Kernel("Mul", "other", 1, 0.02),
        Kernel("Concat", "other", 1, 0.01),
    )
    looped = {**call(0, ("Add", 5, "float"))[0], "ts": 2}
    (once,) = read_kernels(profile(tmp_path / "p.json", call(0, ("Add", 5, "float")), [looped]))
    assert once.nodes == 1
    only = read_kernels(profile(tmp_path / "p.json", call(0, ("Add", 0, "float"))))
    assert only == (Kernel("Add", "float", 1, 0.0),)
    assert read_kernels(profile(tmp_path / "p.json")) == ()


@pytest.mark.parametrize("calls", [2, 3, 5, 10])
def test_a_call_that_was_stopped_changes_no_share(calls, tmp_path):
    """What a busy machine takes from one call, for longer than the call lasts, is no kernel's time."""
    usual = [("MatMul", 60, "float"), ("Add", 20, "float"), ("Softmax", 10, "float"), ("Softmax", 10, "float")]
    stopped = [usual[0], ("Add", 9000, "float"), *usual[2:]]
    notes = [call(20_000 * place, *(stopped if place == 1 else usual)) for place in range(calls + 1)]
    assert read_kernels(profile(tmp_path / "p.json", *notes)) == (
        Kernel("MatMul", "float", 1, 0.6),
        Kernel("Add", "float", 1, 0.2),
        Kernel("Softmax", "float", 2, 0.2),
    )


def test_a_node_in_a_loop_takes_what_all_its_turns_take(tmp_path):
    """Turns of one call are added, and calls are not."""
    notes = []
    for start in (0, 1000, 2000):
        *turns, whole = call(start, *[("Add", 10, "float")] * 3, ("Mul", 10, "float"))
        notes.append(
            [*({**turn, "name": turn["name"].replace("1/", "0/").replace("2/", "0/")} for turn in turns), whole]
        )
    found = read_kernels(profile(tmp_path / "p.json", *notes))
    assert found == (Kernel("Add", "float", 1, 0.75), Kernel("Mul", "float", 1, 0.25))


@pytest.mark.parametrize(("seconds", "called"), [(60.0, 5), (0.0, 3)])
def test_a_short_call_is_noted_more_often(seconds, called, tmp_path, monkeypatch):
    """A call is noted four times beside the first where that takes no time, and twice where it takes long."""
    monkeypatch.setattr("benchcard.frameworks.kernels._PROFILED_S", seconds)
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[B, 4] x) => (float[B, 4] y) { y = MatMul(x, w) }""",
        {"w": np.eye(4, dtype=np.float32)},
    )
    opened = OnnxRuntime().open_profiled(saved(model, tmp_path / "m.onnx"), {})
    run, calls = opened.run, []
    monkeypatch.setattr(opened, "run", lambda prepared: calls.append(1) or run(prepared))
    assert [kernel.name for kernel in opened.kernels({"x": normal(1, 4)})] == ["MatMul"]
    assert len(calls) == called


@pytest.mark.parametrize("text", ["", "[", '[{"name": "a"b"}]'])
def test_notes_that_cannot_be_read_tell_nothing(text, tmp_path):
    """The runtime writes names of nodes as they are, quotation marks too; that costs the reasons and not the row."""
    assert read_kernels(tmp_path / "p.json") == ()
    (tmp_path / "p.json").write_text(text)
    assert read_kernels(tmp_path / "p.json") == ()


@pytest.mark.parametrize(
    ("kernel", "of"),
    [
        ("Softmax", ("Softmax",)),
        ("QLinearAdd", ("Add",)),
        ("QLinearMatMul", ("MatMul",)),
        ("MatMulIntegerToFloat", ("MatMul", "Gemm")),
        ("DynamicQuantizeMatMul", ("MatMul", "Gemm")),
        ("QGemm", ("Gemm", "MatMul")),
        ("ConvInteger", ("Conv",)),
        ("DynamicQuantizeLSTM", ("LSTM",)),
        ("FusedMatMul", ("MatMul", "Gemm")),
        ("NhwcMaxPool", ("MaxPool",)),
    ],
)
def test_a_kernel_is_one_of_operators(kernel, of):
    """Names that the runtime made for joined nodes are those of the operators that they do the work of."""
    assert operators(kernel) == of


@takes_ranges
@pytest.mark.parametrize(
    ("how", "from_level"),
    [
        (Quantization("static", ("Conv",)), 2),
        (Quantization("static", ("Conv",), quant_format="QOperator"), 0),
        (Quantization("dynamic", ("MatMul",)), 0),
    ],
)
def test_the_runtime_computes_in_8_bits_from_this_level_on(how, from_level, tmp_path):
    """Pairs of conversions are joined with the nodes between them by the extended optimizations, and by no others. What
    a session says of its kernels is what stands in the graph that it keeps.
    """
    model = case("resnet" if how.approach == "static" else "vit", 13, tmp_path)
    quantize_model(model.path, tmp_path / "q.onnx", how, model.ranges)
    for level in (0, 1, 2, 99):
        arguments = {"optimization_level": level, "intra_op_num_threads": 1}
        opened = OnnxRuntime().open_profiled(tmp_path / "q.onnx", arguments)
        found = opened.kernels(model.feeds[0])
        options = session_options(arguments)
        options.optimized_model_filepath = str(tmp_path / f"{level}.onnx")
        onnxruntime.InferenceSession(str(tmp_path / "q.onnx"), options, providers=["CPUExecutionProvider"])
        kept = Counter(node.op_type for node in onnx.load(tmp_path / f"{level}.onnx").graph.node)
        run = Counter({kernel.name: 0 for kernel in found})
        for kernel in found:
            run[kernel.name] += kernel.nodes
        assert run == kept
        in_8_bits = {kernel.name for kernel in found if kernel.numbers == "8 bits"}
        assert in_8_bits == {
            name for name in kept if name.startswith(("QLinear", "DynamicQuantizeMatMul")) or "Integer" in name
        }
        assert bool(in_8_bits) == (level >= from_level)
        assert sum(kernel.time_share for kernel in found) == pytest.approx(1)


def test_notes_are_taken_once_and_leave_no_file(tmp_path, monkeypatch):
    """What was asked once is not noted any more; nothing is left behind, also of a graph that cannot be loaded."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[B, 4] x) => (float[B, 4] y) { y = MatMul(x, w) }""",
        {"w": np.eye(4, dtype=np.float32)},
    )
    opened = OnnxRuntime().open_profiled(saved(model, tmp_path / "m.onnx"), {})
    inputs = {"x": normal(1, 4)}
    assert opened.kernels(inputs) == (Kernel("MatMul", "float", 1, pytest.approx(1)),)
    assert opened.kernels(inputs) == ()
    assert OnnxRuntime().open(tmp_path / "m.onnx", {}).kernels(inputs) == ()
    (tmp_path / "no.onnx").write_text("no model")
    with pytest.raises(ArtifactError, match=r"no\.onnx"):
        OnnxRuntime().open_profiled(tmp_path / "no.onnx", {})
    assert list((tmp_path / "temporary").iterdir()) == []


@takes_ranges
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_more_nodes_compute_in_8_bits_where_activations_are_uint8(name, tmp_path):
    """What is told to be tried, where nodes that could be joined compute in float32, does help; it is told on x86, and
    int8 is as good elsewhere.
    """
    model, found, partly = case(name, 17, tmp_path), {}, {}
    for dtype in ("int8", "uint8"):
        how = Quantization("static", ("Add", "Conv", "Gemm", "MatMul"), activations_dtype=dtype)
        report = quantize_model(model.path, tmp_path / "q.onnx", how, model.ranges)
        run = OnnxRuntime().open_profiled(tmp_path / "q.onnx", {"intra_op_num_threads": 1}).kernels(model.feeds[0])
        found[dtype] = sum(kernel.nodes for kernel in run if kernel.numbers == "8 bits")
        quantized = {each.operator: each.quantized for each in report.operators if each.quantized}
        partly[dtype] = sum(all_ - some for _, some, all_ in partly_fused(run, quantized))
    assert bool(partly["int8"]) == (found["uint8"] > found["int8"])
    assert not partly["uint8"]
