"""The export of a transformers model to ONNX at the requested opset, checked against PyTorch.

Owns loading the model, trying the exporters until one writes a correct graph, the message if none does, and the report.
Leaves exporters to `exporters`, the form of the graph to `normal_form`, example inputs to `probes`, and the comparison
to `parity`.

It runs in a child process, because torch is loaded inside the functions and stays in memory.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchcard.errors import ArtifactError
from benchcard.export.loading import SEED, load_processor, load_with_missing

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel, ProcessorMixin

    from benchcard.export.exporters import Exporter, Traceable
    from benchcard.export.parity import Check
    from benchcard.export.probes import Probe


DEFAULT_OPSET = 20
"""The default opset. Layer normalization (17) and GELU (20) are single nodes, so that quantizing `Add` or `Mul` leaves
them unchanged, and it is the last opset that the first exporter writes without conversion.

Source: https://onnx.ai/onnx/operators/ (first versions of LayerNormalization and Gelu).
"""

_SEARCH_S = 60.0
_MAX_SUGGESTED = 2


@dataclass(frozen=True)
class GraphInput:
    """An input of the exported graph.

    Attributes:
        name: Its name in the output of the processor or tokenizer.
        dtype: Its NumPy dtype, as `int64`.
        shape: One entry per axis: a name where the axis is dynamic, its size where it is fixed.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class ExportReport:
    """The result of an export. `dataclasses.asdict` of it is plain data.

    Attributes:
        task: The requested task.
        model_class: The class of the model.
        opset: The opset of the graph, read from its file.
        exporter: The exporter that wrote it.
        exporter_version: The versions of that exporter's packages.
        files: The files, the graph first.
        inputs: The inputs of the graph.
        outputs: The names of its outputs.
        checks: The comparisons with PyTorch, none of them at the shape of the export.
        max_abs_difference: The largest absolute difference over all checks, at real positions.
        duration_s: Seconds for all steps, from loading the model on.
        notes: Warnings of the exporters, and the exporters that failed before.
    """

    task: str
    model_class: str
    opset: int
    exporter: str
    exporter_version: str
    files: tuple[str, ...]
    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]
    checks: tuple[Check, ...]
    max_abs_difference: float
    duration_s: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Job:
    """The input of all exporters, and the probes for their graphs."""

    traceable: Traceable
    probes: tuple[Probe, ...]


@dataclass(frozen=True)
class _Export:
    """A graph that passed all checks, in a folder of its own."""

    folder: Path
    files: tuple[str, ...]
    opset: int
    inputs: tuple[GraphInput, ...]
    exporter: Exporter
    checks: tuple[Check, ...]


