"""A backend whose jobs run at another place: the loop around five verbs.

A subclass knows one service: `start`, `state`, `logs`, `collect` and `stop`. This module owns when they are called,
what is shown, and that the run directory at home is that of the worker. Killing this process loses nothing: the job
goes on, and the same command finds it again.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchcard.backends.job import Job, Report, State, read_job, read_report, write_job
from benchcard.backends.parcel import Parcel, pack
from benchcard.errors import BackendError, MachineError, Mistake, SpecError
from benchcard.run.budget import Estimate, estimate
from benchcard.run.directory import JOB, MEMORY_FOLDER, RunDirectory
from benchcard.run.planned import planned_steps
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import Sources, changed_names, resolve_sources
from benchcard.spec.plan import Plan
from benchcard.spec.schema import ListOf, MappingOf, Number, Optional, Text, ValueType
from benchcard.utils.events import Listener
from benchcard.utils.files import write_atomically
from benchcard.utils.parsing import UnreadableError, load_json
from benchcard.utils.plain import as_plain
from benchcard.utils.progress import Progress, format_duration
from benchcard.utils.values import Failure

# The arguments of every backend elsewhere.
_COMMON: Mapping[str, ValueType] = {
    "supported_instructions": Optional(ListOf(Text())),
    "setup": Text(),
    "max_run_s": Number(60, whole=True),
    "redraws": Number(0, 20, whole=True),
}
# Where the spec gives no limit, a job may take this many times the expected time, and this long to be prepared.
_LIMIT_FACTOR, _PREPARING_S = 4, 1800
_REDRAWS = 3


class RemoteBackend(ABC):
    """A backend elsewhere.

    Attributes:
        name: Its name in a spec.
        arguments: The types of its own `backend_args`.
        required: Those without which no job is started.
        shown: Those that a card shows: what the figures depend on, and nothing of the account.
        note: A sentence for the reader of its figures, or empty.
        poll_s: Seconds between two looks at a job.
    """

    name: ClassVar[str]
    arguments: ClassVar[Mapping[str, ValueType]] = {}
    required: ClassVar[Sequence[str]] = ()
    shown: ClassVar[Sequence[str]] = ()
    note: ClassVar[str] = ""
    poll_s: ClassVar[float] = 15.0

    @abstractmethod
    def start(self, job: Job, parcel: Parcel, run: Path) -> Job:
        """Start a job, unless there is one of its name, and return it with its details.

        The worker's command is `bash run.sh RUN NAME` in the parcel. What is in `run`, the run directory at home, was
        brought there by `collect` or holds data sets; the worker begins with it.
        """

    @abstractmethod
    def state(self, job: Job) -> State:
        """Return what has become of a job."""

    @abstractmethod
    def logs(self, job: Job, run: Path) -> Iterator[str]:
        """Yield the lines that a job has written so far."""

    @abstractmethod
    def collect(self, job: Job, run: Path) -> None:
        """Bring what the worker has written so far into the run directory at home; may be called at any time."""

    @abstractmethod
    def stop(self, job: Job) -> None:
        """Ask the service to end a job. What is finished stays."""

    def cost(self, job: Job) -> str:
        """Return what is known of a job's price in words, before it starts; empty where nothing is."""
        return ""

    def run(self, plan: Plan, path: Path, *, timeout_s: float | None, progress: Listener | bool) -> None:
        """Start the job of a plan, or find it again, and bring its run directory home until it is over.

        Raises:
            SpecError: A mistake in the spec, which the worker may have found.
            BackendError: The service or the worker failed.
        """
        directory = RunDirectory(path)
        directory.refuse_unusable()
        if (path / "run.json").exists():
            directory.expect_spec(plan.spec)
        arguments = self._checked(plan)
        sources = resolve_sources(plan.spec, None, path / MEMORY_FOLDER)
        expected = estimate(plan, sources)
        limit_s = float(arguments.get("max_run_s") or expected.total_s * _LIMIT_FACTOR + _PREPARING_S)
        parcel = pack(plan.spec, sources, arguments.get("setup"), timeout_s)
        kinds = Counter(
            {
                request.key: request.kind
                for requests in planned_steps(plan, sources, traits_of(plan), 1)
                for request in requests
            }.values()
        )
        with Progress(kinds.elements(), expected.timing_s, progress, step_s=expected.step_s) as shown:
            job, earlier = read_job(path), read_report(path)
            if job and earlier and earlier.job == job.name and not earlier.error:
                return
            job = job if job and job.backend == self.name and not self.state(job).is_over else None
            for left in reversed(range(1 + int(arguments.get("redraws", _REDRAWS)))):
                if job is None:
                    name = f"benchcard-{parcel.digest[:12]}-{time.time_ns() // 1_000_000 % 10**9}"
                    details = {"parcel": parcel.digest}
                    job = Job(backend=self.name, name=name, arguments=arguments, limit_s=limit_s, details=details)
                    write_job(path, job)
                    self._announce(shown, job, expected)
                else:
                    shown.write_line(f"{self.name}: found job {job.name} again: {self.state(job)}")
                job = self.start(job, parcel, path)
                write_job(path, job)
                report = self._follow(job, path, sources, shown)
                if report.error == SpecError.__name__ and not directory.has("quantize", "evaluate"):
                    # As after a local run: these steps would prevent a run of the corrected spec here.
                    directory.clear()
                if report.error != MachineError.__name__ or not left:
                    _raise_for(report)
                    return
                shown.write_line(f"{report.message}: another machine is asked for")
                job = None

    def _announce(self, shown: Progress, job: Job, expected: Estimate) -> None:
        limit = format_duration(job.limit_s)
        shown.write_line(f"{self.name}: starting job {job.name}; expected: {expected}; it is ended after {limit}")
        if cost := self.cost(job):
            shown.write_line(cost)

    def _follow(self, job: Job, path: Path, sources: Sources, shown: Progress) -> Report:
        """Bring the run directory home until the job is over, and return how its worker ended."""
        seen: set[str] = set()
        last = None
        try:
            while True:
                state = self.state(job)
                if state != last:
                    shown.write_line(f"{job.name}: {state}")
                    last = state
                self.collect(job, path)
                _adopt(path, sources)
                _show_new(path, seen, shown)
                if state.is_over:
                    break
                time.sleep(self.poll_s)
        except KeyboardInterrupt:
            shown.write_line(f"job {job.name} goes on; `benchcard stop {path}` ends it")
            raise
        report = read_report(path)
        if report is not None and report.job == job.name:
            return report
        if state.phase == "finished":
            problem = "the service says that it finished, but records are missing"
        else:
            problem = str(state)
        raise BackendError(f"job {job.name} at {self.name}: {problem}. See `benchcard logs {path}`")

    def _checked(self, plan: Plan) -> dict[str, Any]:
        """Return `backend_args`, or raise a `SpecError` with the mistakes in them."""
        given: dict[str, Any] = dict(plan.spec.get("backend_args") or {})
        if isinstance(names := given.get("supported_instructions"), str):
            given["supported_instructions"] = [names]
        fields = MappingOf({**_COMMON, **self.arguments}, required=tuple(self.required))
        if mistakes := list(fields.mistakes(given, "$.backend_args")):
            raise SpecError(mistakes)
        return given


