"""The search for the costliest layers finds those that trying every layer finds."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_graphs import calibrated, export, samples

from benchcard.quantization.quantize import quantize_model
from benchcard.quantization.sensitivity.search import LayerSearch, _ErrorSum
from benchcard.quantization.sensitivity.segments import Arrays
from benchcard.quantization.settings import Quantization

# Not every version has a kernel for `ConvInteger` of signed weights.
WAYS = (
    Quantization("dynamic", weights_dtype="uint8"),
    Quantization("dynamic", weights_dtype="uint8", per_channel=True, reduce_range=True),
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
        quantize_model(path, folder / "q.onnx", how, ranges)
        search = LayerSearch(path, folder / "q.onnx", folder, feeds[:2], how, 1, 32)
        layers, is_complete = search.find_worst(3)
        trials, tried = search.trials, set(search.effects)
        assert trials <= 32
        assert {layer.tensor for layer in layers} <= tried
        candidates = [search.try_layers(place, place + 1) for place in range(len(search.layers))]
        costs = {search.layers[candidate.start].tensor: candidate.cost for candidate in candidates}
        assert len(layers) == min(3, len(search.layers))
        assert trials < len(costs) or len(costs) <= 32
        named = [costs[layer.tensor] for layer in layers]
        assert named == sorted(named, reverse=True)
        if is_complete:
            assert named == pytest.approx(sorted(costs.values(), reverse=True)[:3]), how
        else:
            assert trials == 32


def test_errors_at_the_end_of_a_segment():
    """They are summed over tensors with finite numbers other than zero: not over an infinite mask, nor a zero one."""
    mask, zero = np.array([0, -np.inf], np.float32), np.zeros(2, np.float32)
    expected: Arrays = {"h": np.array([3, 4], np.float32), "mask": mask, "zero": zero, "n": np.array([1])}

    def share(**actual):
        errors = _ErrorSum()
        errors.add(expected, actual)
        return errors.share

    assert share(h=np.array([3, 3], np.float32), mask=mask, zero=zero + 1, n=np.array([2])) == pytest.approx(1 / 25)
    assert share(h=np.array([3, np.nan], np.float32), mask=mask) == np.inf
    assert share(mask=mask, zero=zero) == 0


def test_a_search_without_trials_names_nothing(tmp_path):
    """And says that this is not certain."""
    path, feeds = export("resnet", 13, tmp_path / "float.onnx"), samples("resnet", 1)
    quantize_model(path, tmp_path / "q.onnx", Quantization("dynamic", weights_dtype="uint8"))
    for bound, tried in ((0, 0), (1, 1), (3, 3)):
        folder = tmp_path / str(bound)
        folder.mkdir()
        search = LayerSearch(path, tmp_path / "q.onnx", folder, feeds, None, 1, bound)
        named, is_complete = search.find_worst(3)
        assert (search.trials, is_complete) == (tried, False)
        assert len(named) < 3
