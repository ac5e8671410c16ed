"""Look-ups in an ONNX graph: producers, readers, types and weights."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto

from benchcard.graphs.files import INLINE_LIMIT_BYTES, external_files, opset_of, read_model, stamp, without_weights

# Tensors that ONNX Runtime's quantizer takes for floating point: `BaseQuantizer.is_valid_quantize_weight` and
# `is_float_tensor`.
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})


@dataclass(frozen=True)
class Graph:
    """The top level of a graph, for look-ups. Subgraphs (of `If`, `Loop`) are not entered, as the quantizer does not
    enter them either; but what they read from around them counts as read by the node that holds them.

    Attributes:
        nodes: Every node by its name, in the order of the file, which is topological.
        producers: Tensor name -> name of the node that makes it.
        consumers: Tensor name -> names of the nodes that read it.
        read_inside: Tensors that a subgraph reads from around it.
        weights: Names of the initializers -> their element type (`TensorProto.DataType`).
        types: Names of the other tensors -> their element type, where shape inference knows it.
        constants: Tensors that do not depend on any input: initializers, and whatever is computed from them alone.
        outputs: Names of the graph's outputs.
        opset: Version of the standard operator set.
    """

    nodes: Mapping[str, onnx.NodeProto]
    producers: Mapping[str, str]
    consumers: Mapping[str, tuple[str, ...]]
    read_inside: frozenset[str]
    weights: Mapping[str, int]
    types: Mapping[str, int]
    constants: frozenset[str]
    outputs: frozenset[str]
    opset: int

    def is_float_weight(self, tensor: str) -> bool:
        """True for an initializer of floating-point numbers."""
        return self.weights.get(tensor) in _FLOATS

    def is_float(self, tensor: str) -> bool:
        """True for a tensor, initializer or not, that is known to hold floating-point numbers."""
        return self.is_float_weight(tensor) or (tensor not in self.weights and self.types.get(tensor) in _FLOATS)

    def is_activation(self, tensor: str) -> bool:
        """True for floating-point numbers that depend on the model's inputs; a tensor of unknown type counts."""
        return bool(tensor) and tensor not in self.constants and self.types.get(tensor, TensorProto.FLOAT) in _FLOATS

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes a tensor; None for an input or an initializer."""
        name = self.producers.get(tensor)
        return self.nodes[name] if name is not None else None

    def readers(self, tensor: str) -> tuple[onnx.NodeProto, ...]:
        """The nodes that read a tensor, each once."""
        return tuple(self.nodes[name] for name in self.consumers.get(tensor, ()))


def graph_of(model: onnx.ModelProto, typed: bool = True) -> Graph:
    """The graph of a model, whose nodes get a name where they have none. The model's weights need not be loaded.

    Args:
        model: The model.
        typed: Whether element types are inferred; without them `types` has only what the model says of itself.
    """
    name_nodes(model)
    nodes = {node.name: node for node in model.graph.node}
    producers = {tensor: node.name for node in model.graph.node for tensor in node.output if tensor}
    consumers: dict[str, dict[str, None]] = {}
    read_inside: set[str] = set()
    for node in model.graph.node:
        inside = _read_inside(node)
        read_inside |= inside
        for tensor in (*node.input, *sorted(inside)):
            if tensor:
                consumers.setdefault(tensor, {})[node.name] = None
    weights = {weight.name: weight.data_type for weight in model.graph.initializer}
    constants = set(weights)
    for node in model.graph.node:
        fixed = node.op_type == "Constant" or (node.input and not has_subgraph(node))
        if (
            fixed
            and not node.op_type.startswith("Random")
            and all(tensor in constants for tensor in node.input if tensor)
        ):
            constants.update(node.output)
    return Graph(
        nodes=MappingProxyType(nodes),
        producers=MappingProxyType(producers),
        consumers=MappingProxyType({tensor: tuple(names) for tensor, names in consumers.items()}),
        read_inside=frozenset(read_inside),
        weights=MappingProxyType(weights),
        types=MappingProxyType(_element_types(model, typed)),
        constants=frozenset(constants),
        outputs=frozenset(value.name for value in model.graph.output),
        opset=opset_of(model),
    )


def graph_at(path: Path) -> Graph:
    """The graph of a model's file. All rows of a grid ask for the same few, so the last two are remembered.

    Raises:
        ArtifactError: There is no such file, or it is no ONNX model.
    """
    return _graph_at(path, stamp(path))


@functools.lru_cache(maxsize=2)
def _graph_at(path: Path, stamp: tuple[int, int]) -> Graph:
    # A node keeps the whole message alive that it is in, weights included: the graph is of a message of its own.
    return graph_of(without_weights(read_model(path, weights=False)))


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node without a name, or with one that stood before, a name of operator and place, as `MatMul_17`."""
    taken = {node.name for node in model.graph.node}
    seen: set[str] = {""}
    for index, node in enumerate(model.graph.node):
        if node.name in seen:
            name = f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
        seen.add(node.name)


def prepare(model: Path, folder: Path) -> tuple[Graph, Path, bool]:
    """The graph of a model, a copy of it for the quantizer, and whether its weights lie beside it or must.

    In the copy every node has a name, stale entries are gone, and large weights lie beside the graph, in `folder`. So
    the quantizer's shape inference writes and reads a small file, and the weights are not loaded twice.
    """
    graph, proto = graph_at(model), read_model(model, weights=False)
    name_nodes(proto)
    prepared = folder / "float.onnx"
    locations = external_files(proto)
    if locations:
        for location in locations:
            (folder / location).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.parent / location, folder / location)
        onnx.save(proto, str(prepared))
        return graph, prepared, True
    # Not `ByteSize`, which takes a second for a model of 300 MB.
    external = model.stat().st_size > INLINE_LIMIT_BYTES
    onnx.save(proto, str(prepared), save_as_external_data=True, location=f"{prepared.name}.data")
    return graph, prepared, external


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, or `default`."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


def has_subgraph(node: onnx.NodeProto) -> bool:
    """True for a node, as `If` or `Loop`, that holds a graph of its own."""
    return any(entry.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for entry in node.attribute)


def _read_inside(node: onnx.NodeProto) -> set[str]:
    """Names of the tensors that the graphs inside a node read from around them."""
    found: set[str] = set()
    for entry in node.attribute:
        for graph in (entry.g, *entry.graphs) if entry.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) else ():
            made = {value.name for value in (*graph.input, *graph.initializer)}
            read = {value.name for value in graph.output}
            for each in graph.node:
                made.update(each.output)
                read.update(each.input, _read_inside(each))
            found |= read.difference(made, ("",))
    return found


def _element_types(model: onnx.ModelProto, inferred: bool) -> dict[str, int]:
    """Tensor name -> element type, as ONNX infers it (where that is wanted) and as the model says, without shapes."""
    values: list[Sequence[onnx.ValueInfoProto]] = [model.graph.value_info, model.graph.input, model.graph.output]
    infer: Callable[[onnx.ModelProto], onnx.ModelProto] = onnx.shape_inference.infer_shapes
    # Where inference fails, what the model says of itself is all that is known, and the quantizer will tell the reason.
    with contextlib.suppress(onnx.shape_inference.InferenceError):
        if inferred:
            values.insert(0, infer(without_weights(model)).graph.value_info)
    return {
        value.name: value.type.tensor_type.elem_type
        for group in values
        for value in group
        if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type
    }
