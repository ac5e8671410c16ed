"""Look-ups in an ONNX graph: producers, readers, types and weights."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import onnx
from onnx import TensorProto

from benchcard.errors import ArtifactError
from benchcard.graphs.files import (
    INLINE_LIMIT_BYTES,
    external_files,
    file_version,
    load_clean_model,
    without_weights,
    write_beside_copied_weights,
)
from benchcard.graphs.traversal import all_nodes, subgraphs

# The element types that ONNX Runtime's quantizer takes for floating point.
# Source: `BaseQuantizer.is_valid_quantize_weight` and `is_float_tensor`.
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})


@dataclass(frozen=True)
class Graph:
    """The top level of a graph, indexed for look-ups by the names of nodes, which are in topological order.

    Like the quantizer, it does not enter subgraphs (of `If`, `Loop`). What a subgraph reads from the enclosing graph
    counts as read by the node that holds the subgraph.

    Attributes:
        producers: Tensor name -> name of the node that computes it; in `consumers`, of the nodes that read it.
        captured: Tensors that a subgraph reads from this graph.
        weights: Names of the initializers -> their element type (`TensorProto.DataType`).
        weight_shapes: Names of the initializers -> their shape.
        types: Names of the other tensors -> their element type, where it is known.
        constants: Tensors that depend on no input: initializers, and what is computed from them alone.
    """

    nodes: Mapping[str, onnx.NodeProto]
    producers: Mapping[str, str]
    consumers: Mapping[str, tuple[str, ...]]
    captured: frozenset[str]
    weights: Mapping[str, int]
    weight_shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, int]
    constants: frozenset[str]
    outputs: frozenset[str]
    opset: int

    def is_float_weight(self, tensor: str) -> bool:
        """Return whether a tensor is an initializer of float32 or float16."""
        return self.weights.get(tensor) in _FLOATS

    def is_float(self, tensor: str) -> bool:
        """Return whether a tensor, initializer or not, is known to be float32 or float16."""
        return self.is_float_weight(tensor) or (tensor not in self.weights and self.types.get(tensor) in _FLOATS)

    def is_activation(self, tensor: str) -> bool:
        """Return whether a tensor depends on the model's inputs and is of float32, float16 or an unknown type."""
        return bool(tensor) and tensor not in self.constants and self.types.get(tensor, TensorProto.FLOAT) in _FLOATS

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that computes a tensor; None for an input or an initializer."""
        name = self.producers.get(tensor)
        return self.nodes[name] if name is not None else None

    def readers(self, tensor: str) -> tuple[onnx.NodeProto, ...]:
        """Return the nodes that read a tensor, each once."""
        return tuple(self.nodes[name] for name in self.consumers.get(tensor, ()))


def graph_of(model: onnx.ModelProto, infer_types: bool = True) -> Graph:
    """Return the indexed graph of a model, whose unnamed nodes are given names.

    External weights need not be loaded. Without `infer_types`, `types` holds only those that the model declares.
    """
    opset = opset_of(model)
    if opset is None:
        raise ArtifactError(
            "The model names no standard operator set (`ai.onnx`), so it cannot be quantized. Export it again."
        )
    name_nodes(model)
    consumers: dict[str, dict[str, None]] = {}
    captured: set[str] = set()
    weights = {weight.name: weight.data_type for weight in model.graph.initializer}
    constants = set(weights)
    for node in model.graph.node:
        captured_here = captured_tensors(node)
        captured |= captured_here
        for tensor in filter(None, (*node.input, *sorted(captured_here))):
            consumers.setdefault(tensor, {})[node.name] = None
        is_fixed = node.op_type == "Constant" or (node.input and not has_subgraph(node))
        if is_fixed and not node.op_type.startswith("Random") and constants.issuperset(filter(None, node.input)):
            constants.update(node.output)
    return Graph(
        nodes={node.name: node for node in model.graph.node},
        producers={tensor: node.name for node in model.graph.node for tensor in node.output if tensor},
        consumers={tensor: tuple(names) for tensor, names in consumers.items()},
        captured=frozenset(captured),
        weights=weights,
        weight_shapes={weight.name: tuple(weight.dims) for weight in model.graph.initializer},
        types=_element_types(model, infer_types),
        constants=frozenset(constants),
        outputs=frozenset(value.name for value in model.graph.output),
        opset=opset,
    )


def load_graph(path: Path) -> Graph:
    """Return the indexed graph of a model file. The rows of a grid share few files, so the last two are cached."""
    return _load_graph(path, file_version(path))


@functools.lru_cache(maxsize=2)
def _load_graph(path: Path, version: tuple[int, int]) -> Graph:
    # A node keeps its whole message alive, weights included, so the graph is indexed in a copy without them.
    return graph_of(without_weights(load_clean_model(path)))


def opset_of(model: onnx.ModelProto) -> int | None:
    """Return the version of the standard operator set that a model asks for; None where it names none."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node without a unique name one made of its operator and its position, such as `MatMul_17`."""
    taken = {node.name for node in model.graph.node}
    seen = {""}
    for index, node in enumerate(model.graph.node):
        if node.name in seen:
            name = f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
        seen.add(node.name)


