"""The export of a transformers model to ONNX, at a true requested opset, checked against PyTorch.

Owns: loading the model for its task, trying the exporters until one gives a graph that is right, saying why none did
and which opsets work, and the report. Leaves the exporters to `exporters`, the form of the graph to `normal_form`,
example inputs to `probes`, and the comparison to `parity`.

It is meant for a child process: torch is loaded inside the functions, and stays.
"""

from __future__ import annotations

import inspect
import itertools
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from benchcard import registry
from benchcard.errors import ArtifactError
from benchcard.sources import files_of, pointer_hint

if TYPE_CHECKING:
    from benchcard.frameworks.exporters import Exporter, Traceable
    from benchcard.frameworks.parity import Check
    from benchcard.frameworks.probes import Probe

DEFAULT_OPSET = 20
"""The opset where none is asked for: layer normalization (17) and GELU (20) are one node each, so that quantizing `Add`
or `Mul` leaves them whole, and it is the last own opset of the exporter that is tried first.

Source: https://onnx.ai/onnx/operators/ (first versions of LayerNormalization and Gelu).
"""

_SEARCH_S = 60.0
_ENOUGH_WORKING = 2
_SEED = 0
_LEARNED_BUFFERS = (".running_mean", ".running_var")  # of batch normalization


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