def files_to_bring(run: Path, sizes: Mapping[str, int]) -> dict[str, Path]:
    """Return which of a worker's files to write where in the run directory at home; `sizes` has the bytes of all.

    What a step made does not change. The other files may, and `run.json` is changed here. No path leads out of the
    directory.
    """
    found: dict[str, Path] = {}
    for name, size in sizes.items():
        target = (run / name).resolve()
        if not target.is_relative_to(run.resolve()) or name in ("lock", JOB) or "/." in f"/{name}":
            continue
        may_change = not name.startswith("steps/")
        if may_change or not target.is_file() or target.stat().st_size != size:
            target.parent.mkdir(parents=True, exist_ok=True)
            found[name] = target
    return found


def _adopt(path: Path, sources: Sources) -> None:
    """Let the run directory name the sources of this machine in place of the worker's, which are the same.

    Raises:
        BackendError: They are not the same.
    """
    if not (path / "run.json").exists():
        return
    found = RunDirectory(path).info.sources
    if names := changed_names(sources, found):
        raise BackendError(f"{', '.join(names)} was something else where the job ran. Give a new folder")
    try:
        content = load_json((path / "run.json").read_bytes())
    except UnreadableError as error:
        raise BackendError(f"{path / 'run.json'} is damaged: {error}") from error
    write_atomically(path / "run.json", {**content, "sources": as_plain(sources)})


def _show_new(path: Path, seen: set[str], shown: Progress) -> None:
    """Show the steps whose outcomes have come home since the last call."""
    for outcome in sorted(path.glob("steps/*/outcome.json"), key=lambda file: file.stat().st_mtime):
        name = outcome.parent.name
        if name in seen or name.startswith("."):
            continue
        try:
            content = load_json(outcome.read_bytes())
        except (OSError, UnreadableError):
            continue  # It has not come whole.
        seen.add(name)
        failure = content.get("failure")
        failures = [Failure(failure["stage"], failure["type"], failure["message"])] if failure else []
        shown.finish(content["kind"], content["kind"], content.get("seconds", 0.0), failures)


def _raise_for(report: Report) -> None:
    if report.error == "SpecError":
        raise SpecError([Mistake(*mistake) for mistake in report.mistakes])
    if report.error == MachineError.__name__:
        raise MachineError(report.message)
    if report.error:
        raise BackendError(f"{report.error} where job {report.job} ran: {report.message}")
