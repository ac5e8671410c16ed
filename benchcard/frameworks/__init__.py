"""What runs a model, one file per framework. How a graph is made is left to `export` and `quantization`."""

from __future__ import annotations

from benchcard.frameworks.kernels import Kernel
from benchcard.frameworks.protocol import Converting, Framework, Model, ProfiledModel, Profiling

__all__ = ["Converting", "Framework", "Kernel", "Model", "ProfiledModel", "Profiling"]
