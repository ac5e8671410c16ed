"""ONNX Runtime on the CPU. A process that uses this module never imports torch: it would cost seconds and a second
thread pool.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchcard.errors import ArtifactError
from benchcard.frameworks.kernels import Kernel, kernels
from benchcard.graphs.runtime import remedy, runtime_errors, session_options, session_settings
from benchcard.quantization.settings import PARAMETERS as QUANTIZATION_PARAMETERS
from benchcard.spec.schema import Boolean, Number, Text, ValueType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# How many calls the shares of time are told from, one more than that, since the first pays for what is done once and is
# left out: at least two, of which the shorter counts, so that none that was stopped decides; and no more once this many
# seconds are over. With ten, four may have been stopped at the same node.
_PROFILED_CALLS = (3, 11)
_PROFILED_S = 0.5


class OnnxRuntime:
    """The framework `onnxruntime`: fp32, dynamically and statically quantized graphs."""

    parameters = frozenset(
        {
            "from_transformers",
            "apply_quantization",
            "quantization_approach",
            *QUANTIZATION_PARAMETERS,
            "node_exclusion",
            "calibration",
        }
    )
    arguments: Mapping[str, ValueType] = MappingProxyType(
        {
            "opset": Number(11, 23, whole=True),
            "optimization_level": Number(among=(0, 1, 2, 99)),
            "intra_op_num_threads": Number(1, whole=True),
            "allow_spinning": Boolean(),
            "file_name": Text(),
        }
    )
    running = frozenset({"optimization_level", "allow_spinning"})
    engine = "onnx"
    format = "onnx"

    def import_runtime(self) -> None:
        """Import onnxruntime."""
        import onnxruntime  # noqa: F401

    def open(self, model: Path, options: Mapping[str, Any]) -> Session:
        """The graph in a session.

        Raises:
            ArtifactError: The runtime cannot load or run the graph; the message has its own words.
        """
        return Session(model, options)

    def open_profiled(self, model: Path, options: Mapping[str, Any]) -> Session:
        """As `open`; the session can tell its `kernels`."""
        return Session(model, options, profiled=True)


class Session:
    """An ONNX graph in an inference session.

    Args:
        model: The graph.
        options: A framework's arguments.
        profiled: Whether the runtime notes what it runs, until `kernels` was asked.
    """

    def __init__(self, model: Path, options: Mapping[str, Any], profiled: bool = False) -> None:
        import onnxruntime

        settings = session_options(options)
        # Until `kernels` was asked; its file is opened with the session.
        self._profile = _folder() if profiled else None
        if self._profile is not None:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(self._profile.name) / "calls")
        try:
            self.session = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
        except runtime_errors() as error:
            if self._profile is not None:
                self._profile.cleanup()
            raise ArtifactError(
                f"onnxruntime {onnxruntime.__version__} cannot load {model.name}: {error}{remedy(str(error))}"
            ) from error
        self._inputs = {entry.name: entry.type for entry in self.session.get_inputs()}
        self._outputs = [entry.name for entry in self.session.get_outputs()]
        self.facts = {**session_settings(self.session), **_only_batch_size(self.session)}

    def prepare(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The inputs that the graph takes, in its types."""
        return {name: _as(inputs[name], kind) for name, kind in self._inputs.items() if name in inputs}

    def run(self, prepared: Mapping[str, NDArray[Any]]) -> Any:
        """One forward call; a list of arrays in the order of the graph's outputs."""
        return self.session.run(self._outputs, prepared)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name."""
        return dict(zip(self._outputs, self.run(self.prepare(inputs))))

    def kernels(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[Kernel, ...]:
        """What a few calls run, the first calls of a session that is profiled; nothing is noted from then on, and
        nothing found.
        """
        profile, self._profile = self._profile, None
        if profile is None:
            return ()
        with profile:
            fewest, most = _PROFILED_CALLS
            started = time.perf_counter()
            for done in range(most):
                if done >= fewest and time.perf_counter() - started > _PROFILED_S:
                    break
                self(inputs)
            return kernels(Path(self.session.end_profiling()))


def _folder() -> tempfile.TemporaryDirectory[str] | None:
    """A folder for the runtime's notes; None where there is no room for one: that costs the reasons and not the row."""
    try:
        return tempfile.TemporaryDirectory(prefix=".profile-")
    except OSError:
        return None


def _only_batch_size(session: Any) -> dict[str, int]:
    """The batch size of a graph that takes no other one; nothing where it takes any."""
    fixed = {entry.shape[0] for entry in session.get_inputs() if entry.shape}
    sizes = [size for size in fixed if isinstance(size, int)]
    return {"batch_size": sizes[0]} if len(fixed) == len(sizes) == 1 else {}


def _as(array: NDArray[Any], kind: str) -> NDArray[Any]:
    """The array in the element type that the graph declares."""
    import numpy as np

    types: dict[str, type[np.generic]] = {
        "tensor(int64)": np.int64,
        "tensor(int32)": np.int32,
        "tensor(float)": np.float32,
        "tensor(float16)": np.float16,
        "tensor(bool)": np.bool_,
    }
    return np.ascontiguousarray(array, dtype=types.get(kind, array.dtype))
