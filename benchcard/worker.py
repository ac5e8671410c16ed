"""Steps in child processes, and what becomes of them: an outcome, or a failure as data.

`Worker` is the parent's side: one long-lived child that does one step after another, so that what is slow to import is
imported once. A child that dies takes its step with it and nothing else. `main` is the child's side. How a child is
started is decided in `child_process`, what a step does in `actions`, what is kept of it in `store`.

The two talk in lines of JSON: requests on the child's standard input, progress and replies on its standard output.
Whatever libraries print goes to the step's log. The end of standard input ends the child at once, so it never outlives
its parent.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from benchcard import child_process, processes, registry
from benchcard.errors import BackendError, Mistake, SpecError
from benchcard.store import Failure

LOG_END_BYTES = 4000
# New objects after which garbage is looked for, for as long as a child lives. With 700, the default, that is a sixth of
# the time that it takes to import what it needs, all of which stays.
_NEW_OBJECTS = 20_000


@dataclass(frozen=True)
class Reply:
    """What a child said of one step.

    Attributes:
        values: What it found out.
        failure: Why it failed, or None.
        errno: The error number, where a system call failed.
        mistakes: What is wrong with the spec, where that is why it failed.
    """

    values: Mapping[str, Any]
    failure: Failure | None = None
    errno: int | None = None
    mistakes: tuple[Mistake, ...] = ()


class Worker:
    """A child process that does steps. It starts with the first one, and again after it died."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._child: tuple[subprocess.Popen[str], threading.Thread] | None = None
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def do(
        self,
        request: Mapping[str, Any],
        log: Path,
        progress: Callable[[int, int], None],
        timeout_s: float | None = None,
    ) -> Reply:
        """The reply to one request (`kind`, `asked`, `needs`, `extra`, `target`); never an exception for what the step
        does.

        Args:
            request: Plain data; `benchcard.actions.<kind>` takes it.
            log: The file that takes what the step prints.
            progress: Called with units done and units in all, as the child tells them.
            timeout_s: The child is killed when a step takes longer; None waits for ever.
        """
        process = self._start()
        if process.stdin is None:
            raise BackendError("the child process has no standard input")
        line = json.dumps({**request, "log": str(log), "registered": registry.called()}) + "\n"
        try:
            process.stdin.write(line)
            process.stdin.flush()
        except (BrokenPipeError, ValueError):
            # It died since the last step; its pipe may have been closed for that.
            return self._died(request["kind"], log)
        end = time.monotonic() + timeout_s if timeout_s else None
        while True:
            try:
                answer = self._lines.get(timeout=max(0.0, end - time.monotonic()) if end else None)
            except queue.Empty:
                self.stop()
                return Reply(
                    {},
                    Failure(
                        request["kind"],
                        "TimeoutError",
                        f"took longer than {timeout_s:g} s and was stopped",
                        log_end(log),
                    ),
                )
            if answer is None:
                return self._died(request["kind"], log)
            told = json.loads(answer)
            if "progress" in told:
                progress(*told["progress"])
            elif told.get("failure"):
                return Reply(
                    {},
                    Failure(request["kind"], told["failure"][0], told["failure"][1], log_end(log)),
                    told.get("errno"),
                    tuple(Mistake(*each) for each in told["mistakes"]),
                )
            else:
                return Reply(told["values"])

    def stop(self) -> None:
        """End the child and what it started, and wait for its end."""
        child, self._child = self._child, None
        if child is not None:
            process, waiting = child
            processes.end(process)
            waiting.join()

    def _start(self) -> subprocess.Popen[str]:
        if self._child is None:
            threads = str(self._threads)
            environment = {
                **child_process.environment(),
                "OMP_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
                "TOKENIZERS_PARALLELISM": "false",
            }
            environment |= {
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
                "PYTHONUNBUFFERED": "1",
            }
            process = subprocess.Popen(
                child_process.command("worker"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if processes.has_errors() else subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=environment,
                # Ctrl-C is for the parent, which ends its children in order.
                start_new_session=True,
            )
            self._lines = queue.SimpleQueue()
            self._child = process, processes.hear(process, process.stdout or (), self._lines)
        return self._child[0]

    def _died(self, kind: str, log: Path) -> Reply:
        child = self._child
        code = child[0].wait() if child else 0
        self.stop()
        how, message = death(code)
        return Reply({}, Failure(kind, how, message, log_end(log)))


def death(code: int) -> tuple[str, str]:
    """Type and message for a process that ended with `code` before it answered."""
    if code >= 0:
        return "ExitError", f"the process ended by itself with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    reason = "; the system does this when memory runs out" if name == "SIGKILL" else ""
    return name, f"the process was killed by {name}{reason}"


def log_end(log: Path) -> str:
    """The last lines of a log file."""
    try:
        content = log.read_bytes()[-LOG_END_BYTES:]
    except OSError:
        return ""
    return content.decode("utf-8", errors="replace")


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
    processes.end_own(0)


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
        registry.recall(request["registered"])
        action = getattr(importlib.import_module("benchcard.actions"), request["kind"])
        values = action(
            asked=request["asked"],
            needs={name: Need(Path(need["folder"]), need["values"]) for name, need in request["needs"].items()},
            extra=request["extra"],
            target=Path(request["target"]),
            progress=_teller(answers),
        )
        if odd := next(_unkept(values), None):
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


def _unkept(value: Any, place: str = "") -> Iterator[str]:
    """What in a step's values no file of JSON can hold, each with where it stands: `facts.heat is nan`."""
    where = place or "all of it"
    if isinstance(value, dict):
        for key, element in value.items():
            if key is not None and not isinstance(key, (str, int, float)):
                yield f"{key!r}, a key of {where}, is no text"
            yield from _unkept(element, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)):
        for index, element in enumerate(value):
            yield from _unkept(element, f"{place}[{index}]")
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


@dataclass(frozen=True)
class Need:
    """What an earlier step made: its folder and its values."""

    folder: Path
    values: Mapping[str, Any]


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
