"""The graph that ONNX Runtime's quantizer changes, with an index of who reads a tensor.

Without one, the quantizer looks at all nodes for every tensor that it quantizes, so that its time grows with the square
of the size of the graph. `benchmarks/quantizer.py` measures what the index gains.
"""

from __future__ import annotations

from collections.abc import Collection

from onnx import ModelProto, NodeProto, TensorProto
from onnxruntime.quantization.onnx_model import ONNXModel


class IndexedModel(ONNXModel):  # type: ignore[misc]  # the package has no types
    """An `ONNXModel` for one run of `QDQQuantizer`. `get_initializer` still has weights that it removes at the end."""

    def __init__(self, model: ModelProto) -> None:
        super().__init__(model)
        # Nodes that may read a tensor. Some of them may read another one in its place by now.
        self._readers: dict[str, list[NodeProto]] = {}
        self._weights: dict[str, TensorProto] = {}
        for node in model.graph.node:
            self._add_reader(node)
        for weight in model.graph.initializer:
            self._weights.setdefault(weight.name, weight)

    def _add_reader(self, node: NodeProto) -> None:
        for tensor in node.input:
            self._readers.setdefault(tensor, []).append(node)

    def add_node(self, node: NodeProto) -> None:
        """Add a node."""
        super().add_node(node)
        self._add_reader(self.model.graph.node[-1])

    def add_initializer(self, tensor: TensorProto) -> None:
        """Add a weight, unless there is one of its name."""
        if tensor.name not in self._weights:
            self.initializer_extend([tensor])

    def initializer_extend(self, inits: Collection[TensorProto]) -> None:
        """Add weights."""
        for tensor in inits:
            self._check_init(tensor)
            self.model.graph.initializer.append(tensor)
            self._weights.setdefault(tensor.name, self.model.graph.initializer[-1])

    def get_initializer(self, name: str) -> TensorProto | None:
        """Return the weight of a name."""
        return self._weights.get(name)

    def replace_input_of_all_nodes(self, old_input_name: str, new_input_name: str) -> None:
        """Have all nodes that read one tensor read another one."""
        readers = self._readers.pop(old_input_name, [])
        for node in readers:
            self.replace_node_input(node, old_input_name, new_input_name)
        self._readers.setdefault(new_input_name, []).extend(readers)

    def replace_input_of_nodes(self, old_input_name: str, new_input_name: str, node_names_set: Collection[str]) -> None:
        """Have some of the nodes that read one tensor read another one."""
        super().replace_input_of_nodes(old_input_name, new_input_name, node_names_set)
        self._readers.setdefault(new_input_name, []).extend(self._readers.get(old_input_name, ()))
