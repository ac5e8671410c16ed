"""Children: what they do, and every way in which they can end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest
import tiny
from acting import ActRequest

from benchcard import registry
from benchcard.steps.step import Outcome
from benchcard.utils.process import describe_exit
from benchcard.workers.worker import Worker


@pytest.fixture
def worker(monkeypatch):
    """A worker whose children know the step `act`."""
    monkeypatch.setattr(registry, "registered_by_call", lambda: tiny.importing("acting"))
    made = Worker(threads=1)
    yield made
    made.stop()


@pytest.fixture
def do(worker, tmp_path):
    """A function that has the worker do `act`."""

    def act(timeout_s=None, progress=lambda done, total: None, graph=None, **what):
        return worker.do(ActRequest(what=what, graph=graph), tmp_path, progress, timeout_s)

    return act


def test_values_come_back_and_one_child_does_many_steps(do, tmp_path):
    """A step's values are the reply, its prints go to the log, and the next step runs in the same process."""
    first, second = do(text="one"), do(graph=Outcome("export", "k", tmp_path, {"digest": "d"}))
    assert first.failure is None
    assert first.values["pid"] == second.values["pid"] != os.getpid()
    assert second.values["needs"] == {"graph": {"digest": "d"}}
    assert (tmp_path / "log.txt").read_text().count("said on stdout\n") == 2
    assert (tmp_path / "log.txt").read_text().count("said on stderr\n") == 2


def test_what_is_imported_ahead_is_there_for_the_first_step(worker, tmp_path):
    """The child imports modules before its first step; one that cannot be imported changes nothing."""
    worker.begin(["no_such_module", "this"])
    child = worker._child[0]
    reply = worker.do(ActRequest(what={"modules": True}), tmp_path, lambda *_: None)
    assert reply.failure is None
    assert reply.values["pid"] == child.pid
    assert "this" in reply.values["modules"]
    assert "Zen" not in (tmp_path / "log.txt").read_text()


def test_progress_is_told(worker, tmp_path):
    """The parent hears how far a step is, the last unit in any case, and the reply comes after it."""
    heard = []
    reply = worker.do(ActRequest(what={"progress": True}), tmp_path, lambda done, total: heard.append((done, total)))
    assert reply.failure is None
    assert heard[-1] == (3, 3)


def test_an_exception_is_a_failure_with_its_log(do):
    """Type, message and the end of the log come back, and the child lives on."""
    failed = do(**{"raise": 1})
    assert (failed.failure.stage, failed.failure.type, failed.failure.message) == ("act", "ValueError", "as asked")
    assert "Traceback" in failed.failure.log
    assert do().failure is None


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("nan", "is nan, which is not a finite number"),
        ("inf", "is -inf, which is not a finite number"),
        ("count", "has the type numpy.int64, which is not plain data"),
        ("half", r"is '\ud800', which is not valid Unicode"),
        ("set", "has the type builtins.set"),
        ("frozen", "has the type builtins.mappingproxy"),
    ],
)
def test_values_that_cannot_be_kept_are_a_failure(do, odd, said):
    """A step that finds out what no file can hold has failed, with the place and the kind of it; the child lives on."""
    failed = do(odd=odd)
    assert failed.failure.type == "BackendError"
    assert f"cannot be written as JSON: facts.heat[1] {said}" in failed.failure.message
    assert "facts.heat[1]" in failed.failure.log
    assert do(odd="plain").values == {"facts": {"heat": [1.5, {"1": [2.5, None, True]}]}}


def test_a_message_with_half_a_character_can_be_kept(do):
    """What an exception says is kept in a form that a file can hold."""
    assert do(half=1).failure.message == "? is half"


def test_mistakes_in_the_spec_come_back_as_such(do):
    """A SpecError in a child arrives with every mistake."""
    reply = do(spec=1)
    assert [(mistake.place, mistake.hint) for mistake in reply.mistakes] == [("$.a", ""), ("$.d", "g")]


def test_a_full_disk_is_told_by_its_number(do):
    """The error number of a system call arrives, also where a library raises another error for it."""
    assert do(disk="bare").errno == 28
    assert do(disk="inside").errno == 28
    assert do(disk="text").errno == 28


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_is_a_failure_and_the_next_step_runs(do, number):
    """A child that dies of a signal takes only its step with it."""
    failed = do(signal=int(number))
    assert failed.failure.type == number.name
    assert number.name in failed.failure.message
    assert do().failure is None


