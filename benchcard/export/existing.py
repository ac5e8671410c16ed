"""The use of a graph that the model's folder already has (`from_transformers: false`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchcard.errors import ArtifactError
from benchcard.export.manifest import FORMAT, Component, read_manifest
from benchcard.graphs.files import load_model, model_files
from benchcard.graphs.graph import opset_of
from benchcard.graphs.traversal import all_nodes
from benchcard.utils.files import pointer_hint
from benchcard.utils.text import did_you_mean, join_names

# Where repositories of the Hub keep graphs: at the top, and in the folder that Transformers.js and optimum use.
USUAL_PLACES = ("model.onnx", "onnx/model.onnx")


def take_existing(model: Path, file_name: str | None, opset: int | None, target: Path) -> tuple[str, dict[str, Any]]:
    """Copy a graph of a model's folder with its external data; return its file name in `target` and a report on it.

    Without `file_name`, the graph that `export.json` names is copied, else the one in a usual place, or the only one.
    None stands for any `opset`.

    Raises:
        ArtifactError: There is no such graph or more than one, it cannot be read, or it has another opset.
    """
    components = _components(model)
    path = _find_graph(model, file_name or (components[0].file if len(components) == 1 else None))
    name = path.relative_to(model)
    graph = load_model(path)
    component = next((entry for entry in components if entry.file == name.as_posix()), Component(str(name)))
    found = opset_of(graph)
    if opset is not None and found != opset:
        raise ArtifactError(
            f"{name} has opset {found}, but opset {opset} was requested: request opset {found}, or export the model "
            "with `from_transformers: true`"
        )
    # The files keep their names, because those of the Hub's cache are links to files outside of the folder.
    for source in model_files(path, graph):
        beside = source.relative_to(path.parent) if source.is_relative_to(path.parent) else source
        if beside.is_absolute() or ".." in beside.parts:
            raise ArtifactError(f"{name} has weights in {beside}, outside of its own folder: move them there")
        if not source.is_file():
            raise ArtifactError(f"{name} has weights in {beside}, but there is no such file")
        if hint := pointer_hint(source):
            raise ArtifactError(f"{name} has no weights: {hint}")
        (target / beside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target / beside)
    return path.name, {
        "opset": found,
        "file": str(name),
        "producer": f"{graph.producer_name} {graph.producer_version}".strip(),
        "dynamic_quantize_nodes": sum(node.op_type.startswith("DynamicQuantize") for node in all_nodes(graph.graph)),
        "notes": ["the graph was not compared with PyTorch"],
        "metadata": component.metadata,
        "names": component.names(graph.graph),
    }


def _components(model: Path) -> list[Component]:
    """Return the graphs that the `export.json` of a folder names; none of another format than ONNX."""
    manifest = read_manifest(model)
    return list(manifest.components.values()) if manifest and manifest.export_format == FORMAT else []


def _find_graph(model: Path, file_name: str | None) -> Path:
    names = sorted(str(path.relative_to(model)) for path in model.rglob("*.onnx"))
    if file_name is not None:
        if file_name not in names:
            hint = did_you_mean(file_name, names)
            remark = f" ({hint})" if hint else ""
            raise ArtifactError(f"{model.name} has no {file_name}; it has {join_names(names)}{remark}")
        return model / file_name
    for name in (*USUAL_PLACES, *names[: len(names) == 1]):
        if name in names:
            return model / name
    if names:
        advice = "choose one with `framework_args: {file_name: ...}`"
        raise ArtifactError(f"{model.name} has several graphs, {join_names(names)}: {advice}")
    raise ArtifactError(f"{model.name} has no ONNX file: leave out `from_transformers: false` to export the model")
