"""An ONNX graph as quantization reads it: its nodes by name, who makes and who reads each tensor, what is constant,
what is float.

This module owns reading and writing model files (weights inline or beside) and the digest of a model. What may be
quantized in a graph is told in `operators`; what is to be left out, in `exclude`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, TensorProto
from onnx.external_data_helper import (
    load_external_data_for_model,
    load_external_data_for_tensor,
    uses_external_data,
)

from benchcard.errors import ArtifactError
from benchcard.sources import pointer_hint

# Tensors that ONNX Runtime's quantizer takes for floating point: `BaseQuantizer.is_valid_quantize_weight` and
# `is_float_tensor`.
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
# A protobuf message ends at 2 GiB. Quantizing adds nodes and scales, so weights move beside the graph somewhat before.
# Source: https://onnx.ai/onnx/repo-docs/ExternalData.html
_INLINE_LIMIT_BYTES = 2**31 - 2**27
# Later than any; what stands in a damaged file need not be an `int` of C.
_LAST_OPSET = 1000


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


def stamp(path: Path) -> tuple[int, int]:
    """Return what changes when a file is written or replaced: the time of its last change, which cannot be set as that
    of its last modification can, and its size. Zeros where there is no such file.
    """
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ctime_ns, found.st_size


@functools.lru_cache(maxsize=2)
def _graph_at(path: Path, stamp: tuple[int, int]) -> Graph:
    # A node keeps the whole message alive that it is in, weights included: the graph is of a message of its own.
    return graph_of(without_weights(read(path, weights=False)))


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operator set that a model asks for.

    Raises:
        ArtifactError: The model asks for none.
    """
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    raise ArtifactError(
        "The model names no standard operator set (`ai.onnx`), so it cannot be quantized. Export it anew."
    )


def load(path: Path) -> onnx.ModelProto:
    """Return a model as its file has it, without weights that lie beside it.

    Raises:
        ArtifactError: There is no such file, or it is no ONNX model.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}. Export the model anew.") from error
    except DecodeError as error:
        raise ArtifactError(_unreadable(path)) from error
    if not model.HasField("graph") or not (model.graph.node or model.opset_import):
        raise ArtifactError(_unreadable(path))
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    for node in model.graph.node:
        names += (node.op_type, node.domain, node.name, *node.input, *node.output)
    if any(isinstance(name, bytes) for name in names):  # protobuf gives those that are no text as bytes
        raise ArtifactError(_unreadable(path))
    _refuse_missing_inputs(model, path)
    return model


def _unreadable(path: Path) -> str:
    hint = pointer_hint(path) or "it is empty, damaged or of another format: download or export it again"
    return f"{path.name} cannot be read as an ONNX model: {hint}."


def _refuse_missing_inputs(model: onnx.ModelProto, path: Path) -> None:
    """Raise where a node has fewer inputs than its operator needs, which the operator's rules would read."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for node in model.graph.node:
        version = min(max(versions.get(node.domain, 0), 0), _LAST_OPSET)
        if not onnx.defs.has(node.op_type, version, node.domain):
            continue  # of ONNX Runtime, or of somebody else
        least = onnx.defs.get_schema(node.op_type, version, node.domain).min_input
        if len(node.input) < least:
            raise ArtifactError(
                f"{path.name} is no valid graph: its node `{node.name}` ({node.op_type}) has {len(node.input)} inputs "
                f"and needs {least}. Export the model again."
            )


@contextlib.contextmanager
def _reading_weights(path: Path) -> Iterator[None]:
    """A block that reads weights which lie beside a graph; what is wrong with them becomes an ArtifactError."""
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}. Export the model anew.") from error
    except (ValueError, onnx.checker.ValidationError) as error:
        raise ArtifactError(
            f"The weights beside {path.name} cannot be read: {error}. Download or export the model again."
        ) from error


def read(path: Path, weights: bool = True) -> onnx.ModelProto:
    """A model without the stale entries that exporters leave in it, with or without weights that lie beside the graph.

    Raises:
        ArtifactError: There is no such file, or it is no ONNX model, or its weights are missing.
    """
    model = load(path)
    if weights:
        with _reading_weights(path):
            load_external_data_for_model(model, str(path.parent))
    drop_stale_types(model)
    return model