def test_an_exit_is_a_failure(do):
    """A child that ends by itself in mid-step is a failure too."""
    assert do(exit=3).failure.type == "ExitError"
    assert "status 3" in describe_exit(3)[1]


def test_a_step_that_takes_too_long_is_stopped(do):
    """The time limit ends the child, and the next step runs in a new one."""
    failed = do(timeout_s=5.0, sleep=60)
    assert failed.failure.type == "TimeoutError"
    assert do().failure is None


GONE_S = 60


def gone(file) -> bool:
    """Whether the process whose number stands in a file ends, or has ended."""
    try:
        psutil.Process(int(file.read_text())).wait(GONE_S)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired:
        return False
    return True


@pytest.mark.parametrize("how", ["fork", "program"])
@pytest.mark.parametrize("end", [{"exit": 3}, {"signal": int(signal.SIGSEGV)}, {"sleep": 3600, "timeout_s": 5.0}])
def test_what_a_step_started_ends_with_it(do, tmp_path, how, end):
    """A process that a child leaves behind keeps nobody waiting, though it holds the child's pipes, and is ended."""
    assert do().failure is None
    failed = do(grandchild=how, **end)
    assert failed.failure.type in ("ExitError", "SIGSEGV", "TimeoutError")
    assert gone(tmp_path / "grandchild")
    assert do().failure is None


@pytest.mark.parametrize("end", [{"exit": 3}, {"sleep": 3600, "timeout_s": 5.0}])
def test_who_left_the_process_group_keeps_nobody_waiting(do, tmp_path, end):
    """A process that went into a session of its own is not ours to end; the step is over all the same."""
    try:
        assert do().failure is None
        assert do(grandchild="session", **end).failure.type in ("ExitError", "TimeoutError")
        assert do().failure is None
    finally:
        os.kill(int((tmp_path / "grandchild").read_text()), signal.SIGKILL)


def test_a_child_that_died_between_two_steps(do, worker):
    """The next step is done by a new child."""
    pid = do().values["pid"]
    waiting = worker._child[1]
    os.kill(pid, signal.SIGKILL)
    waiting.join(GONE_S)
    assert do().values["pid"] != pid


def test_what_a_finished_step_started_ends_with_the_worker(do, worker, tmp_path):
    """`stop` ends what is left of earlier steps."""
    assert do(grandchild="program").failure is None
    worker.stop()
    assert gone(tmp_path / "grandchild")


@pytest.mark.parametrize("how", ["fork", "program"])
def test_no_child_outlives_its_parent(tmp_path, how):
    """A parent that is killed in mid-step leaves no process behind, nor what its child has started."""
    program = textwrap.dedent(f"""
        from pathlib import Path
        from benchcard import registry
        from acting import ActRequest
        from benchcard.workers.worker import Worker
        registry.registered_by_call = lambda: {tiny.importing("acting")}
        worker = Worker(1)
        process = worker._start()
        print(process.pid, flush=True)
        request = ActRequest(what={{"grandchild": {how!r}, "sleep": 600}})
        worker.do(request, Path({str(tmp_path)!r}), lambda done, total: None)
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        end = time.monotonic() + 60
        while not (tmp_path / "grandchild").exists() and time.monotonic() < end:
            time.sleep(0.05)
        parent.kill()
    child.wait(timeout=60)
    assert not child.is_running()
    assert gone(tmp_path / "grandchild")


def test_a_child_needs_no_standard_error(tmp_path):
    """A parent whose standard error is closed, as that of some services, has steps done all the same."""
    program = textwrap.dedent(f"""
        from pathlib import Path
        from benchcard import registry
        from acting import ActRequest
        from benchcard.workers.worker import Worker
        registry.registered_by_call = lambda: {tiny.importing("acting")}
        reply = Worker(1).do(ActRequest(what={{}}), Path({str(tmp_path)!r}), lambda done, total: None)
        print(reply.failure)
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", program]
    done = subprocess.run(shell, stdout=subprocess.PIPE, text=True, env=environment, check=False, timeout=120)
    assert done.stdout == "None\n"
    assert "said on stderr" in (tmp_path / "log.txt").read_text()


def test_a_log_that_cannot_be_written_is_a_failure(worker, tmp_path):
    """Where not even the log can be written, the reply says so by number, and the child lives on."""
    request = ActRequest(what={})
    reply = worker.do(request, tmp_path / "none", lambda done, total: None)
    assert reply.failure is not None
    assert reply.errno == errno.ENOENT
    assert worker.do(request, tmp_path, lambda done, total: None).failure is None
