"""The child process that does steps: `python -m benchcard.workers.child`.

It reads requests as lines of JSON from standard input, and writes progress and replies to standard output. The output
of libraries goes to the log of the step. The child ends with its standard input, so it never outlives its parent.
"""

from __future__ import annotations

import contextlib
import errno
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
from typing import Any, TextIO, get_type_hints

from benchcard import registry
from benchcard.errors import BackendError, SpecError
from benchcard.steps import MODULES
from benchcard.utils import process as processes
from benchcard.utils.plain import as_plain

# The garbage collector runs after this many new objects. With the default of 700 it takes a sixth of the time of the
# imports, whose objects all stay.
_NEW_OBJECTS = 20_000


def main() -> None:
    """Do the steps that standard input asks for, until it ends."""
    gc.set_threshold(_NEW_OBJECTS)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests: queue.Queue[str] = queue.Queue()
    source = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    threading.Thread(target=_listen, args=(source, requests), daemon=True).start()
    while True:
        message = json.loads(requests.get())
        reply = _reply(message, replies)
        replies.write(json.dumps(reply, ensure_ascii=True, allow_nan=True) + "\n")
        replies.flush()


def _listen(source: TextIO, requests: queue.Queue[str]) -> None:
    for line in source:
        requests.put(line)
    # The parent has ended or stopped this child: end at once, in the middle of any step.
    processes.exit_tree(0)


def _reply(message: Mapping[str, Any], replies: TextIO) -> dict[str, Any]:
    try:
        with _logged(Path(message["log"])):
            return _do(message, replies)
    except OSError as error:
        # The log itself cannot be written.
        return {"failure": [type(error).__name__, str(error)], "errno": error.errno, "mistakes": []}


_DISK_ERRORS = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT)}
# What the error of transformers contains if the model needs code of its repository.
_ASKS_FOR_CODE = "trust_remote_code=True"
_CODE = (
    "the model comes with its own code, which runs only if the spec has `trust_remote_code: true`. Read that code first"
)


def _do(message: Mapping[str, Any], replies: TextIO) -> dict[str, Any]:
    """Do one step. This is the one place where any exception of a configuration becomes a failure as data."""
    try:
        registry.register_again(message["registered"])
        kind = message["kind"]
        action = getattr(importlib.import_module(MODULES[kind]), kind)
        request = get_type_hints(action)["request"].from_json(message["request"])
        values = as_plain(action(request, Path(message["target"]), _reporter(replies)))
        if problem := next(_not_serializable(values), None):
            raise BackendError(f"the outcome of this step cannot be written as JSON: {problem}")
        # What a plugin gives may have other types than results are read with.
        request.read_values(values)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - see above
        with contextlib.suppress(OSError):
            # On a full disk the log cannot be written either.
            traceback.print_exc()
        mistakes = (
            [[mistake.place, mistake.found, mistake.expected, mistake.hint] for mistake in error.mistakes]
            if isinstance(error, SpecError)
            else []
        )
        return {
            "failure": [type(error).__name__, _CODE if _ASKS_FOR_CODE in str(error) else _valid(str(error))],
            "errno": _errno(error),
            "mistakes": mistakes,
        }
    return {"values": values}


def _errno(error: BaseException | None) -> int | None:
    """Return the error number of an exception, or of the one that it was raised from or after.

    Libraries in C++ and Rust raise errors without a number, with the text of the system.
    """
    while error is not None:
        message = str(error)
        number: int | None = getattr(error, "errno", None)
        number = number or next((known for text, known in _DISK_ERRORS.items() if text in message), None)
        if number is not None:
            return number
        error = error.__cause__ or error.__context__
    return None


def _not_serializable(value: Any, place: str = "") -> Iterator[str]:
    """Yield each part of a step's values that JSON cannot hold, with its place: `facts.heat is nan`."""
    where = place or "the outcome"
    if isinstance(value, dict):
        for key, element in value.items():
            if key is not None and not isinstance(key, (str, int, float)):
                yield f"{key!r}, a key of {where}, is not text"
            yield from _not_serializable(element, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)):
        for index, element in enumerate(value):
            yield from _not_serializable(element, f"{place}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{where} is {value}, which is not a finite number"
    elif isinstance(value, str):
        if value != _valid(value):
            yield f"{where} is {value!r}, which is not valid Unicode"
    elif value is not None and not isinstance(value, int):
        yield f"{where} has the type {type(value).__module__}.{type(value).__qualname__}, which is not plain data"


def _valid(text: str) -> str:
    """Return the text with lone surrogates replaced, which have no UTF-8 encoding."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


@contextlib.contextmanager
def _logged(log: Path) -> Iterator[None]:
    """Send everything that any library writes to standard output and error to the file `log`."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    earlier = os.dup(1), os.dup(2)
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
        os.dup2(earlier[0], 1)
        os.dup2(earlier[1], 2)
        for descriptor in (file, *earlier):
            os.close(descriptor)


def _reporter(replies: TextIO) -> Callable[[int, int], None]:
    """Return a progress function that writes to the parent, at most ten times a second."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last > 0.1:
            last = now
            replies.write(json.dumps({"progress": [done, total]}) + "\n")
            replies.flush()

    return report
