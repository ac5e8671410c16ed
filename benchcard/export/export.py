"""The export of a transformers model to ONNX at the requested opset, checked against PyTorch.

Owns loading the model, trying the exporters until one writes a correct graph, the message if none does, and the report.
Leaves exporters to `exporters`, the form of the graph to `normal_form`, example inputs to `probes`, and the comparison
to `parity`. This module loads torch, so import it inside a function.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from torch.nn.utils import parametrize
from transformers import PreTrainedModel, ProcessorMixin

from benchcard.errors import ArtifactError
from benchcard.export import cache, exporters, normal_form, parity, probes
from benchcard.export.exporters import Exporter, Traceable
from benchcard.export.loading import SEED, load_processor, load_with_missing
from benchcard.export.manifest import describe
from benchcard.graphs.graph import opset_of

DEFAULT_OPSET = 20
"""The default opset. Layer normalization (17) and GELU (20) are single nodes, so that quantizing `Add` or `Mul` leaves
them unchanged, and it is the last opset that the first exporter writes without conversion.

Source: https://onnx.ai/onnx/operators/ (first versions of LayerNormalization and Gelu).
"""

_SEARCH_S = 60.0


@dataclass(frozen=True)
class GraphInput:
    """An input of the exported graph, of a NumPy dtype; `shape` has a name for each dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class ExportReport:
    """The result of an export. `dataclasses.asdict` of it is plain data.

    The first of `files` is the graph. `checks` compare it with PyTorch at other shapes than that of the export, and
    ignore padded positions. `duration_s` includes loading the model. `notes` are the warnings of exporters, and why
    exporters that were tried first failed. `metadata` is that of `export.json`.
    """

    task: str
    model_class: str
    opset: int
    exporter: str
    exporter_version: str
    files: tuple[str, ...]
    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]
    checks: tuple[parity.Check, ...]
    max_abs_difference: float
    duration_s: float
    notes: tuple[str, ...]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class _Export:
    """A graph that passed all checks, in a folder of its own."""

    folder: Path
    files: tuple[str, ...]
    opset: int
    inputs: tuple[GraphInput, ...]
    exporter: Exporter
    checks: tuple[parity.Check, ...]


def export_model(
    model: Path,
    task: str,
    opset: int | None,
    target: Path,
    *,
    trust_remote_code: bool = False,
    with_cache: bool = False,
) -> ExportReport:
    """Export the model in a folder as `model.onnx` in the target folder, check it, and return the report.

    With `with_cache`, a decoder reads and returns keys and values: one graph for the prompt and for each next token.
    Weights that do not fit into that file are in `model.onnx.data`. The same model, versions and opset give the same
    bytes. Without `opset`, the one nearest to `DEFAULT_OPSET` that works is used. Nothing is added to the target
    folder on failure.

    Raises:
        ArtifactError: The model cannot be loaded, or no exporter writes a graph of this opset that computes what
            PyTorch computes; the message has each exporter's reason, and opsets that work.
        SpecError: The model has no cache of keys and values.
    """
    started = time.perf_counter()
    notes: list[str] = []
    with exporters.noted(notes):
        loaded, missing = load_with_missing(model, task, trust_remote_code)
        if missing:
            notes.append(f"missing in the checkpoint, and random with seed {SEED}: {', '.join(missing)}")
        make = _with_cache if with_cache else _traceable
        traceable = make(loaded, load_processor(loaded, model, trust_remote_code, notes))
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as folder:
            exported = _export(traceable, opset, Path(folder), notes)
            for name in exported.files:
                (exported.folder / name).replace(target / name)
    used = {input_.name for input_ in exported.inputs}
    if unused := [input_.name for input_ in traceable.inputs if input_.name not in used]:
        notes.append(f"the model does not read {', '.join(unused)}: the graph has no such input")
    return ExportReport(
        task=task,
        model_class=type(loaded).__name__,
        opset=exported.opset,
        exporter=exported.exporter.name,
        exporter_version=exported.exporter.version,
        files=exported.files,
        inputs=exported.inputs,
        outputs=traceable.outputs,
        checks=exported.checks,
        max_abs_difference=max(check.max_abs_difference for check in exported.checks),
        duration_s=time.perf_counter() - started,
        notes=tuple(notes),
        metadata=describe(traceable, exported.opset, exported.exporter.packages),
    )


