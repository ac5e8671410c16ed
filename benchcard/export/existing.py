"""A graph that a model's folder already holds, taken as it is (`from_transformers: false`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchcard.errors import ArtifactError
from benchcard.utils.files import pointer_hint
from benchcard.utils.text import did_you_mean, join_names

# Where graphs lie in repositories of the Hub: at the top, and in the folder that Transformers.js and optimum use.
_PLACES = ("model.onnx", "onnx/model.onnx")


def take_existing(model: Path, file_name: str | None, opset: int | None, target: Path) -> tuple[str, dict[str, Any]]:
    """The graph's file name in `target`, copied there with its external data, and what it is.

    Args:
        model: The folder of the model.
        file_name: The graph in it; None for the usual places, or the only one.
        opset: The opset it must have; None for any.
        target: The folder to copy to.

    Raises:
        ArtifactError: There is no such graph, it is not the only one, it cannot be read, or it has another opset.
    """
    from benchcard.graphs.files import load_model, model_files
    from benchcard.graphs.graph import opset_of
    from benchcard.graphs.traversal import all_nodes

    path = _find(model, file_name)
    graph = load_model(path)
    found = opset_of(graph)
    if opset is not None and found != opset:
        raise ArtifactError(
            f"opset {opset} was asked for, and {path.relative_to(model)} has opset {found}: "
            f"ask for {found}, or export with from_transformers: true"
        )
    # As they are named: the files of the Hub's cache are links to others outside of the folder.
    for source in model_files(path, graph):
        name = source.relative_to(path.parent) if source.is_relative_to(path.parent) else source
        if name.is_absolute() or ".." in name.parts:
            raise ArtifactError(f"{path.relative_to(model)} keeps weights outside of its own folder ({name})")
        if not source.is_file():
            raise ArtifactError(f"{path.relative_to(model)} keeps weights in {name}, which is not there")
        if hint := pointer_hint(source):
            raise ArtifactError(f"{path.relative_to(model)} has no weights: {hint}")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target / name)
    return path.name, {
        "opset": found,
        "file": str(path.relative_to(model)),
        "producer": f"{graph.producer_name} {graph.producer_version}".strip(),
        "dynamic_quantize_nodes": sum(node.op_type.startswith("DynamicQuantize") for node in all_nodes(graph.graph)),
        "notes": ["the graph was taken as it is, and not compared with PyTorch"],
    }


def _find(model: Path, file_name: str | None) -> Path:
    known = sorted(str(path.relative_to(model)) for path in model.rglob("*.onnx"))
    if file_name is not None:
        if file_name not in known:
            hint = did_you_mean(file_name, known)
            raise ArtifactError(
                f"{model.name} holds no {file_name}; it holds {join_names(known)}" + (f" ({hint})" if hint else "")
            )
        return model / file_name
    for place in (*_PLACES, *known[: 1 if len(known) == 1 else 0]):
        if place in known:
            return model / place
    if known:
        raise ArtifactError(
            f"{model.name} holds several graphs, {join_names(known)}: say which with framework_args: {{file_name: ...}}"
        )
    raise ArtifactError(f"{model.name} holds no ONNX file: leave out from_transformers: false to have it exported")
