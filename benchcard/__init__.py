"""benchcard: benchmark the quantized variants of a Hugging Face model, and publish numbers that can be believed.

    from benchcard import Benchmark

Names are imported when they are first used, so that `import benchcard` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchcard._version import __version__

if TYPE_CHECKING:
    from benchcard.analysis.choice import Choice
    from benchcard.benchmark import Benchmark
    from benchcard.card import Card
    from benchcard.errors import (
        ArtifactError,
        BackendError,
        BenchcardError,
        CardError,
        HubError,
        MachineError,
        Mistake,
        SpecError,
    )
    from benchcard.registry import register_backend, register_framework, register_metric, register_task
    from benchcard.results import Results

__all__ = [
    "ArtifactError",
    "BackendError",
    "BenchcardError",
    "Benchmark",
    "Card",
    "CardError",
    "Choice",
    "HubError",
    "MachineError",
    "Mistake",
    "Results",
    "SpecError",
    "__version__",
    "register_backend",
    "register_framework",
    "register_metric",
    "register_task",
]

_HOMES = {
    "Benchmark": "benchmark",
    "Card": "card",
    "Choice": "analysis.choice",
    "Results": "results",
    "register_backend": "registry",
    "register_framework": "registry",
    "register_metric": "registry",
    "register_task": "registry",
}


def __getattr__(name: str) -> Any:
    """A public name, imported now."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
