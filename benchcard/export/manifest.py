"""The file `export.json` of the exporters of transformers, from 5.23 on: the graphs that a folder was exported to, and
what each computes.

Owns reading it, and what is written into it for a graph that was exported here. Leaves the use of names to `interface`,
and the file beside published graphs to `benchcard.publishing.weights`.

Source: `ExportedModel.save_pretrained` of transformers/exporters/base.py, `ExportMetadata` of metadata.py beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import onnx

from benchcard.errors import ArtifactError

if TYPE_CHECKING:
    from benchcard.export.exporters import Traceable

FILE = "export.json"
FORMAT = "onnx"
_VERSION = 1


@dataclass(frozen=True)
class Component:
    """A graph of an export: its file, and what transformers recorded about it."""

    file: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def names(self, graph: onnx.GraphProto) -> dict[str, str]:
        """Return the recorded names of the graph's inputs and outputs by those that it has; in their order, where none
        of them was left out of the graph.
        """
        weights = {weight.name for weight in graph.initializer}
        inputs = [value.name for value in graph.input if value.name not in weights]
        outputs = [value.name for value in graph.output]
        kwargs = self.metadata.get("kwargs", {})
        recorded = [name for name, described in kwargs.items() if "rank" in described]
        names: dict[str, str] = {}
        for own, known in ((inputs, recorded), (outputs, _fields(self.metadata.get("out_spec")))):
            if len(own) == len(known):
                names |= dict(zip(own, known))
        return names


@dataclass(frozen=True)
class Manifest:
    """The content of `export.json`."""

    components: Mapping[str, Component]
    export_format: str = FORMAT
    schema_version: int = _VERSION

    def encoded(self) -> bytes:
        """Return the content of the file."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()


def read_manifest(folder: Path) -> Manifest | None:
    """Return what the `export.json` of a folder says; None where it has none.

    Raises:
        ArtifactError: The file is none of transformers.
    """
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        advice = (
            f"Remove it, or export the model again with `save_pretrained`; without {FILE} names are found as usual."
        )
        raise ArtifactError(f"{path} is not what the exporters of transformers write: {error}. {advice}") from error


def describe(traceable: Traceable, opset: int, packages: Sequence[str]) -> dict[str, Any]:
    """Return what transformers records about the graph of a model; empty before transformers 5.23, which has no such
    file, and for a graph with a cache, whose inputs are not those of the model.
    """
    import torch
    from torch.utils import _pytree

    try:
        from transformers.exporters import metadata
    except ImportError:
        return {}
    if traceable.has_cache:
        return {}
    inputs, model = traceable.tensors, traceable.model
    with torch.inference_mode():
        result = model(**inputs, return_dict=True)
    outputs = type(result)(**{name: result[name] for name in traceable.outputs})
    specs = (_pytree.tree_flatten(tree)[1] for tree in (((), inputs), outputs))
    call = SimpleNamespace(call_spec=SimpleNamespace(**dict(zip(("in_spec", "out_spec"), specs))))
    recorded = metadata.build_export_metadata(model, inputs, call, packages)
    recorded.export_config = {"dynamic": True, "export_format": FORMAT, "opset_version": opset}
    return asdict(recorded)


def _fields(spec: str | None) -> list[str]:
    """Return the names of a model's outputs from their tree, as torch writes it; empty where one is no plain tensor."""
    try:
        _, tree = json.loads(spec or "")
        fields = json.loads(tree["context"])
        is_plain = all(child["type"] is None for child in tree["children_spec"])
    except (ValueError, TypeError, KeyError):
        return []
    return fields if is_plain and isinstance(fields, list) and len(fields) == len(tree["children_spec"]) else []
