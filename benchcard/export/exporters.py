"""The ways to write a transformers model as an ONNX graph, in the order in which they are tried.

Owns: how each exporter of torch and transformers is called, and which opsets it is asked for. What comes out is a
graph in memory, as the exporter made it. Leaves making it uniform and writing it to `normal_form`, deciding whether
it is right to `parity`, and choosing to `export`.

Which goes first:

- Opsets 11 to 22: the TorchScript exporter, with eager attention; above 20, which is its last own opset, brought
  forward by onnxscript. It is the only one that writes opsets below 17, its attention is the plainest (two products
  and a softmax), and one exporter over the whole range means that two opsets of a grid differ by the opset alone.
- Opset 23 has operators for attention, RMS normalization and rotary embedding, which only the exporters over
  `torch.export` write: that of transformers, which adapts the models, then torch's own.
- Each stands in for the other where that one is not installed, cannot export the model, or exports it wrongly.

This module loads torch: import it inside a function.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import version_converter

from benchcard.errors import ArtifactError
from benchcard.export.probes import ModelInput

OPSETS = range(11, 24)
"""The opsets that can be asked for: from the first with every operator of a transformer, to torch's last."""

MODEL = "exported_model"
"""The name of the model inside of `_ByPosition`: the first part of every layer's name in the graphs traced from it.

No model has a layer of this name, unlike `model`, so that cutting it off takes nothing from a graph without it.
"""

FAILURES: tuple[type[Exception], ...] = (
    ArtifactError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
    ArithmeticError,
    ImportError,
)
"""What a try of an exporter may raise. It runs the model's own code under a tracer, so its errors are of every kind."""

_LOG = logging.getLogger(__name__)
_TORCHSCRIPT_LAST = 20
_DYNAMO_FIRST = 17  # they write 18, and convert to 17 where that can be done
_OWN_ATTENTION = 23
_NOTED_LOGGERS = ("torch", "transformers", "onnxscript", "onnx_ir", "onnx_diagnostic")
_DEPRECATIONS = (DeprecationWarning, FutureWarning, PendingDeprecationWarning)
_NOTE_WIDTH = 240


@dataclass(frozen=True, eq=False)
class Traceable:
    """A model and all that an exporter has to know of it.

    Attributes:
        model: a `transformers.PreTrainedModel` in evaluation mode.
        inputs: its inputs, in the order of the graph's.
        example: an array for each.
        outputs: the names of the outputs to keep, in the order of the graph's.
    """

    model: Any
    inputs: tuple[ModelInput, ...]
    example: Mapping[str, np.ndarray[Any, Any]]
    outputs: tuple[str, ...]

    @property
    def tensors(self) -> dict[str, Any]:
        """The example as tensors of their own."""
        return {input_.name: torch.tensor(self.example[input_.name]) for input_ in self.inputs}


@dataclass(frozen=True)
class Exporter:
    """One way to write a graph.

    Attributes:
        name: what the report calls it.
        packages: the packages whose versions decide what it writes.
        write: the graph in memory, from the model and the opset. It may have another opset than was asked for: some
            exporters fall back silently.
    """

    name: str
    packages: tuple[str, ...]
    write: Callable[[Traceable, int], ir.Model]

    @property
    def version(self) -> str:
        """The versions of its packages, as `torch 2.13.0, onnxscript 0.7.2`."""
        return ", ".join(f"{package} {version(package)}" for package in self.packages)


def exporters(opset: int) -> tuple[Exporter, ...]:
    """The exporters to try for an opset, the preferred first; none where no exporter writes it."""
    if opset not in OPSETS:
        return ()
    plain = Exporter("torchscript", ("torch",), torchscript)
    if opset > _TORCHSCRIPT_LAST:
        plain = Exporter("torchscript-converted", ("torch", "onnxscript"), torchscript_converted)
    if opset < _DYNAMO_FIRST:
        return (plain,)
    own = (
        Exporter("transformers", ("transformers", "torch", "onnxscript"), transformers_dynamo),
        Exporter("torch-dynamo", ("torch", "onnxscript"), torch_dynamo),
    )
    return (*own, plain) if opset >= _OWN_ATTENTION else (plain, *own)


def torchscript(traceable: Traceable, opset: int) -> ir.Model:
    """The graph of torch's TorchScript exporter, traced with eager attention: softmax and products as single nodes."""
    model = _ByPosition(
        traceable
    ).eval()  # or torch puts dropout back into the model when it is done: see `_ByPosition`
    with (
        tempfile.TemporaryDirectory(prefix="torchscript-") as folder,
        _eager_attention(traceable.model),
        torch.no_grad(),
    ):
        path = Path(folder, "model.onnx")
        torch.onnx.export(
            model,
            tuple(traceable.tensors.values()),
            str(path),
            input_names=[input_.name for input_ in traceable.inputs],
            output_names=list(traceable.outputs),
            dynamic_axes={input_.name: input_.dynamic_axes for input_ in traceable.inputs},
            opset_version=opset,
            dynamo=False,
        )
        graph = ir.load(path)
        ir.external_data.load_to_model(graph)  # the folder goes, and weights beyond 2 GB with it
    return graph


