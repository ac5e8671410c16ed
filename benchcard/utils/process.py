"""How a child process ended, in words, and the end of its log."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

if TYPE_CHECKING:
    import queue
    import subprocess


T = TypeVar("T")

# How long what a child has said is still read when it is gone. Nearly always its pipe is at its end at once; one that
# left the process group may hold it open for as long as it likes.
_DRAIN_S = 1.0


def has_errors() -> bool:
    """Whether there is a standard error that a child can be given."""
    try:
        return os.get_inheritable(2)
    except OSError:
        return False


def end(process: subprocess.Popen[Any]) -> None:
    """End a process that was started with `start_new_session`, and what it started, at once; wait for neither."""
    # The number of a process that is gone may be another's.
    if process.poll() is None:
        _end_group(process.pid)
        process.kill()


def _end_group(pid: int) -> None:
    if os.name == "posix":
        # macOS refuses where some of the group are gone already.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def end_own(status: int) -> None:
    """End this process, and what it started where it leads its process group, from any thread."""
    if os.name == "posix" and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(status)


def listen(lines: Iterable[T], commands: queue.SimpleQueue[T], status: int) -> None:
    """Put the lines of this process's parent into a queue as they arrive, and end this process after the last one.

    Args:
        lines: The lines, which end where the parent closes them or ends.
        commands: The queue.
        status: The exit status of this process.
    """

    def read() -> None:
        for line in lines:
            commands.put(line)
        end_own(status)

    threading.Thread(target=read, daemon=True).start()


def hear(process: subprocess.Popen[Any], messages: Iterable[T], to: queue.SimpleQueue[T | None]) -> threading.Thread:
    """Put the messages of a child into a queue as they come, and None once it has ended.

    Returns:
        The thread that waits for the end of the child, which ends after it; what the child started is ended with it.
    """

    def read() -> None:
        try:
            for message in messages:
                to.put(message)
        except (OSError, ValueError):
            # It says what is no message: nothing more can be made of it.
            end(process)
        finally:
            if process.stdout is not None:
                process.stdout.close()

    reading = threading.Thread(target=read, daemon=True)

    def wait() -> None:
        if hasattr(os, "waitid"):
            # Its number is its own until it was waited for.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            _end_group(process.pid)
            process.wait()
        else:
            process.wait()
            _end_group(process.pid)
        reading.join(_DRAIN_S)
        to.put(None)
        # What the child never read cannot be written any more.
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()

    waiting = threading.Thread(target=wait, daemon=True)
    reading.start()
    waiting.start()
    return waiting


LOG_END_BYTES = 4000


def describe_exit(code: int) -> tuple[str, str]:
    """Type and message for a process that ended with `code` before it answered."""
    if code >= 0:
        return "ExitError", f"the process ended by itself with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    reason = "; the system does this when memory runs out" if name == "SIGKILL" else ""
    return name, f"the process was killed by {name}{reason}"


def read_log_end(log: Path | BinaryIO) -> str:
    """Return the end of a log, `LOG_END_BYTES` at most; empty where it cannot be read."""
    try:
        with log.open("rb") if isinstance(log, Path) else contextlib.nullcontext(log) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_END_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