def _traceable(model: PreTrainedModel, processor: ProcessorMixin | None) -> Traceable:
    _compute_weights(model)
    inputs = probes.model_inputs(model, processor, many_sizes=True)
    tokens = probes.vocabulary(model, processor)

    def check() -> tuple[probes.Probe, ...]:
        shapes = probes.check_shapes(model, inputs)
        return probes.reference(model, [probes.example(inputs, tokens, *shape) for shape in shapes])

    try:
        checked = check()
    except ArtifactError:
        # A model with position embeddings takes one size of images, whatever its processor makes.
        if not any(input_.least for input_ in inputs):
            raise
        inputs = probes.model_inputs(model, processor)
        checked = check()
    traced = probes.example(inputs, tokens, *probes.TRACED)
    return Traceable(model, inputs, traced, tuple(checked[0].outputs), checked)


def _with_cache(model: PreTrainedModel, processor: ProcessorMixin | None) -> Traceable:
    """Return a decoder that reads a cache of keys and values; padding is on the left, as in generation."""
    inputs = probes.with_cache(model, probes.model_inputs(model, processor), cache.expect_cache(model))
    tokens = replace(probes.vocabulary(model, processor), padding_side="left")
    checked = probes.reference(model, [probes.example(inputs, tokens, *shape) for shape in probes.cache_shapes(model)])
    traced = probes.example(inputs, tokens, *probes.TRACED_WITH_CACHE)
    return Traceable(model, inputs, traced, tuple(checked[0].outputs), checked)


def _compute_weights(model: PreTrainedModel) -> None:
    """Store the weights that a model computes from others in each call, as wav2vec 2.0 by their norm: quantizers need
    them.
    """
    for module in model.modules():
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name)


def _export(traceable: Traceable, opset: int | None, folder: Path, notes: list[str]) -> _Export:
    """Return a correct graph of the requested opset; without a request, of the working one nearest to the default."""
    wanted = DEFAULT_OPSET if opset is None else opset
    exported, reasons = _try_exporters(traceable, wanted, folder)
    if exported is not None:
        notes.extend(reasons)
        return exported
    failure = f"{type(traceable.model).__name__} cannot be exported at opset {wanted}: {'; '.join(reasons)}"
    others = _other_opsets(traceable, wanted, folder)
    if opset is None and (exported := next(others, None)) is not None:
        notes.append(failure)
        return exported
    working = sorted(other.opset for other in itertools.islice(others, 2))
    none_works = f"No other opset works among those tried within {_SEARCH_S:.0f} s."
    advice = f"Opsets that work: {', '.join(map(str, working))}." if working else none_works
    raise ArtifactError(f"{failure}. {advice}")


def _other_opsets(traceable: Traceable, wanted: int, folder: Path) -> Iterator[_Export]:
    """Yield correct graphs of other opsets, the nearest to the wanted one first, for `_SEARCH_S` seconds."""
    deadline = time.perf_counter() + _SEARCH_S
    for opset in sorted(set(exporters.OPSETS) - {wanted}, key=lambda other: (abs(other - wanted), other)):
        if time.perf_counter() > deadline:
            return
        exported, _ = _try_exporters(traceable, opset, folder)
        if exported is not None:
            yield exported


def _try_exporters(traceable: Traceable, opset: int, folder: Path) -> tuple[_Export | None, list[str]]:
    """Return the graph of the first exporter that writes a correct one, and why those before it failed."""
    reasons: list[str] = []
    for exporter in exporters.exporters(opset, with_cache=traceable.has_cache):
        own_folder = folder / f"{exporter.name}-{opset}"
        own_folder.mkdir()
        try:
            return _write_checked(traceable, exporter, opset, own_folder), reasons
        except exporters.FAILURES as error:
            reasons.append(f"{exporter.name}: {exporters.reason(error)}")
            shutil.rmtree(own_folder)
    if not reasons:
        reasons.append(f"no exporter supports it; they support {exporters.OPSETS[0]} to {exporters.OPSETS[-1]}")
    return None, reasons


def _write_checked(traceable: Traceable, exporter: Exporter, opset: int, folder: Path) -> _Export:
    """Write the graph of an exporter and check it.

    Raises:
        ArtifactError: It has another opset, violates the standard, or does not compute what PyTorch computes.
    """
    graph = normal_form.normalize(
        exporter.write(traceable, opset), traceable.inputs, traceable.outputs, exporters.MODEL
    )
    path, *beside = normal_form.write_normalized(graph, folder)
    written = onnx.load(path, load_external_data=False)
    found = opset_of(written)
    if found != opset:
        raise ArtifactError(f"it wrote opset {found} without a warning")
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ArtifactError(f"the graph is not valid at this opset: {error}") from error
    inputs = tuple(
        GraphInput(
            value.name,
            str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
            tuple(size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim),
        )
        for value in written.graph.input
    )
    files = tuple(file.name for file in (path, *beside))
    return _Export(folder, files, found, inputs, exporter, parity.compare(path, traceable.probes))
