"""`FakeFramework`: ONNX Runtime with a known latency, to compare measured times with."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from benchcard.frameworks.onnxruntime import OnnxRuntime
from benchcard.spec.schema import Number, ValueType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


class FakeFramework:
    """ONNX Runtime whose calls take at least `latency_ms` each.

    Its arguments are `opset` and `latency_ms` (default 0). It supports no quantization. To use it, register it:
    `register_framework("fake", FakeFramework)`.
    """

    parameters: frozenset[str] = frozenset({"from_transformers"})
    arguments: Mapping[str, ValueType] = MappingProxyType(
        {"opset": Number(11, 23, whole=True), "latency_ms": Number(0)}
    )
    running = frozenset({"latency_ms"})
    engine = "onnx"
    format = "onnx"

    def import_runtime(self) -> None:
        """Import onnxruntime."""
        OnnxRuntime().import_runtime()

    def open(self, model: Path, options: Mapping[str, object]) -> FakeModel:
        """Return a graph in a session.

        Raises:
            ArtifactError: The runtime cannot load the graph; the message quotes its error.
        """
        return FakeModel(model, options)


class FakeModel:
    """An ONNX graph whose calls take a known time and keep the processor busy."""

    def __init__(self, model: Path, options: Mapping[str, object]) -> None:
        self._session = OnnxRuntime().open(model, options)
        latency_ms = options.get("latency_ms")
        self._latency_ns = round(1e6 * latency_ms) if isinstance(latency_ms, (int, float)) else 0
        self.facts: Mapping[str, object] = {**self._session.facts, "latency_ms": self._latency_ns / 1e6}

    def prepare(self, inputs: Arrays) -> Arrays:
        """Return the inputs that the graph takes, in its types."""
        return self._session.prepare(inputs)

    def run(self, prepared: Arrays) -> object:
        """Return the outputs of one forward call, which takes at least the known time."""
        stop = time.perf_counter_ns() + self._latency_ns
        outputs = self._session.run(prepared)
        while time.perf_counter_ns() < stop:
            pass
        return outputs

    def __call__(self, inputs: Arrays) -> Arrays:
        """Return the outputs by name, without a delay."""
        return self._session(inputs)
