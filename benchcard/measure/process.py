"""The conductor's side of one timed process: start it, ask it, end it.

Owns the child's environment, its pipe and log, and turning a death, an exception or silence into a `ChildFailed`.
Leaves to `timed` what happens inside the child, and to `timing` when it is asked and what a failure means.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import IO, Any

from benchcard import registry
from benchcard.measure.blocks import Failure
from benchcard.measure.child import HEADER
from benchcard.utils import process

_LOG_BYTES = 4000
# A child that does not read its commands, or cannot be reaped, is beyond us after this long.
_KILL_WAIT_S = 10.0


class ChildFailed(Exception):
    """A timed process gave no answer; `failure` says why, as data."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


class Child:
    """One timed process. A context manager: the process is gone when it ends, however it ends.

    Args:
        name: the subject's name, for failures.
        twin: whether this is the baseline's second process.
        threads: number of threads that every library in the child is told to use.
        spinning: whether its threads may spin while they wait.
    """

    def __init__(self, name: str, twin: bool, *, threads: int, spinning: bool) -> None:
        self.name = name
        self.twin = twin
        self._stage = "start"
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - lives as long as the process, see close()
        try:
            self._process = subprocess.Popen(
                process.python_command("measure.child", os.getpid(), search_own=bool(registry.registered_by_call())),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=_environment(threads, spinning),
                # Ctrl-C is for the parent, and a group of its own is ended with all that it started.
                start_new_session=True,
            )
        except OSError as error:
            self._log.close()
            raise ChildFailed(
                Failure(name, twin, "start", type(error).__name__, f"no process could be started: {error}", "")
            ) from error
        self._frames: queue.SimpleQueue[tuple[dict[str, Any], bytes] | None] = queue.SimpleQueue()
        self._waiting = process.forward_messages(self._process, _frames(self._process.stdout), self._frames)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def ask(self, command: Mapping[str, Any], timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """The child's answer to a command: a JSON object and the bytes that came with it.

        Raises:
            ChildFailed: it raised, died, or did not answer in `timeout_s`; the process has been ended.
        """
        self.tell(command)
        return self.answer(timeout_s)

    def tell(self, command: Mapping[str, Any]) -> None:
        """Give a command and do not wait for its answer.

        Raises:
            ChildFailed: the process is gone.
        """
        try:
            if self._process.stdin is None:
                raise EOFError
            self._process.stdin.write(json.dumps(command, default=str).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError, EOFError) as error:
            self.kill()
            raise ChildFailed(self._end_of()) from error

    def answer(self, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """The answer to a command that was told: a JSON object and the bytes that came with it.

        Sleeps until then. What the child says about its stage on the way is remembered for a failure.

        Raises:
            ChildFailed: it raised, died, or did not answer in `timeout_s`; the process has been ended.
        """
        end = time.monotonic() + timeout_s
        while True:
            try:
                frame = self._frames.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                self.kill()
                message = f"no answer in {timeout_s:g} s, and the process was ended: allow it more by `timeout_s`"
                raise ChildFailed(self._failure("TimedOut", message)) from None
            if frame is None:
                raise ChildFailed(self._end_of())
            facts, payload = frame
            if "stage" in facts:
                self._stage = facts["stage"]
            elif "error" in facts:
                self.kill()
                raise ChildFailed(self._failure(facts["error"]["type"], facts["error"]["message"]))
            else:
                return facts, payload

    def kill(self) -> None:
        """Ends the process and what it started at once, and does not wait until it is gone; `close` does."""
        process.kill_tree(self._process)

    def close(self) -> None:
        """Ends the process at once and waits until it is gone; harmless when it is gone already."""
        self.kill()
        self._waiting.join(_KILL_WAIT_S)
        self._log.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end_of(self) -> Failure:
        """Why the process is not there any more."""
        code = self._process.wait(_KILL_WAIT_S)
        if code >= 0:
            return self._failure("Died", f"the process ended with status {code}", exit_code=code)
        try:
            died_of = signal.Signals(-code).name
        except ValueError:
            died_of = f"signal {-code}"
        hint = " (often: the machine ran out of memory)" if died_of == "SIGKILL" else ""
        return self._failure("Died", f"the process was ended by {died_of}{hint}", signal=died_of)

    def _failure(self, kind: str, message: str, **how: Any) -> Failure:
        """Why there is no answer, with what the process wrote last."""
        self._process.wait(_KILL_WAIT_S)
        return Failure(self.name, self.twin, self._stage, kind, message, self._end_of_log(), **how)

    def _end_of_log(self) -> str:
        """What the process wrote last. Read only once it is dead: both share the file's position."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _LOG_BYTES))
        return self._log.read().decode(errors="replace")


def _frames(answers: IO[bytes] | None) -> Iterator[tuple[dict[str, Any], bytes]]:
    """What a child answers: JSON objects, each with the bytes that came with it."""

    def read(size: int) -> bytes:
        data = b"" if answers is None else answers.read(size)
        if len(data) < size:
            raise EOFError
        return data

    try:
        while True:
            text_size, payload_size = HEADER.unpack(read(HEADER.size))
            yield json.loads(read(text_size)), read(payload_size)
    except EOFError:
        return


def _environment(threads: int, spinning: bool) -> dict[str, str]:
    """The child's environment: that of any child, and thread settings that count before any library is imported.

    Source: OpenMP 5.2 specification, section 21.3 (OMP_WAIT_POLICY); libgomp manual (GOMP_SPINCOUNT); the manuals of
    oneMKL, OpenBLAS and Accelerate for their own variables.
    """
    environment = process.child_environment()
    for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
        environment[f"{name}_NUM_THREADS"] = str(threads)
    environment["VECLIB_MAXIMUM_THREADS"] = str(threads)
    environment["MKL_DYNAMIC"] = environment["OMP_DYNAMIC"] = "FALSE"
    if spinning:
        environment["OMP_WAIT_POLICY"] = "ACTIVE"
    else:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment["GOMP_SPINCOUNT"] = "0"
        environment["KMP_BLOCKTIME"] = "0"
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
