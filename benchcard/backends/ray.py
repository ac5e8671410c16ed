"""The backend `ray`: the nodes of a Ray cluster, each for the rows of one baseline at a time.

The job is a process of this machine (`ray_driver`), which gives rows to nodes and writes what they send into the run
directory. It goes on when the client ends.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from benchcard.backends.job import Job, State
from benchcard.backends.local import ProcessJobs
from benchcard.backends.parcel import Parcel
from benchcard.backends.remote import RemoteBackend
from benchcard.errors import BackendError
from benchcard.spec.schema import MappingOf, Text, ValueType

ENDED = "ended"
"""The file beside the parcel by which a job says that it has come to the end of the run."""
# The process is in a session of its own, without a terminal; its number is the only output of the shell.
_START = '"$@" >log.txt 2>&1 </dev/null & echo $!'


class RayCluster(ProcessJobs, RemoteBackend):
    """The backend `ray`."""

    name = "ray"
    shown = ("labels", "supported_instructions")
    poll_s = 2.0
    arguments: ClassVar[Mapping[str, ValueType]] = MappingProxyType(
        {"address": Text(), "labels": MappingOf(open=True, each=Text())}
    )

    def start(self, job: Job, parcel: Parcel, run: Path) -> Job:
        """Start the process, unless it runs."""
        if not self.state(job).is_over:
            return job
        if importlib.util.find_spec("ray") is None:
            raise BackendError(f"{self.name} needs Ray: pip install 'benchcard[ray]'")
        folder = Path(tempfile.mkdtemp(prefix="benchcard-ray-"))
        parcel.write(folder / "parcel")
        path = os.pathsep.join(filter(None, [str(folder / "parcel/code"), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "benchcard.backends.ray_driver", "parcel", str(run.resolve())]
        started = subprocess.run(
            ["bash", "-c", _START, "bash", *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
            stdout=subprocess.PIPE,
            check=True,
        )
        return replace(job, details={"folder": str(folder), **self.details(int(started.stdout))})

    def state(self, job: Job) -> State:
        """Return whether the process has come to the end of the run, or still runs."""
        if "folder" in job.details and (Path(job.details["folder"]) / ENDED).exists():
            return State("finished")
        return super().state(job)

    def logs(self, job: Job, run: Path) -> Iterator[str]:
        """Yield the lines of the job and of its workers."""
        log = Path(job.details.get("folder", "")) / "log.txt"
        if log.is_file():
            yield from log.read_text(encoding="utf-8", errors="replace").splitlines()
