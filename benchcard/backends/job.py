"""A job: the run of a grid at some place, and what its backend knows of it.

The job stands in the run directory before anything else happens there, so that the same command finds it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

from benchcard import registry
from benchcard.errors import BenchcardError
from benchcard.run.directory import JOB, REPORT
from benchcard.utils.files import write_atomically
from benchcard.utils.parsing import UnreadableError, load_json
from benchcard.utils.plain import as_plain

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run of a grid, as `job.json` in the run directory describes it.

    Attributes:
        backend: The name of its backend.
        name: Its name, by which the backend finds it. Another attempt has another name.
        arguments: `backend_args` of the spec.
        limit_s: Seconds after which the service ends it; 0 for no limit.
        details: What the backend needs to find it beside its name.
    """

    backend: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    limit_s: float = 0.0
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """What has become of a job, and what its service says of it in its own words; `missing` where there is none."""

    phase: Literal["missing", "waiting", "running", "finished", "failed", "stopped"]
    detail: str = ""

    @property
    def is_over(self) -> bool:
        """Whether the job will do nothing more."""
        return self.phase not in ("waiting", "running")

    def __str__(self) -> str:
        return f"{self.phase} ({self.detail})" if self.detail else self.phase


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a worker says when it ends: the name of its job, and the error that ended it.

    `mistakes` are those of a `SpecError`: place, what was found, what was expected, and a hint.
    """

    job: str
    error: str = ""
    message: str = ""
    mistakes: tuple[tuple[str, str, str, str], ...] = ()


@runtime_checkable
class Service(Protocol):
    """What a backend can be asked about its jobs."""

    def state(self, job: Job) -> State:
        """Return what has become of a job."""

    def logs(self, job: Job, run: Path) -> Iterator[str]:
        """Yield the lines that a job, whose run directory at home is `run`, has written so far."""

    def collect(self, job: Job, run: Path) -> None:
        """Bring what the worker has written so far into the run directory at home; may be called at any time."""

    def stop(self, job: Job) -> None:
        """Ask for the end of a job. What is finished stays."""


def service_of(path: Path) -> tuple[Service, Job]:
    """Return the backend of a run directory, and its job.

    Raises:
        BenchcardError: It has no job.
    """
    job = read_job(path)
    if job is None:
        raise BenchcardError(f"{path} has no job: nothing was run there, or an earlier version did it")
    backend = registry.backend(job.backend)
    if not isinstance(backend, Service):
        raise BenchcardError(f"the backend `{job.backend}` of {path} cannot be asked about its jobs")
    return backend, job


def read_job(path: Path) -> Job | None:
    """Return the job of a run directory; None where it has none.

    Raises:
        BenchcardError: Its file cannot be read.
    """
    return _read(path / JOB, Job)


def write_job(path: Path, job: Job) -> None:
    """Write a job into a run directory, which is made if needed."""
    path.mkdir(parents=True, exist_ok=True)
    write_atomically(path / JOB, as_plain(job))


def read_report(path: Path) -> Report | None:
    """Return how the last worker of a run directory ended; None where there was none, or its file is incomplete."""
    try:
        return _read(path / REPORT, Report)
    except BenchcardError:
        return None


def _read(path: Path, form: type[T]) -> T | None:
    try:
        return msgspec.convert(load_json(path.read_bytes()), form)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnreadableError, msgspec.ValidationError) as error:
        raise BenchcardError(f"{path} cannot be read ({error}). Delete it, and give the same command again") from error
