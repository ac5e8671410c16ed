"""Small models of each architecture: quantized, with exclusions; and exported and evaluated, by the sweep's script."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path

import onnx
import pytest
import torch
from tiny_graphs import check_runs, export, samples

from benchcard.graphs.files import load_clean_model
from benchcard.graphs.graph import graph_of
from benchcard.quantization.calibration.collect import collect_statistics
from benchcard.quantization.calibration.ranges import Method, compute_ranges
from benchcard.quantization.exclusions import excluded_names, match_exclusions
from benchcard.quantization.quantize import quantize_model
from benchcard.quantization.sensitivity.losses import measure_losses
from benchcard.quantization.settings import Quantization

EXCLUSIONS = {
    "vit": ["layernorm", "gelu", "softmax"],
    "resnet": ["residual-add-relu"],
    "convnext": ["layernorm", "gelu"],
    "bert": ["layernorm", "gather", "residual"],
    "distilbert": ["layernorm", "gather", "softmax"],
}
HOW = {
    "dynamic": Quantization("dynamic", ("MatMul", "Gather"), per_channel=True, reduce_range=True),
    "static": Quantization("static", ("MatMul", "Gemm", "Conv", "Add", "Mul", "Gather"), activations_dtype="uint8"),
}


@pytest.fixture(scope="module", params=EXCLUSIONS)
def architecture(request, tmp_path_factory):
    """A model of two layers or blocks, its samples, and the statistics of one pass over them."""
    folder = tmp_path_factory.mktemp(request.param)
    path, feeds = export(request.param, 13, folder / "float.onnx"), samples(request.param, 3)
    collect_statistics(path, feeds, folder / "statistics.npz", operators=None, intra_op_num_threads=1)
    return request.param, path, feeds, folder / "statistics.npz"


@pytest.mark.parametrize("approach", HOW)
def test_an_architecture_is_quantized_with_exclusions(architecture, approach, tmp_path):
    """The model runs, what was excluded is in it as it was, the counts add up, and the loss is told by layer."""
    kind, path, feeds, statistics = architecture
    how = HOW[approach]
    exclusions = match_exclusions(path, EXCLUSIONS[kind], how)
    assert all(each.nodes for each in exclusions)
    assert all(each.would_be_quantized or each.remark for each in exclusions)
    how = dataclasses.replace(how, nodes_to_exclude=excluded_names(exclusions))
    given = (
        compute_ranges(statistics, Method("percentile"), how.operators_to_quantize) if approach == "static" else None
    )
    report = quantize_model(path, tmp_path / "q.onnx", how, given)
    check_runs(tmp_path / "q.onnx", feeds[0])
    changed = {name for each in exclusions for name in each.would_be_quantized}
    assert sum(count.excluded for count in report.operators) >= len(changed)
    before, after = graph_of(load_clean_model(path)), graph_of(onnx.load(tmp_path / "q.onnx"))
    for name in changed:
        assert after.nodes[name].op_type == before.nodes[name].op_type
        assert not any("quantized" in tensor for tensor in after.nodes[name].input)
    if kind == "resnet" and approach == "dynamic":
        # A `Gemm` is all that dynamic quantization finds here.
        assert report.nodes_quantized == 1
    else:
        assert report.nodes_quantized > 3
    found = measure_losses(path, tmp_path / "q.onnx", feeds, settings=how)
    assert found.outputs.is_finite
    assert found.outputs.snr_db > 3
    assert not changed & {layer.node for layer in found.layers}


@pytest.fixture
def sweep(monkeypatch):
    """The script that sweeps over many architectures, with one exporter at one opset."""
    path = Path(__file__).parents[2] / "benchmarks" / "architectures.py"
    spec = importlib.util.spec_from_file_location("architectures", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "architectures", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "EXPORTERS", {"torchscript": (14,)})
    monkeypatch.setattr(module, "SECOND_SIZE", {})
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batches"),
    [
        ("gpt2", {"right": "padded", "left": "equal shapes"}),
        ("xlnet", {"right": "equal shapes", "left": "padded"}),
        ("convbert", {"right": "equal shapes", "left": "equal shapes"}),
        ("llama", {"right": "padded", "left": "padded"}),
    ],
)
def test_every_text_gets_the_scores_that_it_gets_alone(sweep, name, batches):
    """A run batches texts as the architecture bears, by either framework and with a tokenizer that pads either side."""
    row = sweep.measure(name)
    assert row.problems == []
    assert row.batches == {
        f"{framework} {side}": said for framework in ("onnxruntime", "pytorch") for side, said in batches.items()
    }
    assert max(row.evaluation.values()) < sweep.TOLERANCE


@pytest.mark.slow
def test_the_sweep_finds_scores_that_depend_on_padding(sweep, monkeypatch):
    """Where benchcard took padding for harmless, the script says which scores differ."""
    from benchcard.evaluation import padding

    monkeypatch.setattr(padding, "probe", lambda *arguments: padding.Probe())
    problems = "\n".join(sweep.measure("gpt2").problems)
    assert "pytorch left: benchcard batches 'padded', expected 'equal shapes'" in problems
    assert "pytorch left: scores differ by" in problems
    assert "right" not in problems


@pytest.mark.slow
def test_the_sweep_finds_a_graph_that_differs(sweep, monkeypatch):
    """Where benchcard accepted any graph, the script says that it differs from PyTorch."""
    from benchcard.export import exporters, parity

    written = exporters.torchscript

    def biased(traceable, opset):
        with torch.no_grad():
            traceable.model.classifier.bias += 0.1
        graph = written(traceable, opset)
        with torch.no_grad():
            traceable.model.classifier.bias -= 0.1
        return graph

    monkeypatch.setattr(exporters, "torchscript", biased)
    monkeypatch.setattr(parity, "compare", lambda path, probes: (parity.Check({}, False, 0.0),))
    row = sweep.measure("vit")
    assert any("torchscript 14: accepted, but differs from PyTorch by" in problem for problem in row.problems)
    assert any("onnxruntime: scores differ by" in problem for problem in row.problems)
    assert sweep.status(row) == "**fails**"
