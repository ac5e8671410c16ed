"""The argument `device` of the frameworks that also run on a GPU, and what is reported of a model there."""

from __future__ import annotations

from benchcard.errors import BenchcardError
from benchcard.measure.gpu import process_bytes
from benchcard.spec.schema import Text

DEVICE = Text(lambda: ("cpu", "cuda"))


def unavailable(framework: str, reason: str) -> BenchcardError:
    """Return the error of a framework that finds no GPU to use."""
    return BenchcardError(f"the framework `{framework}` cannot run with `device: cuda`: {reason}")


def gpu_facts() -> dict[str, object]:
    """Return the facts of a model on the GPU, as they are after the calls so far."""
    return {"device": "cuda", "device_memory_bytes": process_bytes()}
