"""Small models of each architecture through calibration, static and dynamic quantization, with exclusions."""

from __future__ import annotations

import dataclasses

import onnx
import pytest
from tiny_graphs import export, samples

from benchcard.quantization.calibrate import collect
from benchcard.quantization.exclude import excluded_names, match
from benchcard.quantization.explain import losses
from benchcard.quantization.graph import graph_of, read
from benchcard.quantization.operators import Quantization
from benchcard.quantization.quantize import quantize
from benchcard.quantization.ranges import Method, ranges
from benchcard.quantization.runs import check_runs

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
    collect(path, feeds, folder / "statistics.npz", operators=None, intra_op_num_threads=1)
    return request.param, path, feeds, folder / "statistics.npz"


@pytest.mark.parametrize("approach", HOW)
def test_an_architecture_is_quantized_with_exclusions(architecture, approach, tmp_path):
    """The model runs, what was excluded is in it as it was, the counts add up, and the loss is told by layer."""
    kind, path, feeds, statistics = architecture
    how = HOW[approach]
    exclusions = match(path, EXCLUSIONS[kind], how)
    assert all(each.nodes for each in exclusions)
    assert all(each.would_be_quantized or each.remark for each in exclusions)
    how = dataclasses.replace(how, nodes_to_exclude=excluded_names(exclusions))
    given = ranges(statistics, Method("percentile"), how.operators_to_quantize) if approach == "static" else None
    report = quantize(path, tmp_path / "q.onnx", how, given)
    check_runs(tmp_path / "q.onnx", feeds[0])
    changed = {name for each in exclusions for name in each.would_be_quantized}
    assert sum(count.excluded for count in report.operators) >= len(changed)
    before, after = graph_of(read(path, weights=False)), graph_of(onnx.load(tmp_path / "q.onnx"))
    for name in changed:
        assert after.nodes[name].op_type == before.nodes[name].op_type
        assert not any("quantized" in tensor for tensor in after.nodes[name].input)
    if kind == "resnet" and approach == "dynamic":
        # A `Gemm` is all that dynamic quantization finds here.
        assert report.nodes_quantized == 1
    else:
        assert report.nodes_quantized > 3
    found = losses(path, tmp_path / "q.onnx", feeds, how=how)
    assert found.outputs.is_finite
    assert found.outputs.snr_db > 3
    assert not changed & {layer.node for layer in found.layers}
