"""benchcard: benchmark quantized variants of Hugging Face models, and publish the results as model cards.

    from benchcard import Benchmark

Public names are imported at their first use, so that `import benchcard` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    from benchcard.report.gallery import Gallery, read_gallery
    from benchcard.results import Results
    from benchcard.utils.events import Event, RoundEvent, RowEvent, StepEvent

__all__ = [
    "ArtifactError",
    "BackendError",
    "BenchcardError",
    "Benchmark",
    "Card",
    "CardError",
    "Choice",
    "Event",
    "Gallery",
    "HubError",
    "MachineError",
    "Mistake",
    "Results",
    "RoundEvent",
    "RowEvent",
    "SpecError",
    "StepEvent",
    "__version__",
    "read_gallery",
    "register_backend",
    "register_framework",
    "register_metric",
    "register_task",
]

_MODULES = {
    "Benchmark": "benchmark",
    "Card": "card",
    "Choice": "analysis.choice",
    "Event": "utils.events",
    "Gallery": "report.gallery",
    "Results": "results",
    "RoundEvent": "utils.events",
    "RowEvent": "utils.events",
    "StepEvent": "utils.events",
    "read_gallery": "report.gallery",
    "register_backend": "registry",
    "register_framework": "registry",
    "register_metric": "registry",
    "register_task": "registry",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
