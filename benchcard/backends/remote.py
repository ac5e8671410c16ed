"""A backend whose jobs run at another place: the loop around five verbs.

A subclass knows one service: `start`, `state`, `logs`, `collect` and `stop`. This module owns when they are called,
what is shown, and that the run directory at home is that of the worker. Killing this process loses nothing: the job
goes on, and the same command finds it again.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from benchcard.backends.job import Job, Report, State, read_job, read_report, write_job
from benchcard.backends.parcel import Parcel, pack
from benchcard.errors import BackendError, BenchcardError, MachineError, Mistake, SpecError
from benchcard.run.budget import estimate
from benchcard.run.directory import JOB, MEMORY_FOLDER, RunDirectory
from benchcard.run.machines import FOLDER, machine_plans
from benchcard.run.planned import planned_steps
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import Sources, changed_names, resolve_sources
from benchcard.spec.parameters import BACKEND_ARGUMENTS
from benchcard.spec.plan import Plan
from benchcard.spec.schema import ListOf, MappingOf, Number, Optional, Text, ValueType
from benchcard.spec.spec import task_files
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
    "price_per_hour": Number(0),
}
# Where the spec gives no limit, a job may take this many times the expected time, and this long to be prepared.
_LIMIT_FACTOR, _PREPARING_S = 4, 1800
_REDRAWS = 3
# The detail of a job that says what its machine costs in an hour.
_PRICE = "price_per_hour"


@dataclass(frozen=True)
class Price:
    """What a service asks for a machine, which is described in words."""

    machine: str
    usd_per_hour: float

    def __str__(self) -> str:
        return f"{self.machine}, ${self.usd_per_hour:.2f} an hour"


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

    def price(self, job: Job) -> Price | None:
        """Return what the service asks for the machine of a job; None where it does not say."""
        return None

    def run(self, plan: Plan, path: Path, *, timeout_s: float | None, progress: Listener | bool) -> None:
        """Start the job of each machine of a plan, or find it again, and bring its run directory home until it is over.

        Raises:
            SpecError: A mistake in the spec, which the worker may have found.
            BackendError: The service or the worker failed. Jobs of other machines were followed to their ends.
        """
        directory = RunDirectory(path)
        directory.refuse_unusable()
        if (path / "run.json").exists():
            directory.expect_spec(plan.spec)
        sources = resolve_sources(plan.spec, None, path / MEMORY_FOLDER)
        machines = machine_plans(plan)
        places = [(path / FOLDER / machine.name, machine.plan) for machine in machines] or [(path, plan)]
        runs = [_Run(self, own, place, sources, timeout_s, own is not plan) for place, own in places]
        kinds = [kind for run in runs for kind in run.expected_kinds()]
        timing_s, step_s = max(run.expected.timing_s for run in runs), runs[0].expected.step_s
        with Progress(kinds, timing_s, progress, step_s=step_s) as shown:
            left, errors = [run for run in runs if not run.is_finished], list[BenchcardError]()
            # All prices are shown, and mistakes found, before anything is started.
            for run in left:
                run.announce(shown)
            if machines:
                created = datetime.now(UTC).isoformat(timespec="seconds")
                about = {"created": created, "sources": as_plain(sources), "traits": as_plain(traits_of(plan))}
                directory.begin(plan.spec, about)

            def each(act: Callable[[_Run, Progress], bool]) -> None:
                """Remove the runs from `left` that are over after the act."""
                for run in [*left]:
                    try:
                        if not act(run, shown):
                            continue
                    except BenchcardError as error:
                        errors.append(error)
                        if machines:
                            shown.write_line(str(error))
                    left.remove(run)

            try:
                each(_Run.begin)
                while left:
                    each(_Run.look)
                    if left:
                        time.sleep(self.poll_s)
            except KeyboardInterrupt:
                for run in left:
                    if run.is_begun:
                        shown.write_line(f"job {run.job_name} goes on; `benchcard stop {path}` ends it")
                raise
        if machines and not any((path / FOLDER).iterdir()):
            # Every worker has refused the spec.
            (path / FOLDER).rmdir()
            directory.clear()
        if errors:
            raise errors[0]

    def checked(self, plan: Plan) -> dict[str, Any]:
        """Return `backend_args`, or raise a `SpecError` with the mistakes in them."""
        given: dict[str, Any] = dict(plan[0][BACKEND_ARGUMENTS])
        if isinstance(names := given.get("supported_instructions"), str):
            given["supported_instructions"] = [names]
        fields = MappingOf({**_COMMON, **self.arguments}, required=tuple(self.required))
        if mistakes := list(fields.mistakes(given, "$.backend_args")):
            raise SpecError(mistakes)
        return given


def _expect_no_files(plan: Plan) -> None:
    """Raise a `SpecError` if an argument of the task is a file of this machine, since no parcel has it."""
    files = {each for row in plan for each in task_files(row["task_args"] or {}, plan.spec.local_path).items()}
    expected = "no file, because files of `task_args` are not sent to another machine"
    hint = "use the backend `local`"
    mistakes = [Mistake(f"$.task_args.{name}", f"the file {path}", expected, hint) for name, path in sorted(files)]
    if mistakes:
        raise SpecError(mistakes)


class _Run:
    """The run of one machine: its job, and its run directory at home."""

    def __init__(
        self, backend: RemoteBackend, plan: Plan, path: Path, sources: Sources, timeout_s: float | None, is_one_of: bool
    ) -> None:
        self._backend, self._plan, self._path, self._sources = backend, plan, path, sources
        self._directory = RunDirectory(path)
        self._directory.refuse_unusable()
        if (path / "run.json").exists():
            self._directory.expect_spec(plan.spec)
        self._arguments = backend.checked(plan)
        _expect_no_files(plan)
        self.expected = estimate(plan, sources)
        self._limit_s = float(self._arguments.get("max_run_s") or self.expected.total_s * _LIMIT_FACTOR + _PREPARING_S)
        self._parcel = pack(plan.spec, sources, self._arguments.get("setup"), timeout_s)
        self._redraws = int(self._arguments.get("redraws", _REDRAWS))
        self._name = f"{backend.name}, {path.name}" if is_one_of else backend.name
        self._seen: set[str] = set()
        self._state: State | None = None
        self._job = read_job(path)
        self.is_begun = False

    @property
    def job_name(self) -> str:
        """The name of the job, once it was announced."""
        return self._job.name if self._job else ""

    @property
    def is_finished(self) -> bool:
        """Whether a job has come to the end of the run already."""
        report = read_report(self._path)
        return bool(self._job and report and report.job == self._job.name and not report.error)

    def expected_kinds(self) -> Iterator[str]:
        """Yield the kinds of the steps of the run."""
        planned = planned_steps(self._plan, self._sources, traits_of(self._plan), 1)
        yield from {request.key: request.kind for requests in planned for request in requests}.values()

    def announce(self, shown: Progress) -> None:
        """Show which job will be started, and what it costs; or that there is one that is not over."""
        job = self._job
        if job and job.backend == self._backend.name and not (state := self._backend.state(job)).is_over:
            shown.write_line(f"{self._name}: found job {job.name} again: {state}")
        else:
            name = f"benchcard-{self._parcel.digest[:12]}-{time.time_ns() // 1_000_000 % 10**9}"
            details = {"parcel": self._parcel.digest}
            limit_s, arguments = self._limit_s, self._arguments
            job = Job(backend=self._backend.name, name=name, arguments=arguments, limit_s=limit_s, details=details)
            limit = format_duration(limit_s)
            shown.write_line(f"{self._name}: starting job {name}; expected: {self.expected}; it is ended after {limit}")
            if price := self._backend.price(job):
                shown.write_line(f"{price}: at most ${price.usd_per_hour * limit_s / 3600:.2f} in {limit}")
                job = replace(job, details={**details, _PRICE: str(price.usd_per_hour)})
        self._job = job

    def begin(self, shown: Progress) -> bool:
        """Start the job that was announced; return False, since the run is not over then."""
        if self._job is None:
            raise RuntimeError("the job was not announced")
        self.is_begun = True
        write_job(self._path, self._job)
        self._job = self._backend.start(self._job, self._parcel, self._path)
        write_job(self._path, self._job)
        return False

    def look(self, shown: Progress) -> bool:
        """Bring home what is new, and return whether the run is over; a machine that is refused is replaced."""
        job = self._job
        if job is None:
            raise RuntimeError("the run was not begun")
        state = self._backend.state(job)
        if state != self._state:
            shown.write_line(f"{job.name}: {state}")
            self._state = state
        self._backend.collect(job, self._path)
        _adopt(self._path, self._sources, job.details.get(_PRICE))
        _show_new(self._path, self._seen, shown)
        if not state.is_over:
            return False
        report = read_report(self._path)
        if report is None or report.job != job.name:
            finished = "the service says that it finished, but records are missing"
            problem = finished if state.phase == "finished" else str(state)
            raise BackendError(f"job {job.name} at {self._name}: {problem}. See `benchcard logs {self._path}`")
        if report.error == SpecError.__name__ and not self._directory.has("quantize", "evaluate"):
            # As after a local run: these steps would prevent a run of the corrected spec here.
            self._directory.clear()
        if report.error != MachineError.__name__ or not self._redraws:
            _raise_for(report)
            return True
        self._redraws -= 1
        shown.write_line(f"{report.message}: another machine is asked for")
        self._job = None
        self.announce(shown)
        return self.begin(shown)


def files_to_bring(run: Path, sizes: Mapping[str, int]) -> dict[str, Path]:
    """Return which of a worker's files to write where in the run directory at home; `sizes` has the bytes of all.

    What a step made does not change, nor does `run.json`, which is changed here. The other files may. No path leads out
    of the directory.
    """
    found: dict[str, Path] = {}
    for name, size in sizes.items():
        target = (run / name).resolve()
        if not target.is_relative_to(run.resolve()) or name in ("lock", JOB) or "/." in f"/{name}":
            continue
        if name.startswith("steps/"):
            is_new = not target.is_file() or target.stat().st_size != size
        else:
            is_new = name != "run.json" or not target.exists()
        if is_new:
            target.parent.mkdir(parents=True, exist_ok=True)
            found[name] = target
    return found


def _adopt(path: Path, sources: Sources, price: str | None) -> None:
    """Let the run directory name the sources of this machine in place of the worker's, which are the same, and the
    price of its machine in an hour.

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
    own = {"sources": as_plain(sources), "price_per_hour": float(price) if price else None}
    write_atomically(path / "run.json", {**content, **own})


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
