"""A framework whose latency is known: what a test compares measured times with.

This module owns `FakeFramework`, which computes what onnxruntime computes and takes as long as it is told.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchcard.frameworks.onnxruntime import OnnxRuntime
from benchcard.spec.schema import Number, ValueType

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FakeFramework:
    """ONNX Runtime, but each call takes `latency_ms` of the clock, or longer where the graph needs longer.

    Its only argument beside `opset` is `latency_ms` (default 0); nothing is quantized for it. Register it by a name:
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

    def open(self, model: Path, options: Mapping[str, Any]) -> FakeModel:
        """The graph in a session, slowed down.

        Raises:
            ArtifactError: The runtime cannot load the graph; the message has its own words.
        """
        return FakeModel(model, options)


class FakeModel:
    """An ONNX graph whose calls take a known time; the processor is busy meanwhile."""

    def __init__(self, model: Path, options: Mapping[str, Any]) -> None:
        self._session = OnnxRuntime().open(model, options)
        self._latency_ns = round(1e6 * (options.get("latency_ms") or 0))
        self.facts: Mapping[str, Any] = {**self._session.facts, "latency_ms": self._latency_ns / 1e6}

    def prepare(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The inputs that the graph takes, in its types."""
        return self._session.prepare(inputs)

    def run(self, prepared: Mapping[str, NDArray[Any]]) -> Any:
        """One forward call of at least the known time."""
        stop = time.perf_counter_ns() + self._latency_ns
        outputs = self._session.run(prepared)
        while time.perf_counter_ns() < stop:
            pass
        return outputs

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name, as fast as the graph can."""
        return self._session(inputs)
