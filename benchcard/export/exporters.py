"""The exporters that write a transformers model as an ONNX graph, in the order in which they are tried.

Owns how each exporter of torch and transformers is called, and for which opsets. Leaves the normal form of the graph
and its file to `normal_form`, the check to `parity`, and the choice to `export`. The order:

- For opsets 11 to 22, the TorchScript exporter with eager attention comes first; above 20, its last opset, onnxscript
  converts the graph. It is the only one for opsets below 17, its attention is the simplest (two products and a
  softmax), and with one exporter for all opsets, two opsets of a grid differ by the opset alone.
- Opset 23 has operators for attention, RMS normalization and rotary embedding, which only the exporters based on
  `torch.export` write: first that of transformers, which adapts the models, then torch's own.
- Each replaces the other where that one is not installed, cannot export the model, or exports it incorrectly.

This module loads torch, so import it inside a function.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir
import torch
from onnxscript import version_converter
from transformers import PretrainedConfig, PreTrainedModel

from benchcard.errors import ArtifactError
from benchcard.export.cache import call
from benchcard.export.probes import Array, ModelInput, Probe
from benchcard.graphs.cache import PRESENT, has_cache
from benchcard.graphs.runtime import LIBRARY_ERRORS
from benchcard.utils.text import first_line

OPSETS = range(11, 24)
"""The supported opsets: from the first with every operator of a transformer, to torch's last."""

MODEL = "exported_model"
"""The name of the model inside `_ByPosition`: a prefix of every layer's name in traced graphs, and no layer's name."""

FAILURES = (*LIBRARY_ERRORS, ArtifactError, ImportError)
"""What an exporter may raise. It traces the model's own code, so errors are of every kind."""

_LOG = logging.getLogger(__name__)
_TORCHSCRIPT_LAST = 20
_DYNAMO_FIRST = 17  # They write opset 18, and convert it to 17 where possible.
_ATTENTION_OPERATOR = 23
_NOTED_LOGGERS = ("torch", "transformers", "onnxscript", "onnx_ir", "onnx_diagnostic")
_DEPRECATIONS = (DeprecationWarning, FutureWarning, PendingDeprecationWarning)


@dataclass(frozen=True, eq=False)
class Traceable:
    """A model in evaluation mode to export, and the probes for its graphs.

    The graph keeps `outputs` only, and has these and the inputs in the order given here. `example` has every input.
    """

    model: PreTrainedModel
    inputs: tuple[ModelInput, ...]
    example: Mapping[str, Array]
    outputs: tuple[str, ...]
    probes: tuple[Probe, ...] = ()

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Copies of the example as tensors."""
        return {input_.name: torch.tensor(self.example[input_.name]) for input_ in self.inputs}

    @property
    def has_cache(self) -> bool:
        """Whether the graph reads a cache of keys and values."""
        return has_cache(self.example)


@dataclass(frozen=True)
class Exporter:
    """A function that writes graphs, and the packages whose versions determine what it writes.

    The graph may have another opset than `write` is asked for, because some exporters fall back silently.
    """

    name: str
    packages: tuple[str, ...]
    write: Callable[[Traceable, int], ir.Model]

    @property
    def version(self) -> str:
        """The names and versions of its packages, as `torch 2.13.0, onnxscript 0.7.2`."""
        return ", ".join(f"{package} {version(package)}" for package in self.packages)


def exporters(opset: int, *, with_cache: bool = False) -> tuple[Exporter, ...]:
    """Return the exporters for an opset, the preferred one first; none where no exporter writes it. Those based on
    `torch.export` write no graph with a cache: what it held at export becomes a constant.
    """
    if opset not in OPSETS:
        return ()
    traced = Exporter("torchscript", ("torch",), torchscript)
    if opset > _TORCHSCRIPT_LAST:
        traced = Exporter("torchscript-converted", ("torch", "onnxscript"), torchscript_converted)
    if opset < _DYNAMO_FIRST or with_cache:
        return (traced,)
    dynamo = (
        Exporter("transformers", ("transformers", "torch", "onnxscript"), transformers_dynamo),
        Exporter("torch-dynamo", ("torch", "onnxscript"), torch_dynamo),
    )
    return (*dynamo, traced) if opset >= _ATTENTION_OPERATOR else (traced, *dynamo)


def _torch_export(traceable: Traceable, opset: int, target: str | None, **options: object) -> torch.onnx.ONNXProgram:
    return torch.onnx.export(
        # Without `eval`, torch would put dropout back into the model afterwards: see `_ByPosition`.
        _ByPosition(traceable).eval(),
        tuple(traceable.tensors.values()),
        target,
        input_names=[input_.name for input_ in traceable.inputs],
        output_names=list(traceable.outputs),
        opset_version=opset,
        **options,
    )


def torchscript(traceable: Traceable, opset: int) -> ir.Model:
    """Return the graph of torch's TorchScript exporter, with eager attention: softmax and products as single nodes."""
    temporary = tempfile.TemporaryDirectory(prefix="torchscript-")
    with temporary as folder, _eager_attention(traceable.model), torch.no_grad():
        path = Path(folder, "model.onnx")
        axes = {input_.name: input_.dynamic_axes for input_ in traceable.inputs}
        axes |= {name: {0: "batch", 2: "context"} for name in traceable.outputs if name.startswith(PRESENT)}
        _torch_export(traceable, opset, str(path), dynamic_axes=axes, dynamo=False)
        graph = ir.load(path)
        # Weights beyond 2 GB are in other files of the folder.
        ir.external_data.load_to_model(graph)
    return graph


