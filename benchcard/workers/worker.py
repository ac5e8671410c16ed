"""The parent's side of a child process that does steps.

A child does one step after another, so that slow imports happen once. If it dies, only its current step fails.
Requests, progress and replies are lines of JSON over its standard input and output; `workers.child` is the other side.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

from msgspec import convert

from benchcard import registry
from benchcard.errors import Mistake
from benchcard.steps.step import AnyRequest
from benchcard.utils import process as processes
from benchcard.utils.process import describe_exit, read_log_end
from benchcard.utils.values import Failure


@dataclass(frozen=True)
class Reply:
    """The reply of a child to one request: the values of the outcome as plain data, or why the step failed.

    `errno` is that of a system call that failed, `mistakes` are those in the spec, where they are the reason.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    errno: int | None = None
    mistakes: tuple[Mistake, ...] = ()


class Worker:
    """A child process that does steps. It starts with `begin` or the first step, and again after it died."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._child: tuple[subprocess.Popen[str], threading.Thread] | None = None
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def do(
        self, request: AnyRequest, target: Path, progress: Callable[[int, int], None], timeout_s: float | None = None
    ) -> Reply:
        """Do one step in the folder `target`, which also gets its `log.txt`. A step that fails never raises here.

        `progress` is called with the units of work that are done and their total. The child is killed if the step takes
        longer than `timeout_s`; None for no limit.
        """
        if self._child is not None and self._child[0].poll() is not None:
            self.stop()  # It ended between two steps, or while it imported.
        stdin = cast(IO[str], self._start().stdin)
        kind, log = request.kind, target.absolute() / "log.txt"
        order = {
            "kind": kind,
            "request": request.as_json(),
            "target": str(log.parent),
            "log": str(log),
            "registered": registry.registered_by_call(),
        }
        try:
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
        except (BrokenPipeError, ValueError):
            # The child died after its last step.
            return self._died(kind, log)
        end = time.monotonic() + timeout_s if timeout_s else None
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()) if end else None)
            except queue.Empty:
                self.stop()
                text = f"took longer than {timeout_s:g} s and was stopped"
                return Reply(failure=Failure(kind, "TimeoutError", text, read_log_end(log)))
            if line is None:
                return self._died(kind, log)
            message = json.loads(line)
            if "progress" in message:
                progress(*message["progress"])
                continue
            reply = convert(message, Reply)
            return replace(reply, failure=reply.failure and replace(reply.failure, log=read_log_end(log)))

    def begin(self, modules: Sequence[str]) -> None:
        """Start the child, which imports these modules before its first step, while other work goes on."""
        with suppress(OSError, ValueError):  # The first step says why there is no child.
            stdin = cast(IO[str], self._start().stdin)
            stdin.write(json.dumps({"import": modules}) + "\n")
            stdin.flush()

    def stop(self) -> None:
        """End the child and the processes that it started, and wait for them."""
        # Another thread may stop it too.
        child, self._child = self._child, None
        if child is not None:
            process, waiting = child
            processes.kill_tree(process)
            waiting.join()

    def _start(self) -> subprocess.Popen[str]:
        if self._child is None:
            environment = {
                **processes.child_environment(),
                **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self._threads)),
                "TOKENIZERS_PARALLELISM": "false",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
                "PYTHONUNBUFFERED": "1",
            }
            process = subprocess.Popen(
                processes.python_command("workers.child", search_own=bool(registry.registered_by_call())),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if processes.has_stderr() else subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=environment,
                # Ctrl-C is for the parent, which ends its children in order.
                start_new_session=True,
            )
            self._lines = queue.SimpleQueue()
            self._child = process, processes.forward_messages(process, process.stdout or (), self._lines)
        return self._child[0]

    def _died(self, kind: str, log: Path) -> Reply:
        child = self._child
        code = child[0].wait() if child else 0
        self.stop()
        name, message = describe_exit(code)
        return Reply(failure=Failure(kind, name, message, read_log_end(log)))
