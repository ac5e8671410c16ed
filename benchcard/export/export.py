"""The export of a transformers model to ONNX, at a true requested opset, checked against PyTorch.

Owns: loading the model for its task, trying the exporters until one gives a graph that is right, saying why none did
and which opsets work, and the report. Leaves the exporters to `exporters`, the form of the graph to `normal_form`,
example inputs to `probes`, and the comparison to `parity`.

It is meant for a child process: torch is loaded inside the functions, and stays.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard.errors import ArtifactError
from benchcard.export.loading import SEED, load, load_processor

if TYPE_CHECKING:
    from benchcard.export.exporters import Exporter, Traceable
    from benchcard.export.parity import Check
    from benchcard.export.probes import Probe


DEFAULT_OPSET = 20
"""The opset where none is asked for: layer normalization (17) and GELU (20) are one node each, so that quantizing `Add`
or `Mul` leaves them whole, and it is the last own opset of the exporter that is tried first.

Source: https://onnx.ai/onnx/operators/ (first versions of LayerNormalization and Gelu).
"""

_SEARCH_S = 60.0
_ENOUGH_WORKING = 2


@dataclass(frozen=True)
class GraphInput:
    """An input of the exported graph.

    Attributes:
        name: as the processor or tokenizer gives it.
        dtype: element type in NumPy's words, as `int64`.
        shape: one entry an axis: a name where the axis is dynamic, its size where it is fixed.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class ExportReport:
    """What was exported, how, and how near it is to PyTorch. `dataclasses.asdict` of it is plain data.

    Attributes:
        task: as it was asked for.
        model_class: the class that was exported.
        opset: the opset of the graph, read from its file.
        exporter: which exporter wrote it.
        exporter_version: the versions of the packages behind that exporter.
        files: what was written, the graph first.
        inputs: the inputs of the graph.
        outputs: the names of its outputs.
        checks: the comparisons with PyTorch, none of them at the shape of the export.
        max_abs_difference: the largest absolute difference over all checks, at real positions.
        duration_s: seconds for all of it, from loading the model.
        notes: what the exporters warned of, and which of them failed before.
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
    """What all tries of one export share."""

    traceable: Traceable
    probes: tuple[Probe, ...]


@dataclass(frozen=True)
class _Made:
    """A graph that passed, in a folder of its own; what it has is read from its file."""

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
    """The report of an export; the graph is `model.onnx` in the target folder, and passed every check.

    Weights beyond what one file can hold lie beside it in `model.onnx.data`. The same model, versions and opset give
    the same bytes.

    Args:
        model: a local folder, or a Hub id.
        task: the task whose model class is loaded, as `image-classification`.
        opset: the opset that the graph must have; None for the best that works.
        target: the folder to write into; it is made where it is missing. It holds nothing new when this fails.
        revision: the revision of a Hub id.
        trust_remote_code: whether code of the model's repository may run.

    Raises:
        ArtifactError: the model cannot be loaded, or no exporter writes a graph of this opset that gives what PyTorch
            gives; the text has the reason of each, and opsets that do work.
    """
    from benchcard.export.exporters import noted

    started = time.perf_counter()
    notes: list[str] = []
    with noted(notes):
        loaded, missing = load(model, task, revision, trust_remote_code)
        if missing:
            notes.append(f"not in the checkpoint, drawn at random with seed {SEED}: {', '.join(missing)}")
        job = _job(loaded, load_processor(loaded, model, revision, trust_remote_code, notes))
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as folder:
            made = _make(job, opset, Path(folder), notes)
            for name in made.files:
                (made.folder / name).replace(target / name)
    read = {input_.name for input_ in made.inputs}
    unread = [input_.name for input_ in job.traceable.inputs if input_.name not in read]
    if unread:
        notes.append(f"the model does not read {', '.join(unread)}: the graph has no such input")
    return ExportReport(
        task=task,
        model_class=type(loaded).__name__,
        opset=made.opset,
        exporter=made.exporter.name,
        exporter_version=made.exporter.version,
        files=made.files,
        inputs=made.inputs,
        outputs=job.traceable.outputs,
        checks=made.checks,
        max_abs_difference=max(check.max_abs_difference for check in made.checks),
        duration_s=time.perf_counter() - started,
        notes=tuple(notes),
    )


def _job(model: Any, processor: Any | None) -> _Job:
    """What there is to export, and what it is to be compared with."""
    from benchcard.export import probes
    from benchcard.export.exporters import Traceable

    inputs = probes.model_inputs(model, processor)
    tokens = probes.vocabulary(model, processor)
    shapes = probes.check_shapes(model, inputs)
    checked = probes.reference(model, [probes.example(inputs, tokens, *shape) for shape in shapes])
    traced = probes.example(inputs, tokens, *probes.TRACED)
    return _Job(Traceable(model, inputs, traced, tuple(checked[0].outputs)), checked)


def _make(job: _Job, opset: int | None, folder: Path, notes: list[str]) -> _Made:
    """A graph that is right: of the asked opset, or where none was asked for, of the nearest to the default."""
    wanted = DEFAULT_OPSET if opset is None else opset
    made, reasons = _try(job, wanted, folder)
    if made is not None:
        notes.extend(reasons)
        return made
    failure = f"{type(job.traceable.model).__name__} cannot be exported at opset {wanted}: {'; '.join(reasons)}"
    others = _others(job, wanted, folder)
    if opset is None and (made := next(others, None)) is not None:
        notes.append(failure)
        return made
    works = sorted(other.opset for other in itertools.islice(others, _ENOUGH_WORKING))
    if works:
        raise ArtifactError(f"{failure}. Opsets that work: {', '.join(map(str, works))}.")
    raise ArtifactError(f"{failure}. No other opset works among those tried within {_SEARCH_S:.0f} s.")


def _others(job: _Job, wanted: int, folder: Path) -> Iterator[_Made]:
    """Graphs of opsets that work, the nearest to the wanted one first, until the time for the search is up."""
    from benchcard.export.exporters import OPSETS

    deadline = time.perf_counter() + _SEARCH_S
    for opset in sorted(set(OPSETS) - {wanted}, key=lambda other: (abs(other - wanted), other)):
        if time.perf_counter() > deadline:
            return
        made, _ = _try(job, opset, folder)
        if made is not None:
            yield made


def _try(job: _Job, opset: int, folder: Path) -> tuple[_Made | None, list[str]]:
    """The graph of the first exporter that makes a right one, and why those before it did not."""
    from benchcard.export.exporters import FAILURES, OPSETS, exporters, reason

    reasons: list[str] = []
    for exporter in exporters(opset):
        own = folder / f"{exporter.name}-{opset}"
        own.mkdir()
        try:
            return _written(job, exporter, opset, own), reasons
        except FAILURES as error:
            reasons.append(f"{exporter.name}: {reason(error)}")
            shutil.rmtree(own)
    if not reasons:
        reasons.append(f"no exporter writes it; they write {OPSETS.start} to {OPSETS.stop - 1}")
    return None, reasons


def _written(job: _Job, exporter: Exporter, opset: int, folder: Path) -> _Made:
    """The graph of one exporter, written and checked.

    Raises:
        ArtifactError: it has another opset, breaks the standard, or does not compute what PyTorch computes.
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
        raise ArtifactError(f"it wrote opset {found} without a word")
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ArtifactError(f"the graph is not valid at this opset: {error}") from error
    inputs = tuple(_graph_input(value) for value in written.graph.input)
    files = tuple(file.name for file in (path, *beside))
    return _Made(folder, files, found, inputs, exporter, parity.compare(path, job.probes))


def _graph_input(value: Any) -> GraphInput:
    """An input as its `onnx.ValueInfoProto` has it."""
    import onnx

    tensor = value.type.tensor_type
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return GraphInput(value.name, dtype, tuple(size.dim_param or size.dim_value for size in tensor.shape.dim))
