"""The child process that does steps: `python -m benchcard.workers.child`.

It reads requests as lines of JSON from standard input, and writes progress and replies to standard output. The output
of libraries goes to the log of the step. The child ends with its standard input, so it never outlives its parent.
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
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, get_type_hints

from benchcard import registry
from benchcard.errors import BackendError, SpecError
from benchcard.steps import MODULES
from benchcard.utils import process as processes
from benchcard.utils.files import FULL_DISK
from benchcard.utils.plain import as_plain
from benchcard.utils.values import Failure
from benchcard.workers.worker import Reply

# The garbage collector runs after this many new objects. With the default of 700 it takes a sixth of the time of the
# imports, whose objects all stay.
_NEW_OBJECTS = 20_000


def main() -> None:
    """Do the steps that standard input asks for, until it ends."""
    gc.set_threshold(_NEW_OBJECTS)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    source = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    processes.listen(source, requests, 0)
    while True:
        message = json.loads(requests.get())
        if "import" in message:
            _import(message["import"])
        else:
            _send(replies, _reply(message, replies))


def _import(modules: Iterable[str]) -> None:
    """Import modules that later steps need. A step that needs one that cannot be imported says so itself."""
    with _logged(Path(os.devnull)):
        for module in modules:
            with contextlib.suppress(Exception):
                importlib.import_module(module)


def _send(replies: TextIO, message: object) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _reply(message: Mapping[str, Any], replies: TextIO) -> object:
    try:
        with _logged(Path(message["log"])):
            reply = _do(message, replies)
    except OSError as error:
        # The log itself cannot be written.
        reply = _failed(message["kind"], error)
    return as_plain(reply)


_DISK_ERRORS = {os.strerror(number): number for number in FULL_DISK}
# What the error of transformers contains if the model needs code of its repository.
_ASKS_FOR_CODE = "trust_remote_code=True"
_CODE = (
    "the model comes with its own code, which runs only if the spec has `trust_remote_code: true`. Read that code first"
)


def _do(message: Mapping[str, Any], replies: TextIO) -> Reply:
    """Do one step. This is the one place where any exception of a configuration becomes a failure as data."""
    kind = message["kind"]
    try:
        registry.register_again(message["registered"])
        action = getattr(importlib.import_module(MODULES[kind]), kind)
        request = get_type_hints(action)["request"].from_json(message["request"])
        values = as_plain(action(request, Path(message["target"]), _reporter(replies)))
        if problem := next(_not_serializable(values), None):
            raise BackendError(f"the outcome of this step cannot be written as JSON: {problem}")
        # What a plugin gives may have other types than results are read with.
        request.read_values(values)
        return Reply(values)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - see above
        with contextlib.suppress(OSError):
            # On a full disk the log cannot be written either.
            traceback.print_exc()
        return _failed(kind, error)


def _failed(kind: str, error: BaseException) -> Reply:
    message = _CODE if _ASKS_FOR_CODE in str(error) else _valid(str(error))
    mistakes = error.mistakes if isinstance(error, SpecError) else ()
    return Reply(failure=Failure(kind, type(error).__name__, message), errno=_errno(error), mistakes=mistakes)


def _errno(error: BaseException | None) -> int | None:
    """Return the error number of an exception, or of the one that it was raised from or after.

    Libraries in C++ and Rust raise errors without a number, with the text of the system.
    """
    while error is not None:
        number = getattr(error, "errno", None)
        if isinstance(number, int):
            return number
        for text, known in _DISK_ERRORS.items():
            if text in str(error):
                return known
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
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.stdout.flush()
    sys.stderr.flush()
    earlier = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    for descriptor in earlier:
        os.dup2(file, descriptor)
    os.close(file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        for descriptor, copy in earlier.items():
            os.dup2(copy, descriptor)
            os.close(copy)


def _reporter(replies: TextIO) -> Callable[[int, int], None]:
    """Return a progress function that writes to the parent, at most ten times a second."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last > 0.1:
            last = now
            _send(replies, {"progress": [done, total]})

    return report