def export(
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
    from benchcard.frameworks.exporters import noted

    started = time.perf_counter()
    notes: list[str] = []
    with noted(notes):
        loaded, missing = _load(model, task, revision, trust_remote_code)
        if missing:
            notes.append(f"not in the checkpoint, drawn at random with seed {_SEED}: {', '.join(missing)}")
        job = _job(loaded, _load_processor(loaded, model, revision, trust_remote_code, notes))
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


def load_model(model: str | Path, task: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The transformers model of a task in evaluation mode, with float32 weights.

    Args:
        model: a local folder, or a Hub id.
        task: a task that optimum's `TasksManager` knows, or a synonym of one.
        revision: the revision of a Hub id.
        trust_remote_code: whether code of the model's repository may run.

    Raises:
        ArtifactError: there is no such model or task, the two do not go together, or the checkpoint lacks weights that
            the task's outputs come from, which would be drawn at random.
    """
    return _load(model, task, revision, trust_remote_code)[0]


def _loads_as(task: str) -> str:
    """The task by whose name optimum knows the model class: a registered task may say another one than its own."""
    own = registry.task(task) if task in registry.tasks() else None
    return str(getattr(own, "loads_as", task))


def _load(model: str | Path, task: str, revision: str | None, trust_remote_code: bool) -> tuple[Any, list[str]]:
    """The model of `load_model`, and the names of its weights that the checkpoint does not have.

    A base model often lacks a pooler that no task reads. Such weights are drawn from a fixed seed, so that every
    process that loads the model has the same ones; a model that lacks any other is refused.
    """
    import torch
    from optimum.exporters.tasks import TasksManager
    from safetensors import SafetensorError
    from transformers import AutoConfig

    if isinstance(model, Path) and not model.is_dir():
        raise ArtifactError(f"{model} is no folder")
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(str(model), **source)
        auto_class = TasksManager.get_model_class_for_task(
            _loads_as(task), framework="pt", model_type=config.model_type
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            loaded, info = auto_class.from_pretrained(
                str(model), dtype=torch.float32, output_loading_info=True, **source
            )
    except KeyError as error:
        raise ArtifactError(f"{model} cannot be loaded for the task {task!r}: {error.args[0]}") from error
    except (SafetensorError, UnpicklingError) as error:
        hint = "" if isinstance(model, str) else _pointer_among_weights(model)
        way_out = "they are incomplete: download them again"
        if isinstance(error, UnpicklingError):
            way_out = "a pickle may hold tensors alone: save the model as safetensors, or download it again"
        reason = str(error).partition("\n")[0].partition(". This file can")[0]
        raise ArtifactError(f"the weights of {model} cannot be read: {hint or f'{reason} ({way_out})'}") from error
    except (OSError, ValueError, RuntimeError, ImportError, AttributeError) as error:
        raise ArtifactError(f"{model} cannot be loaded for the task {task!r}: {error}") from error
    loaded.eval()
    if getattr(loaded.config, "use_cache", False):
        loaded.config.use_cache = False  # the cache of keys and values is no output that a graph should have
    missing = _weights(loaded, info["missing_keys"])
    read = _read(loaded, missing)
    if read:
        raise ArtifactError(
            f"{model} is no model for the task {task!r}: its checkpoint has no weights for {', '.join(read)}, which"
            " would be drawn at random. Name a checkpoint that was trained for the task, with a configuration that fits"
            " it."
        )
    return loaded, sorted(missing)


def _pointer_among_weights(model: Path) -> str:
    weights = (file for name, file in files_of(model).items() if name.endswith((".safetensors", ".bin")))
    return next(filter(None, map(pointer_hint, weights)), "")


def _weights(model: Any, missing: Iterable[str]) -> dict[str, Any]:
    """Those of the names that the checkpoint lacks which stand for something learned: no other name of a weight that
    it has, and nothing that follows from the configuration, as position ids and fixed embeddings do.
    """
    absent = set(missing)
    named = {name: each for name, each in model.named_parameters(remove_duplicate=False) if each.requires_grad}
    named |= {name: each for name, each in model.named_buffers() if name.endswith(_LEARNED_BUFFERS)}
    present = {id(weight) for name, weight in named.items() if name not in absent}
    return {name: named[name] for name in sorted(absent & set(named)) if id(named[name]) not in present}


def _read(model: Any, weights: Mapping[str, Any]) -> list[str]:
    """The names of those weights that the task's outputs come from, by the graph of the gradients; all of them, where
    the model cannot be run on inputs of one's own making.
    """
    import torch

    from benchcard.frameworks import probes

    if not weights:
        return []
    try:
        inputs = probes.model_inputs(model, None)
        shape = probes.check_shapes(model, inputs)[0]
        example = probes.example(inputs, probes.vocabulary(model, None), *shape)
        with torch.enable_grad():
            tensors = {name: torch.from_numpy(array) for name, array in example.items()}
            outputs = dict(model(**tensors, return_dict=True))
    except (ArtifactError, RuntimeError, ValueError, TypeError, AttributeError, LookupError):
        return list(weights)
    if "last_hidden_state" in outputs:
        outputs.pop("pooler_output", None)  # embeddings are pooled from the tokens: no task reads it
    nodes = [value.grad_fn for value in outputs.values() if isinstance(value, torch.Tensor)]
    seen: set[Any] = {None}
    while nodes:
        node = nodes.pop()
        if node not in seen:
            seen.add(node)
            nodes.extend(before for before, _ in node.next_functions)
    leaves = {id(node.variable) for node in seen if hasattr(node, "variable")}
    return [name for name, each in weights.items() if not leaves or id(each) in leaves or not each.requires_grad]


def _load_processor(
    loaded: Any, model: str | Path, revision: str | None, trust_remote_code: bool, notes: list[str]
) -> Any | None:
    """Return the model's processor, tokenizer, image processor or feature extractor; None where its folder has none."""
    from transformers import AutoImageProcessor, AutoProcessor

    from benchcard.frameworks.exporters import brief

    # For an architecture that reads texts or images, as Perceiver does, `AutoProcessor` gives a tokenizer either way.
    taken = inspect.signature(loaded.forward).parameters
    auto = AutoImageProcessor if "pixel_values" in taken and "input_ids" not in taken else AutoProcessor
    try:
        return auto.from_pretrained(str(model), revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, TypeError, AttributeError, KeyError) as error:
        notes.append(f"no processor could be loaded, the inputs follow from the configuration: {brief(error)}")
        return None


def _job(model: Any, processor: Any | None) -> _Job:
    """What there is to export, and what it is to be compared with."""
    from benchcard.frameworks import probes
    from benchcard.frameworks.exporters import Traceable

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
    from benchcard.frameworks.exporters import OPSETS

    deadline = time.perf_counter() + _SEARCH_S
    for opset in sorted(set(OPSETS) - {wanted}, key=lambda other: (abs(other - wanted), other)):
        if time.perf_counter() > deadline:
            return
        made, _ = _try(job, opset, folder)
        if made is not None:
            yield made


def _try(job: _Job, opset: int, folder: Path) -> tuple[_Made | None, list[str]]:
    """The graph of the first exporter that makes a right one, and why those before it did not."""
    from benchcard.frameworks.exporters import FAILURES, OPSETS, exporters, reason

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

    from benchcard.frameworks import normal_form, parity
    from benchcard.frameworks.exporters import MODEL

    traceable = job.traceable
    graph = normal_form.normalize(exporter.write(traceable, opset), traceable.inputs, traceable.outputs, MODEL)
    path, *beside = normal_form.write(graph, folder)
    written = onnx.load(path, load_external_data=False)
    found = int(next(entry.version for entry in written.opset_import if entry.domain in ("", "ai.onnx")))
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
