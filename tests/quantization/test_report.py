"""The report and the files describe the quantized model as it was written."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import tiny_graphs
from tiny_graphs import check_runs, samples

from benchcard.graphs.files import load_clean_model, model_digest, model_files
from benchcard.graphs.graph import graph_of
from benchcard.quantization.operators import float_reasons
from benchcard.quantization.settings import Quantization


def kinds(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("case", ["vit", "resnet", "bert"], indirect=True)
def test_what_would_be_quantized_is_what_is(case, make):
    """The nodes that the rules predict from the graph alone are those that the quantizer quantizes."""
    graph = graph_of(load_clean_model(case.path))
    residual = tuple(name for name in graph.nodes if name.endswith(("/Add", "/MatMul")))
    ways = [
        Quantization("dynamic"),
        Quantization("dynamic", matmul_const_b_only=False),
        Quantization("static"),
        Quantization("static", matmul_const_b_only=True),
        Quantization("static", nodes_to_exclude=residual),
        Quantization("static", ("MatMul", "Reshape", "Transpose", "Relu", "Softmax")),
        Quantization("static", activations_symmetric=True),
        Quantization("static", quant_format="QOperator", activations_dtype="uint8"),
        Quantization("weight_only"),
        Quantization("weight_only", ("Gemm", "MatMul"), nodes_to_exclude=residual, algorithm="k_quant"),
    ]
    for how in ways:
        _, report = make(case, how)
        expected = {}
        for name, reason in float_reasons(graph, how).items():
            operator = graph.nodes[name].op_type
            expected[operator] = expected.get(operator, 0) + (reason is None)
        assert {each.operator: each.quantized for each in report.operators} == expected, how
        assert report.nodes_quantized == sum(expected.values())
        assert not any("the reason is unknown" in note for note in report.notes)


def test_the_report_counts_what_stands_in_the_graph(resnet, make, tmp_path):
    """Pairs, weights and sizes in the report are those of the written file, and the report is plain data."""
    model, report = make(resnet, Quantization("static", ("Conv", "Relu", "Add")))
    assert report.quantize_nodes == kinds(model).count("QuantizeLinear")
    assert report.dequantize_nodes == kinds(model).count("DequantizeLinear")
    assert report.dynamic_quantize_nodes == 0
    assert report.weights_quantized == 8
    assert report.size_bytes == (tmp_path / "quantized.onnx").stat().st_size
    assert report.digest == model_digest(tmp_path / "quantized.onnx")
    assert (report.nodes_quantized, report.nodes_eligible) == (18, 18)
    assert json.loads(json.dumps(dataclasses.asdict(report)))["digest"] == report.digest
    _, dynamic = make(resnet, Quantization("dynamic", ("Conv",)))
    # The two that read the input of the projected block share one.
    assert dynamic.dynamic_quantize_nodes == 7


@tiny_graphs.takes_ranges
def test_two_processes_write_the_same_bytes(vit, tmp_path):
    """The order of sets, which differs between processes, does not show in the file."""
    code = (
        "import sys; from pathlib import Path; from onnxruntime.quantization.calibrate import load_tensors_data;"
        "from benchcard.quantization.quantize import Quantization, quantize_model;"
        "settings = Quantization('static', activations_dtype='uint8', per_channel=True);"
        "ranges = load_tensors_data(Path(sys.argv[3]));"
        "print(quantize_model(Path(sys.argv[1]), Path(sys.argv[2]), settings, ranges).digest)"
    )
    from onnxruntime.quantization.calibrate import save_tensors_data

    save_tensors_data(vit.ranges, tmp_path / "ranges.json")
    lines = []
    for seed in ("1", "2"):
        target = tmp_path / f"{seed}.onnx"
        done = subprocess.run(
            [sys.executable, "-c", code, str(vit.path), str(target), str(tmp_path / "ranges.json")],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
        )
        lines.append(done.stdout)
        assert done.stderr == ""
    assert lines[0] == lines[1]
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()


def test_weights_beside_the_graph_stay_beside_it(vit, make, tmp_path):
    """A model with external data is the same model, before and after, and its data file is written anew."""
    beside = tmp_path / "beside" / "model.onnx"
    beside.parent.mkdir()
    onnx.save(onnx.load(vit.path), beside, save_as_external_data=True, location="weights.bin", size_threshold=64)
    assert model_digest(beside) == model_digest(vit.path)
    for how in (
        Quantization("dynamic", ("MatMul",)),
        Quantization("static", ("MatMul", "Add")),
        Quantization("dynamic", ("Add",)),
    ):
        _, inline = make(vit, how, "inline.onnx")
        _, external = make(dataclasses.replace(vit, path=beside), how, "external.onnx")
        assert external.digest == inline.digest == model_digest(tmp_path / "external.onnx")
        assert [file.name for file in model_files(tmp_path / "external.onnx")] == [
            "external.onnx",
            "external.onnx.data",
        ]
        assert external.size_bytes == sum(file.stat().st_size for file in model_files(tmp_path / "external.onnx"))
        assert not (tmp_path / "float.onnx").exists()
        check_runs(tmp_path / "external.onnx", samples("vit", 1)[0])
    assert {file.name for file in beside.parent.iterdir()} == {"model.onnx", "weights.bin"}


def test_a_graph_too_large_for_one_file_is_written_beside_its_weights(vit, make, tmp_path, monkeypatch):
    """Weights that are too large for one file are written beside the graph, though they were inside it."""
    monkeypatch.setattr("benchcard.graphs.graph.INLINE_LIMIT_BYTES", 1000)
    _, report = make(vit, Quantization("dynamic", ("MatMul",)))
    assert [file.name for file in model_files(tmp_path / "quantized.onnx")] == [
        "quantized.onnx",
        "quantized.onnx.data",
    ]
    monkeypatch.undo()
    _, inline = make(vit, Quantization("dynamic", ("MatMul",)), "inline.onnx")
    assert report.digest == inline.digest


def test_what_stays_in_float_is_noted_with_the_reason(vit, make):
    """The report says how many nodes of an operator stay, and why."""
    _, dynamic = make(vit, Quantization("dynamic", ("MatMul", "Transpose", "Gather"), activations_dtype="int8"))
    assert "4 of 16 `MatMul` stay in float32: the second input is not a weight" in dynamic.notes
    assert "1 of 6 `Gather` stays in float32: the first input is not a weight" in dynamic.notes
    assert "5 of 6 `Gather` stay unquantized: the input is not floating point" in dynamic.notes
    assert "activations_dtype changes nothing: dynamic activations are always uint8" in dynamic.notes
    _, whole = make(vit, Quantization("static", ("Softmax",)))
    assert whole.notes == ()
