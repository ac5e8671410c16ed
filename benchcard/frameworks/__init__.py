"""The frameworks that run a model, one file each, and the protocol that they implement.

Making a graph is left to `export` and `quantization`.
"""

from __future__ import annotations

from benchcard.frameworks.kernels import Kernel
from benchcard.frameworks.protocol import (
    Converted,
    Converting,
    Framework,
    Model,
    ProfiledModel,
    Profiling,
    Snippet,
    Usable,
)

__all__ = [
    "Converted",
    "Converting",
    "Framework",
    "Kernel",
    "Model",
    "ProfiledModel",
    "Profiling",
    "Snippet",
    "Usable",
]
