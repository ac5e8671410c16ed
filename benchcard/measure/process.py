"""The parent's side of timed processes: start them, send commands, end them.

Owns the environment, pipe and log of a process, and turns its exceptions, its death and its silence into
`ProcessFailed`. Leaves to `child` and `launcher` what happens inside a process, and to `conductor` when it is asked and
what a failure means.

On Linux, the processes of models with the same framework and settings are forked from one process that has imported the
framework. Elsewhere, and where the framework cannot be forked, each process is started afresh.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import IO, BinaryIO, Self, TypeAlias, cast

import msgspec
import numpy as np

from benchcard import registry
from benchcard.errors import BenchcardError
from benchcard.measure.blocks import Block, OpenedModel, Subject, TimedFailure
from benchcard.measure.child import HEADER, Command, Fork, Import, Open, Reply, Time, Wait, encode_command
from benchcard.measure.gpu import uses_gpu
from benchcard.measure.machine import physical_cores
from benchcard.utils import process
from benchcard.utils.process import Child, child_environment, python_command
from benchcard.utils.values import Failure

# The longest time for an answer.
TIMEOUT_S = 600.0
# How long to wait for a process that was killed.
_KILL_WAIT_S = 10.0


def _has_pidfd() -> bool:
    """Return whether this system can wait for a process that is not a child; sandboxes may refuse it."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


# A process that was stopped ends with its parent, and one that was forked can be waited for: both on Linux only.
CAN_FORK = sys.platform == "linux" and _has_pidfd()

Member: TypeAlias = tuple[Subject, bool]
"""A model, and whether this is the baseline's second process."""


class ProcessFailed(Exception):
    """A timed process gave no answer; `failure` has the reason."""

    def __init__(self, failure: TimedFailure) -> None:
        self.failure = failure
        super().__init__(failure.failure.message)


