"""ONNX model files: reading, writing, copying, external weights, and digests."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from benchcard.errors import ArtifactError
from benchcard.graphs.traversal import all_tensors
from benchcard.utils.files import pointer_hint

# A protobuf message ends at 2 GiB. Quantization adds nodes and scales, so weights move to a file of their own earlier.
# Source: https://onnx.ai/onnx/repo-docs/ExternalData.html
INLINE_LIMIT_BYTES = 2**31 - 2**27


def file_version(path: Path) -> tuple[int, int]:
    """Return two numbers that change when a file is written or replaced; zeros where there is no such file.

    Unlike the time of its last modification, no program can set that of its last status change.
    """
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_ctime_ns, status.st_size


def load_model(path: Path) -> onnx.ModelProto:
    """Return the model in a file, checked, without its external weights.

    Raises:
        ArtifactError: There is no such file, or it is not a valid ONNX model.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}. Export the model again.") from error
    except DecodeError as error:
        raise ArtifactError(_unreadable(path)) from error
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    for node in model.graph.node:
        names += (node.op_type, node.domain, node.name, *node.input, *node.output)
    is_text = all(isinstance(name, str) for name in names)  # protobuf returns one that is not valid UTF-8 as bytes
    if not (model.HasField("graph") and (model.graph.node or model.opset_import) and is_text):
        raise ArtifactError(_unreadable(path))
    _check_input_counts(model, path)
    return model


def _unreadable(path: Path) -> str:
    hint = pointer_hint(path) or "it is empty, damaged or in another format. Download or export it again"
    return f"{path.name} cannot be read as an ONNX model: {hint}."


def _check_input_counts(model: onnx.ModelProto, path: Path) -> None:
    """Raise where a node has fewer inputs than its operator needs: others index them unchecked."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for node in model.graph.node:
        # A damaged file may hold a version that does not fit into an `int` of C.
        version = min(max(versions.get(node.domain, 0), 0), 1000)
        if not onnx.defs.has(node.op_type, version, node.domain):
            continue  # an operator of ONNX Runtime or a custom one
        least = onnx.defs.get_schema(node.op_type, version, node.domain).min_input
        if len(node.input) < least:
            raise ArtifactError(
                f"{path.name} is not a valid graph: its node `{node.name}` ({node.op_type}) has {len(node.input)} "
                f"inputs and needs {least}. Export the model again."
            )


def load_clean_model(path: Path) -> onnx.ModelProto:
    """Return the model in a file without external weights, and without the `value_info` of its initializers.

    PyTorch's exporter repeats their types and shapes and lets the copy become stale, and the second shape inference of
    dynamic quantization then fails ("Inferred shape and existing shape differ").
    """
    model = load_model(path)
    initializers = {weight.name for weight in model.graph.initializer}
    infos = [info for info in model.graph.value_info if info.name not in initializers]
    del model.graph.value_info[:]
    model.graph.value_info.extend(infos)
    return model


def write_model(model: onnx.ModelProto, target: Path) -> None:
    """Write a model with its loaded weights; those too large for one file go to `<target>.data`."""
    # Not `ByteSize`, which fails for a model that is too large.
    if sum(len(tensor.raw_data) for tensor in all_tensors(model.graph)) > INLINE_LIMIT_BYTES:
        onnx.save(model, str(target), save_as_external_data=True, location=f"{target.name}.data")
    else:
        onnx.save(model, str(target))


def copy_model(model: Path, target: Path) -> None:
    """Copy a model; its external weights go to `<target>.data`."""
    proto = onnx.load(str(model), load_external_data=False)
    if external_files(proto):
        write_beside_copied_weights(proto, model.parent, target)
    else:
        shutil.copyfile(model, target)


def write_beside_copied_weights(model: onnx.ModelProto, folder: Path, target: Path) -> None:
    """Write a model that was loaded from `folder` without its external weights, and copy these to `<target>.data`."""
    names = {location: f"{target.name}.data{index or ''}" for index, location in enumerate(external_files(model))}
    for location, name in names.items():
        shutil.copyfile(folder / location, target.with_name(name))
    for entry in location_entries(model):
        entry.value = names[entry.value]
    onnx.save(model, str(target))


def model_files(path: Path, model: onnx.ModelProto | None = None) -> tuple[Path, ...]:
    """Return the files of a model: the graph, and those with its external weights. `model` spares loading it again."""
    model = onnx.load(str(path), load_external_data=False) if model is None else model
    return (path, *(path.parent / location for location in external_files(model)))


def external_files(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the files, relative to the model's, that hold the external weights of a model loaded without them."""
    return tuple(dict.fromkeys(entry.value for entry in location_entries(model)))


def location_entries(model: onnx.ModelProto) -> Iterator[onnx.StringStringEntryProto]:
    """Yield the entries in which external tensors name their file; their values may be changed."""
    for tensor in all_tensors(model.graph):
        if uses_external_data(tensor):
            yield from (entry for entry in tensor.external_data if entry.key == "location")


def model_digest(path: Path) -> str:
    """Return the SHA-256 (hexadecimal) of a model: of its graph and its weights, wherever the weights are stored.

    Only the names of files with external weights do not count.

    Raises:
        ArtifactError: There is no such file, it is not a valid ONNX model, or its weights cannot be read.
    """
    model = load_model(path)
    try:
        return digest_of(model, path.parent)
    except (FileNotFoundError, ValueError, onnx.checker.ValidationError) as error:
        raise ArtifactError(
            f"The external weights of {path.name} cannot be read: {error}. Download or export the model again."
        ) from error


def digest_of(model: onnx.ModelProto, folder: Path) -> str:
    """Return the digest of a model that was loaded from `folder` without external weights.

    All weights are removed from `model`.
    """
    digest = hashlib.sha256()
    for tensor in all_tensors(model.graph):
        data = tensor.raw_data
        if uses_external_data(tensor):
            # Loaded into a message of its own, which is freed before the next: all of them may not fit into memory.
            loaded = TensorProto()
            loaded.CopyFrom(tensor)
            load_external_data_for_tensor(loaded, str(folder))
            data = loaded.raw_data
        if data:
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
            tensor.raw_data = b""
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    digest.update(model.SerializeToString(deterministic=True))
    return digest.hexdigest()


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model without the data of large weights, which type inference does not need."""
    source = model.graph
    graph = onnx.GraphProto(
        name=source.name, node=source.node, input=source.input, output=source.output, value_info=source.value_info
    )
    for weight in source.initializer:
        is_small = len(weight.raw_data) <= 1024
        empty = TensorProto(name=weight.name, data_type=weight.data_type, dims=weight.dims)
        graph.initializer.append(weight if is_small else empty)
    return onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions, graph=graph
    )