def export_model(
    model: str | Path,
    task: str,
    opset: int | None,
    target: Path,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> ExportReport:
    """Export a model as `model.onnx` in the target folder, check it, and return the report.

    Weights that do not fit into that file are in `model.onnx.data`. The same model, versions and opset give the same
    bytes.

    Args:
        model: A local folder, or a Hub id.
        task: The task whose model class is loaded, as `image-classification`.
        opset: The opset of the graph; None for the working one nearest to `DEFAULT_OPSET`.
        target: The folder to write into, which is created where necessary. Nothing is added to it on failure.
        revision: The revision of a Hub id.
        trust_remote_code: Whether code of the model's repository may run.

    Raises:
        ArtifactError: The model cannot be loaded, or no exporter writes a graph of this opset that computes what
            PyTorch computes; the message has the reason for each, and opsets that work.
    """
    from benchcard.export.exporters import noted

    started = time.perf_counter()
    notes: list[str] = []
    with noted(notes):
        loaded, missing = load_with_missing(model, task, revision, trust_remote_code)
        if missing:
            notes.append(f"missing in the checkpoint, and random with seed {SEED}: {', '.join(missing)}")
        job = _job(loaded, load_processor(loaded, model, revision, trust_remote_code, notes))
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as folder:
            exported = _export(job, opset, Path(folder), notes)
            for name in exported.files:
                (exported.folder / name).replace(target / name)
    used = {input_.name for input_ in exported.inputs}
    if unused := [input_.name for input_ in job.traceable.inputs if input_.name not in used]:
        notes.append(f"the model does not read {', '.join(unused)}: the graph has no such input")
    return ExportReport(
        task=task,
        model_class=type(loaded).__name__,
        opset=exported.opset,
        exporter=exported.exporter.name,
        exporter_version=exported.exporter.version,
        files=exported.files,
        inputs=exported.inputs,
        outputs=job.traceable.outputs,
        checks=exported.checks,
        max_abs_difference=max(check.max_abs_difference for check in exported.checks),
        duration_s=time.perf_counter() - started,
        notes=tuple(notes),
    )


def _job(model: PreTrainedModel, processor: ProcessorMixin | None) -> _Job:
    from benchcard.export import probes
    from benchcard.export.exporters import Traceable

    inputs = probes.model_inputs(model, processor)
    tokens = probes.vocabulary(model, processor)
    shapes = probes.check_shapes(model, inputs)
    checked = probes.reference(model, [probes.example(inputs, tokens, *shape) for shape in shapes])
    traced = probes.example(inputs, tokens, *probes.TRACED)
    return _Job(Traceable(model, inputs, traced, tuple(checked[0].outputs)), checked)


def _export(job: _Job, opset: int | None, folder: Path, notes: list[str]) -> _Export:
    """Return a correct graph: of the requested opset, or without one, of the nearest working one to the default."""
    wanted = DEFAULT_OPSET if opset is None else opset
    exported, reasons = _try_exporters(job, wanted, folder)
    if exported is not None:
        notes.extend(reasons)
        return exported
    failure = f"{type(job.traceable.model).__name__} cannot be exported at opset {wanted}: {'; '.join(reasons)}"
    others = _other_opsets(job, wanted, folder)
    if opset is None and (exported := next(others, None)) is not None:
        notes.append(failure)
        return exported
    working = sorted(other.opset for other in itertools.islice(others, _MAX_SUGGESTED))
    if working:
        raise ArtifactError(f"{failure}. Opsets that work: {', '.join(map(str, working))}.")
    raise ArtifactError(f"{failure}. No other opset works among those tried within {_SEARCH_S:.0f} s.")


def _other_opsets(job: _Job, wanted: int, folder: Path) -> Iterator[_Export]:
    """Yield correct graphs of other opsets, the nearest to the wanted one first, until the time is up."""
    from benchcard.export.exporters import OPSETS

    deadline = time.perf_counter() + _SEARCH_S
    for opset in sorted(set(OPSETS) - {wanted}, key=lambda other: (abs(other - wanted), other)):
        if time.perf_counter() > deadline:
            return
        exported, _ = _try_exporters(job, opset, folder)
        if exported is not None:
            yield exported


def _try_exporters(job: _Job, opset: int, folder: Path) -> tuple[_Export | None, list[str]]:
    """Return the graph of the first exporter that writes a correct one, and why those before it failed."""
    from benchcard.export.exporters import FAILURES, OPSETS, exporters, reason

    reasons: list[str] = []
    for exporter in exporters(opset):
        own_folder = folder / f"{exporter.name}-{opset}"
        own_folder.mkdir()
        try:
            return _write_checked(job, exporter, opset, own_folder), reasons
        except FAILURES as error:
            reasons.append(f"{exporter.name}: {reason(error)}")
            shutil.rmtree(own_folder)
    if not reasons:
        reasons.append(f"no exporter supports it; they support {OPSETS.start} to {OPSETS.stop - 1}")
    return None, reasons


def _write_checked(job: _Job, exporter: Exporter, opset: int, folder: Path) -> _Export:
    """Write the graph of an exporter and check it.

    Raises:
        ArtifactError: It has another opset, violates the standard, or does not compute what PyTorch computes.
    """
    import onnx

    from benchcard.export import normal_form, parity
    from benchcard.export.exporters import MODEL
    from benchcard.graphs.graph import opset_of

    traceable = job.traceable
    graph = normal_form.normalize(exporter.write(traceable, opset), traceable.inputs, traceable.outputs, MODEL)
    path, *beside = normal_form.write_normalized(graph, folder)
    written = onnx.load(path, load_external_data=False)
    found = opset_of(written)
    if found != opset:
        raise ArtifactError(f"it wrote opset {found} without a warning")
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ArtifactError(f"the graph is not valid at this opset: {error}") from error
    inputs = tuple(_graph_input(value) for value in written.graph.input)
    files = tuple(file.name for file in (path, *beside))
    return _Export(folder, files, found, inputs, exporter, parity.compare(path, job.probes))


def _graph_input(value: onnx.ValueInfoProto) -> GraphInput:
    import onnx

    tensor = value.type.tensor_type
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return GraphInput(value.name, dtype, tuple(size.dim_param or size.dim_value for size in tensor.shape.dim))
