"""The job of the backend `ray`: python -m benchcard.backends.ray_driver PARCEL RUN

It divides the plan into parts whose rows are never compared with each other. A part is a task on one node at a time,
which has the only `benchslot` of that node. Where there are two nodes or more for each part, they first do the steps of
a part whose figures do not depend on the clock; then one node runs the part, and only times. Where the node of a task
dies, the task begins again on another one with what has come home; a table of times that was not finished is timed
anew, since it belongs to one machine.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from benchcard.backends import node
from benchcard.backends.job import Job, Report, read_job
from benchcard.backends.ray import ENDED
from benchcard.backends.worker import plan_of, report_of
from benchcard.errors import BackendError, BenchcardError, MachineError
from benchcard.run.directory import JOB, MEMORY_FOLDER, REPORT, RunDirectory, RunInfo
from benchcard.run.environment import expect_same_environment
from benchcard.run.parts import independent_parts, is_complete, stages_before
from benchcard.sources.resolve import resolve_sources
from benchcard.utils.files import reporting_disk_errors, write_atomically, write_bytes_atomically
from benchcard.utils.parsing import load_json
from benchcard.utils.plain import as_plain
from benchcard.utils.text import pluralize

SLOT = "benchslot"
# How often a part begins again when its node has died.
_RETRIES = 3
_LOOK_S = 1.0
_CONNECT_S = 10.0
# How long to wait for a node where all have died.
_AWAY_S = 120.0
_END_S = 20.0
_ALIKE = "one run has one kind of machine: choose its nodes by `labels` in backend_args"


def main(parcel: Path, run: Path) -> int:
    """Run a parcel on a cluster, write the report, and return the exit status."""
    job = read_job(run)
    if job is None:
        raise SystemExit(f"{run} has no job")
    # A shell without a terminal has started this process with SIGINT ignored, and Ray cancels tasks by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, _end_late)
    signal.alarm(max(1, round(job.limit_s)))
    report = Report(job=job.name)
    (run / REPORT).unlink(missing_ok=True)
    try:
        with RunDirectory(run).locked():
            _run(parcel.resolve(), run, job)
    except BenchcardError as error:
        report = report_of(job.name, error)
        _log(f"{report.error}: {report.message}\n")
    except _WorkerFailed as failed:
        report = failed.report
    write_atomically(run / REPORT, as_plain(report))
    shutil.rmtree(parcel, ignore_errors=True)
    if not report.error:
        parcel.with_name(ENDED).touch()
    return 1 if report.error else 0


def _run(parcel: Path, run: Path, job: Job) -> None:
    # Set before the import: nothing of a run is reported to anybody.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    plan, _ = plan_of(parcel)
    sources = resolve_sources(plan.spec, None, run / MEMORY_FOLDER)
    parts = independent_parts(plan, sources)
    _log(f"{pluralize(len(plan), 'row')} in {pluralize(len(parts), 'part')} that may run at the same time\n")
    address = str(job.arguments.get("address") or "")
    where: dict[str, Any] = {"address": address} if address else {"resources": {SLOT: 1}, "include_dashboard": False}
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():
            # Ray takes minutes to find that nobody listens.
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        ray.init(**where, log_to_driver=False)
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        raise BackendError(f"there is no Ray cluster at {address or 'this machine'}: {error}") from error
    try:
        ray.cloudpickle.register_pickle_by_value(node)
        cluster = _Cluster(parcel, run, job)
        for stage in stages_before(plan, sources, parts, len(cluster.nodes())):
            _log(f"{pluralize(len(stage), 'node')} for steps whose figures do not depend on the clock\n")
            cluster.do(stage, timed=False)
        cluster.do(parts)
        if len(parts) > 1 and not is_complete(RunDirectory(run), plan):
            # A step that parts share came from one of them, and those after it may depend on what exactly it gave.
            _log("one node does what the parts have left\n")
            cluster.do([tuple(range(len(plan)))])
    finally:
        ray.shutdown()


class _WorkerFailed(Exception):
    """The worker of a part says that an error has ended it."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.message)
        self.report = report


@dataclass
class _Part:
    """Rows that a node runs, whether it times them, and how often their node has died."""

    rows: tuple[int, ...]
    timed: bool
    deaths: int = 0
    report: Report | None = None
    status: str = ""

    def __str__(self) -> str:
        return f"rows {', '.join(map(str, self.rows))}"


