"""What a node of a Ray cluster does: a parcel's worker as a child process, and its files sent home as they come.

Ray sends this module itself to the nodes, so it imports nothing of benchcard, which comes with the parcel.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

LOG, END = "log", "end"
Message: TypeAlias = tuple[str, bytes]
"""A file of the run directory, as `run/` and its path, and its content; text of the log; or the exit status."""

_LOOK_S = 0.5
_END_S = 30


def files_to_send(run: Path) -> list[Path]:
    """Return the finished files of a run directory: `run.json` first, what says that others are there last.

    Folders may be renamed meanwhile.
    """
    files = []
    for folder, folders, names in os.walk(run):
        folders[:] = [name for name in folders if name[0] != "."]
        files += [Path(folder, name) for name in names if name != "lock" and name[0] != "."]
    last = ("worker.json", "outcome.json")
    order = {file: (file.name == last[0], file.name == last[1], file.name != "run.json") for file in files}
    return sorted(files, key=lambda file: order[file])


def run_part(files: Iterable[tuple[str, Any]], arguments: Sequence[str]) -> Iterator[Message]:
    """Run a parcel on this node, and yield what comes of it.

    Args:
        files: References to the files of `parcel/`, and of `run/` with which the worker begins.
        arguments: What follows the run directory on the worker's command line.
    """
    import ray

    node = ray.get_runtime_context().get_node_id()
    with tempfile.TemporaryDirectory(prefix="benchcard-") as name:
        folder = Path(name)
        run = folder / "run"
        for path, content in files:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(ray.get(content))
        seen = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
        # Ray sets the threads of its workers to 1.
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
        written = folder / "log.txt"
        yield LOG, f"{_now()} begin {node} {' '.join(arguments)}\n".encode()
        with (
            written.open("wb") as log,
            written.open("rb") as reader,
            subprocess.Popen(
                ["bash", str(folder / "parcel/run.sh"), str(run), *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            ) as child,
        ):
            try:
                while True:
                    is_over = child.poll() is not None
                    if text := reader.read():
                        yield LOG, text
                    yield from _changed(run, seen)
                    if is_over:
                        break
                    time.sleep(_LOOK_S)
            finally:
                _end(child)
        yield LOG, f"{_now()} end {node} {' '.join(arguments)}\n".encode()
        yield END, str(child.returncode).encode()


def _changed(run: Path, seen: dict[Path, int]) -> Iterator[Message]:
    """Yield the files that are new or have changed since the last call."""
    for file in files_to_send(run):
        try:
            changed = file.stat().st_mtime_ns
            if seen.get(file) == changed:
                continue
            content = file.read_bytes()
        except FileNotFoundError:
            continue  # It was replaced meanwhile, and is sent next time.
        yield f"run/{file.relative_to(run).as_posix()}", content
        seen[file] = changed


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child that still runs, with what it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            os.killpg(child.pid, number)
            try:
                child.wait(_END_S)
            except subprocess.TimeoutExpired:
                continue


def _now() -> str:
    return datetime.now(UTC).isoformat()
