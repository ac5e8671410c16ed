"""The commands that ask for the job of a run directory: `status`, `logs` and `stop`."""

from __future__ import annotations

from pathlib import Path

import click

from benchcard.cli.tables import json_option, write_json, write_text
from benchcard.utils.text import pluralize

_path = click.argument("path", metavar="RUN", type=click.Path(path_type=Path))


@click.command()
@_path
@json_option
def status(path: Path, as_json: bool) -> None:
    """Say where the run in RUN is done, whether it is, and how many of its steps have come home; of a run on several
    machines, each of its jobs.
    """
    from benchcard.backends.job import service_of
    from benchcard.run.machines import run_folders

    every = []
    for folder in run_folders(path):
        service, job = service_of(folder)
        state = service.state(job)
        if (folder / "run.json").exists():  # The first time, the command that started the job has to look at it.
            service.collect(job, folder)
        done = sum(not outcome.parent.name.startswith(".") for outcome in folder.glob("steps/*/outcome.json"))
        timed = len(list(folder.glob("times/*/part-*/outcome.json")))
        facts = {"backend": job.backend, "job": job.name, "phase": state.phase, "detail": state.detail}
        every.append({**facts, "steps": done, "timed_groups": timed, "run": str(folder)})
        if not as_json:
            write_text(f"{job.backend}, job {job.name}: {state}")
            write_text(
                f"{pluralize(done, 'step')} and the times of {pluralize(timed, 'group')} of models are in {folder}"
            )
    if as_json:
        write_json(every[0] if len(every) == 1 else {"jobs": every})


@click.command()
@_path
def logs(path: Path) -> None:
    """Print what the jobs of the run in RUN have written so far."""
    from benchcard.backends.job import service_of
    from benchcard.run.machines import run_folders

    for folder in run_folders(path):
        service, job = service_of(folder)
        for line in service.logs(job, folder):
            write_text(line)


@click.command()
@_path
def stop(path: Path) -> None:
    """Ask for the end of the jobs of the run in RUN. What is finished stays, and `benchcard run` continues it."""
    from benchcard.backends.job import service_of
    from benchcard.run.machines import run_folders

    for folder in run_folders(path):
        service, job = service_of(folder)
        state = service.state(job)
        if state.is_over:
            write_text(f"job {job.name} is over: {state}")
            continue
        service.stop(job)
        write_text(f"job {job.name} was asked to end; the command that started it continues it")
