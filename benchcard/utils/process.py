"""Child processes: start Python without the working directory on its path, forward messages, end the process group.

Python puts the working directory, or the folder of the program that it runs, first on its path, where a file
`datasets.py` hides the package of that name. Children omit both folders, or search them last if a plugin was registered
by a call, since its module may be in one of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

import benchcard

if TYPE_CHECKING:
    import queue

T = TypeVar("T")

LOG_END_BYTES = 4000
# How long to read what a child wrote before it ended. Its pipe is usually closed at once, but a grandchild that left
# the process group can hold it open for any time.
_DRAIN_S = 1.0
# The child's own path goes last: it holds the standard library and the installed packages. The package is loaded from
# where the parent has it, which may be the working directory.
_PROGRAM = """\
import sys
sys.path[:] = dict.fromkeys([*{path}, *filter(None, sys.path), *{last}])
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("benchcard", {package})
sys.modules["benchcard"] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from benchcard.{module} import main
main({argument})
"""


class Child(Protocol):
    """What is used of a `subprocess.Popen`, and of a process that another one forked."""

    pid: int
    stdin: IO[Any] | None
    stdout: IO[Any] | None

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code."""

    def kill(self) -> None:
        """Kill the process itself."""


def python_command(module: str, argument: int | None = None, *, search_own: bool) -> list[str]:
    """Return the command that runs `main` of a module, as `measure.child`, in a child with `child_environment`.

    With `search_own`, the child also searches the working directory and the folder of the program, last.
    """
    own = _own_folders()
    program = _PROGRAM.format(
        path=ascii(_without(own, sys.path)),
        last=ascii(sorted(own) if search_own else []),
        package=ascii(os.path.abspath(benchcard.__file__)),
        module=module,
        argument="" if argument is None else argument,
    )
    return [sys.executable, "-c", program]


def child_environment() -> dict[str, str]:
    """Return the environment variables of this process, without those that put the working directory on the path."""
    variables = {**os.environ, "PYTHONSAFEPATH": "1"}
    path = _without(_own_folders(), variables.pop("PYTHONPATH", "").split(os.pathsep))
    return {**variables, "PYTHONPATH": os.pathsep.join(path)} if path else variables


def _own_folders() -> set[str]:
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        working_directory = os.getcwd()
    except FileNotFoundError:
        working_directory = ""  # It was removed, so nothing can be imported from it.
    folders = (working_directory, program and os.path.dirname(program))
    return {os.path.realpath(folder) for folder in folders if folder}


def _without(folders: set[str], path: Iterable[object]) -> list[str]:
    """Return the entries of a path, made absolute, without some folders unless PYTHONPATH has their absolute path."""
    absolute = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(entry)]
    # Imports ignore entries that are not text.
    entries = [entry for entry in path if isinstance(entry, str)]
    kept = [entry for entry in entries if entry in absolute or os.path.realpath(entry) not in folders]
    # Hooks of editable installations put entries on the path that are not files.
    return [str(Path(entry).absolute()) if os.path.exists(entry) else entry for entry in kept]


def has_stderr() -> bool:
    """Return whether this process has a standard error that a child can inherit."""
    try:
        return os.get_inheritable(2)
    except OSError:
        return False


def kill_tree(process: Child) -> None:
    """Kill a process that was started with `start_new_session`, and its children, without waiting for their end."""
    # Once the process was waited for, its number may belong to another one.
    if process.poll() is None:
        kill_group(process.pid)
        process.kill()


def kill_group(pid: int) -> None:
    """Kill all processes of a group; does nothing where it has ended, and on Windows."""
    if os.name == "posix":
        # macOS refuses where some of the group have ended already.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def listen(lines: Iterable[T], commands: queue.SimpleQueue[T], status: int) -> None:
    """Put the lines of the parent into a queue as they arrive, and end this process with `status` when they end."""

    def read() -> None:
        for line in lines:
            commands.put(line)
        # From any thread, with what this process started if it leads its process group.
        if os.name == "posix" and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(status)

    threading.Thread(target=read, daemon=True).start()


def forward_messages(
    process: Child, messages: Iterable[T], to: queue.SimpleQueue[T | None], reap: Callable[[], object] | None = None
) -> threading.Thread:
    """Put the messages of a child into a queue as they arrive, and None once the child has ended.

    The returned thread ends after the child, and has killed what the child started. `reap` waits for a process that is
    not a child of this one, and kills what it started.
    """

    def read() -> None:
        try:
            for message in messages:
                to.put(message)
        except (OSError, ValueError):
            # The child wrote something that is no message.
            kill_tree(process)
        finally:
            if process.stdout is not None:
                process.stdout.close()

    reading = threading.Thread(target=read, daemon=True)

    def wait() -> None:
        if reap is not None:
            reap()
        elif hasattr(os, "waitid"):
            # The process number stays reserved until the process was waited for.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            kill_group(process.pid)
            process.wait()
        else:
            process.wait()
            kill_group(process.pid)
        reading.join(_DRAIN_S)
        to.put(None)
        # What the child did not read cannot be written any more.
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()

    waiting = threading.Thread(target=wait, daemon=True)
    reading.start()
    waiting.start()
    return waiting


def describe_exit(code: int) -> tuple[str, str]:
    """Return the type and the message of the failure of a process that ended with `code` before it answered."""
    if code >= 0:
        return "ExitError", f"the process exited with status {code} before it answered"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    reason = "; the operating system does this when memory runs out" if name == "SIGKILL" else ""
    return name, f"the process was killed by {name}{reason}"


def read_log_end(log: Path | BinaryIO) -> str:
    """Return the end of a log, `LOG_END_BYTES` at most; empty where it cannot be read."""
    try:
        with log.open("rb") if isinstance(log, Path) else contextlib.nullcontext(log) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_END_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process, in bytes."""
    # Not from getrusage on Linux: there, a process starts with the peak of its parent.
    if (peak := status_bytes("VmHWM")) is not None:
        return peak
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return int(memory.peak_wset)
    import resource

    # In bytes on macOS, in KiB elsewhere: getrusage(2).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def status_bytes(name: str) -> int | None:
    """Return a size from /proc/self/status, or None on other systems."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
