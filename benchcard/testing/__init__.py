"""What packages that build on benchcard need in their tests.

`LocalHub` is a Hugging Face Hub on the loopback, with the real client on the other side; `Fault` is something that goes
wrong in it. Names are loaded when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchcard.testing.hub import LocalHub
    from benchcard.testing.hub_http import Fault, SeenRequest

__all__ = ["Fault", "LocalHub", "SeenRequest"]

_HOMES = {
    "Fault": "benchcard.testing.hub_http",
    "LocalHub": "benchcard.testing.hub",
    "SeenRequest": "benchcard.testing.hub_http",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
