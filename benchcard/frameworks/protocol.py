"""The protocol of a framework: which parameters and arguments it takes, and how it opens a model.

`benchcard.registry` has the frameworks by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from benchcard.frameworks.kernels import Kernel
from benchcard.spec.schema import ValueType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from benchcard.graphs.weights import StoredWeights

    Arrays: TypeAlias = Mapping[str, NDArray[np.generic]]
    Outputs: TypeAlias = dict[str, NDArray[Any]]
Precision: TypeAlias = Literal["16 bits", "quantized", "calibrated"]
"""The numbers of a model that is not in float32; a `calibrated` one is quantized with the calibration samples."""
Options: TypeAlias = Mapping[str, Any]
"""Arguments of a framework by name, with values as `Framework.arguments` allows them."""


class Model(Protocol):
    """An opened model.

    Attributes:
        facts: Settings as the runtime reports them, as plain data: `intra_op_num_threads`, which the results and the
            card name, further ones such as its version, and `batch_size` and `input_length` where the model takes only
            one batch size or number of tokens.
    """

    facts: Mapping[str, object]

    # `Any`, because only the framework itself knows the type of its prepared inputs.
    def prepare(self, inputs: Arrays) -> Any:
        """Return the inputs in the framework's own form. This is done once, and not timed."""

    def run(self, prepared: Any) -> object:
        """Make one forward call on prepared inputs, and nothing else. This is what is timed."""

    def __call__(self, inputs: Arrays) -> Outputs:
        """Return the output arrays by name, for input arrays by name."""


class Framework(Protocol):
    """A framework that runs models.

    Attributes:
        parameters: The parameters that apply to this framework, beyond those that apply to all. With
            `apply_quantization`, benchcard quantizes its graphs; with `calibration` alone, `convert` does by itself,
            and of `calibration` only the number of samples applies.
        arguments: The arguments that `framework_args` may have, by name.
        running: The `arguments` for `open`, which say how to run a model. `intra_op_num_threads` reaches `open` for
            every framework. All others reach `convert`.
        engine: The kind of child process for its steps: "onnx" (never imports torch), "torch", or any other name for a
            process of its own.
        format: What it opens: "transformers" (the model's folder), "onnx" (a graph), or any other name, for which
            `convert` makes a file from a graph (see `Converting`).

    A framework may have `forkable = True`: a process that has imported it may then be forked for each model, which
    saves the import. It must not compute with NumPy's own BLAS, which has one thread in such a process. It may have
    `libraries`, the names of the packages whose versions its figures depend on. It may have `precisions`, a `Precision`
    by the name of a parameter, as `framework_args.dtype`, and its value; of several the first counts. The baseline is a
    row without one, if there is any, and where a value is `calibrated`, rows with other values do not depend on the
    calibration samples.
    """

    parameters: frozenset[str]
    arguments: Mapping[str, ValueType]
    running: frozenset[str]
    engine: str
    format: str

    def import_runtime(self) -> None:
        """Import what `open` needs, so that the time to load a model does not include it."""

    def open(self, model: Path, options: Options) -> Model:
        """Return the model, ready to be called.

        Args:
            model: Its file or folder.
            options: The `running` arguments, and `task`, `intra_op_num_threads` and `allow_spinning`.
        """


class Profiling(Protocol):
    """An addition to a framework whose models can report their kernels."""

    def open_profiled(self, model: Path, options: Options) -> ProfiledModel:
        """Return the model, as `open` does."""


class ProfiledModel(Model, Protocol):
    """An opened model that can report its kernels."""

    def kernels(self, inputs: Arrays) -> tuple[Kernel, ...]:
        """Return the kernels of a few calls with the inputs. It is called once, before any other call."""


@dataclass(frozen=True)
class Converted:
    """What `convert` made of a graph.

    Attributes:
        file: The name of the file or folder in `target`.
        quantized: Whether weights or activations have 8 bits or fewer, and those of the graph had more.
        weights: What it stores; None where that is not known.
    """

    file: str
    quantized: bool = False
    weights: StoredWeights | None = None


@dataclass(frozen=True)
class Snippet:
    """The lines of Python on a card that run a published model.

    Attributes:
        imports: What the other lines need.
        opening: They open the model below `folder`, a copy of the repository.
        calling: They call it on `inputs`, the arrays by name that the processor gave for one example.
    """

    imports: tuple[str, ...]
    opening: tuple[str, ...]
    calling: tuple[str, ...]


class Usable(Protocol):
    """An addition to a framework with `convert` whose models can be run without benchcard."""

    def snippet(self, repo_id: str, path: str, task: str) -> Snippet:
        """Return the lines that run the model at `path` in a repository."""


class Converting(Protocol):
    """An addition to a framework whose format is neither "transformers" nor "onnx"."""

    def convert(self, graph: Path, target: Path, arguments: Options, samples: Iterable[Arrays]) -> str | Converted:
        """Convert an ONNX graph, and return the name of the file or folder in `target`, or a `Converted` with it.

        Args:
            graph: The graph, already quantized where the row is; weights may be in files beside it.
            target: The folder to write into.
            arguments: The arguments that are not `running`.
            samples: The calibration samples as inputs of the graph by name, each with a batch axis; they can be read
                several times. Empty unless `parameters` has `calibration` and the spec a `calibration_split`.
        """


def only_size(model: Model, name: Literal["batch_size", "input_length"]) -> int | None:
    """Return the batch size or the number of tokens of a model that takes only one; None for any other model."""
    size = model.facts.get(name)
    return size if isinstance(size, int) else None