def torchscript_converted(traceable: Traceable, opset: int) -> ir.Model:
    """The graph of `torchscript` at its last opset, brought to a later one by onnxscript's version converter."""
    graph = torchscript(traceable, _TORCHSCRIPT_LAST)
    version_converter.convert_version(graph, target_version=opset)
    return graph


def transformers_dynamo(traceable: Traceable, opset: int) -> ir.Model:
    """The graph of the exporter that transformers brings, over `torch.export`."""
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    shapes = _dynamic_shapes(traceable)
    config = OnnxConfig(dynamic=True, dynamic_shapes=shapes, opset_version=opset)
    exported = OnnxExporter().export(traceable.model, traceable.tensors, config)
    # Up to transformers 5.22 that is a program of torch, from 5.23 on a model of its own kind.
    graph: ir.Model = exported.program if hasattr(exported, "program") else exported.model
    return graph


def torch_dynamo(traceable: Traceable, opset: int) -> ir.Model:
    """The graph of torch's own exporter over `torch.export`."""
    program = torch.onnx.export(
        _ByPosition(traceable).eval(),
        tuple(traceable.tensors.values()),
        input_names=[input_.name for input_ in traceable.inputs],
        output_names=list(traceable.outputs),
        dynamic_shapes=(tuple(_dynamic_shapes(traceable).values()),),
        opset_version=opset,
        dynamo=True,
    )
    graph: ir.Model = program.model
    return graph


@contextlib.contextmanager
def noted(notes: list[str]) -> Iterator[None]:
    """Adds to `notes`, at its end, what was warned or logged as a warning inside: the beginning of each, once.

    Nothing of it is printed; it goes to this module's logger instead, and so does what the exporters print of their
    progress. What native code prints is dropped: where an operator is unknown, TorchScript prints the whole graph.
    """
    heard = _Heard()
    loggers = _with_handlers(_NOTED_LOGGERS)
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for logger in loggers:
            logger.handlers, logger.propagate = [heard], False
        try:
            with _native_output_dropped(), contextlib.redirect_stdout(printed):
                yield
        finally:
            for logger, (handlers, propagate) in zip(loggers, before):
                logger.handlers, logger.propagate = handlers, propagate
            # Deprecations are addressed to those who maintain benchcard, and say nothing of this model.
            spoken = [entry.message for entry in warned if not issubclass(entry.category, _DEPRECATIONS)]
            said = dict.fromkeys(brief(text) for text in [*spoken, *heard.messages])
            notes.extend(text for text in said if text and text not in notes)
            for line in [*(entry.message for entry in warned), *heard.messages, *printed.getvalue().splitlines()]:
                _LOG.info("%s", line)


def _with_handlers(names: Sequence[str]) -> list[logging.Logger]:
    """The loggers of these names, and those below them that handle messages themselves, as torch sets them up."""
    below = [
        name
        for name, logger in logging.root.manager.loggerDict.items()
        if name.startswith(tuple(f"{parent}." for parent in names)) and getattr(logger, "handlers", None)
    ]
    return [logging.getLogger(name) for name in (*names, *sorted(below))]


@contextlib.contextmanager
def _native_output_dropped() -> Iterator[None]:
    sys.stdout.flush()
    own = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(own, 1)
        os.close(own)


def reason(error: BaseException) -> str:
    """The first line of what an exception goes back to: exporters wrap the cause in words of their own."""
    while error.__cause__ is not None and not isinstance(error, ArtifactError):
        error = error.__cause__
    return brief(error) or type(error).__name__


def brief(said: object) -> str:
    """The first line of a message, without colours, cut where it gets long."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(said)).strip().splitlines()
    first = lines[0].strip() if lines else ""
    return first if len(first) <= _NOTE_WIDTH else f"{first[:_NOTE_WIDTH]}..."


class _Heard(logging.Handler):
    """Keeps the messages of warnings and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


class _ByPosition(torch.nn.Module):  # type: ignore[misc]
    """The model as a function from tensors to tensors, which is what a tracer takes.

    It must be put into evaluation mode itself. `torch.onnx.export` restores the mode of the module that it was given,
    for all of its children: with a wrapper in training mode (as every module is when new), the model comes back with
    its dropout on, and every later comparison with it is off.
    """

    def __init__(self, traceable: Traceable) -> None:
        super().__init__()
        setattr(self, MODEL, traceable.model)
        self._names = [input_.name for input_ in traceable.inputs]
        self._outputs = traceable.outputs

    def forward(self, *tensors: Any) -> tuple[Any, ...]:
        fields = getattr(self, MODEL)(**dict(zip(self._names, tensors)), return_dict=True)
        return tuple(fields[name] for name in self._outputs)


@contextlib.contextmanager
def _eager_attention(model: Any) -> Iterator[None]:
    """The model with attention written out, as TorchScript exports it at every opset; its own attention afterwards."""
    own = getattr(model.config, "_attn_implementation", None)
    if own in (None, "eager"):
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def _dynamic_shapes(traceable: Traceable) -> dict[str, dict[int, Any]]:
    """What `torch.export` takes: an axis that it would make a constant is an error there, not a silent choice."""
    dynamic = torch.export.Dim.DYNAMIC
    return {input_.name: dict.fromkeys(input_.dynamic_axes, dynamic) for input_ in traceable.inputs}
