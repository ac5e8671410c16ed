"""The endpoints of `LocalHub` for Hugging Face Jobs. A job runs its command as a child process of this one.

A volume of the type `bucket` is the folder of `LocalHub.bucket`, whose path replaces the mount path in the command.
Uploads to buckets go through Xet, which is not imitated.

Source: the requests that `HfApi.run_job` and its neighbours send in huggingface_hub 2.4.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchcard.testing.hub.api import Reply, Request, Route
from benchcard.testing.hub.store import Refusal

_JOB = r"/api/jobs/(?P<namespace>[^/]+)/(?P<id>\d+)"
HARDWARE = (("cpu-basic", "2 vCPU", "16 GB", 167), ("cpu-upgrade", "8 vCPU", "32 GB", 500))
"""The flavors: name, processors, memory, and millionths of a dollar per minute."""


@dataclass
class RunningJob:
    """One job: the request that made it, its process, and the file of its log."""

    namespace: str
    spec: Mapping[str, Any]
    process: subprocess.Popen[bytes]
    log: Path
    canceled: bool = False

    @property
    def stage(self) -> str:
        """The stage, as the service has it."""
        if (status := self.process.poll()) is None:
            return "RUNNING"
        return "CANCELED" if self.canceled else "ERROR" if status else "COMPLETED"


@dataclass
class Jobs:
    """All jobs of a Hub, whose buckets and logs are in `folder`. `environment` is added to that of new jobs."""

    folder: Path
    jobs: dict[str, RunningJob] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def routes(self) -> list[Route]:
        """The endpoints."""
        return [
            Route("job-hardware", "GET", "/api/jobs/hardware", lambda request: [*map(_hardware, HARDWARE)]),
            Route("job-run", "POST", "/api/jobs/(?P<namespace>[^/]+)", self._run),
            Route("job-list", "GET", "/api/jobs/(?P<namespace>[^/]+)", self._list),
            Route("job-info", "GET", _JOB, lambda request: self._about(self._job(request))),
            Route("job-logs", "GET", f"{_JOB}/logs", self._logs),
            Route("job-cancel", "POST", f"{_JOB}/cancel", self._cancel),
        ]

    def bucket(self, name: str) -> Path:
        """Return the folder of a bucket."""
        return self.folder / "buckets" / name

    def close(self) -> None:
        """End all jobs."""
        for job in self.jobs.values():
            if job.process.poll() is None:
                os.killpg(job.process.pid, signal.SIGKILL)
            job.process.wait()

    def _run(self, request: Request) -> object:
        spec, namespace = request.json, request.part("namespace")
        if not request.signed_in.owns(namespace):
            raise Refusal(403, f"You cannot run jobs for {namespace}")
        if spec["flavor"] not in [name for name, *_ in HARDWARE]:
            raise Refusal(400, f"There is no flavor {spec['flavor']}")
        identifier = str(1000 + len(self.jobs))
        home = self.folder / "machines" / identifier
        home.mkdir(parents=True)
        folders = {volume["mountPath"]: self.bucket(volume["source"]) for volume in spec.get("volumes", ())}
        command = [_inside(part, {**folders, "/tmp": home}) for part in spec["command"]]
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "HF_HOME", "LANG")}
        environment = {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '')}",
            **spec.get("environment", {}),
            **spec.get("secrets", {}),
            **self.environment,
        }
        with (home / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        job = self.jobs[identifier] = RunningJob(namespace, spec, process, home / "log.txt")
        return self._about(job)

    def _list(self, request: Request) -> object:
        wanted = dict(label.split("=", 1) for label in request.query.get("label", ()))
        found = [job for job in self.jobs.values() if job.namespace == request.part("namespace")]
        return [self._about(job) for job in found if wanted.items() <= job.spec.get("labels", {}).items()]

    def _logs(self, request: Request) -> Reply:
        lines = self._job(request).log.read_text(errors="replace").splitlines()
        events = "".join(f"data: {json.dumps({'data': line})}\n\n" for line in lines)
        return Reply(200, events.encode(), {"Content-Type": "text/event-stream"})

    def _cancel(self, request: Request) -> object:
        job = self._job(request)
        if job.process.poll() is None:
            job.canceled = True
            os.killpg(job.process.pid, signal.SIGTERM)
        return {}

    def _job(self, request: Request) -> RunningJob:
        job = self.jobs.get(request.part("id"))
        if job is None or not request.signed_in.owns(job.namespace):
            raise Refusal(404, "Job not found")
        return job

    def _about(self, job: RunningJob) -> dict[str, Any]:
        identifier = next(name for name, each in self.jobs.items() if each is job)
        message = f"exit code {job.process.returncode}" if job.stage == "ERROR" else None
        kept = ("command", "arguments", "environment", "flavor", "labels", "volumes", "dockerImage")
        return {
            "id": identifier,
            "createdAt": "2024-01-01T00:00:00.000Z",
            **{name: job.spec.get(name) for name in kept},
            "status": {"stage": job.stage, "message": message},
            "owner": {"id": "0" * 24, "name": job.namespace, "type": "user"},
        }


def _inside(path: str, folders: Mapping[str, Path]) -> str:
    """Return a path of a container as the path of this machine."""
    for place, folder in folders.items():
        if path.startswith(f"{place}/"):
            return f"{folder}{path.removeprefix(place)}"
    return path


def _hardware(flavor: tuple[str, str, str, int]) -> dict[str, Any]:
    name, processors, memory, millionths = flavor
    return {
        "name": name,
        "prettyName": name,
        "cpu": processors,
        "ram": memory,
        "unitCostMicroUSD": millionths,
        "unitCostUSD": millionths / 1e6,
        "unitLabel": "minute",
    }
