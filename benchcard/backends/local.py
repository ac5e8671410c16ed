"""The backend `local`: this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from benchcard.backends.job import Job, State, write_job
from benchcard.run.runner import run_plan
from benchcard.spec.plan import Plan
from benchcard.utils.events import Listener


class ProcessJobs:
    """What backends share whose jobs are processes of this machine, which write the run directory."""

    @staticmethod
    def details(pid: int) -> dict[str, str]:
        """Return the details of a job by which its process is found again."""
        return {"process": str(pid), "started": str(psutil.Process(pid).create_time())}

    def state(self, job: Job) -> State:
        """Return whether the process has come to the end of the run, or still runs."""
        if "ended" in job.details:
            return State("finished")
        process = _process(job)
        return State("running", f"process {process.pid}") if process else State("stopped", "its process has ended")

    def collect(self, job: Job, run: Path) -> None:
        """Do nothing, since the run directory is here."""

    def stop(self, job: Job) -> None:
        """Ask the process to end, as Ctrl-C does."""
        if process := _process(job):
            process.terminate()


class Local(ProcessJobs):
    """A backend that runs in this process, and returns when the run has ended. Its job is the process."""

    def run(self, plan: Plan, path: Path, *, timeout_s: float | None, progress: Listener | bool) -> None:
        """Run a plan, or what is left of it, in the run directory `path`."""
        pid = os.getpid()
        job = Job(backend="local", name=str(pid), details=self.details(pid))
        run_plan(plan, path, timeout_s=timeout_s, progress=progress, begun=lambda: write_job(path, job))
        write_job(path, replace(job, details={**job.details, "ended": "yes"}))

    def logs(self, job: Job, run: Path) -> Iterator[str]:
        """Yield what the libraries have written in each step, in the order of the steps."""
        for log in sorted(run.glob("steps/*/log.txt"), key=lambda file: file.stat().st_mtime):
            yield f"{log.parent.name}:"
            yield from log.read_text(encoding="utf-8", errors="replace").strip().splitlines()


def _process(job: Job) -> psutil.Process | None:
    """Return the process of a job; None where it has ended, even if another one has its number now."""
    try:
        process = psutil.Process(int(job.details.get("process", "")))
        is_same = str(process.create_time()) == job.details.get("started")
        return process if is_same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, ValueError):
        return None
