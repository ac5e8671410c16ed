"""The worker: a run of a parcel in this process, at the place where a backend has started it.

    python -m benchcard.backends.worker PARCEL RUN JOB [STORE] [--rows 0,1] [--untimed] [--attached]

All that is measured is measured here by the code of a local run. The last thing that it writes is its report. With a
store, a mounted folder in which files cannot be renamed, the run directory is copied from there at first, and to there
as it grows. With `--rows` only these rows of the plan are run, with `--untimed` only their steps: no model is timed.
With `--attached` the process ends with its standard input, so that it does not outlive what has started it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import msgspec

from benchcard.backends.job import Report
from benchcard.backends.node import files_to_send
from benchcard.backends.parcel import DESCRIPTION, Description
from benchcard.errors import BenchcardError, SpecError
from benchcard.run.directory import MEMORY_FOLDER, REPORT
from benchcard.run.runner import run_plan
from benchcard.spec.plan import Plan, make_plan
from benchcard.spec.spec import read_spec
from benchcard.utils.files import replacing_folder, write_atomically
from benchcard.utils.plain import as_plain

# Seconds between two copies to the store; tests set fewer.
_COPY_S = float(os.environ.get("BENCHCARD_COPY_S", "10"))


def main(
    parcel: Path,
    run: Path,
    job: str,
    store: Path | None = None,
    rows: Collection[int] | None = None,
    *,
    timed: bool = True,
) -> int:
    """Run a parcel in the run directory `run`, and return the exit status: 0 where the run came to its end."""
    signal.signal(signal.SIGTERM, _stop)
    run.mkdir(parents=True, exist_ok=True)
    if store is not None and store.is_dir():
        shutil.copytree(store, run, dirs_exist_ok=True)
    (run / REPORT).unlink(missing_ok=True)
    with _copying(run, store):
        return _report(parcel, run, job, rows, timed=timed)


def report_of(job: str, error: BenchcardError) -> Report:
    """Return the report of a job that an error has ended."""
    mistakes = error.mistakes if isinstance(error, SpecError) else ()
    places = tuple((each.place, each.found, each.expected, each.hint) for each in mistakes)
    return Report(job=job, error=type(error).__name__, message=str(error), mistakes=places)


def _report(parcel: Path, run: Path, job: str, rows: Collection[int] | None, *, timed: bool) -> int:
    report = Report(job=job)
    try:
        _run(parcel.resolve(), run.resolve(), rows, timed=timed)
    except BenchcardError as error:
        report = report_of(job, error)
    run.mkdir(parents=True, exist_ok=True)  # A run that fails before its first step removes its folder.
    write_atomically(run / REPORT, as_plain(report))
    if report.error:
        print(f"{report.error}: {report.message}", file=sys.stderr, flush=True)  # noqa: T201 - this is its log
    return 1 if report.error else 0


def plan_of(parcel: Path) -> tuple[Plan, float | None]:
    """Return the plan of a parcel, whose sources lie in the parcel, and the time limit of a step."""
    description = msgspec.convert(json.loads((parcel / DESCRIPTION).read_bytes()), Description)
    places = {name: parcel / place for name, place in description.places.items()}
    return make_plan(replace(read_spec(description.spec, parcel), places=places)), description.timeout_s


def _run(parcel: Path, run: Path, rows: Collection[int] | None, *, timed: bool) -> None:
    plan, timeout_s = plan_of(parcel)
    for folder in (parcel / MEMORY_FOLDER).glob("*"):
        target = run / MEMORY_FOLDER / folder.name
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            with replacing_folder(target) as made:
                shutil.copytree(folder, made, dirs_exist_ok=True)
    run_plan(plan, run, rows=rows, timed=timed, timeout_s=timeout_s)


@contextmanager
def _copying(run: Path, store: Path | None) -> Iterator[None]:
    """Copy what is new in a run directory to its store during the block, and once more at its end."""
    ended = threading.Event()
    # What lies in the store already.
    seen = {file: file.stat().st_mtime_ns for file in files_to_send(run)}

    def copy() -> None:
        while store is not None and not ended.wait(_COPY_S):
            copy_new(run, store, seen)

    copying = threading.Thread(target=copy, daemon=True)
    copying.start()
    try:
        yield
    finally:
        ended.set()
        copying.join()
        if store is not None:
            copy_new(run, store, seen)


def copy_new(run: Path, store: Path, seen: dict[Path, int]) -> None:
    """Copy the files of a run directory that changed since they were copied; what says that others are there, last.

    `seen` has the time of the last change of each copied file. It is read before the file, which may grow meanwhile.
    """
    for file in files_to_send(run):
        target = store / file.relative_to(run)
        try:
            changed = file.stat().st_mtime_ns
            if seen.get(file) == changed:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        except FileNotFoundError:
            continue  # It was replaced meanwhile, and is copied next time.
        seen[file] = changed


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_with_input() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="worker")
    parser.add_argument("parcel", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("job")
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--rows", type=lambda text: [int(row) for row in text.split(",")])
    parser.add_argument("--untimed", action="store_true")
    parser.add_argument("--attached", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    given = _parse(sys.argv[1:])
    if given.attached:
        threading.Thread(target=_end_with_input, daemon=True).start()
    sys.exit(main(given.parcel, given.run, given.job, given.store, given.rows, timed=not given.untimed))
