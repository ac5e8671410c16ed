"""The framework `zipped`: onnxruntime on graphs that lie on disk in compressed form."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchcard.spec.schema import Boolean, Number, ValueType


class Zipped:
    """Opens what its `convert` made of a graph: float32, or quantized by onnxruntime's quantizer."""

    parameters = frozenset(
        {"from_transformers", "apply_quantization", "quantization_approach", "operators_to_quantize"}
    )
    arguments: Mapping[str, ValueType] = MappingProxyType({"level": Number(0, 9, whole=True), "optimize": Boolean()})
    # `level` makes the file, and reaches `convert`; `optimize` runs it, and reaches `open`.
    running = frozenset({"optimize"})
    engine = "onnx"
    format = "zipped"

    def import_runtime(self) -> None:
        """Import onnxruntime."""
        import onnxruntime  # noqa: F401

    def convert(self, graph: Path, target: Path, arguments: Mapping[str, Any], samples: Iterable[Any]) -> str:
        """The graph, weights and all, in one compressed file."""
        import onnx

        level = arguments.get("level", 9)
        (target / "model.gz").write_bytes(gzip.compress(onnx.load(graph).SerializeToString(), level, mtime=0))
        return "model.gz"

    def open(self, model: Path, options: Mapping[str, Any]) -> Model:
        """The graph in a session."""
        return Model(model, options)


class Model:
    """A graph that was compressed."""

    def __init__(self, model: Path, options: Mapping[str, Any]) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.get("intra_op_num_threads") or 0
        if options.get("optimize") is False:
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = onnxruntime.InferenceSession(
            gzip.decompress(model.read_bytes()), settings, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self.session.get_outputs()]
        # The number of threads is that of the runtime, which the card names.
        threads = self.session.get_session_options().intra_op_num_threads
        self.facts = {"intra_op_num_threads": threads, "optimize": options.get("optimize", True)}

    def prepare(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs that the graph takes."""
        return {entry.name: inputs[entry.name] for entry in self.session.get_inputs()}

    def run(self, prepared: Mapping[str, Any]) -> Any:
        """One forward call."""
        return self.session.run(self._outputs, prepared)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name."""
        return dict(zip(self._outputs, self.run(self.prepare(inputs))))
