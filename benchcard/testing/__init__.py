"""What packages that build on benchcard need in their tests.

- `LocalHub` is a Hugging Face Hub on the loopback, with the real client on the other side; `Fault` is something that
  goes wrong in it, `SeenRequest` something that it was asked.
- `write_data`, `write_tokenizer`, `write_text_model`, `write_image_data` and `write_image_model` make data sets and
  models in a moment, without a download; `text_model` and `train` give a small one that is right about something.
- `pass_through` takes a data set through a task and a model in this process, as a run does in its children.
- `FakeFramework` runs graphs in a known time.

Names are loaded when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchcard.testing.fake_framework import FakeFramework
    from benchcard.testing.hub.http import Fault, SeenRequest
    from benchcard.testing.hub.hub import LocalHub
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

_HOMES = {
    "FakeFramework": "fake_framework",
    "Fault": "hub.http",
    "LocalHub": "hub.hub",
    "Passed": "passing",
    "SeenRequest": "hub.http",
    "pass_through": "passing",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'models')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
