"""The child process that holds one model and times its calls.

Owns what happens inside that process: opening the model, the warm-up, the clock around each call, the counters of the
process, and its end when the parent ends. Leaves to `process` starting it, to `launcher` forking it, and to `conductor`
when it times a block. Imports only the standard library, numpy and `utils.process`, because whatever is loaded here is
measured with the model.

The parent writes one JSON object per line: the fields of a command and its class as `do`. Each answer is a frame: the
lengths of its two parts (`<II`), a JSON object, and latencies as little-endian int64. Between two commands the process
sleeps.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import json
import os
import queue
import signal
import struct
import sys
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeAlias

import numpy as np

from benchcard.utils import process
from benchcard.utils.process import peak_memory_bytes, status_bytes

HEADER = struct.Struct("<II")
_PR_SET_PDEATHSIG = 1  # prctl(2)
_PARENT_ENDED = 3
# Before a block of calls that take this many times `warm_ns`, one unrecorded call is enough.
_SLOW = 10

Call: TypeAlias = Callable[[object], object]
Opener: TypeAlias = Callable[[Path, Mapping[str, object]], Any]  # an opened model of any framework
Reply: TypeAlias = dict[str, Any]  # plain data, which `process` converts to typed values


@dataclass(frozen=True)
class Import:
    """The command to import a framework; `registered` is what the parent registered by calls."""

    framework: str
    registered: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Open:
    """The command to open a model and warm it up; no call of the warm-up begins later than `warmup_ns`."""

    model: str
    options: Mapping[str, object]
    inputs: str
    warmup_runs: int
    warmup_ns: int


@dataclass(frozen=True)
class Time:
    """The command to time calls of at least `block_ns`, after an unrecorded call and more of at least `warm_ns`."""

    block_ns: int
    warm_ns: int


@dataclass(frozen=True)
class Fork:
    """The command to a launcher to fork a process; with it come the descriptors of its socket and of its log."""


@dataclass(frozen=True)
class Wait:
    """The command to a launcher to wait for a process that it forked, and that has ended."""

    pid: int


Command: TypeAlias = Import | Open | Time | Fork | Wait
_COMMANDS = {command.__name__: command for command in (Import, Open, Time, Fork, Wait)}


def encode_command(command: Command) -> bytes:
    """Return a command as the line that the child reads."""
    return json.dumps({"do": type(command).__name__, **vars(command)}, default=str).encode() + b"\n"


def decode_command(line: bytes) -> Command:
    """Return the command that `encode_command` wrote."""
    fields = json.loads(line)
    return _COMMANDS[fields.pop("do")](**fields)


def main(parent: int) -> None:
    """Carry out the commands on standard input until it closes, which ends the process.

    Args:
        parent: Process id of the parent; the process ends at once where that is not its parent any more.
    """
    serve(sys.stdin.buffer, start(parent))


def start(parent: int) -> BinaryIO:
    """Make this process end with its parent, and return the stream of its answers; what a library prints is logged."""
    end_with(parent)
    faulthandler.enable()
    # The parent handles an interrupt. A second traceback from here would only hide its message.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def serve(lines: Iterable[bytes], answers: BinaryIO, opener: Opener | None = None) -> NoReturn:
    """Carry out commands until they end, which ends the process; `opener` is of a framework imported before a fork."""
    commands: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    process.listen(lines, commands, _PARENT_ENDED)
    call: Call | None = None
    inputs: object = None

    def report(stage: str) -> None:
        answer(answers, {"stage": stage})

    while True:
        command = decode_command(commands.get())
        with answering_errors(answers):
            if isinstance(command, Import):
                opener, reply = import_framework(command, report)
                answer(answers, reply)
            elif isinstance(command, Open) and opener is not None:
                call, inputs, reply = _open(opener, command, report)
                answer(answers, reply)
            elif isinstance(command, Time) and call is not None:
                reply, latencies = time_block(call, inputs, command)
                answer(answers, reply, latencies.tobytes())


@contextmanager
def answering_errors(answers: BinaryIO) -> Iterator[None]:
    """Answer with the exception that a command raises."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the one boundary where a model's failure becomes data
        traceback.print_exc()
        answer(answers, {"error": {"type": type(error).__name__, "message": str(error) or repr(error)}})


def end_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent ends, which works even while native code blocks Python."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have ended before the request took effect.
    if os.name == "posix" and os.getppid() != parent:
        os._exit(_PARENT_ENDED)


def answer(answers: BinaryIO, reply: Reply, payload: bytes = b"") -> None:
    """Write an answer: plain data, and bytes beside it."""
    # A lone surrogate in a message cannot be encoded and becomes a question mark.
    text = json.dumps(reply, default=str, ensure_ascii=False).encode("utf-8", "replace")
    answers.write(HEADER.pack(len(text), len(payload)) + text + payload)
    answers.flush()