def torchscript_converted(traceable: Traceable, opset: int) -> ir.Model:
    """Return the graph of `torchscript` at its last opset, converted to a later one by onnxscript."""
    graph = torchscript(traceable, _TORCHSCRIPT_LAST)
    version_converter.convert_version(graph, target_version=opset)
    return graph


def transformers_dynamo(traceable: Traceable, opset: int) -> ir.Model:
    """Return the graph of the exporter in transformers, which is based on `torch.export`."""
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    config = OnnxConfig(dynamic=True, dynamic_shapes=_dynamic_shapes(traceable), opset_version=opset)
    exported = OnnxExporter().export(traceable.model, traceable.tensors, config)
    # Up to transformers 5.22 the result is a program of torch, from 5.23 on a class of its own.
    graph: ir.Model = exported.program if hasattr(exported, "program") else exported.model
    return graph


def torch_dynamo(traceable: Traceable, opset: int) -> ir.Model:
    """Return the graph of torch's own exporter based on `torch.export`."""
    shapes = (tuple(_dynamic_shapes(traceable).values()),)
    graph: ir.Model = _torch_export(traceable, opset, None, dynamic_shapes=shapes, dynamo=True).model
    return graph


@contextlib.contextmanager
def noted(notes: list[str]) -> Iterator[None]:
    """Append the warnings and logged warnings of a block to `notes`: the first line of each, once.

    Nothing is printed. Warnings, and what the exporters print of their progress, go to this module's logger. What
    native code prints is dropped, because TorchScript prints the whole graph for an unknown operator.
    """
    messages = _Messages()
    # Loggers below these have handlers of their own, as torch's do.
    below = tuple(f"{name}." for name in _NOTED_LOGGERS)
    handled = [name for name, logger in logging.root.manager.loggerDict.items() if getattr(logger, "handlers", None)]
    names = [*_NOTED_LOGGERS, *sorted(name for name in handled if name.startswith(below))]
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for logger in loggers:
            logger.handlers, logger.propagate = [messages], False
        try:
            with _native_output_dropped(), contextlib.redirect_stdout(printed):
                yield
        finally:
            for logger, (handlers, propagate) in zip(loggers, before):
                logger.handlers, logger.propagate = handlers, propagate
            # Deprecations are for the maintainers of benchcard, not about this model.
            about_model = [entry.message for entry in caught if not issubclass(entry.category, _DEPRECATIONS)]
            texts = dict.fromkeys(first_line(message) for message in [*about_model, *messages.texts])
            notes.extend(text for text in texts if text and text not in notes)
            for line in [*(entry.message for entry in caught), *messages.texts, *printed.getvalue().splitlines()]:
                _LOG.info("%s", line)


@contextlib.contextmanager
def _native_output_dropped() -> Iterator[None]:
    sys.stdout.flush()
    stdout = os.dup(1)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def reason(error: BaseException) -> str:
    """Return the first line of the cause of an exception, which exporters wrap in exceptions of their own."""
    while error.__cause__ is not None and not isinstance(error, ArtifactError):
        error = error.__cause__
    return first_line(error) or type(error).__name__


class _Messages(logging.Handler):
    """A handler that keeps the texts of warnings and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


class _ByPosition(torch.nn.Module):  # type: ignore[misc]
    """The model as a function of tensors, for a tracer.

    It must be in evaluation mode itself, because `torch.onnx.export` restores the mode of its argument in all children.
    A new module is in training mode, so the model would have dropout afterwards, and later comparisons would be wrong.
    """

    def __init__(self, traceable: Traceable) -> None:
        super().__init__()
        setattr(self, MODEL, traceable.model)
        self._names = [input_.name for input_ in traceable.inputs]
        self._outputs = traceable.outputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        fields = call(getattr(self, MODEL), dict(zip(self._names, tensors)))
        return tuple(fields[name] for name in self._outputs)


@contextlib.contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Switch the model to eager attention, which TorchScript exports at every opset, and back afterwards."""
    if getattr(model.config, "_attn_implementation", None) in (None, "eager"):
        yield
        return
    own = _attention_of(model.config)
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def _attention_of(config: PretrainedConfig) -> dict[str, object]:
    """Return the attention of a model and of its parts, of which some, as a backbone, know eager attention only."""
    parts = {name: getattr(config, name, None) for name in config.sub_configs}
    of_parts = {name: _attention_of(part) for name, part in parts.items() if part is not None}
    return {"": config._attn_implementation, **of_parts}


def _dynamic_shapes(traceable: Traceable) -> dict[str, dict[int, torch.export.Dim]]:
    """Return the dynamic shapes for `torch.export`, which raises for an axis that it would make a constant."""
    dynamic = torch.export.Dim.DYNAMIC
    return {input_.name: dict.fromkeys(input_.dynamic_axes, dynamic) for input_ in traceable.inputs}