class _Conversation:
    """Commands to a process and its answers. As a context manager it ends the process."""

    def __init__(self, member: Member, timeout_s: float, process_: Child, log: BinaryIO) -> None:
        self.subject, self.twin = member
        self.timeout_s = timeout_s
        self._process = process_
        self._log = log
        self._stage = "start"
        self._frames: queue.SimpleQueue[tuple[Reply, bytes] | None] = queue.SimpleQueue()
        reap = process_.reap if isinstance(process_, _Forked) else None
        self._waiting = process.forward_messages(process_, _frames(process_.stdout), self._frames, reap)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def kill(self) -> None:
        """End the process and its children, and do not wait for it."""
        process.kill_tree(self._process)

    def close(self) -> None:
        """End the process and its children, and wait for it. Does nothing where it has ended."""
        self.kill()
        self._waiting.join(_KILL_WAIT_S)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start_import(self) -> None:
        """Have the process import its framework, and do not wait for it.

        Raises:
            ProcessFailed: The process ended.
        """
        self._send(Import(self.subject.framework, registry.registered_by_call()))

    def finish_import(self) -> Reply:
        """Wait until the framework is imported, and return the processor time that it took, as `import_ns`.

        Raises:
            ProcessFailed: The process raised, ended, or did not answer in time; it has been ended.
        """
        return self._answer(self.timeout_s)[0]

    def _send(self, command: Command) -> None:
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
        try:
            code = self._process.wait(_KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            message = f"the process was killed, and has not ended after {_KILL_WAIT_S:g} s: the system may not let it"
            return self._failed("TimeoutError", message)
        return self._failed(*process.describe_exit(code))

    def _failed(self, kind: str, message: str) -> ProcessFailed:
        # The log is read when the process has ended, since both share the position in the file.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_WAIT_S)
        failure = Failure(self._stage, kind, message, process.read_log_end(self._log))
        return ProcessFailed(TimedFailure(self.subject.name, self.twin, failure))


class TimedProcess(_Conversation):
    """A process that opens one model and times its calls. Between commands it is stopped, where the system allows it.

    Args:
        subject: The model.
        twin: Whether this is the baseline's second process.
        timeout_s: The longest time for an answer, beyond the duration of a block.
        forked: The process and its log, where a launcher forked it; by default a process is started.
        import_ns: The processor time that the launcher took to import the framework.
    """

    def __init__(
        self,
        subject: Subject,
        twin: bool,
        timeout_s: float,
        forked: tuple[Child, BinaryIO] | None = None,
        import_ns: int = 0,
    ) -> None:
        super().__init__((subject, twin), timeout_s, *(forked or _start("measure.child", (subject, twin))))
        self._import_ns = import_ns
        spinning = subject.options.get("allow_spinning", True)
        self._options = {**subject.options, "intra_op_num_threads": _threads(subject), "allow_spinning": spinning}

    def finish_import(self) -> Reply:
        """Wait until the framework is imported; see `_Conversation.finish_import`."""
        reply = super().finish_import()
        self._import_ns = reply["import_ns"]
        return reply

    def begin(self) -> None:
        """Wait until a forked process has pages of its own.

        Raises:
            ProcessFailed: See `finish_import`.
        """
        if isinstance(self._process, _Forked):
            self._answer(self.timeout_s)
            self.pause()

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
        reply, _ = self._ask(Open(model, self._options, inputs, warmup_runs, warmup_ns), self.timeout_s)
        facts = {**reply["facts"], "forked": isinstance(self._process, _Forked)}
        record = {**reply, **self._key, "facts": facts, "launch": launch, "import_ns": self._import_ns}
        return msgspec.convert(record, OpenedModel)

    def time_block(self, block_ns: int, warm_ns: int) -> Block:
        """Time a block of calls of at least `block_ns`, after an unrecorded call and more of at least `warm_ns`.

        Raises:
            ProcessFailed: See `finish_import`.
        """
        reply, payload = self._ask(Time(block_ns, warm_ns), self.timeout_s + 2 * block_ns / 1e9)
        latencies = np.frombuffer(payload, np.dtype("<i8")).astype(np.int64)
        # Windows does not report these.
        switches = dict.fromkeys(("voluntary_switches", "involuntary_switches", "major_faults"))
        return msgspec.convert({**switches, **reply, **self._key, "latencies_ns": latencies}, Block)

    @property
    def _key(self) -> Reply:
        return {"name": self.subject.name, "twin": self.twin}

    def _ask(self, command: Command, timeout_s: float) -> tuple[Reply, bytes]:
        """Send a command and return the answer. The process is stopped after it, so that none of its threads spins."""
        self.resume()
        self._send(command)
        answer = self._answer(timeout_s)
        self.pause()
        return answer

    def pause(self) -> None:
        """Stop all threads of the process and its children, where the system allows it."""
        self._signal("SIGSTOP")

    def resume(self) -> None:
        """Let the process continue."""
        self._signal("SIGCONT")

    def _signal(self, name: str) -> None:
        # While it is not known to have ended, its number belongs to no other process.
        if CAN_FORK and self._process.poll() is None:
            try:
                os.killpg(self.pid, getattr(signal, name))
            except ProcessLookupError:
                return


class Launcher(_Conversation):
    """A process that imports a framework, and forks a process for each of its models.

    Args:
        member: One of the models, whose settings are those of the others.
        timeout_s: The longest time for an answer of this process or a forked one.
    """

    def __init__(self, member: Member, timeout_s: float) -> None:
        self._asking = threading.Lock()
        # Each packet is a command, with the descriptors that go with it.
        self._channel, child_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            super().__init__(member, timeout_s, *_start("measure.launcher", member, child_end))
        except ProcessFailed:
            self._channel.close()
            raise
        finally:
            child_end.close()

    def finish_import(self) -> Reply:
        """Wait until the framework is imported; see `_Conversation.finish_import`."""
        reply = super().finish_import()
        self.import_ns: int = reply["import_ns"]
        self.can_fork: bool = reply["can_fork"]
        return reply

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def fork(self, member: Member) -> TimedProcess:
        """Return a process for a model; see `TimedProcess.begin`.

        Raises:
            ProcessFailed: The launcher ended.
        """
        parent_end, child_end = socket.socketpair()
        with parent_end, child_end, ExitStack() as failing:
            log = failing.enter_context(_log())
            reply = self._ask(Fork(), [child_end.fileno(), log.fileno()])
            if "refused" in reply:
                raise _not_started(member, *reply["refused"])
            child_end.close()  # so that the end of the process ends what is read from it
            try:
                child = _Forked(self, reply["pid"], parent_end)
            except OSError as error:
                # The launcher was killed, and the process with it.
                self.kill()
                raise self._ended() from error
            failing.pop_all()
            return TimedProcess(*member, self.timeout_s, (child, log), self.import_ns)

    def exit_code(self, pid: int) -> int:
        """Return how a forked process, which has ended, ended.

        Raises:
            ProcessFailed: The launcher ended.
        """
        code: int = self._ask(Wait(pid))["code"]
        return code

    def close(self) -> None:
        """End the process and all that it forked."""
        super().close()
        self._channel.close()

    def _ask(self, command: Command, descriptors: Sequence[int] = ()) -> Reply:
        """Send a command, from any thread, and return the answer."""
        with self._asking:
            try:
                self._send(command, descriptors)
                return self._answer(self.timeout_s)[0]
            except KeyboardInterrupt:
                self.kill()
                self._channel.close()  # since the next command would get the answer to this one
                raise

    def _send(self, command: Command, descriptors: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._channel, [encode_command(command)], descriptors)
        except OSError as error:
            self.kill()
            raise self._ended() from error


class _Forked:
    """A process that a launcher forked, with the part of `subprocess.Popen` that is used here."""

    def __init__(self, launcher: Launcher, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        # The number stays reserved until the launcher waits for the process, which `reap` asks for.
        self._descriptor = os.pidfd_open(pid)
        self.stdin: IO[bytes] | None = channel.makefile("wb")
        self.stdout: IO[bytes] | None = channel.makefile("rb")
        self._launcher = launcher
        self._code: int | None = None
        self._has_ended = threading.Event()

    def reap(self) -> None:
        """Wait for the end, and kill what the process started."""
        try:
            end = select.poll()  # `select` takes only descriptors below 1024
            end.register(self._descriptor, select.POLLIN)
            end.poll()
            process.kill_group(self.pid)
            self._code = self._launcher.exit_code(self.pid)
        except (ProcessFailed, OSError, ValueError):
            self._code = -signal.SIGKILL  # It ended with its launcher.
        finally:
            os.close(self._descriptor)
            self._has_ended.set()

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self._code if self._has_ended.is_set() else None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once the process has ended."""
        if not self._has_ended.wait(timeout):
            raise subprocess.TimeoutExpired("forked process", timeout or 0.0)
        return self._code or 0

    def kill(self) -> None:
        """Kill the process."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


class Launchers:
    """The processes of groups of models, launch by launch. As a context manager it ends them all.

    Imports run in parallel. The baseline's twin has a parent of its own, so that it differs from the baseline in all
    that processes differ by.

    Args:
        timeout_s: The longest time for an answer of a process (to import, to open a model, or to time a block beyond
            the block's length). The process is then ended, and its model leaves the group.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.timeout_s = timeout_s
        self._kept: dict[object, Launcher] = {}
        self._importing: dict[object, Launcher | TimedProcess | ProcessFailed] = {}
        self._afresh: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def begin(self, members: Iterable[Member]) -> None:
        """Start the parents of these models, which import their frameworks while other work goes on."""
        for subject, twin in members:
            key = self._parent((subject, twin))
            if key != (subject.name, twin) and key not in self._importing:
                self._importing[key] = self._begin((subject, twin))

    def start(
        self, members: Sequence[Member], processes: ExitStack, affordable_ns: float
    ) -> list[TimedProcess | ProcessFailed]:
        """Return a process for each member, with its framework imported, or why there is none.

        Args:
            members: The models to open.
            processes: Ends the processes when it is closed.
            affordable_ns: A parent whose import took longer also serves the following launches; others end.
        """
        parents: dict[object, Launcher | TimedProcess | ProcessFailed] = {}
        for member in members:
            key = self._parent(member)
            if key not in parents:
                kept = self._kept.get(key)
                begun = kept if kept and kept.is_alive else self._importing.pop(key, None)
                parents[key] = begun or self._begin(member)
        for key, parent in parents.items():
            if not isinstance(parent, ProcessFailed) and parent is not self._kept.get(key):
                parents[key] = _imported(parent)
        launchers = {key: parent for key, parent in parents.items() if isinstance(parent, Launcher)}
        if afresh := {parent.subject.framework for parent in launchers.values() if not parent.can_fork}:
            # A fork would lose threads of the framework, for example. This happens once, in the first launch.
            self._afresh |= afresh
            for parent in parents.values():
                if not isinstance(parent, ProcessFailed):
                    parent.close()
            return self.start(members, processes, affordable_ns)
        # All are forked before the first is waited for: they copy their pages in parallel, since nothing is timed yet.
        forked = [self._process(member, parents) for member in members]
        outcomes = [_begun(process) for process in forked]
        launchers = self._kept | {key: parent for key, parent in parents.items() if isinstance(parent, Launcher)}
        self._kept = {key: parent for key, parent in launchers.items() if parent.import_ns > affordable_ns}
        launched = [outcome for outcome in outcomes if isinstance(outcome, TimedProcess)]
        ending = [parent for key, parent in launchers.items() if key not in self._kept]
        # A launcher ends after its processes, because it waits for them.
        processes.callback(_end, ending)
        processes.callback(_end, launched)
        return outcomes

    def _process(
        self, member: Member, parents: dict[object, Launcher | TimedProcess | ProcessFailed]
    ) -> TimedProcess | ProcessFailed:
        """Return the process of a member, forked from its parent where it has one.

        A launcher that was killed since its import, for lack of memory perhaps, is replaced once.
        """
        key = self._parent(member)
        outcome, parent = _process_of(member, parents[key]), parents[key]
        if isinstance(outcome, ProcessFailed) and isinstance(parent, Launcher) and not parent.is_alive:
            started = self._begin(member)
            parents[key] = started if isinstance(started, ProcessFailed) else _imported(started)
            outcome = _process_of(member, parents[key])
        return outcome

    def _parent(self, member: Member) -> object:
        """Return what the members have in common that are forked from one process; the member, if it is not forked."""
        subject, twin = member
        # A forked process cannot use CUDA if the import of a library has initialized it.
        # Source: https://docs.pytorch.org/docs/stable/notes/multiprocessing.html
        is_alone = uses_gpu(subject.options) or subject.framework in self._afresh
        if is_alone or not _can_fork(subject.framework):
            return subject.name, twin
        return subject.framework, _threads(subject), subject.options.get("allow_spinning"), twin

    def _begin(self, member: Member) -> Launcher | TimedProcess | ProcessFailed:
        """Start the parent of a member, or its own process, and have it import the framework."""
        subject, twin = member
        try:
            if self._parent(member) == (subject.name, twin):
                started: Launcher | TimedProcess = TimedProcess(subject, twin, self.timeout_s)
            else:
                started = Launcher(member, self.timeout_s)
            self._stack.enter_context(started)
            started.start_import()
        except ProcessFailed as failed:
            return failed
        return started


def _end(ending: Sequence[_Conversation]) -> None:
    """End processes. All are killed before the first is waited for: each takes a moment to return its memory."""
    for one in ending:
        one.kill()
    for one in ending:
        one.close()


def _begun(process: TimedProcess | ProcessFailed) -> TimedProcess | ProcessFailed:
    try:
        if isinstance(process, TimedProcess):
            process.begin()
    except ProcessFailed as failed:
        return failed
    return process


def _imported(parent: Launcher | TimedProcess) -> Launcher | TimedProcess | ProcessFailed:
    try:
        parent.finish_import()
    except ProcessFailed as failed:
        return failed
    return parent


def _process_of(member: Member, parent: Launcher | TimedProcess | ProcessFailed) -> TimedProcess | ProcessFailed:
    """Return the process of a member, forked from its parent where it has one."""
    try:
        if isinstance(parent, ProcessFailed):
            raise parent
        return parent.fork(member) if isinstance(parent, Launcher) else parent
    except ProcessFailed as failed:
        subject, twin = member
        return ProcessFailed(TimedFailure(subject.name, twin, failed.failure.failure))


def _can_fork(framework: str) -> bool:
    """Return whether processes of a framework may be forked from one that has imported it, as it declares."""
    if not CAN_FORK or ":" in framework:
        return False
    try:
        return bool(getattr(registry.framework(framework), "forkable", False))
    except BenchcardError:
        return False  # The import in the process itself fails, with the reason.


def _start(
    module: str, member: Member, commands: socket.socket | None = None
) -> tuple[subprocess.Popen[bytes], BinaryIO]:
    """Start a process with the environment of a member, and return it with its log.

    It reads commands from its standard input: a pipe, or the socket on which a launcher is asked to fork.
    """
    subject, _ = member
    log = _log()
    try:
        started = subprocess.Popen(
            python_command(module, os.getpid(), search_own=bool(registry.registered_by_call())),
            stdin=subprocess.PIPE if commands is None else commands.fileno(),
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(_threads(subject), subject.options.get("allow_spinning"), forking=commands is not None),
            # Ctrl-C is for the parent, and a group of its own can be ended with all that it started.
            start_new_session=True,
        )
    except OSError as error:
        log.close()
        raise _not_started(member, type(error).__name__, str(error)) from error
    return started, log


def _not_started(member: Member, kind: str, reason: str) -> ProcessFailed:
    subject, twin = member
    failure = Failure("start", kind, f"no process could be started: {reason}")
    return ProcessFailed(TimedFailure(subject.name, twin, failure))


def _log() -> BinaryIO:
    return cast(BinaryIO, tempfile.TemporaryFile("a+b"))


def _threads(subject: Subject) -> int:
    requested = subject.options.get("intra_op_num_threads")
    return requested if isinstance(requested, int) and requested else physical_cores()


def _frames(answers: IO[bytes] | None) -> Iterator[tuple[Reply, bytes]]:
    """Yield each answer of a child: a JSON object and the bytes that came with it."""
    while answers is not None and len(header := answers.read(HEADER.size)) == HEADER.size:
        text_size, payload_size = HEADER.unpack(header)
        text, payload = answers.read(text_size), answers.read(payload_size)
        if len(text) < text_size or len(payload) < payload_size:
            return
        yield json.loads(text), payload


def _environment(threads: int, spinning: object, *, forking: bool) -> dict[str, str]:
    """Return the environment of a process, with the settings of threads that libraries read when they are loaded.

    Where `spinning` is None, idle threads wait as the libraries do by default. A process that is to be forked must have
    one thread: NumPy's OpenBLAS and ONNX Runtime's telemetry start others when they are imported.

    Source: OpenMP 5.2 specification, section 21.3 (OMP_WAIT_POLICY); libgomp manual (GOMP_SPINCOUNT); the manuals of
    oneMKL, OpenBLAS and Accelerate for their own variables.
    """
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    environment = {
        **child_environment(),
        **dict.fromkeys((*counts, "VECLIB_MAXIMUM_THREADS"), str(threads)),
        "MKL_DYNAMIC": "FALSE",
        "OMP_DYNAMIC": "FALSE",
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if forking:
        environment["OPENBLAS_NUM_THREADS"] = "1"
    if spinning is None:
        return environment
    if spinning:
        return {**environment, "OMP_WAIT_POLICY": "ACTIVE"}
    return {**environment, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
