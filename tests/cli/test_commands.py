"""The command line: how it ends when it is stopped, and when nobody reads what it says."""

from __future__ import annotations

import configparser
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

WAITS_S = 120
WAITING = """
    import time
    import click
    from benchcard import cli
    from benchcard.workers.worker import Worker

    @cli.main.command()
    def wait():
        worker = Worker(1)
        click.echo(worker._start().pid)
        try:
            time.sleep(3600)
        finally:
            worker.stop()

    cli.main(["wait"])
"""


def started(program: str, **more: object) -> subprocess.Popen[str]:
    """A program in Python, at work."""
    command = [sys.executable, "-c", textwrap.dedent(program)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **{**pipes, **more})


def without_reader() -> int:
    """The end of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    return write


def ended(*arguments: object, **streams: int) -> subprocess.CompletedProcess[bytes]:
    """A command that came to its end."""
    command = [sys.executable, "-m", "benchcard", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(command, timeout=WAITS_S, check=False, **{**pipes, **streams})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_command_in_words(number):
    """The children are ended, it is said how to go on, and the status is 128 and the number of the signal."""
    with started(WAITING) as process:
        child = psutil.Process(int(process.stdout.readline()))
        process.send_signal(number)
        said = process.communicate(timeout=WAITS_S)[1]
    assert said == f"stopped by {number.name}; the same command goes on from here\n"
    assert process.returncode == 128 + number
    child.wait(WAITS_S)


def test_a_signal_that_is_ignored_stays_ignored():
    """Under `nohup` a terminal that is closed ends nothing."""
    program = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{textwrap.dedent(WAITING)}"
    with started(program) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=WAITS_S)[1]
    assert said.startswith("stopped by SIGTERM")


def test_an_interrupt_while_importing_shows_no_traceback():
    """Ctrl-C before the command line can answer it ends the process without a word, by the signal; the script that is
    installed begins so.
    """
    program = """
        import sys, time

        class Slow:
            def find_spec(self, name, path=None, target=None):
                if name == "benchcard.cli":
                    print("importing", flush=True)
                    time.sleep(3600)

        sys.meta_path.insert(0, Slow())
        from benchcard.__main__ import main
        main()
    """
    with started(program) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=WAITS_S)[1]
    assert (said, process.returncode) == ("", -signal.SIGINT)
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    assert setup["options.entry_points"]["console_scripts"].strip() == "benchcard = benchcard.__main__:main"


def test_output_that_nobody_reads_ends_a_command_quietly(results):
    """As in `benchcard show RUN | head`: the status is that of SIGPIPE, and nothing is said."""
    for arguments in (["show", results.path], ["show", results.path, "--csv", "quality"], ["machine"]):
        done = ended(*arguments, stdout=without_reader())
        assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(("arguments", "status"), [(["show", "nowhere"], 1), (["run", "nowhere.yaml"], 2)])
def test_an_error_that_nobody_reads_keeps_its_status(arguments, status, tmp_path, monkeypatch):
    """Where standard error is a pipe without a reader, or closed, the status still tells what happened."""
    monkeypatch.chdir(tmp_path)
    told = ended(*arguments).returncode
    assert ended(*arguments, stderr=without_reader()).returncode == told == status
    command = [sys.executable, "-m", "benchcard", *arguments]
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    assert subprocess.run(shell, timeout=WAITS_S, check=False).returncode == status


def test_a_run_is_whole_whoever_reads_it(ground, results, tmp_path):
    """As in `benchcard run SPEC 2>&1 | head -1`: steps are done and the card is written, though nobody reads it."""
    shutil.copytree(results.path, tmp_path / "run")
    for done in (tmp_path / "run" / "steps").glob("score-*"):
        shutil.rmtree(done)
    nobody = without_reader()
    done = ended("run", ground / "spec.yaml", "--out", tmp_path / "run", stdout=nobody, stderr=nobody)
    assert done.returncode == 141
    assert (tmp_path / "run" / "README.md").is_file()
    assert list((tmp_path / "run" / "steps").glob("score-*"))


def test_an_encoding_that_lacks_a_character_ends_nothing(results):
    """A terminal in ASCII or Latin-1 shows what it can, and the rest by number."""
    for encoding in ("ascii", "latin-1"):
        command = [sys.executable, "-m", "benchcard", "show", str(results.path)]
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=WAITS_S, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
