"""The command line: how it ends after a signal, and when the reader of its output closes the pipe."""

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
    """Start a Python program."""
    command = [sys.executable, "-c", textwrap.dedent(program)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, preexec_fn=heed_signals, **{**pipes, **more})


def heed_signals() -> None:
    """Undo that tests in the background of a shell ignore SIGINT, and those under `nohup` SIGHUP."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def without_reader() -> int:
    """Return the writing end of a pipe that is closed at the other end."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def ended(*arguments: object, **streams: int) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "benchcard", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(command, timeout=WAITS_S, check=False, **{**pipes, **streams})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_command_with_a_message(number):
    """Child processes end, the message says how to continue, and the status is 128 plus the number of the signal."""
    with started(WAITING) as process:
        child = psutil.Process(int(process.stdout.readline()))
        process.send_signal(number)
        errors = process.communicate(timeout=WAITS_S)[1]
    assert errors == f"stopped by {number.name}; run the same command again to continue\n"
    assert process.returncode == 128 + number
    child.wait(WAITS_S)


def test_a_signal_that_is_ignored_stays_ignored():
    """Under `nohup` a closed terminal does not end a command."""
    program = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{textwrap.dedent(WAITING)}"
    with started(program) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=WAITS_S)[1]
    assert errors.startswith("stopped by SIGTERM")


def test_an_interrupt_while_importing_shows_no_traceback():
    """Ctrl-C during the import of the command line ends the process by the signal, without output."""
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
        errors = process.communicate(timeout=WAITS_S)[1]
    assert (errors, process.returncode) == ("", -signal.SIGINT)
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    assert setup["options.entry_points"]["console_scripts"].strip() == "benchcard = benchcard.__main__:main"


def test_a_closed_output_ends_a_command_quietly(results):
    """As in `benchcard show RUN | head`: the status is that of SIGPIPE, and there is no error message."""
    for arguments in (["show", results.path], ["show", results.path, "--csv", "quality"], ["machine"]):
        done = ended(*arguments, stdout=without_reader())
        assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(("arguments", "status"), [(["show", "nowhere"], 1), (["run", "nowhere.yaml"], 2)])
def test_a_closed_standard_error_keeps_the_status(arguments, status, tmp_path, monkeypatch):
    """The status is the same where standard error is closed or a pipe without a reader."""
    monkeypatch.chdir(tmp_path)
    assert ended(*arguments).returncode == status
    assert ended(*arguments, stderr=without_reader()).returncode == status
    command = [sys.executable, "-m", "benchcard", *arguments]
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    assert subprocess.run(shell, timeout=WAITS_S, check=False).returncode == status


@pytest.mark.slow
def test_a_run_completes_without_a_reader(ground, results, tmp_path):
    """As in `benchcard run SPEC 2>&1 | head -1`: all steps are done and the card is written."""
    shutil.copytree(results.path, tmp_path / "run")
    for done in (tmp_path / "run" / "steps").glob("score-*"):
        shutil.rmtree(done)
    closed = without_reader()
    done = ended("run", ground / "spec.yaml", "--out", tmp_path / "run", stdout=closed, stderr=closed)
    assert done.returncode == 141
    assert (tmp_path / "run" / "README.md").is_file()
    assert list((tmp_path / "run" / "steps").glob("score-*"))


def test_a_missing_character_of_an_encoding_is_escaped(results):
    """A terminal in ASCII or Latin-1 shows other characters as escapes."""
    for encoding in ("ascii", "latin-1"):
        command = [sys.executable, "-m", "benchcard", "show", str(results.path)]
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=WAITS_S, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


def test_the_last_line_of_a_run_publishes_it(ground, results, tmp_path):
    """It is a command that works as it is printed, but for the name of the user."""
    spec = (ground / "spec.yaml").read_text(encoding="utf-8") + 'model_name: "Mine (.1)..x"\n'
    (ground / "named.yaml").write_text(spec, encoding="utf-8")
    shutil.copytree(results.path, run := tmp_path / "my run")
    lines = ended("run", ground / "named.yaml", "--out", run, "--max-drop", "0.5").stdout.decode().splitlines()
    assert lines[-2].startswith("best: row ")
    label, command = lines[-1].split(": ", 1)
    assert (label, command) == ("publish", f"benchcard push '{run}' YOUR-NAME/Mine-1-x --max-drop 0.5")
