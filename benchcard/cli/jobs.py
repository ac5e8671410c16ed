"""The commands that ask for the job of a run directory: `status`, `logs` and `stop`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchcard.cli.tables import json_option, write_json, write_text
from benchcard.utils.text import pluralize

if TYPE_CHECKING:
    from benchcard.backends.job import Job, Service

_path = click.argument("path", metavar="RUN", type=click.Path(path_type=Path))


@click.command()
@_path
@json_option
def status(path: Path, as_json: bool) -> None:
    """Say where the run in RUN is done, whether it is, and how many of its steps have come home; of a run on several
    machines, each of its jobs.
    """
    every: list[dict[str, object]] = []

    def show(folder: Path) -> None:
        service, job = _service_of(folder)
        state = service.state(job)
        if (folder / "run.json").exists():  # The first time, the command that started the job has to look at it.
            service.collect(job, folder)
        done = sum(not outcome.parent.name.startswith(".") for outcome in folder.glob("steps/*/outcome.json"))
        timed = len(list(folder.glob("times/*/part-*/outcome.json")))
        facts = {"backend": job.backend, "job": job.name, "phase": state.phase, "detail": state.detail}
        every.append({**facts, "steps": done, "timed_groups": timed, "run": str(folder)})
        if not as_json:
            write_text(f"{job.backend}, job {job.name}: {state}")
            found = f"{pluralize(done, 'step')} and the times of {pluralize(timed, 'group')}"
            write_text(f"{found} of models are in {folder}")

    _for_each(path, show)
    if as_json:
        write_json(every[0] if len(every) == 1 else {"jobs": every})


@click.command()
@_path
def logs(path: Path) -> None:
    """Print what the jobs of the run in RUN have written so far."""

    def show(folder: Path) -> None:
        service, job = _service_of(folder)
        for line in service.logs(job, folder):
            write_text(line)

    _for_each(path, show)


@click.command()
@_path
def stop(path: Path) -> None:
    """Ask for the end of the jobs of the run in RUN. What is finished stays, and `benchcard run` continues it."""

    def end(folder: Path) -> None:
        service, job = _service_of(folder)
        state = service.state(job)
        if state.is_over:
            write_text(f"job {job.name} is over: {state}")
            return
        service.stop(job)
        write_text(f"job {job.name} was asked to end; the command that started it continues it")

    _for_each(path, end)


def _service_of(folder: Path) -> tuple[Service, Job]:
    from benchcard.backends.job import service_of

    return service_of(folder)


def _for_each(path: Path, act: Callable[[Path], None]) -> None:
    """Act on the run directory of each machine; an error of one is shown when all were tried."""
    from benchcard.errors import BenchcardError
    from benchcard.run.machines import run_folders

    errors = []
    for folder in run_folders(path):
        try:
            act(folder)
        except BenchcardError as error:
            errors.append(error)
    if errors:
        raise BenchcardError("; ".join(map(str, errors)))
