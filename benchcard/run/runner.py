"""A run on this machine: every step without an outcome is done, then every model without times is timed.

Owns the order of work. Which steps there are is left to `pipeline`, how a step is done to `steps` in a child process
(`workers`), timing to `timing`, and files to `directory`.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchcard.errors import BenchcardError, Mistake, SpecError
from benchcard.measure import machine
from benchcard.measure.memory import available_bytes
from benchcard.run import groups, parallel, timing
from benchcard.run.directory import HANDED, RunDirectory
from benchcard.run.expected import expected_steps
from benchcard.run.ground import expect_instructions, expect_same_ground, versions_of
from benchcard.run.pipeline import Pipeline
from benchcard.run.record import Record
from benchcard.sources import resolve
from benchcard.spec.plan import Plan, make_plan
from benchcard.spec.spec import Spec
from benchcard.steps.step import Outcome, Step
from benchcard.utils.progress import Progress
from benchcard.workers.worker import Reply, Worker

# Steps in which no clock runs whose figure is published, and much of whose time is one thread's: they are done ahead,
# side by side.
_AHEAD = ("quantize", "explain")
# What has to be there for them.
_BEFORE = ("export", "sample", "calibrate", "convert", "prepare", "metric")
# How a step ends for which there was not enough of the machine: alone, it may pass.
_OUT_OF_RESOURCES = ("SIGKILL", "TimeoutError")
# A step that fails on a disk with no more than this left is taken to have failed for that. The smallest step needs it.
LEAST_FREE_BYTES = 64 << 10


def run_spec(spec: Spec, path: Path, *, timeout_s: float | None = None, show_progress: bool = True) -> None:
    """Run a spec, or what is left of it, in the run directory `path`.

    Args:
        spec: What to compare.
        path: The run directory; it is made, or gone on with if it holds a run of this spec.
        timeout_s: Seconds after which a step is stopped and counts as failed; None for no limit. Where models are timed
            it bounds each answer of a process, not the timing, which lasts as long as `duration` says.
        show_progress: Whether to show bars.

    Raises:
        SpecError: The spec asks for something that is not there, or the directory holds a run of another spec.
        MachineError: This machine cannot do what was asked, or it is not the one on which the run was begun.
        BenchcardError: The directory cannot be written.
    """
    plan = make_plan(spec)
    directory = RunDirectory(path)
    directory.refuse_unusable()
    here = machine.describe()
    expect_instructions(plan, here)
    begun = directory.about if (path / "run.json").exists() else None
    if begun is not None:
        directory.begin(spec, {})
        expect_same_ground(begun, here, versions_of(plan), path)
    kept = resolve.Sources.from_dict(begun["sources"]) if begun else None
    found = resolve.resolve_sources(spec, kept, path / HANDED)
    if kept is not None and (moved := resolve.changed_names(kept, found)):
        raise SpecError(
            Mistake(
                "$",
                f"{', '.join(moved)} as it is now",
                f"what it was when the run in {path} was begun",
                "it has changed: give a new folder",
            )
        )
    with directory.locked():
        about = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "sources": found.as_dict(),
            "machine": here,
            "versions": versions_of(plan),
            "default_threads": machine.physical_cores(),
        }
        directory.begin(spec, about)
        try:
            _Run(plan, directory, found, timeout_s).go(show_progress)
        except SpecError:
            # What was made so far belongs to a spec that cannot be run: it would only be in the way of the right one.
            if begun is None and not directory.has("export", "quantize", "evaluate"):
                directory.clear()
            raise
        except (BenchcardError, OSError) as error:
            # Whatever failed may have failed for this, and what it says of it is not the reason.
            directory.expect_present(error)
            raise
        directory.expect_present()


class _NotYet(Exception):
    """The way of a row comes to a step that is not done ahead, or not yet."""


class _Run:
    """One run at work."""

    def __init__(self, plan: Plan, directory: RunDirectory, found: resolve.Sources, timeout_s: float | None) -> None:
        self._plan = plan
        self._sources = found
        self._directory = directory
        self._timeout_s = timeout_s
        self._threads: int = directory.about["default_threads"]
        self._walk = Pipeline(plan, found, self._outcome, self._threads)
        self._expected = expected_steps(plan, found, self._threads)
        self._workers: dict[tuple[str, int], Worker] = {}
        self._known: dict[str, Outcome] = {}
        # Keys of what was done ahead of the rows that ask for it, and what the row at hand has asked for.
        self._ahead: set[str] = set()
        self._asked: dict[str, str] = {}
        self._progress: Progress

    def go(self, show_progress: bool) -> None:
        distinct = {step.key: step.kind for steps in self._expected for step in steps}
        seconds = sum(
            row["duration"] * sum(step.kind == "shape" for step in steps)
            for row, steps in zip(self._plan, self._expected)
        )
        with Progress(distinct.values(), seconds, show_progress) as self._progress:
            try:
                # What is wrong with the data of any row shows before anything slow is done for the first.
                for row in self._plan:
                    self._walk.prepare(row)
                rows = list(zip(self._plan, self._expected))
                # And what is wrong with a metric, before much is made for the others.
                records = [self._row(row, steps) for row, steps in rows[:1]]
                while steps := self._wanted_ahead():
                    self._do_side_by_side(steps)
                self._ahead.update(self._known)
                records += [self._row(row, steps) for row, steps in rows[1:]]
            finally:
                self._stop()
            timing.time_all(records, self._directory, self._progress, self._timeout_s)

    def _row(self, configuration: Any, expected: list[Step]) -> Record:
        before = set(self._known)
        self._asked.clear()
        record = self._walk.record(configuration)
        # What was expected and not asked for: the way ended early, or the model is another row's.
        asked = [kind for key, kind in self._asked.items() if key not in before or key in self._ahead]
        self._ahead.difference_update(self._asked)
        others = {step.key for steps in self._expected[: configuration.row] for step in steps}
        left = [step.kind for step in expected if step.key not in others]
        for kind in asked:
            if kind in left:
                left.remove(kind)
        self._progress.skip(left)
        return record

    def _stop(self) -> None:
        for worker in self._workers.values():
            worker.stop()
        self._workers.clear()

    def _wanted_ahead(self) -> list[Step]:
        """The steps to do ahead that rows come to now; whatever they need is done on the way.

        The way of a row ends at the first of them, so this is asked again when they are done. A search for exclusions
        goes by what was evaluated, and is left to its row's turn.
        """
        wanted: dict[str, Step] = {}

        def ask(step: Step) -> Outcome:
            if step.kind in _AHEAD and self._kept(step) is None:
                wanted[step.key] = step
                raise _NotYet
            if step.kind not in (*_AHEAD, *_BEFORE):
                raise _NotYet
            return self._outcome(step)

        walk = Pipeline(self._plan, self._sources, ask, self._threads)
        for row in self._plan:
            if row.quantized:
                with suppress(_NotYet):
                    walk.record(row)
        return list(wanted.values())

    def _do_side_by_side(self, steps: list[Step]) -> None:
        """Do these steps, which need no child with torch."""
        room = available_bytes()
        largest = max(groups.size_bytes(_float_model(step)) for step in steps)
        count = parallel.children(len(steps), machine.physical_cores(), largest, room)
        if count == 1:
            for step in steps:
                self._do(step)
            return
        threads = max(1, self._threads // count)
        # The first one goes on to do what has all threads.
        workers = [self._worker("onnx", number, threads if number else self._threads) for number in range(count)]
        works = [self._directory.unfinished(step.kind, step.key) for step in steps]
        requests = [_request(step, work, threads) for step, work in zip(steps, works)]
        self._progress.start(f"{' and '.join(dict.fromkeys(step.kind for step in steps))}, {count} at a time")
        alone: list[Step] = []

        def done(place: int, reply: Reply, seconds: float) -> None:
            step = steps[place]
            if reply.failure is not None and reply.failure.type in _OUT_OF_RESOURCES:
                alone.append(step)
                return
            self._finish(step, works[place], reply, seconds, count)
            self._progress.update(sum(each.key in self._known for each in steps), len(steps))

        parallel.do_all(requests, workers, self._timeout_s, done)
        for number in range(1, count):
            self._workers.pop(("onnx", number)).stop()
        for step in alone:
            self._do(step)

    def _kept(self, step: Step) -> Outcome | None:
        """A step's outcome, known or on disk. What failed in an earlier run is tried again, once."""
        if step.key not in self._known:
            kept = self._directory.outcome(step.kind, step.key)
            if kept is None or kept.failure is not None:
                return None
            self._progress.skip([step.kind])
            self._known[step.key] = kept
        return self._known[step.key]

    def _outcome(self, step: Step) -> Outcome:
        """A step's outcome: known, on disk, or made now."""
        self._asked[step.key] = step.kind
        return self._kept(step) or self._do(step)

    def _do(self, step: Step) -> Outcome:
        self._progress.start(_described(step))
        work = self._directory.unfinished(step.kind, step.key)
        started = time.monotonic()
        reply = self._worker(step.engine, 0, self._threads).do(
            _request(step, work), work.resolve() / "log.txt", self._progress.update, self._timeout_s
        )
        return self._finish(step, work, reply, time.monotonic() - started)

    def _worker(self, engine: str, number: int, threads: int) -> Worker:
        return self._workers.setdefault((engine, number), Worker(threads))

    def _finish(self, step: Step, work: Path, reply: Reply, seconds: float, at_a_time: int = 1) -> Outcome:
        """What a child said of a step, kept."""
        self._must_not_go_on(reply)
        asked = {
            **step.asked,
            "needs": {name: f"{outcome.kind}-{outcome.key[:20]}" for name, outcome in step.needs.items()},
        }
        outcome = self._directory.finish(work, step.kind, step.key, asked, reply.values, seconds, reply.failure)
        self._known[step.key] = outcome
        self._progress.finish(step.kind, _described(step), seconds, str(reply.failure or ""), at_a_time)
        return outcome

    def _must_not_go_on(self, reply: Reply) -> None:
        """Raise for what is no failure of one configuration: a mistake in the spec, a full disk."""
        if reply.mistakes:
            raise SpecError(reply.mistakes)
        if reply.failure and (
            reply.errno in (errno.ENOSPC, errno.EDQUOT)
            or "No space left on device" in reply.failure.message
            # Many libraries say of a full disk only that something could not be written.
            or shutil.disk_usage(self._directory.path).free < LEAST_FREE_BYTES
        ):
            raise BenchcardError(
                f"no space left on the disk of {self._directory.path}: "
                "make room and give the same command again; finished steps are kept"
            )


