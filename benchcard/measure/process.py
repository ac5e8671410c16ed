"""The parent's side of a timed process: start it, send commands, end it.

Owns the child's environment, pipe and log, and turns its exceptions, its death and its silence into `ProcessFailed`.
Leaves to `child` what happens inside the process, and to `conductor` when it is asked and what a failure means.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import tempfile
import time
from collections.abc import Iterator
from types import TracebackType
from typing import IO

import msgspec
import numpy as np

from benchcard import registry
from benchcard.measure.blocks import Block, OpenedModel, Subject, TimedFailure
from benchcard.measure.child import HEADER, Import, Open, Reply, Time, encode_command
from benchcard.measure.machine import physical_cores
from benchcard.utils import process
from benchcard.utils.process import child_environment, python_command
from benchcard.utils.values import Failure

# How long to wait for a process that was killed.
_KILL_WAIT_S = 10.0


class ProcessFailed(Exception):
    """A timed process gave no answer; `failure` has the reason."""

    def __init__(self, failure: TimedFailure) -> None:
        self.failure = failure
        super().__init__(failure.failure.message)


class TimedProcess:
    """A process that opens one model and times its calls. As a context manager it ends the process.

    Args:
        subject: The model.
        twin: Whether this is the baseline's second process.
        timeout_s: The longest time for an answer, beyond the duration of a block.
    """

    def __init__(self, subject: Subject, twin: bool, timeout_s: float) -> None:
        self.subject = subject
        self.twin = twin
        self.timeout_s = timeout_s
        requested = subject.options.get("intra_op_num_threads")
        threads = requested if isinstance(requested, int) and requested else physical_cores()
        spinning = bool(subject.options.get("allow_spinning", False))
        self._options = {**subject.options, "intra_op_num_threads": threads, "allow_spinning": spinning}
        self._stage = "start"
        self._import_ns = 0
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - lives as long as the process, see `close`
        try:
            self._process = subprocess.Popen(
                python_command("measure.child", os.getpid(), search_own=bool(registry.registered_by_call())),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=_environment(threads, spinning),
                # Ctrl-C is for the parent, and a group of its own can be ended with all that it started.
                start_new_session=True,
            )
        except OSError as error:
            self._log.close()
            failure = Failure("start", type(error).__name__, f"no process could be started: {error}")
            raise ProcessFailed(TimedFailure(subject.name, twin, failure)) from error
        self._frames: queue.SimpleQueue[tuple[Reply, bytes] | None] = queue.SimpleQueue()
        self._waiting = process.forward_messages(self._process, _frames(self._process.stdout), self._frames)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def start_import(self) -> None:
        """Have the process import its framework, and do not wait for it.

        Raises:
            ProcessFailed: The process ended.
        """
        self._send(Import(self.subject.framework, registry.registered_by_call()))

    def finish_import(self) -> None:
        """Wait until the framework is imported.

        Raises:
            ProcessFailed: The process raised, ended, or did not answer in time; it has been ended.
        """
        reply, _ = self._answer(self.timeout_s)
        self._import_ns = reply["import_ns"]

    def open(self, launch: int, warmup_runs: int, warmup_ns: int) -> OpenedModel:
        """Open the model and warm it up.

        Args:
            launch: The number of the launch, for the record.
            warmup_runs: Calls after the first one.
            warmup_ns: Time after which no further call of the warm-up begins.

        Raises:
            ProcessFailed: See `finish_import`.
        """
        inputs, model = os.fspath(self.subject.inputs), os.fspath(self.subject.model)
        self._send(Open(model, self._options, inputs, warmup_runs, warmup_ns))
        reply, _ = self._answer(self.timeout_s)
        return msgspec.convert({**reply, **self._key, "launch": launch, "import_ns": self._import_ns}, OpenedModel)

    def time_block(self, block_ns: int, warm_ns: int) -> Block:
        """Time a block of calls of at least `block_ns`, after unrecorded calls of at least `warm_ns`.

        Raises:
            ProcessFailed: See `finish_import`.
        """
        self._send(Time(block_ns, warm_ns))
        reply, payload = self._answer(self.timeout_s + 2 * block_ns / 1e9)
        latencies = np.frombuffer(payload, np.dtype("<i8")).astype(np.int64)
        # Windows does not report these.
        switches = dict.fromkeys(("voluntary_switches", "involuntary_switches", "major_faults"))
        return msgspec.convert({**switches, **reply, **self._key, "latencies_ns": latencies}, Block)

    def kill(self) -> None:
        """End the process and its children, and do not wait for it."""
        process.kill_tree(self._process)

    def close(self) -> None:
        """End the process and its children, and wait for it. Does nothing where it has ended."""
        self.kill()
        self._waiting.join(_KILL_WAIT_S)
        self._log.close()

    def __enter__(self) -> TimedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _key(self) -> Reply:
        return {"name": self.subject.name, "twin": self.twin}

    def _send(self, command: Import | Open | Time) -> None:
        try:
            if self._process.stdin is None:
                raise EOFError
            self._process.stdin.write(encode_command(command))
            self._process.stdin.flush()
        except (OSError, ValueError, EOFError) as error:
            self.kill()
            raise self._ended() from error

    def _answer(self, timeout_s: float) -> tuple[Reply, bytes]:
        """Wait for the reply to a command and return it, with the bytes that came with it."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                frame = self._frames.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.kill()
                message = f"no answer in {timeout_s:g} s, and the process was ended: allow more time with `timeout_s`"
                raise self._failed("TimeoutError", message) from None
            if frame is None:
                raise self._ended()
            reply, payload = frame
            if "stage" in reply:
                self._stage = reply["stage"]
            elif "error" in reply:
                self.kill()
                raise self._failed(reply["error"]["type"], reply["error"]["message"])
            else:
                return reply, payload

    def _ended(self) -> ProcessFailed:
        return self._failed(*process.describe_exit(self._process.wait(_KILL_WAIT_S)))

    def _failed(self, kind: str, message: str) -> ProcessFailed:
        # The log is read when the process has ended, since both share the position in the file.
        self._process.wait(_KILL_WAIT_S)
        failure = Failure(self._stage, kind, message, process.read_log_end(self._log))
        return ProcessFailed(TimedFailure(self.subject.name, self.twin, failure))


def _frames(answers: IO[bytes] | None) -> Iterator[tuple[Reply, bytes]]:
    """Yield each answer of a child: a JSON object and the bytes that came with it."""
    while answers is not None and len(header := answers.read(HEADER.size)) == HEADER.size:
        text_size, payload_size = HEADER.unpack(header)
        text, payload = answers.read(text_size), answers.read(payload_size)
        if len(text) < text_size or len(payload) < payload_size:
            return
        yield json.loads(text), payload


def _environment(threads: int, spinning: bool) -> dict[str, str]:
    """Return the child's environment, with the settings of threads that libraries read when they are loaded.

    Source: OpenMP 5.2 specification, section 21.3 (OMP_WAIT_POLICY); libgomp manual (GOMP_SPINCOUNT); the manuals of
    oneMKL, OpenBLAS and Accelerate for their own variables.
    """
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    environment = {
        **child_environment(),
        **dict.fromkeys((*counts, "VECLIB_MAXIMUM_THREADS"), str(threads)),
        "MKL_DYNAMIC": "FALSE",
        "OMP_DYNAMIC": "FALSE",
        "PYTHONUNBUFFERED": "1",
    }
    if spinning:
        return {**environment, "OMP_WAIT_POLICY": "ACTIVE"}
    return {**environment, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
