"""What runs a model: one file per framework, and here what a framework is.

A framework says which parameters mean something to it, which arguments it takes, and opens a model file as something
that can be called. `benchcard.registry` knows them by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from benchcard.frameworks.kernels import Kernel
from benchcard.spec.schema import ValueType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]


class Model(Protocol):
    """An opened model.

    Attributes:
        facts: What the runtime really has: threads, spinning, optimization level, version; and `batch_size`, where the
            model takes one batch size and no other.
    """

    facts: Mapping[str, Any]

    def prepare(self, inputs: Arrays) -> Any:
        """The inputs in the framework's own form, made once and outside of what is timed."""

    def run(self, prepared: Any) -> Any:
        """The framework's own forward call on prepared inputs, and nothing else: this is what is timed."""

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """The outputs by name for inputs by name, arrays in and arrays out."""


class Framework(Protocol):
    """What runs a model.

    Attributes:
        parameters: The parameters, beyond those that mean something to every framework, that mean something to this
            one.
        arguments: What may stand in `framework_args` for it, by name.
        running: Those of `arguments` that say how to run a model and not how to make it: they reach `open`, beside
            `intra_op_num_threads`, which does for every framework. The others reach `convert`.
        engine: The kind of child process that its steps run in: "onnx" (never imports torch), "torch", or any other
            name, for a process of its own.
        format: What it opens: "transformers" (the model's own folder), "onnx" (a graph), or any other name, for which
            its `convert` makes a file out of a graph (see `Converting`).
    """

    parameters: frozenset[str]
    arguments: Mapping[str, ValueType]
    running: frozenset[str]
    engine: str
    format: str

    def import_runtime(self) -> None:
        """Import what `open` needs, so that loading a model can be measured apart from it."""

    def open(self, model: Path, options: Mapping[str, Any]) -> Model:
        """The model, ready to be called.

        Args:
            model: The file or folder that holds it.
            options: Those of its arguments that are `running`, and `task`, `intra_op_num_threads` and
                `allow_spinning`.
        """


class Profiling(Protocol):
    """What a framework may have beside, that can say what a model comes to when it runs."""

    def open_profiled(self, model: Path, options: Mapping[str, Any]) -> ProfiledModel:
        """As `open`."""


class ProfiledModel(Model, Protocol):
    """An opened model that can say what it runs."""

    def kernels(self, inputs: Arrays) -> tuple[Kernel, ...]:
        """What a few calls with the inputs run; asked once, before anything else is."""


class Converting(Protocol):
    """What a framework has beside, whose format is neither "transformers" nor "onnx"."""

    def convert(self, graph: Path, target: Path, arguments: Mapping[str, Any]) -> str:
        """The name of the file or folder in `target` that it made of an ONNX graph; quantized already where the row is.

        Args:
            graph: The graph; its weights may lie beside it.
            target: The folder to write into.
            arguments: Those of its arguments that are not `running`.
        """
