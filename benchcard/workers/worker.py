"""The parent's side of a child process that does steps.

A `Worker` is one long-lived child that does one step after another, so that slow imports happen once. If the child
dies, only its current step fails. Requests, progress and replies are lines of JSON over the child's standard input and
output; `workers.child` is the other side.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.errors import BackendError, Mistake
from benchcard.utils import process as processes
from benchcard.utils.process import describe_exit, read_log_end
from benchcard.utils.values import Failure


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
            request: Plain data; `benchcard.steps.quantize.<kind>` takes it.
            log: The file that takes what the step prints.
            progress: Called with units done and units in all, as the child tells them.
            timeout_s: The child is killed when a step takes longer; None waits for ever.
        """
        process = self._start()
        if process.stdin is None:
            raise BackendError("the child process has no standard input")
        line = json.dumps({**request, "log": str(log), "registered": registry.registered_by_call()}) + "\n"
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
                        read_log_end(log),
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
                    Failure(request["kind"], told["failure"][0], told["failure"][1], read_log_end(log)),
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
            processes.kill_tree(process)
            waiting.join()

    def _start(self) -> subprocess.Popen[str]:
        if self._child is None:
            threads = str(self._threads)
            environment = {
                **processes.child_environment(),
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
        how, message = describe_exit(code)
        return Reply({}, Failure(kind, how, message, read_log_end(log)))
