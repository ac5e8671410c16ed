"""ONNX files with external weights: read, written, copied, and their digests."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, TensorProto
from onnx.external_data_helper import load_external_data_for_model, load_external_data_for_tensor, uses_external_data

from benchcard.errors import ArtifactError
from benchcard.utils.files import pointer_hint

# A protobuf message ends at 2 GiB. Quantizing adds nodes and scales, so weights move beside the graph somewhat before.
# Source: https://onnx.ai/onnx/repo-docs/ExternalData.html
INLINE_LIMIT_BYTES = 2**31 - 2**27
# Later than any; what stands in a damaged file need not be an `int` of C.
_LAST_OPSET = 1000


def stamp(path: Path) -> tuple[int, int]:
    """Return what changes when a file is written or replaced: the time of its last change, which cannot be set as that
    of its last modification can, and its size. Zeros where there is no such file.
    """
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ctime_ns, found.st_size


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


def load_model(path: Path) -> onnx.ModelProto:
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


def read_model(path: Path, weights: bool = True) -> onnx.ModelProto:
    """A model without the stale entries that exporters leave in it, with or without weights that lie beside the graph.

    Raises:
        ArtifactError: There is no such file, or it is no ONNX model, or its weights are missing.
    """
    model = load_model(path)
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


def write_model(model: onnx.ModelProto, target: Path) -> None:
    """Write a model with the weights that are loaded; beside the graph, in `<target>.data`, where they are too many."""
    # Not the size of the model, which cannot be told of one that is too large.
    if sum(len(tensor.raw_data) for tensor in _tensors(model.graph)) > INLINE_LIMIT_BYTES:
        onnx.save(model, str(target), save_as_external_data=True, location=f"{target.name}.data")
    else:
        onnx.save(model, str(target))


def copy_model(model: Path, target: Path) -> None:
    """Copy a model; weights that lie beside it go to `<target>.data`."""
    proto = onnx.load(str(model), load_external_data=False)
    names = {location: f"{target.name}.data{index or ''}" for index, location in enumerate(external_files(proto))}
    if not names:
        shutil.copyfile(model, target)
        return
    for location, name in names.items():
        shutil.copyfile(model.parent / location, target.with_name(name))
    for entry in location_entries(proto):
        entry.value = names[entry.value]
    onnx.save(proto, str(target))


def files_of_model(model: Path) -> tuple[Path, ...]:
    """The files of a model: the graph, and those in which it keeps weights."""
    return files_in(onnx.load(str(model), load_external_data=False), model)


def files_in(proto: onnx.ModelProto, model: Path) -> tuple[Path, ...]:
    """The same for a model that was read from its file, without weights that lie beside it."""
    return (model, *(model.parent / location for location in external_files(proto)))


def model_digest(model: Path) -> str:
    """SHA-256, in hexadecimal, of what a model is: its graph and its weights, wherever the weights are kept.

    Two files with the same digest are the same model: the same nodes, names, attributes and weights in the same order.
    The names of the files in which weights lie do not count.

    Raises:
        ArtifactError: There is no such file, it is no ONNX model, or its weights cannot be read.
    """
    proto = load_model(model)
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


def location_entries(model: onnx.ModelProto) -> Iterator[onnx.StringStringEntryProto]:
    """The entries in which tensors name the file that holds their numbers."""
    for tensor in _tensors(model.graph):
        if uses_external_data(tensor):
            yield from (entry for entry in tensor.external_data if entry.key == "location")


def external_files(model: onnx.ModelProto) -> tuple[str, ...]:
    """The files, relative to the model's, in which a model read without its weights keeps them."""
    return tuple(dict.fromkeys(entry.value for entry in location_entries(model)))


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