def _request(step: Step, work: Path, threads: int | None = None) -> dict[str, Any]:
    """A step as a child is asked for it, to work in the folder `work`; with so many threads at the most."""
    fewer = {"threads": min(threads, step.extra["threads"])} if threads and "threads" in step.extra else {}
    return {
        "kind": step.kind,
        "asked": step.asked,
        "needs": {
            name: {"folder": str(outcome.folder.resolve()), "values": outcome.values}
            for name, outcome in step.needs.items()
        },
        "extra": {**step.extra, **fewer},
        "target": str(work.resolve()),
    }


def _float_model(step: Step) -> Path:
    """The file of the float model that a step quantizes, or compares with."""
    if "float" in step.extra:
        return Path(step.extra["float"])
    graph = step.needs["graph"]
    return graph.folder / str(graph.values["file"])


def _described(step: Step) -> str:
    """A step in a few words, for the progress bar."""
    asked = step.asked
    detail = {
        "export": lambda: f"opset {asked.get('opset') or 'default'}",
        "prepare": lambda: str(asked["split"]),
        "sample": lambda: f"{asked['num_samples']} of {asked['split']}",
        "calibrate": lambda: "+".join(asked["operators"] or ["all operators"]),
        "quantize": lambda: f"{asked['approach']} {'+'.join(asked['operators_to_quantize'] or ['all'])}",
        "evaluate": lambda: asked["framework"],
        "explain": lambda: "losses",
        "rank": lambda: "layers",
        "score": lambda: ", ".join(asked["metrics"]),
        "shape": lambda: (
            f"{asked['batch_size']}x{asked['input_length']}"
            if asked["input_length"]
            else f"batch {asked['batch_size']}"
        ),
    }
    words: Callable[[], str] = detail.get(step.kind, lambda: "")
    return f"{step.kind} {words()}".strip()
