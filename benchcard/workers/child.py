"""The child process that does steps: `python -m benchcard.workers.child`.

Reads requests as lines of JSON from standard input and writes progress and replies to standard output. What libraries
print goes to the step's log. The end of standard input ends the process, so it never outlives its parent. This is the
one place where any exception becomes a failure as data.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import math
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from benchcard import registry
from benchcard.errors import BackendError, SpecError
from benchcard.steps import ACTIONS
from benchcard.steps.step import Need
from benchcard.utils import process as processes

# New objects after which garbage is looked for, for as long as a child lives. With 700, the default, that is a sixth of
# the time that it takes to import what it needs, all of which stays.
_NEW_OBJECTS = 20_000


def main() -> None:
    """Do the steps asked for on standard input, until it ends."""
    gc.set_threshold(_NEW_OBJECTS)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests: queue.Queue[str] = queue.Queue()
    source = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    threading.Thread(target=_listen, args=(source, requests), daemon=True).start()
    while True:
        request = json.loads(requests.get())
        answer = _answer(request, answers)
        answers.write(json.dumps(answer, ensure_ascii=True, allow_nan=True) + "\n")
        answers.flush()


def _listen(source: TextIO, requests: queue.Queue[str]) -> None:
    for line in source:
        requests.put(line)
    # The parent is gone, or wants no more: end at once, in whatever step.
    processes.exit_tree(0)


def _answer(request: Mapping[str, Any], answers: TextIO) -> dict[str, Any]:
    """Do one step, with a log of its own."""
    try:
        with _logged(Path(request["log"])):
            return _done(request, answers)
    except OSError as error:
        # The log itself cannot be written.
        return {"failure": [type(error).__name__, str(error)], "errno": error.errno, "mistakes": []}


# What transformers says where it would have to run code of the model's repository, and what a spec can do about it.
_ASKS_FOR_CODE = "trust_remote_code=True"
_CODE = (
    "the model comes with code of its own, which runs only where the spec says `trust_remote_code: true`: read that "
    "code first"
)


def _done(request: Mapping[str, Any], answers: TextIO) -> dict[str, Any]:
    """Do one step; the one place where whatever goes wrong in a configuration becomes data."""
    try:
        registry.register_again(request["registered"])
        module, _, name = ACTIONS[request["kind"]].partition(":")
        action = getattr(importlib.import_module(module), name)
        values = action(
            asked=request["asked"],
            needs={name: Need(Path(need["folder"]), need["values"]) for name, need in request["needs"].items()},
            extra=request["extra"],
            target=Path(request["target"]),
            progress=_teller(answers),
        )
        if odd := next(_not_serializable(values), None):
            raise BackendError(f"what this step found out cannot be kept: {odd}")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - see above
        with contextlib.suppress(OSError):
            # A full disk takes no log either.
            traceback.print_exc()
        mistakes = (
            [[each.place, each.found, each.expected, each.hint] for each in error.mistakes]
            if isinstance(error, SpecError)
            else []
        )
        return {
            "failure": [type(error).__name__, _CODE if _ASKS_FOR_CODE in str(error) else _readable(str(error))],
            "errno": getattr(error, "errno", None),
            "mistakes": mistakes,
        }
    return {"values": values}


def _not_serializable(value: Any, place: str = "") -> Iterator[str]:
    """What in a step's values no file of JSON can hold, each with where it stands: `facts.heat is nan`."""
    where = place or "all of it"
    if isinstance(value, dict):
        for key, element in value.items():
            if key is not None and not isinstance(key, (str, int, float)):
                yield f"{key!r}, a key of {where}, is no text"
            yield from _not_serializable(element, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)):
        for index, element in enumerate(value):
            yield from _not_serializable(element, f"{place}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{where} is {value}, which is no number"
    elif isinstance(value, str):
        if value != _readable(value):
            yield f"{where} is {value!r}, a text with half a character"
    elif value is not None and not isinstance(value, int):
        yield f"{where} is of the type {type(value).__module__}.{type(value).__qualname__}, which is no plain data"


def _readable(text: str) -> str:
    """The text without the halves of characters that no file can hold."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


@contextlib.contextmanager
def _logged(log: Path) -> Iterator[None]:
    """Everything that is written to standard output and error, by whatever library, goes to the file `log`."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    kept = os.dup(1), os.dup(2)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for descriptor in (file, *kept):
            os.close(descriptor)


def _teller(answers: TextIO) -> Callable[[int, int], None]:
    """A progress function that writes to the parent, ten times a second at most."""
    last = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last > 0.1:
            last = now
            answers.write(json.dumps({"progress": [done, total]}) + "\n")
            answers.flush()

    return tell
