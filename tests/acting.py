"""The step `act` for tests of child processes: it does what its request says, and fails in every way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from benchcard.errors import Mistake, SpecError
from benchcard.steps import MODULES
from benchcard.steps.step import Outcome, Progress, Request, need


@dataclass(frozen=True, kw_only=True)
class ActRequest(Request[dict[str, Any]]):
    """What to do, by name."""

    kind: ClassVar[str] = "act"
    what: Mapping[str, Any]
    graph: Outcome[Any] | None = need(default=None)


def act(request: ActRequest, target: Path, progress: Progress) -> dict[str, Any]:
    """Do what the request says."""
    os.write(1, b"said on stdout\n")
    os.write(2, b"said on stderr\n")
    what = request.what
    if "progress" in what:
        for done in range(3):
            progress(done + 1, 3)
    if "raise" in what:
        raise ValueError("as asked")
    if "spec" in what:
        raise SpecError([Mistake("$.a", "b", "c"), Mistake("$.d", "e", "f", "g")])
    if what.get("disk") == "text":
        raise ValueError(f"io: {os.strerror(28)} (os error 28)")
    if "disk" in what:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise (RuntimeError("cannot write") if what["disk"] == "inside" else error) from error
    if "grandchild" in what:
        leave(what["grandchild"], target / "grandchild")
    if "signal" in what:
        os.kill(os.getpid(), what["signal"])
    if "exit" in what:
        os._exit(what["exit"])
    if "sleep" in what:
        time.sleep(what["sleep"])
    if "odd" in what:
        odd = {
            "nan": float("nan"),
            "inf": -float("inf"),
            "count": np.int64(3),
            "half": "\ud800",
            "set": {1},
            "frozen": MappingProxyType({}),
            "plain": {1: (np.float64(2.5), None, True)},
        }
        return {"facts": {"heat": [1.5, odd[what["odd"]]]}}
    if "half" in what:
        raise ValueError("\ud800 is half")
    (target / "made").write_text(what.get("text", ""))
    if "modules" in what:
        return {"pid": os.getpid(), "modules": sorted(sys.modules)}
    return {"pid": os.getpid(), "needs": {name: need.values for name, need in request.needs.items()}}


def leave(how: str, file: Path) -> None:
    """Start a process that holds all that this one has open, or all that a program inherits, and that stays."""
    if how == "program":
        pid = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]).pid
    elif (pid := os.fork()) == 0:
        if how == "session":
            os.setsid()
        while True:
            time.sleep(3600)
    file.with_suffix(".part").write_text(str(pid))
    file.with_suffix(".part").rename(file)


MODULES["act"] = "acting"