def sort_nodes(model: onnx.ModelProto) -> None:
    """Put each node of a graph after those whose outputs it reads."""
    nodes = list(model.graph.node)
    makers = {tensor: index for index, node in enumerate(nodes) for tensor in node.output if tensor}
    reads = (sorted(captured_tensors(node).union(node.input)) for node in nodes)
    before = {index: [makers[tensor] for tensor in tensors if tensor in makers] for index, tensors in enumerate(reads)}
    del model.graph.node[:]
    model.graph.node.extend(nodes[index] for index in TopologicalSorter(before).static_order())


def rename_values(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Rename tensors of a graph, in place, by old name; another tensor that has a new name already gets one beside it.

    A subgraph reads tensors of the enclosing graph by name, and its own have other names.
    """
    graph, nodes = model.graph, list(all_nodes(model.graph))
    inner = [subgraph for node in nodes for subgraph in subgraphs(node)]
    values = [value for part in (graph, *inner) for value in (*part.input, *part.output, *part.value_info)]
    weights = [weight for part in (graph, *inner) for weight in part.initializer]
    taken = {entry.name for entry in (*values, *weights)} | {name for node in nodes for name in node.output}
    moved = {new: f"{new}_" for new in names.values() if new in taken and new not in names}
    while clashes := [old for old, new in moved.items() if new in taken]:
        moved |= {old: f"{moved[old]}_" for old in clashes}
    renamed = {**moved, **names}
    for entry in (*values, *weights):
        entry.name = renamed.get(entry.name, entry.name)
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]


@dataclass(frozen=True)
class PreparedModel:
    """A copy of a model that the quantizer can read: all nodes have names, and stale entries are removed.

    Large weights are external: the quantizer's shape inference writes and reads a small file, and the weights are not
    loaded twice. `needs_external_weights` tells whether those of the original are external, or too large for one file.
    """

    graph: Graph
    path: Path
    needs_external_weights: bool


def prepare_model(model: Path, folder: Path) -> PreparedModel:
    """Write a copy of a model for the quantizer to `folder`."""
    graph, proto, target = load_graph(model), load_clean_model(model), folder / "float.onnx"
    name_nodes(proto)
    if external_files(proto):
        write_beside_copied_weights(proto, model.parent, target)
        return PreparedModel(graph, target, True)
    onnx.save(proto, str(target), save_as_external_data=True, location=f"{target.name}.data")
    # Not `ByteSize`, which takes a second for a model of 300 MB.
    return PreparedModel(graph, target, model.stat().st_size > INLINE_LIMIT_BYTES)


def attribute_value(node: onnx.NodeProto, name: str, default: object) -> object:
    """Return the value of a node's attribute, or `default`."""
    return next((onnx.helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def has_subgraph(node: onnx.NodeProto) -> bool:
    """Return whether a node, such as `If` or `Loop`, holds a graph."""
    return next(subgraphs(node), None) is not None


def captured_tensors(node: onnx.NodeProto) -> set[str]:
    """Return the names of the tensors that the subgraphs of a node read from the enclosing graph."""
    captured: set[str] = set()
    for graph in subgraphs(node):
        local = {value.name for value in (*graph.input, *graph.initializer)}
        read = {value.name for value in graph.output}
        for inner in graph.node:
            local.update(inner.output)
            read.update(inner.input, captured_tensors(inner))
        captured |= read.difference(local, ("",))
    return captured


def _element_types(model: onnx.ModelProto, infer: bool) -> dict[str, int]:
    """Return the element types that the model declares and, with `infer`, that ONNX infers, of all but initializers."""
    values: list[Sequence[onnx.ValueInfoProto]] = [model.graph.value_info, model.graph.input, model.graph.output]
    # Where inference fails, only the declared types are known. The quantizer then reports the reason.
    with contextlib.suppress(onnx.shape_inference.InferenceError):
        if infer:
            values.insert(0, onnx.shape_inference.infer_shapes(without_weights(model)).graph.value_info)
    return {
        value.name: value.type.tensor_type.elem_type
        for group in values
        for value in group
        if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type
    }