def drop_stale_types(model: onnx.ModelProto) -> None:
    """Remove what `value_info` says of initializers.

    An initializer carries its own type and shape. The exporter of PyTorch repeats both and lets the copy go stale, on
    which the second shape inference of dynamic quantization then fails ("Inferred shape and existing shape differ").
    """
    known = {weight.name for weight in model.graph.initializer}
    for index in reversed(range(len(model.graph.value_info))):
        if model.graph.value_info[index].name in known:
            del model.graph.value_info[index]


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
    graph, proto = graph_at(model), read(model, weights=False)
    name_nodes(proto)
    prepared = folder / "float.onnx"
    locations = _locations(proto)
    if locations:
        for location in locations:
            (folder / location).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.parent / location, folder / location)
        onnx.save(proto, str(prepared))
        return graph, prepared, True
    # Not `ByteSize`, which takes a second for a model of 300 MB.
    external = model.stat().st_size > _INLINE_LIMIT_BYTES
    onnx.save(proto, str(prepared), save_as_external_data=True, location=f"{prepared.name}.data")
    return graph, prepared, external


def write(model: onnx.ModelProto, target: Path) -> None:
    """Write a model with the weights that are loaded; beside the graph, in `<target>.data`, where they are too many."""
    # Not the size of the model, which cannot be told of one that is too large.
    if sum(len(tensor.raw_data) for tensor in _tensors(model.graph)) > _INLINE_LIMIT_BYTES:
        onnx.save(model, str(target), save_as_external_data=True, location=f"{target.name}.data")
    else:
        onnx.save(model, str(target))


def copy(model: Path, target: Path) -> None:
    """Copy a model; weights that lie beside it go to `<target>.data`."""
    proto = onnx.load(str(model), load_external_data=False)
    names = {location: f"{target.name}.data{index or ''}" for index, location in enumerate(_locations(proto))}
    if not names:
        shutil.copyfile(model, target)
        return
    for location, name in names.items():
        shutil.copyfile(model.parent / location, target.with_name(name))
    for entry in _location_entries(proto):
        entry.value = names[entry.value]
    onnx.save(proto, str(target))


def files_of(model: Path) -> tuple[Path, ...]:
    """The files of a model: the graph, and those in which it keeps weights."""
    return files_in(onnx.load(str(model), load_external_data=False), model)


def files_in(proto: onnx.ModelProto, model: Path) -> tuple[Path, ...]:
    """The same for a model that was read from its file, without weights that lie beside it."""
    return (model, *(model.parent / location for location in _locations(proto)))


def model_digest(model: Path) -> str:
    """SHA-256, in hexadecimal, of what a model is: its graph and its weights, wherever the weights are kept.

    Two files with the same digest are the same model: the same nodes, names, attributes and weights in the same order.
    The names of the files in which weights lie do not count.

    Raises:
        ArtifactError: There is no such file, it is no ONNX model, or its weights cannot be read.
    """
    proto = load(model)
    with _reading_weights(model):
        return digest_of(proto, model.parent)


def digest_of(proto: onnx.ModelProto, folder: Path) -> str:
    """The digest of a model as its file in `folder` has it, read without weights that lie beside it.

    The model is left without its weights.
    """
    digest = hashlib.sha256()
    for tensor in _tensors(proto.graph):
        numbers = tensor.raw_data
        if uses_external_data(tensor):
            # Loaded into a message of its own, which goes when the next one comes: all of them may not fit into memory.
            alone = TensorProto()
            alone.CopyFrom(tensor)
            load_external_data_for_tensor(alone, str(folder))
            numbers = alone.raw_data
        if numbers:
            digest.update(len(numbers).to_bytes(8, "little"))
            digest.update(numbers)
            tensor.raw_data = b""
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    digest.update(proto.SerializeToString(deterministic=True))
    return digest.hexdigest()


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, or `default`."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Every tensor that a graph and its subgraphs hold."""
    yield from graph.initializer
    for node in graph.node:
        for entry in node.attribute:
            if entry.type == AttributeProto.TENSOR:
                yield entry.t
            elif entry.type == AttributeProto.TENSORS:
                yield from entry.tensors
            elif entry.type == AttributeProto.GRAPH:
                yield from _tensors(entry.g)
            elif entry.type == AttributeProto.GRAPHS:
                for each in entry.graphs:
                    yield from _tensors(each)


def _location_entries(model: onnx.ModelProto) -> Iterator[onnx.StringStringEntryProto]:
    """The entries in which tensors name the file that holds their numbers."""
    for tensor in _tensors(model.graph):
        if uses_external_data(tensor):
            yield from (entry for entry in tensor.external_data if entry.key == "location")


def _locations(model: onnx.ModelProto) -> tuple[str, ...]:
    """The files, relative to the model's, in which a model read without its weights keeps them."""
    return tuple(dict.fromkeys(entry.value for entry in _location_entries(model)))


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


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model without large weights, which say nothing about types and would be copied twice."""
    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info"):
        getattr(graph, field).extend(getattr(model.graph, field))
    for weight in model.graph.initializer:
        if len(weight.raw_data) <= 1024:
            graph.initializer.append(weight)
        else:
            graph.initializer.append(TensorProto(name=weight.name, data_type=weight.data_type, dims=weight.dims))
    return light
