"""A run on this machine: every step that has no outcome is done, then every model that has no times is timed.

This module owns the order of work. Which steps there are is left to `pipeline`, how a step is done to `steps` in a
child process (`workers`), timing to `timing`, and files to `directory`.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchcard.errors import BenchcardError, Mistake, SpecError
from benchcard.measure.machine import physical_cores, this_machine
from benchcard.measure.memory import available_bytes
from benchcard.measure.process import TIMEOUT_S, Launchers
from benchcard.run import parallel
from benchcard.run.budget import estimate
from benchcard.run.directory import MEMORY_FOLDER, RunDirectory
from benchcard.run.environment import expect_instructions, expect_same_environment, versions_of
from benchcard.run.groups import size_bytes
from benchcard.run.pipeline import Pipeline
from benchcard.run.planned import planned_steps
from benchcard.run.record import Record
from benchcard.run.timing import slow_imports, time_all
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import Sources, changed_names, resolve_sources
from benchcard.spec.plan import Configuration, Plan
from benchcard.steps import SLOW_IMPORTS
from benchcard.steps.models import path_of
from benchcard.steps.quantize import ExplainRequest, QuantizeRequest
from benchcard.steps.step import AnyRequest, Outcome, Request, V
from benchcard.utils.events import Listener, RowEvent
from benchcard.utils.files import FULL_DISK
from benchcard.utils.plain import as_plain
from benchcard.utils.progress import Progress, format_duration
from benchcard.utils.values import Failure
from benchcard.workers.worker import Reply, Worker

# Steps whose duration is not published, and which use mostly one thread: they are done ahead, in parallel.
_AHEAD = ("quantize", "explain")
# Steps that these need.
_BEFORE = ("export", "cast", "sample", "calibrate", "convert", "prepare", "metric")
# Failures of steps that ran out of memory or time. Such a step may succeed alone.
_OUT_OF_RESOURCES = ("SIGKILL", "TimeoutError")
# A step that fails on a disk with less free space is taken to have failed because of it. The smallest step needs this.
LEAST_FREE_BYTES = 64 << 10


def _is_ahead(request: AnyRequest) -> bool:
    """Return whether a step is done ahead of its row."""
    return request.kind in _AHEAD and request.engine == "onnx"


def run_plan(
    plan: Plan,
    path: Path,
    *,
    rows: Collection[int] | None = None,
    timed: bool = True,
    timeout_s: float | None = None,
    progress: Listener | bool = True,
    begun: Callable[[], object] = lambda: None,
) -> None:
    """Run a plan, or what is left of it, in the run directory `path`, which is made if needed.

    Only these `rows` are run, None for all: their steps and, if `timed`, their models' times, for which they include
    their baselines. A step that takes longer than `timeout_s` is stopped and counts as failed; None for no limit. For
    timed models it limits each reply of a process, not the timing itself, which lasts as long as `duration` says.
    `progress` is whether to show it, or a function that is called with each event. `begun` is called when the directory
    is locked.

    Raises:
        SpecError: The spec names something that does not exist, or the directory holds a run of another spec.
        MachineError: This machine cannot run the plan, or the run was begun on another machine.
        BenchcardError: The directory cannot be written.
    """
    directory = RunDirectory(path)
    directory.refuse_unusable()
    here, versions = this_machine(), versions_of(plan)
    expect_instructions(plan, here)
    info = directory.info if (path / "run.json").exists() else None
    if info is not None:
        directory.expect_spec(plan.spec)
        expect_same_environment(info, here, versions, path)
    earlier = info.sources if info else None
    sources = resolve_sources(plan.spec, earlier, path / MEMORY_FOLDER)
    if earlier is not None and (names := changed_names(earlier, sources)):
        found, expected = f"{', '.join(names)} as it is now", f"what it was when the run in {path} was begun"
        raise SpecError(Mistake("$", found, expected, "it has changed: give a new folder"))
    with directory.locked():
        begun()
        about = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "sources": as_plain(sources),
            "machine": as_plain(here),
            "versions": versions,
            "traits": as_plain(traits_of(plan)),
            "default_threads": physical_cores(),
        }
        directory.begin(plan.spec, about)
        try:
            wanted = range(len(plan)) if rows is None else rows
            _Run(plan, wanted, directory, sources, timeout_s, timed=timed, is_new=info is None).go(progress)
        except SpecError:
            # The steps so far belong to a spec that cannot be run, and would prevent a run of the corrected one.
            # A graph that was given is only read before the data, which takes no time.
            slow = ["export"] if any(row["from_transformers"] for row in plan) else []
            if info is None and not directory.has(*slow, "quantize", "evaluate"):
                directory.clear()
            raise
        except (BenchcardError, OSError) as error:
            # The directory may have been removed, which causes errors with other messages.
            directory.expect_present(error)
            raise
        directory.expect_present()


class _NotAhead(Exception):
    """A row needs a step that is not done ahead, or not done yet."""


class _Run:
    def __init__(
        self,
        plan: Plan,
        rows: Collection[int],
        directory: RunDirectory,
        sources: Sources,
        timeout_s: float | None,
        *,
        timed: bool,
        is_new: bool,
    ) -> None:
        self._plan = plan
        self._rows = [plan[row] for row in sorted(rows)]
        self._sources = sources
        self._timed = timed
        self._is_new = is_new
        self._directory = directory
        self._timeout_s = timeout_s
        self._threads = directory.info.default_threads
        traits = traits_of(plan, directory.info.traits)
        self._new_pipeline = partial(Pipeline, plan, sources, traits, default_threads=self._threads)
        self._pipeline = self._new_pipeline(self._result)
        planned = planned_steps(plan, sources, traits, self._threads)
        self._expected = {row.row: planned[row.row] for row in self._rows}
        self._workers: dict[tuple[str, int], Worker] = {}
        self._results: dict[str, Outcome[Any] | Failure] = {}
        # Keys of steps that were done before their rows asked for them.
        self._ahead: set[str] = set()
        # Kinds of the steps that the current row has asked for, by key.
        self._asked: dict[str, str] = {}
        self._progress: Progress

    def go(self, progress: Listener | bool) -> None:
        distinct = {request.key: request.kind for requests in self._expected.values() for request in requests}
        expected = estimate(self._plan.only(self._expected), self._sources, [*self._expected.values()])
        expected, started = expected if self._timed else replace(expected, timing_s=0.0), time.monotonic()
        with (
            Progress(distinct.values(), expected.timing_s, progress, step_s=expected.step_s) as self._progress,
            Launchers(self._timeout_s or TIMEOUT_S) as launchers,
        ):
            if self._is_new:
                self._progress.write_line(f"expected: {expected}")
                launchers.begin(slow_imports(self._rows if self._timed else [], self._threads))
            try:
                if self._is_new:
                    self._begin_worker()
                # Mistakes in the data of any row show before anything slow is done for the first row. Rows that are
                # compared with these may be run later.
                for row in self._plan:
                    if row.row in self._expected or row.baseline in self._expected:
                        self._pipeline.prepare(row)
                self._ahead.update(self._results)
                # Mistakes in a metric show before models are made for the other rows.
                records = [self._row(row) for row in self._rows[:1]]
                before = set(self._results)
                while requests := self._wanted_ahead():
                    self._do_in_parallel(requests)
                self._ahead.update(self._results.keys() - before)
                records += [self._row(row) for row in self._rows[1:]]
            finally:
                for worker in self._workers.values():
                    worker.stop()
            if self._timed:
                time_all(records, self._directory, self._progress, launchers)
            if self._is_new:
                took = format_duration(time.monotonic() - started)
                self._progress.write_line(f"took {took}, expected {expected}")

    def _begin_worker(self) -> None:
        """Start the child that will quantize models, if one will: it imports what it needs while data is prepared."""
        if any(map(_is_ahead, itertools.chain.from_iterable(self._expected.values()))):
            self._worker("onnx", 0, self._threads).begin(SLOW_IMPORTS)

    def _row(self, configuration: Configuration) -> Record:
        before = set(self._results)
        self._asked.clear()
        record = self._pipeline.record(configuration)
        # Expected steps that were not needed: the row failed early, or its model is that of another row.
        new_kinds = [kind for key, kind in self._asked.items() if key not in before or key in self._ahead]
        self._ahead.difference_update(self._asked)
        number = configuration.row
        others = {request.key for row, requests in self._expected.items() if row < number for request in requests}
        expected = Counter(request.kind for request in self._expected[number] if request.key not in others)
        self._progress.skip((expected - Counter(new_kinds)).elements())
        self._progress.report(
            RowEvent(
                left_s=self._progress.left_s,
                row=number,
                rows=len(self._plan),
                label=configuration.label,
                failures=tuple(record.failures.items()),
            )
        )
        return record

    def _wanted_ahead(self) -> list[AnyRequest]:
        """Return the steps to do ahead that rows ask for now, and do the steps that these need.

        A row stops at the first of them, so this is called again when they are done. A search for exclusions depends
        on evaluations, and waits for its row's turn.
        """
        wanted: dict[str, AnyRequest] = {}

        def ask(request: Request[V]) -> Outcome[V] | Failure:
            is_wanted = _is_ahead(request) and self._stored(request) is None
            if is_wanted:
                wanted[request.key] = request
            if is_wanted or request.kind not in (*_AHEAD, *_BEFORE):
                raise _NotAhead
            return self._result(request)

        pipeline = self._new_pipeline(ask)
        for row in self._rows:
            if row.quantized:
                with suppress(_NotAhead):
                    pipeline.record(row)
        return list(wanted.values())

    def _do_in_parallel(self, requests: list[AnyRequest]) -> None:
        largest = max(size_bytes(_float_model(request)) for request in requests)
        count = parallel.children(len(requests), physical_cores(), largest, available_bytes())
        if count == 1:
            for request in requests:
                self._do(request)
            return
        threads = max(1, self._threads // count)
        # The first child later does the steps that use all threads.
        workers = [self._worker("onnx", number, threads if number else self._threads) for number in range(count)]
        # With fewer threads the keys are the same.
        work = [(request.with_threads(threads), self._directory.unfinished(request)) for request in requests]
        self._progress.start(f"{' and '.join(dict.fromkeys(request.kind for request in requests))}, {count} at a time")
        alone: list[AnyRequest] = []
        finished = 0

        def done(index: int, reply: Reply, seconds: float) -> None:
            nonlocal finished
            if reply.failure is not None and reply.failure.type in _OUT_OF_RESOURCES:
                alone.append(requests[index])
                return
            finished += 1
            self._finish(requests[index], work[index][1], reply, seconds, count)
            self._progress.update(finished, len(requests))

        parallel.do_all(work, workers, self._timeout_s, done)
        for number in range(1, count):
            self._workers.pop(("onnx", number)).stop()
        for request in alone:
            self._do(request)

    def _stored(self, request: Request[V]) -> Outcome[V] | Failure | None:
        """Return the result of a step in this run, or its outcome in an earlier run, whose failures are tried again."""
        if request.key not in self._results:
            stored = self._directory.outcome(request)
            if stored is None or isinstance(stored, Failure):
                return None
            self._progress.skip([request.kind])
            self._results[request.key] = stored
        return self._results[request.key]

    def _result(self, request: Request[V]) -> Outcome[V] | Failure:
        self._asked[request.key] = request.kind
        return self._stored(request) or self._do(request)

    def _do(self, request: Request[V]) -> Outcome[V] | Failure:
        self._progress.start(str(request))
        target = self._directory.unfinished(request)
        started = time.monotonic()
        worker = self._worker(request.engine, 0, self._threads)
        reply = worker.do(request, target, self._progress.update, self._timeout_s)
        return self._finish(request, target, reply, time.monotonic() - started)

    def _worker(self, engine: str, number: int, threads: int) -> Worker:
        return self._workers.setdefault((engine, number), Worker(threads))

    def _finish(
        self, request: Request[V], target: Path, reply: Reply, seconds: float, at_a_time: int = 1
    ) -> Outcome[V] | Failure:
        self._raise_if_final(reply)
        result = self._directory.finish(target, request, reply.values, seconds, reply.failure)
        self._results[request.key] = result
        self._progress.finish(request.kind, str(request), seconds, filter(None, [reply.failure]), at_a_time)
        return result

    def _raise_if_final(self, reply: Reply) -> None:
        """Raise for a failure that ends the run: a mistake in the spec, or a full disk."""
        if reply.mistakes:
            raise SpecError(reply.mistakes)
        if reply.failure and (
            reply.errno in FULL_DISK
            # Many libraries raise other errors on a full disk.
            or shutil.disk_usage(self._directory.path).free < LEAST_FREE_BYTES
        ):
            problem = f"no space left on the disk of {self._directory.path}"
            raise BenchcardError(f"{problem}. Free some space and give the same command again; finished steps are kept")


def _float_model(request: AnyRequest) -> Path:
    """Return the file of the float model that a step quantizes, or compares with."""
    if isinstance(request, ExplainRequest):
        return request.float_file
    if isinstance(request, QuantizeRequest):
        return path_of(request.graph)
    raise TypeError(f"`{request.kind}` is not done ahead")
