"""The child process that holds one model and times its calls: `process` starts it.

Owns what happens inside that process: opening the model, the unrecorded calls, the clock around each recorded one, the
process's own counters, and that it never outlives its parent. Leaves to `timing` when a block is due and which, and to
the framework what a call is. Imports nothing but the standard library, numpy and `processes`: whatever else is
loaded here would be measured with the model.

The parent writes one JSON object per line to standard input. Every answer is a frame: the lengths of its two parts
(`<II`), a JSON object, and int64 little-endian latencies. Between two commands the process sleeps in a read.
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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from benchcard.utils import process

HEADER = struct.Struct("<II")
_PR_SET_PDEATHSIG = 1  # prctl(2)
_PARENT_GONE = 3

Call = Callable[[Any], Any]
Opener = Callable[[Path, Mapping[str, Any]], Any]


def main(parent: int) -> None:
    """Obeys the commands on standard input until it closes, which ends the process.

    Args:
        parent: process id of the conductor; where it is no longer our parent, there is nobody to answer.
    """
    _die_with(parent)
    faulthandler.enable()
    # the conductor handles an interrupt for all of us: a second traceback from here would only hide its message
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # answers get a descriptor of their own, so that what a library prints ends in the log and not among them
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(commands,), daemon=True).start()
    prepared: Any = None
    call: Call | None = None
    opener: Opener | None = None

    def say(stage: str) -> None:
        _answer(answers, {"stage": stage})

    while True:
        command = commands.get()
        try:
            if command["do"] == "import":
                opener, reply = _import(command, say)
                _answer(answers, reply)
            elif command["do"] == "open" and opener is not None:
                call, prepared, reply = _open(opener, command, say)
                _answer(answers, reply)
            elif call is not None:
                reply, latencies = _time_block(call, prepared, command["block_ns"], command["warm_ns"])
                _answer(answers, reply, latencies.tobytes())
        except Exception as error:  # noqa: BLE001 - the one boundary where a model's failure becomes data
            traceback.print_exc()
            _answer(answers, {"error": {"type": type(error).__name__, "message": str(error) or repr(error)}})


def _listen(commands: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Hands on every command; the end of the stream means that the parent closed it or died, however it died."""
    for line in sys.stdin.buffer:
        commands.put(json.loads(line))
    process.exit_tree(_PARENT_GONE)


