"""PyTorch on the CPU, in inference mode: the model as its authors run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchcard.errors import ArtifactError
from benchcard.spec.schema import Number, ValueType

if TYPE_CHECKING:
    import torch

    from benchcard.frameworks.protocol import Arrays, Options, Outputs


class PyTorch:
    """The framework `pytorch`: the model of a transformers folder, in float32."""

    parameters: frozenset[str] = frozenset()
    arguments: Mapping[str, ValueType] = MappingProxyType({"intra_op_num_threads": Number(1, whole=True)})
    running: frozenset[str] = frozenset()
    engine = "torch"
    format = "transformers"
    forkable = True

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
        try:
            self.module = load_model(model, options["task"], trust_remote_code=bool(options.get("trust_remote_code")))
        except (OSError, ValueError, KeyError) as error:
            raise ArtifactError(f"transformers {transformers.__version__} cannot load {model}: {error}") from error
        self.facts: Mapping[str, object] = {
            "runtime": f"torch {torch.__version__}",
            "intra_op_num_threads": torch.get_num_threads(),
            "attention": getattr(self.module.config, "_attn_implementation", None),
        }
        self._torch, self._call = torch, call

    def prepare(self, inputs: Arrays) -> dict[str, torch.Tensor]:
        """Return the inputs as tensors."""
        return {name: self._torch.from_numpy(array) for name, array in inputs.items()}

    def run(self, prepared: Mapping[str, torch.Tensor]) -> Any:
        """Make one forward call, and return the model's own output object, or its outputs by name."""
        with self._torch.inference_mode():
            return self._call(self.module, prepared)

    def __call__(self, inputs: Arrays) -> Outputs:
        """Return the outputs that are single tensors, by name."""
        outputs = self.run(self.prepare(inputs))
        return {name: value.numpy() for name, value in outputs.items() if isinstance(value, self._torch.Tensor)}
