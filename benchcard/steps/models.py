"""The steps `export`, `cast` and `convert`: the graph of a model, the same in float16, and the file that a framework
makes of a graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchcard import registry
from benchcard.errors import ArtifactError
from benchcard.frameworks.protocol import Converted
from benchcard.steps.data import RowsOutcome, ShapeOutcome
from benchcard.steps.step import Count, Outcome, Progress, Request, local, need

if TYPE_CHECKING:
    from benchcard.export.interface import Contract


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model file that a step made: its name in the step's folder, SHA-256, and size with external weights.

    `weights` is their number and `weight_bits` what they take; None where the file is no graph, or not counted.
    """

    file: str
    digest: str
    size_bytes: Count
    weights: Count | None = None
    weight_bits: Count | None = None


def path_of(outcome: Outcome[Any]) -> Path:
    """Return the path of the model file that a step made."""
    path: Path = outcome.folder / outcome.values.file
    return path


@dataclass(frozen=True, kw_only=True)
class GraphReport:
    """What is known of a float graph, and what else the exporter reported. The opset is None if the graph has none.

    `max_abs_difference` is the largest absolute difference of its outputs from PyTorch's; None if not compared.
    `input_length` is the only number of tokens that it takes; None where it takes any. `renamed` says which input and
    output of a given graph is which. `metadata` is that of the graph in `export.json` of transformers; empty without.
    """

    opset: int | None = None
    input_length: int | None = None
    max_abs_difference: float | None = None
    dynamic_quantize_nodes: int = 0
    renamed: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExportOutcome(ModelFile):
    """A float graph."""

    report: GraphReport


@dataclass(frozen=True, kw_only=True)
class ExportRequest(Request[ExportOutcome]):
    """The graph of a model: exported from transformers (opset None: the exporter's choice), or a file of its folder.

    Of a file, `inputs` and `outputs` have the names in the graph by those of the task, as far as the spec gives them;
    `layout` is that of its images; `example` are inputs as the task makes them, by which it is checked and its names
    are changed to those of the task; None for neither. `with_cache` is whether a decoder reads and returns keys and
    values.
    """

    kind: ClassVar[str] = "export"
    model: Mapping[str, Any]
    task: str
    opset: int | None
    from_transformers: bool
    file_name: str | None
    inputs: Mapping[str, str] | None = None
    outputs: Mapping[str, str] | None = None
    layout: str | None = None
    with_cache: bool = False
    trust_remote_code: bool = False
    model_folder: Path = local()
    example: Outcome[ShapeOutcome] | None = need(default=None)

    @property
    def engine(self) -> str:
        """The kind of child process."""
        return "torch" if self.from_transformers else "onnx"

    def __str__(self) -> str:
        return f"export opset {self.opset or 'default'}"


@dataclass(frozen=True, kw_only=True)
class CastRequest(Request[ExportOutcome]):
    """A float graph in float16, whose inputs and outputs stay float32."""

    kind: ClassVar[str] = "cast"
    engine: ClassVar[str] = "onnx"
    graph: Outcome[ExportOutcome] = need()


@dataclass(frozen=True, kw_only=True)
class ConvertOutcome(ModelFile):
    """A model in the form that another framework opens.

    `quantized` is that of `Converted`; `kinds` has the number of weights by what they are stored in.
    """

    size_bytes: Count = 0
    quantized: bool = False
    kinds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ConvertRequest(Request[ConvertOutcome]):
    """A graph in the form that a framework opens, with the framework's own arguments, and samples to calibrate on."""

    kind: ClassVar[str] = "convert"
    framework: str
    arguments: Mapping[str, Any]
    graph: Outcome[ModelFile] = need()
    samples: Outcome[RowsOutcome] | None = need(default=None)


