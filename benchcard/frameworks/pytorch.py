"""PyTorch on the CPU or a GPU, in inference mode: the model as its authors run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchcard.errors import ArtifactError
from benchcard.frameworks.cuda import DEVICE, gpu_facts, unavailable
from benchcard.measure.gpu import uses_gpu
from benchcard.spec.schema import Number, Text, ValueType

if TYPE_CHECKING:
    import torch

    from benchcard.frameworks.protocol import Arrays, Options, Outputs, Precision


class PyTorch:
    """The framework `pytorch`: the model of a transformers folder, in float32 unless `torch_dtype` says otherwise."""

    parameters: frozenset[str] = frozenset()
    arguments: Mapping[str, ValueType] = MappingProxyType(
        {
            "intra_op_num_threads": Number(1, whole=True),
            "device": DEVICE,
            "torch_dtype": Text(lambda: ("float32", "float16", "bfloat16")),
        }
    )
    running = frozenset({"device", "torch_dtype"})
    engine = "torch"
    format = "transformers"
    forkable = True
    precisions: Mapping[str, Mapping[str, Precision]] = MappingProxyType(
        {"framework_args.torch_dtype": dict.fromkeys(("float16", "bfloat16"), "16 bits")}
    )

    def import_runtime(self) -> None:
        """Import torch, and what transformers needs for every model; only the model's own module is left for `open`."""
        import benchcard.export.loading  # noqa: F401

    def open(self, model: Path, options: Options) -> Module:
        """Return the model in evaluation mode; an `ArtifactError` says why transformers cannot load it for the task."""
        return Module(model, options)


class Module:
    """A transformers model that runs in `torch.inference_mode` with the requested number of threads."""

    def __init__(self, model: Path, options: Options) -> None:
        import torch
        import transformers

        from benchcard.export.cache import call
        from benchcard.export.loading import load_model

        if options.get("intra_op_num_threads"):
            torch.set_num_threads(options["intra_op_num_threads"])
        self._on_gpu = uses_gpu(options)
        if self._on_gpu and not torch.cuda.is_available():
            reason = "no GPU is found" if torch.version.cuda else "this build of PyTorch has no CUDA"
            raise unavailable("pytorch", f"{reason} (torch {torch.__version__})")
        dtype, trust = options.get("torch_dtype") or "float32", bool(options.get("trust_remote_code"))
        try:
            self.module = load_model(model, options["task"], trust_remote_code=trust, dtype=getattr(torch, dtype))
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"transformers {transformers.__version__} cannot load {model}: {error}") from error
        if self._on_gpu:
            torch.backends.cudnn.allow_tf32 = False  # As for products of matrices: float32 is computed in float32.
            self.module.to("cuda")
        self._facts: Mapping[str, object] = {
            "runtime": f"torch {torch.__version__}",
            "intra_op_num_threads": torch.get_num_threads(),
            "attention": getattr(self.module.config, "_attn_implementation", None),
            **({"torch_dtype": dtype} if options.get("torch_dtype") else {}),
        }
        self._torch, self._call = torch, call

    @property
    def facts(self) -> Mapping[str, object]:
        """The settings that PyTorch reports, and the GPU memory of the process and of its tensors, at most."""
        if not self._on_gpu:
            return self._facts
        return {**self._facts, **gpu_facts(), "device_allocated_bytes": self._torch.cuda.max_memory_allocated()}

    def prepare(self, inputs: Arrays) -> dict[str, torch.Tensor]:
        """Return the inputs as tensors in the memory of the host, floating-point ones in the type of the model."""
        tensors = {name: self._torch.from_numpy(array) for name, array in inputs.items()}
        dtype = self.module.dtype
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}

    def run(self, prepared: Mapping[str, torch.Tensor]) -> Any:
        """Make one forward call, and return the model's own output object, or its outputs by name.

        On a GPU it copies inputs from the memory of the host and outputs to it, for which it waits, as ONNX Runtime
        does.
        """
        with self._torch.inference_mode():
            if not self._on_gpu:
                return self._call(self.module, prepared)
            moved = {name: value.to("cuda") for name, value in prepared.items()}
            outputs = self._tensors(self._call(self.module, moved))
            copied = {name: value.cpu() for name, value in outputs.items()}
            self._torch.cuda.synchronize()
            return copied

    def __call__(self, inputs: Arrays) -> Outputs:
        """Return the outputs that are single tensors, by name; those of 16 bits as float32."""
        short, outputs = (self._torch.float16, self._torch.bfloat16), self._tensors(self.run(self.prepare(inputs)))
        return {name: (each.float() if each.dtype in short else each).numpy() for name, each in outputs.items()}

    def _tensors(self, outputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        return {name: value for name, value in outputs.items() if isinstance(value, self._torch.Tensor)}