def _die_with(parent: int) -> None:
    """Asks Linux to kill this process when its parent ends: holds even while native code keeps Python from running."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # the parent may have ended before the request stood
    if hasattr(os, "getppid") and os.name == "posix" and os.getppid() != parent:
        os._exit(_PARENT_GONE)


def _answer(answers: BinaryIO, facts: Mapping[str, Any], payload: bytes = b"") -> None:
    # A lone surrogate, which a message may hold and no file, becomes a question mark.
    text = json.dumps(facts, default=str, ensure_ascii=False).encode("utf-8", "replace")
    answers.write(HEADER.pack(len(text), len(payload)) + text + payload)
    answers.flush()


def _import(command: Mapping[str, Any], say: Callable[[str], None]) -> tuple[Opener, dict[str, Any]]:
    """The function that opens a model, and how long importing its runtime took."""
    say("import")
    start = time.perf_counter_ns()
    # What is imported stays: to look for garbage among it, again and again, takes a sixth of the time.
    gc.disable()
    try:
        opener = _opener(command["framework"], command["registered"])
    finally:
        gc.enable()
    return opener, {"import_ns": time.perf_counter_ns() - start}


def _open(opener: Opener, command: Mapping[str, Any], say: Callable[[str], None]) -> tuple[Call, Any, dict[str, Any]]:
    """The call to time, its prepared argument, and what opening them cost."""
    clock = time.perf_counter_ns
    say("inputs")
    with np.load(command["inputs"], allow_pickle=False) as arrays:
        inputs = {name: arrays[name] for name in arrays.files}
    say("load")
    gc.collect()
    base_bytes = _resident_bytes()
    _reset_peak()
    start = clock()
    opened = opener(Path(command["model"]), command["options"])
    load_ns = clock() - start
    call, prepared = opened, inputs
    if hasattr(opened, "prepare") and hasattr(opened, "run"):
        call, prepared = opened.run, opened.prepare(inputs)
    say("first call")
    start = clock()
    call(prepared)
    first_call_ns = clock() - start
    say("warm-up")
    warmup_ns: list[int] = []
    while len(warmup_ns) < command["warmup_runs"] and first_call_ns + sum(warmup_ns) < command["warmup_ns"]:
        start = clock()
        call(prepared)
        warmup_ns.append(clock() - start)
    say("time")
    # what lives now lives to the end: no later collection needs to walk through it
    gc.collect()
    gc.freeze()
    reply = {
        "load_ns": load_ns,
        "first_call_ns": first_call_ns,
        "warmup_ns": warmup_ns,
        "base_bytes": base_bytes,
        "peak_bytes": _peak_bytes(),
        "facts": {**_process_facts(), **dict(getattr(opened, "facts", {}))},
    }
    return call, prepared, reply


def _opener(framework: str, registered: Sequence[tuple[str, str, str]]) -> Opener:
    """The function that opens a model, with its runtime imported."""
    module, colon, function = framework.partition(":")
    if colon:
        opener: Opener = getattr(importlib.import_module(module), function)
        return opener
    from benchcard import registry

    registry.register_again(entry for entry in registered if entry[0] == "frameworks")
    found = registry.framework(framework)
    found.import_runtime()
    opener = found.open
    return opener  # noqa: RET504 - the name carries the type


def _time_block(call: Call, prepared: Any, block_ns: int, warm_ns: int) -> tuple[dict[str, Any], array[int]]:
    """Calls for at least `block_ns`, one latency each, after unrecorded calls for at least `warm_ns`.

    Both are at least one call. Garbage collection is off meanwhile, as in the standard library's timeit.
    """
    clock = time.perf_counter_ns
    latencies = array("q")
    record = latencies.append
    gc.collect()
    gc.disable()
    try:
        warm_calls = 0
        stop = clock() + warm_ns
        while True:
            call(prepared)
            warm_calls += 1
            if clock() >= stop:
                break
        before = _usage()
        started_ns = time.time_ns()
        begin = clock()
        stop = begin + block_ns
        while True:
            start = clock()
            output = call(prepared)
            end = clock()
            record(end - start)
            del output  # outside the clock: giving memory back is not the call's own work
            if end >= stop:
                break
        after = _usage()
    finally:
        gc.enable()
    reply: dict[str, Any] = {
        "started_ns": started_ns,
        "elapsed_ns": end - begin,
        "warm_calls": warm_calls,
        "peak_bytes": _peak_bytes(),
    }
    for name, value in after.items():
        first = before[name]
        reply[name] = None if value is None or first is None else value - first
    return reply, latencies


def _usage() -> dict[str, int | None]:
    """Counters of this process, all threads: processor ns, context switches, pages read from disk."""
    try:
        import resource
    except ImportError:  # Windows
        return {
            "cpu_ns": time.process_time_ns(),
            "voluntary_switches": None,
            "involuntary_switches": None,
            "major_faults": None,
        }
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_ns": time.process_time_ns(),
        "voluntary_switches": usage.ru_nvcsw,
        "involuntary_switches": usage.ru_nivcsw,
        "major_faults": usage.ru_majflt,
    }


def _reset_peak() -> None:
    """Lets the peak start again from now, so that a peak of importing is not counted as the model's.

    Source: proc(5), /proc/pid/clear_refs, value 5.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _resident_bytes() -> int:
    resident = _status_bytes("VmRSS")
    if resident is not None:
        return resident
    import psutil

    return int(psutil.Process().memory_info().rss)


def _peak_bytes() -> int:
    """Peak resident memory. On Linux from `VmHWM`: `ru_maxrss` there starts from the parent's peak across a fork."""
    peak = _status_bytes("VmHWM")
    if peak is not None:
        return peak
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        return int(memory.peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, by getrusage(2)


def _status_bytes(name: str) -> int | None:
    """A size from /proc/self/status, None on other systems."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _process_facts() -> dict[str, Any]:
    """What this process really has: processors, threads alive, and the thread settings of its environment."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    tasks = Path("/proc/self/task")
    return {
        "pid": os.getpid(),
        "usable_cpus": affinity,
        "os_threads": len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "torch_imported": "torch" in sys.modules,
    }
