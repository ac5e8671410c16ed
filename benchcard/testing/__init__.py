"""Helpers for the tests of packages that build on benchcard.

- `LocalHub` is a Hugging Face Hub on the loopback interface, for the real client; `Fault` is a failure that it shows,
  `SeenRequest` a request that it received.
- `write_data`, `write_tokenizer`, `write_text_model`, `write_image_data` and `write_image_model` create small data sets
  and models without a download; `text_model` and `train` create a model that has learned something.
- `pass_through` evaluates a model on a data set in this process, as a run does in its child processes.
- `FakeFramework` runs graphs in a known time.

Names are imported at their first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchcard.testing.fake_framework import FakeFramework
    from benchcard.testing.hub.http import Fault, SeenRequest
    from benchcard.testing.hub.local_hub import LocalHub
    from benchcard.testing.models import (
        text_model,
        train,
        write_data,
        write_image_data,
        write_image_model,
        write_text_model,
        write_tokenizer,
    )
    from benchcard.testing.passing import Passed, pass_through

__all__ = [
    "FakeFramework",
    "Fault",
    "LocalHub",
    "Passed",
    "SeenRequest",
    "pass_through",
    "text_model",
    "train",
    "write_data",
    "write_image_data",
    "write_image_model",
    "write_text_model",
    "write_tokenizer",
]

_MODULES = {
    "FakeFramework": "fake_framework",
    "Fault": "hub.http",
    "LocalHub": "hub.local_hub",
    "Passed": "passing",
    "SeenRequest": "hub.http",
    "pass_through": "passing",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'models')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