def import_framework(command: Import, report: Callable[[str], None]) -> tuple[Opener, Reply]:
    """Return the function that opens a model, and the processor time that importing its framework took."""
    report("import")
    start = time.process_time_ns()
    # Garbage collection during imports finds nothing and takes a sixth of the time.
    gc.disable()
    try:
        opener = _opener(command)
    finally:
        gc.enable()
    return opener, {"import_ns": time.process_time_ns() - start}


def _opener(command: Import) -> Opener:
    module, colon, function = command.framework.partition(":")
    if colon:
        opener: Opener = getattr(importlib.import_module(module), function)
        return opener
    from benchcard import registry

    registry.register_again(entry for entry in command.registered if entry[0] == "frameworks")
    framework = registry.framework(command.framework)
    framework.import_runtime()
    return framework.open  # type: ignore[no-any-return]  # the registry does not know the protocol


def _open(opener: Opener, command: Open, report: Callable[[str], None]) -> tuple[Call, object, Reply]:
    """Return the call to time, its argument, and what opening the model cost."""
    clock = time.perf_counter_ns
    report("inputs")
    with np.load(command.inputs, allow_pickle=False) as arrays:
        inputs: object = {name: arrays[name] for name in arrays.files}
    report("load")
    gc.collect()
    base_bytes = _resident_bytes()
    _reset_peak()
    start = clock()
    opened = opener(Path(command.model), command.options)
    load_ns = clock() - start
    call: Call = opened
    if hasattr(opened, "prepare") and hasattr(opened, "run"):
        call, inputs = opened.run, opened.prepare(inputs)
    report("first call")
    start = clock()
    call(inputs)
    first_call_ns = clock() - start
    report("warm-up")
    warmup_ns: list[int] = []
    while len(warmup_ns) < command.warmup_runs and first_call_ns + sum(warmup_ns) < command.warmup_ns:
        start = clock()
        call(inputs)
        warmup_ns.append(clock() - start)
    report("time")
    # The objects of now live to the end: no later collection needs to look at them.
    gc.collect()
    gc.freeze()
    reply: Reply = {
        "load_ns": load_ns,
        "first_call_ns": first_call_ns,
        "warmup_ns": warmup_ns,
        "base_bytes": base_bytes,
        "peak_bytes": peak_memory_bytes(),
        "facts": {**_process_facts(), **getattr(opened, "facts", {})},
    }
    return call, inputs, reply


def time_block(
    call: Call, inputs: object, command: Time, clock: Callable[[], int] = time.perf_counter_ns
) -> tuple[Reply, array[int]]:
    """Return the counters of a block, and the latency of each of its calls in ns.

    The first unrecorded call finds everything in memory, not in caches, and takes ten times as long as others if it is
    short. Unless it took much longer than `warm_ns`, more follow. Garbage collection is off, as in the standard
    library's timeit.
    """
    latencies = array("q")
    record = latencies.append
    gc.collect()
    gc.disable()
    try:
        begin = clock()
        call(inputs)
        warm_calls = 1
        end = clock()
        stop = end + command.warm_ns
        if end - begin < _SLOW * command.warm_ns:
            while clock() < stop:
                call(inputs)
                warm_calls += 1
        before = _usage()
        started_ns = time.time_ns()
        begin = clock()
        stop = begin + command.block_ns
        while True:
            start = clock()
            output = call(inputs)
            end = clock()
            record(end - start)
            del output  # outside the clock: to free the memory is not part of the call
            if end >= stop:
                break
        after = _usage()
    finally:
        gc.enable()
    return {
        "started_ns": started_ns,
        "elapsed_ns": end - begin,
        "warm_calls": warm_calls,
        "peak_bytes": peak_memory_bytes(),
        **{name: value - before[name] for name, value in after.items()},
    }, latencies


def _usage() -> dict[str, int]:
    """Return the counters of this process over all threads; on Windows the processor time alone."""
    counters = {"cpu_ns": time.process_time_ns()}
    if sys.platform != "win32":
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        counters |= {"voluntary_switches": usage.ru_nvcsw, "involuntary_switches": usage.ru_nivcsw}
        counters["major_faults"] = usage.ru_majflt
    return counters


def _reset_peak() -> None:
    """Reset the peak of resident memory, so that it does not include the imports.

    Source: proc(5), /proc/pid/clear_refs, value 5.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _resident_bytes() -> int:
    resident = status_bytes("VmRSS")
    if resident is not None:
        return resident
    import psutil

    return int(psutil.Process().memory_info().rss)


def _process_facts() -> dict[str, object]:
    """Return the processors and threads that this process has, and the thread setting of its environment."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    tasks = Path("/proc/self/task")
    return {
        "pid": os.getpid(),
        "usable_cpus": affinity,
        "os_threads": len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "torch_imported": "torch" in sys.modules,
    }