class _Cluster:
    """The nodes of a cluster, and the parts that they run."""

    def __init__(self, parcel: Path, run: Path, job: Job) -> None:
        import ray

        self._run, self._job = run, job
        self._labels: Mapping[str, str] = job.arguments.get("labels") or {}
        files = [file for file in parcel.rglob("*") if file.is_file()]
        self._parcel = [(f"parcel/{file.relative_to(parcel)}", ray.put(file.read_bytes())) for file in files]
        # When a node was there that can run a part.
        self._seen_s = -math.inf
        # The part whose node sent the first file of a folder: steps that two parts share come from one of them.
        self._owners: dict[Path, _Part] = {}
        self._task = ray.remote(
            num_cpus=0,
            resources={SLOT: 1},
            max_retries=0,
            num_returns="streaming",
            label_selector=dict(self._labels) or None,
        )(node.run_part)

    def do(self, parts: Iterable[Sequence[int]], *, timed: bool = True) -> None:
        """Run the rows of each part on a node, on as many nodes as there are.

        Raises:
            BenchcardError: A worker failed, or no node can run what is left.
        """
        import ray

        self._expect_nodes()
        self._owners.clear()
        running: dict[Any, _Part] = {}
        try:
            kept = self._kept()
            for rows in parts:
                part = _Part(tuple(rows), timed)
                running[self._begin(part, kept)] = part
            while running:
                ready, _ = ray.wait([*running], num_returns=1, timeout=_LOOK_S, fetch_local=False)
                if not ready:
                    self._expect_nodes()
                for task in ready:
                    part = running[task]
                    try:
                        name, content = ray.get(next(task))
                    except StopIteration:
                        del running[task]
                        self._expect_report(part)
                    except ray.exceptions.RayTaskError as error:
                        raise BackendError(f"{part}: {error}") from error
                    except ray.exceptions.RayError as error:
                        del running[task]
                        running[self._again(part, error)] = part
                    else:
                        self._receive(part, name, content)
        finally:
            for task in running:
                ray.cancel(task)
            if running:
                # The tasks end their children.
                ray.wait([*running], num_returns=len(running), timeout=_END_S, fetch_local=False)

    def _kept(self) -> list[tuple[str, Any]]:
        """Return what has come home, but for tables of times that are not finished, as `node.run_part` takes it."""
        import ray

        return [
            (f"run/{file.relative_to(self._run)}", ray.put(file.read_bytes()))
            for file in node.files_to_send(self._run)
            if file.name not in (REPORT, JOB)
            and (file.name != "rounds.bin" or file.with_name("outcome.json").exists())
            and file.relative_to(self._run).parts[0] != MEMORY_FOLDER
        ]

    def _begin(self, part: _Part, kept: list[tuple[str, Any]]) -> Any:
        """Start a part with these files of the run directory."""
        part.report, part.status = None, ""
        how = ["--rows", ",".join(map(str, part.rows)), "--attached"] + ["--untimed"] * (not part.timed)
        return self._task.remote([*self._parcel, *kept], [self._job.name, *how])

    def _again(self, part: _Part, error: Exception) -> Any:
        part.deaths += 1
        _log(f"{part}: the node has died ({type(error).__name__})\n")
        if part.deaths > _RETRIES:
            raise BackendError(f"{part}: {part.deaths} nodes have died, the last one with: {error}") from error
        self._expect_nodes()
        return self._begin(part, self._kept())

    def _expect_nodes(self) -> None:
        """Raise `BackendError` if no node can run a part, or none has come back for some time: Ray waits for ever."""
        problem, now = self._missing(), time.monotonic()
        if problem is None:
            self._seen_s = now
        elif now - self._seen_s > _AWAY_S:
            raise BackendError(problem)

    def nodes(self) -> list[Any]:
        """Return the nodes that can run a part, as Ray describes them."""
        return [each for each in _with_slot() if self._labels.items() <= each["Labels"].items()]

    def _missing(self) -> str | None:
        """Return what no node has that a part needs, or None."""
        with_slot = _with_slot()
        if not with_slot:
            advice = f"""start them with `ray start --resources='{{"{SLOT}": 1}}'`"""
            return f"none of {pluralize(len(_alive()), 'node')} has the resource `{SLOT}`: {advice}"
        for name, value in self._labels.items():
            found = sorted({str(each["Labels"].get(name, "none")) for each in with_slot})
            if value not in found:
                return f"no node has the label {name}={value}: `{name}` is {', '.join(found)}"
        if not self.nodes():
            wanted = ", ".join(f"{name}={value}" for name, value in self._labels.items())
            return f"no node has all the labels {wanted}"
        return None

    def _receive(self, part: _Part, name: str, content: bytes) -> None:
        if name == node.LOG:
            _log(content.decode(errors="replace"))
            return
        if name == node.END:
            part.status = content.decode()
            return
        path = Path(name).relative_to("run")
        target = (self._run / path).resolve()
        if not target.is_relative_to(self._run.resolve()) or path.parts[0] in (JOB, MEMORY_FOLDER):
            return
        if path == Path(REPORT):
            part.report = msgspec.convert(load_json(content), Report)
        elif path == Path("run.json") and target.exists():
            self._expect_same_machine(content)
        elif self._owners.setdefault(Path(*path.parts[:2]), part) is part:
            with reporting_disk_errors(self._run):
                target.parent.mkdir(parents=True, exist_ok=True)
                write_bytes_atomically(target, content)

    def _expect_same_machine(self, content: bytes) -> None:
        """Raise `BackendError` for the `run.json` of a node that is another machine than the first one."""
        other = msgspec.convert(load_json(content), RunInfo)
        try:
            expect_same_environment(RunDirectory(self._run).info, other.machine, other.versions, self._run)
        except BenchcardError as error:
            raise BackendError(f"the nodes are not alike, and {_ALIKE}. {error}") from error

    def _expect_report(self, part: _Part) -> None:
        report = part.report
        if report is None:
            problem = f"its worker ended with exit code {part.status}, but records are missing"
            raise BackendError(f"{part}: {problem}")
        if report.error == MachineError.__name__:
            report = replace(report, message=f"{report.message}. On a cluster {_ALIKE}")
        if report.error:
            raise _WorkerFailed(report)


def _alive() -> list[Any]:
    import ray

    return [each for each in ray.nodes() if each["Alive"]]


def _with_slot() -> list[Any]:
    return [each for each in _alive() if each["Resources"].get(SLOT, 0) >= 1]


def _log(text: str) -> None:
    print(text, end="", flush=True)  # noqa: T201 - this is its log


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise BackendError("it was stopped")


def _end_late(_signal: int, _frame: FrameType | None) -> None:
    raise BackendError("it was ended after `max_run_s`")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
