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
    """Say where the run in RUN is done, whether it is, and how many of its steps have come home."""
    from benchcard.backends.job import service_of

    service, job = service_of(path)
    state = service.state(job)
    service.collect(job, path)
    done = sum(not outcome.parent.name.startswith(".") for outcome in path.glob("steps/*/outcome.json"))
    timed = len(list(path.glob("times/*/part-*/outcome.json")))
    if as_json:
        facts = {"backend": job.backend, "job": job.name, "phase": state.phase, "detail": state.detail}
        write_json({**facts, "steps": done, "timed_groups": timed})
        return
    write_text(f"{job.backend}, job {job.name}: {state}")
    write_text(f"{pluralize(done, 'step')} and the times of {pluralize(timed, 'group')} of models are in {path}")


@click.command()
@_path
def logs(path: Path) -> None:
    """Print what the job of the run in RUN has written so far."""
    from benchcard.backends.job import service_of

    service, job = service_of(path)
    for line in service.logs(job, path):
        write_text(line)


@click.command()
@_path
def stop(path: Path) -> None:
    """Ask for the end of the job of the run in RUN. What is finished stays, and `benchcard run` continues it."""
    from benchcard.backends.job import service_of

    service, job = service_of(path)
    state = service.state(job)
    if state.is_over:
        write_text(f"job {job.name} is over: {state}")
        return
    service.stop(job)
    write_text(f"job {job.name} was asked to end; the command that started it continues it")
