"""The worker: a run of a parcel in this process, at the place where a backend has started it.

    python -m benchcard.backends.worker PARCEL RUN JOB

All that is measured is measured here by the code of a local run. The last thing that it writes is its report.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType

import msgspec

from benchcard.backends.job import REPORT, Report
from benchcard.backends.parcel import DESCRIPTION, Description
from benchcard.errors import BenchcardError, SpecError
from benchcard.run.directory import MEMORY_FOLDER
from benchcard.run.runner import run_plan
from benchcard.spec.plan import make_plan
from benchcard.spec.spec import read_spec
from benchcard.utils.files import replacing_folder, write_atomically
from benchcard.utils.plain import as_plain


def main(parcel: Path, run: Path, job: str) -> int:
    """Run a parcel in the run directory `run`, and return the exit status: 0 where the run came to its end."""
    signal.signal(signal.SIGTERM, _stop)
    run.mkdir(parents=True, exist_ok=True)
    (run / REPORT).unlink(missing_ok=True)
    report = Report(job=job)
    try:
        _run(parcel.resolve(), run.resolve())
    except SpecError as error:
        mistakes = tuple((each.place, each.found, each.expected, each.hint) for each in error.mistakes)
        report = Report(job=job, error="SpecError", message=str(error), mistakes=mistakes)
    except BenchcardError as error:
        report = Report(job=job, error=type(error).__name__, message=str(error))
    write_atomically(run / REPORT, as_plain(report))
    if report.error:
        print(f"{report.error}: {report.message}", file=sys.stderr, flush=True)  # noqa: T201 - this is its log
    return 1 if report.error else 0


def _run(parcel: Path, run: Path) -> None:
    description = msgspec.convert(json.loads((parcel / DESCRIPTION).read_bytes()), Description)
    places = {name: parcel / place for name, place in description.places.items()}
    spec = replace(read_spec(description.spec, parcel), places=places)
    for folder in (parcel / MEMORY_FOLDER).glob("*"):
        target = run / MEMORY_FOLDER / folder.name
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            with replacing_folder(target) as made:
                shutil.copytree(folder, made, dirs_exist_ok=True)
    run_plan(make_plan(spec), run, timeout_s=description.timeout_s)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