def export(request: ExportRequest, target: Path, progress: Progress) -> ExportOutcome:
    """Write the graph of the requested opset: exported and checked against PyTorch, or copied from the folder."""
    from benchcard.graphs.files import model_digest
    from benchcard.graphs.weights import stored_weights

    if request.from_transformers:
        from benchcard.export.export import export_model

        file = "model.onnx"
        details = asdict(
            export_model(
                request.model_folder,
                request.task,
                request.opset,
                target,
                trust_remote_code=request.trust_remote_code,
                with_cache=request.with_cache,
            )
        )
        digest = model_digest(target / file)
    else:
        from benchcard.export.existing import take_existing
        from benchcard.export.interface import Names, adapt

        file, details = take_existing(request.model_folder, request.file_name, request.opset, target)
        # It also reads the weights, so that the message on damaged ones is its own and not the runtime's.
        digest, recorded = model_digest(target / file), details.pop("names")
        if request.example is not None:
            names = Names(request.inputs or {}, request.outputs or {}, request.layout)
            adapted = adapt(target / file, names, _contract(request, request.example, recorded))
            details |= {"input_length": adapted.input_length, "renamed": adapted.notes}
            digest = model_digest(target / file) if adapted.notes else digest
    names_of_facts = [entry.name for entry in fields(GraphReport) if entry.name != "details"]
    facts = {name: details.pop(name) for name in names_of_facts if name in details}
    report = GraphReport(**facts, details=details)
    stored = stored_weights(target / file)
    return ExportOutcome(
        file=file,
        digest=digest,
        size_bytes=_size(target),
        weights=stored.count,
        weight_bits=stored.bits,
        report=report,
    )


def cast(request: CastRequest, target: Path, progress: Progress) -> ExportOutcome:
    """Write a float graph in float16 that the runtime can load."""
    from benchcard.graphs.files import model_digest
    from benchcard.graphs.float16 import convert_to_float16
    from benchcard.graphs.weights import stored_weights
    from benchcard.quantization.loading import loading_note

    model = target / "model.onnx"
    convert_to_float16(path_of(request.graph), model)
    loading_note(model)
    stored = stored_weights(model)
    return replace(
        request.graph.values,
        file=model.name,
        digest=model_digest(model),
        size_bytes=_size(target),
        weights=stored.count,
        weight_bits=stored.bits,
    )


@dataclass(frozen=True)
class _Config:
    """What is read of a model's `config.json`."""

    id2label: dict[str, object] | None = None
    model_type: str | None = None


def _contract(request: ExportRequest, example: Outcome[ShapeOutcome], recorded: Mapping[str, str]) -> Contract:
    """Return what a task gives to a model and reads from it, to check a graph of the model's folder with."""
    import numpy as np

    from benchcard.export.interface import Contract
    from benchcard.tasks.pooling import read_json

    with np.load(example.folder / "inputs.npz", allow_pickle=False) as arrays:
        inputs = dict(arrays)
    config = read_json(request.model_folder / "config.json", _Config) or _Config()
    task = registry.task(request.task)
    # Configurations of language models name labels, too, which mean nothing.
    is_of_labels = not any(getattr(task, name, False) for name in ("predicts_tokens", "adds_class"))
    labels = len(config.id2label) if config.id2label and is_of_labels else None

    def padding_id() -> int | None:
        # Not above: it loads torch, and few graphs take positions.
        from benchcard.tasks.config import load_config
        from benchcard.tasks.text import position_padding_id
        from benchcard.tasks.trust import trusting

        with trusting(request.trust_remote_code):
            return position_padding_id(load_config(request.model_folder)) if config.model_type else None

    return Contract(inputs, getattr(task, "outputs", ()), labels, recorded, padding_id)


def convert(request: ConvertRequest, target: Path, progress: Progress) -> ConvertOutcome:
    """Write a graph in the form that a framework of another package opens."""
    from benchcard.evaluation.feeds import Feeds
    from benchcard.utils.files import content_digest, list_files
    from benchcard.utils.plain import digest

    framework, graph = registry.framework(request.framework), path_of(request.graph)
    samples = Feeds(request.samples.folder, graph) if request.samples else ()
    made = framework.convert(graph, target, request.arguments, samples)
    made = made if isinstance(made, Converted) else Converted(made)
    if not (target / made.file).exists():
        problem = f"`convert` of the framework {request.framework} returned {made.file}"
        raise ArtifactError(f"{problem}, but wrote no such file")
    # All files count: weights may be beside the file that the framework opens.
    files = {name: content_digest(path) for name, path in list_files(target).items() if name != "log.txt"}
    return ConvertOutcome(
        file=made.file,
        digest=digest(files),
        size_bytes=_size(target),
        quantized=made.quantized,
        weights=made.weights.count if made.weights else None,
        weight_bits=made.weights.bits if made.weights else None,
        kinds=made.weights.kinds if made.weights else {},
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "log.txt")
