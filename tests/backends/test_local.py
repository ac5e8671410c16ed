"""The job of a local run is its process."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest
from click.testing import CliRunner
from kill_and_resume import command, finished
from tiny_run import GRID, SPEC, spec_with

from benchcard.backends.job import Job, write_job
from benchcard.backends.local import Local
from benchcard.cli import main


def ask(*arguments):
    outcome = CliRunner().invoke(main, [*map(str, arguments)])
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


@pytest.mark.slow
def test_a_local_run_is_seen_stopped_and_continued(ground, tmp_path):
    """`status`, `logs` and `stop` ask its process from outside, and the same command continues it."""
    path = tmp_path / "run"
    started = command(spec_with(ground, SPEC + GRID, "local.yaml"), path)
    with subprocess.Popen(started) as process:
        while not finished(path):
            assert process.poll() is None
            time.sleep(0.05)
        assert json.loads(ask("status", path, "--json"))["phase"] == "running"
        assert "was asked to end" in ask("stop", path)
    assert process.returncode == 128 + 15
    assert "stopped" in ask("status", path)
    assert "is over" in ask("stop", path)
    subprocess.run(started, check=True)
    assert json.loads(ask("status", path, "--json"))["phase"] == "finished"
    assert "export" in ask("logs", path)


def test_another_process_with_the_number_of_a_job_is_not_touched(tmp_path):
    """A number that the system gave away again is told by the time when the process began."""
    job = Job(backend="local", name=str(os.getpid()), details={"process": str(os.getpid()), "started": "0.0"})
    write_job(tmp_path, job)
    assert Local().state(job).phase == "stopped"
    Local().stop(job)
    assert "is over" in ask("stop", tmp_path)


def test_a_folder_without_a_job_says_so(tmp_path):
    """The error names the folder."""
    for name in ("status", "logs", "stop"):
        outcome = CliRunner().invoke(main, [name, str(tmp_path)])
        assert outcome.exit_code == 1
        assert "has no job" in outcome.output
