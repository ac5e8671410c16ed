"""The search for the costliest layers names those that trying each names."""

from __future__ import annotations

import pytest
from tiny_graphs import calibrated, export, samples

from benchcard.quantization.quantize import Quantization, quantize
from benchcard.quantization.search import Search

WAYS = (
    Quantization("dynamic"),
    Quantization("dynamic", per_channel=True, reduce_range=True),
    Quantization("static"),
    Quantization("static", ("Add", "MatMul")),
    Quantization("static", ("Add",)),
    Quantization("static", per_channel=True, weights_dtype="uint8", activations_dtype="uint8"),
    Quantization("static", reduce_range=True),
)


@pytest.mark.parametrize("kind", ["vit", "resnet", "convnext", "bert", "distilbert"])
def test_the_three_layers_that_cost_most_are_found(kind, tmp_path):
    """In each architecture, quantized in seven ways: in fewer trials than there are layers, where there are many."""
    path, feeds = export(kind, 13, tmp_path / "float.onnx"), samples(kind, 4)
    ranges = calibrated(path, feeds, tmp_path)
    for number, how in enumerate(WAYS):
        folder = tmp_path / str(number)
        folder.mkdir()
        quantize(path, folder / "q.onnx", how, ranges)
        search = Search(path, folder / "q.onnx", folder, feeds[:2], how, 1, 32)
        found, certain = search.worst(3)
        trials, tried = search.trials, set(search.effects)
        assert trials <= 32
        assert {layer.tensor for layer in found} <= tried
        every = [search.tried(place, place + 1) for place in range(len(search.layers))]
        costs = {search.layers[each.start].tensor: each.cost for each in every}
        assert len(found) == min(3, len(search.layers))
        assert trials < len(costs) or len(costs) <= 32
        named = [costs[layer.tensor] for layer in found]
        assert named == sorted(named, reverse=True)
        if certain:
            assert named == pytest.approx(sorted(costs.values(), reverse=True)[:3]), how
        else:
            assert trials == 32
