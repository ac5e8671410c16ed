"""ONNX Runtime on the CPU, or on a GPU by its CUDA provider.

A process that uses this module never imports torch, which would cost seconds and add a second thread pool.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from benchcard.errors import ArtifactError
from benchcard.frameworks.cuda import DEVICE, gpu_facts, unavailable
from benchcard.frameworks.kernels import Kernel, profiled_calls, read_kernels
from benchcard.graphs.cache import feed
from benchcard.graphs.runtime import remedy, runtime_errors, session_options, session_settings
from benchcard.graphs.signature import LAYOUTS, only_batch_size, only_length, session_inputs
from benchcard.measure.gpu import uses_gpu
from benchcard.spec.schema import Boolean, MappingOf, Number, Text, ValueType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from benchcard.frameworks.protocol import Arrays, Options, Outputs

_PARAMETERS = (
    "from_transformers apply_quantization quantization_approach operators_to_quantize node_exclusion per_channel "
    "reduce_range weights_dtype activations_dtype quant_format weights_symmetric activations_symmetric "
    "matmul_const_b_only bits block_size algorithm accuracy_level dtype calibration"
)

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class OnnxRuntime:
    """The framework `onnxruntime`: float and quantized graphs."""

    parameters = frozenset(_PARAMETERS.split())
    arguments: Mapping[str, ValueType] = MappingProxyType(
        {
            "opset": Number(11, 23, whole=True),
            "optimization_level": Number(among=(0, 1, 2, 99)),
            "intra_op_num_threads": Number(1, whole=True),
            "allow_spinning": Boolean(),
            "device": DEVICE,
            "file_name": Text(),
            "inputs": MappingOf(open=True, each=Text()),
            "outputs": MappingOf(open=True, each=Text()),
            "layout": Text(lambda: LAYOUTS),
        }
    )
    running = frozenset({"optimization_level", "allow_spinning", "device"})
    engine = "onnx"
    format = "onnx"
    forkable = True

    def import_runtime(self) -> None:
        """Import onnxruntime."""
        import onnxruntime  # noqa: F401

    def open(self, model: Path, options: Options) -> Session:
        """Return the graph in a session; an `ArtifactError` says why the runtime cannot load it."""
        return Session(model, options)

    def open_profiled(self, model: Path, options: Options) -> Session:
        """Return the graph in a session that can report its `kernels`."""
        return Session(model, options, profiled=True)


class Session:
    """An ONNX graph in an inference session; if `profiled`, its calls are profiled until `kernels` is called."""

    def __init__(self, model: Path, options: Options, profiled: bool = False) -> None:
        import onnxruntime

        settings = session_options(options)
        self._on_gpu = uses_gpu(options)
        providers = _cuda_providers() if self._on_gpu else [_CPU]
        self._profile: tempfile.TemporaryDirectory[str] | None = None
        # A full disk costs the kernels and not the row.
        with suppress(OSError):
            self._profile = tempfile.TemporaryDirectory(prefix=".profile-") if profiled else None
        if self._profile is not None:
            # The session opens a file in this folder at once, and writes it until `kernels` is called.
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(self._profile.name) / "calls")
        try:
            self.session = onnxruntime.InferenceSession(str(model), settings, providers=providers)
        except runtime_errors() as error:
            if self._profile is not None:
                self._profile.cleanup()
            raise ArtifactError(
                f"onnxruntime {onnxruntime.__version__} cannot load {model.name}: {error}{remedy(str(error))}"
            ) from error
        if self._on_gpu and _CUDA not in self.session.get_providers():
            raise unavailable("onnxruntime", "its CUDA provider was not loaded. The log says what it lacks")
        self._inputs = session_inputs(self.session)
        self._outputs = [entry.name for entry in self.session.get_outputs()]
        only = {"batch_size": only_batch_size(self._inputs), "input_length": only_length(self._inputs)}
        sizes = {name: size for name, size in only.items() if size is not None}
        self._facts = {**session_settings(self.session), **sizes}

    @property
    def facts(self) -> Mapping[str, object]:
        """The settings that the session reports, and the GPU memory of the process."""
        return {**self._facts, **gpu_facts()} if self._on_gpu else self._facts

    def prepare(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Return the inputs that the graph takes, in its types; a cache that is not given is empty."""
        return feed(self._inputs, inputs)

    def run(self, prepared: Arrays) -> list[NDArray[np.generic]]:
        """Make one forward call, and return the arrays in the order of the graph's outputs.

        On a GPU it copies inputs from the memory of the host and outputs to it, for which it waits.
        """
        outputs: list[NDArray[np.generic]] = self.session.run(self._outputs, prepared)
        return outputs

    def __call__(self, inputs: Arrays) -> Outputs:
        """Return the outputs by name."""
        return dict(zip(self._outputs, self.run(self.prepare(inputs))))

    def kernels(self, inputs: Arrays) -> tuple[Kernel, ...]:
        """Return the kernels of a few calls, the first ones of a profiled session; nothing on a second call."""
        profile, self._profile = self._profile, None
        if profile is None:
            return ()
        with profile:
            for _ in profiled_calls():
                self(inputs)
            return read_kernels(Path(self.session.end_profiling()), gpu=self._on_gpu)


def _cuda_providers() -> list[str | tuple[str, Mapping[str, str]]]:
    """Return the providers of a session on the GPU: what CUDA has no kernel for runs on the CPU.

    Float32 is computed in float32, as in PyTorch, and not in TF32, which the provider takes by default.

    Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
    """
    import onnxruntime

    if _CUDA not in onnxruntime.get_available_providers():
        install = "pip uninstall onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]'"
        raise unavailable("onnxruntime", f"this build has no CUDA provider. Replace it: {install}")
    # The libraries of CUDA that pip installs are found only where they have been loaded before.
    onnxruntime.preload_dlls()
    return [(_CUDA, {"use_tf32": "0"}), _CPU]
