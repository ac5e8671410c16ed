"""Graphs of small models that the tests of quantization share, and a function that quantizes them."""

from __future__ import annotations

import onnx
import pytest
import tiny_graphs

from benchcard.quantization.quantize import quantize_model


@pytest.fixture(scope="session")
def vit(tmp_path_factory):
    """A ViT of two layers, opset 13, norms written out, one `Gemm` at the end."""
    return tiny_graphs.case("vit", 13, tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="session")
def resnet(tmp_path_factory):
    """A ResNet of three blocks, opset 13."""
    return tiny_graphs.case("resnet", 13, tmp_path_factory.mktemp("resnet"))


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A BERT of two layers, opset 17, with embeddings."""
    return tiny_graphs.case("bert", 17, tmp_path_factory.mktemp("bert"))


@pytest.fixture
def case(request):
    """One of the models above, by name."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def make(tmp_path):
    """Return a function that quantizes a case and returns the quantized model and the report."""

    def run(case, how, name="quantized.onnx"):
        report = quantize_model(case.path, tmp_path / name, how, case.ranges)
        return onnx.load(tmp_path / name), report

    return run
