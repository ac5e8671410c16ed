"""The timed processes: what they measure, how they fail, and that none is left behind."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeAlias

import fake_framework
import numpy as np
import psutil
import pytest
import timing_fixtures
from timing_fixtures import children_of, recorded_s, subject, timed

from benchcard import registry
from benchcard.measure import process
from benchcard.measure.blocks import OpenedModel, Round, Subject, recover_rounds
from benchcard.measure.child import Import, Open, Time, encode_command, time_block
from benchcard.measure.machine import physical_cores
from benchcard.measure.machine_state import MachineState
from benchcard.measure.process import Launchers, ProcessFailed, TimedProcess
from benchcard.run.directory import PartFailure, PartOutcome, TimedPart
from benchcard.utils.process import child_environment, python_command

folder = timing_fixtures.folder
MakeSubject: TypeAlias = Callable[..., Subject]


@pytest.fixture
def forkable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MakeSubject:
    """Makes subjects of a framework whose processes are forked."""
    if not process.CAN_FORK:
        pytest.skip("forks from one process per launch are for Linux")
    monkeypatch.setattr(registry, "_registry", functools.cache(registry._Registry))
    registry.register_framework("forkable", fake_framework.Forkable())
    registry.register_framework("threaded", fake_framework.Threaded())

    def make(name: str, framework: str = "forkable", **options: object) -> Subject:
        return replace(subject(folder, name, **options), framework=framework)

    return make


def opened(process: TimedProcess, **settings: int) -> OpenedModel:
    """The model of a process, imported and opened."""
    process.start_import()
    process.finish_import()
    return process.open(0, **{"warmup_runs": 0, "warmup_ns": 10**12, **settings})


@pytest.mark.parametrize("how", ["raise", "exit", int(signal.SIGKILL)])
def test_a_failure_is_kept_and_the_others_go_on(folder: Path, how: str | int) -> None:
    """A model that raises, exits or is killed, at any stage, loses its own figures only."""
    stages = ["load", "first call", "warm-up", "time"]
    result, rounds = timed([subject(folder, "a"), *(subject(folder, stage, stage=stage, how=how) for stage in stages)])
    assert [(failed.name, failed.failure.stage) for failed in result.failures] == [(stage, stage) for stage in stages]
    for failure in (failed.failure for failed in result.failures):
        if how == "raise":
            assert (failure.type, failure.message) == ("RuntimeError", "out of luck")
            assert "break_at" in failure.log
        elif how == "exit":
            assert failure.type == "ExitError"
            assert "status 7" in failure.message
            assert "leaving now" in failure.log
        else:
            assert failure.type == "SIGKILL"
            assert "memory" in failure.message
    assert recorded_s(rounds, "a") >= 0.12
    assert recorded_s(rounds, "a", twin=True) >= 0.12


def test_a_model_that_dies_later_keeps_its_rounds(folder: Path) -> None:
    """A model that fails in its third launch leaves the group. Its earlier rounds stay, and the others finish."""
    fragile = subject(folder, "b", stage="load", how="raise", counter=str(folder / "b"), after=2)
    result, rounds = timed([subject(folder, "a"), fragile, subject(folder, "c")], launches=3, duration_s=0.12)
    (failed,) = result.failures
    assert (failed.name, failed.failure.stage) == ("b", "load")
    assert {timed.launch for timed in rounds for block in timed.blocks if block.name == "b"} == {0, 1}
    assert {timed.launch for timed in rounds for block in timed.blocks if block.name == "c"} == {0, 1, 2}
    assert recorded_s(rounds, "a") >= 0.12


def test_models_are_forked_from_one_process_and_the_twin_from_another(forkable: MakeSubject) -> None:
    """In each launch, models with equal settings share a parent; the twin and other settings have their own."""
    members = [(forkable("a"), False), (forkable("b"), False), (forkable("c", intra_op_num_threads=3), False)]
    members.append((members[0][0], True))
    parents = []
    with Launchers(60.0) as launchers:
        for _ in range(2):
            with ExitStack() as stack:
                processes = launchers.start(members, stack, affordable_ns=math.inf)
                parents += [psutil.Process(each.pid).ppid() for each in processes if isinstance(each, TimedProcess)]
    assert parents[0] == parents[1]
    assert len(set(parents)) == 6


def test_a_costly_import_is_made_once(forkable: MakeSubject) -> None:
    """A parent whose import takes longer than a launch can afford serves all launches; if it dies, there is another."""
    members = [(forkable("a"), False)]
    pids, parents = [], []
    with Launchers(60.0) as launchers:
        for _ in range(3):
            with ExitStack() as stack:
                (process,) = launchers.start(members, stack, affordable_ns=0)
                assert isinstance(process, TimedProcess)
                pids.append(process.pid)
                parents.append(psutil.Process(process.pid).parent())
            if len(pids) == 2:
                parents[-1].kill()
    assert len(set(pids)) == 3
    assert parents[0] == parents[1] != parents[2]
    assert not [parent for parent in parents if parent.is_running()]


def test_an_import_begins_before_models_are_there_to_open(forkable: MakeSubject) -> None:
    """The process that has imported a framework beforehand serves the launches, and each is begun once."""
    subject = forkable("a")
    missing = replace(subject, name="not made yet", model=Path("nowhere"), inputs=Path("nowhere"))
    with Launchers(60.0) as launchers:
        launchers.begin([(missing, False), (missing, False)])
        begun = {child.pid for child in psutil.Process().children()}
        with ExitStack() as stack:
            (forked,) = launchers.start([(subject, False)], stack, affordable_ns=0)
            assert isinstance(forked, TimedProcess)
            assert {psutil.Process(forked.pid).ppid()} == begun
            assert forked.open(0, 1, 10**9).first_call_ns > 0


def test_a_costly_import_outlasts_launches_that_do_not_need_it(forkable: MakeSubject) -> None:
    """A parent that serves all launches stays one process, though no model of some launch is forked from it."""
    one, other = (forkable("a"), False), (forkable("b", intra_op_num_threads=3), False)
    parents = []
    with Launchers(60.0) as launchers:
        for member in (one, other, one):
            with ExitStack() as stack:
                (forked,) = launchers.start([member], stack, affordable_ns=0)
                assert isinstance(forked, TimedProcess)
                parents.append(psutil.Process(forked.pid).ppid())
    assert parents[0] == parents[2] != parents[1]


@pytest.mark.parametrize("missing", ["pagemap", "task"])
def test_a_system_without_files_of_proc_is_not_forked_on(
    forkable: MakeSubject, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a sandbox has no list of resident pages or of threads, each model gets a process of its own."""
    file = f"/proc/self/{missing}"
    refuse_in_processes(monkeypatch, f"event in ('open', 'os.listdir') and str(arguments[0]) == {file!r}")
    with Launchers(60.0) as launchers, ExitStack() as stack:
        (started,) = launchers.start([(forkable("a"), False)], stack, affordable_ns=0)
        assert isinstance(started, TimedProcess)
        assert psutil.Process(started.pid).ppid() == os.getpid()


def refuse_in_processes(monkeypatch: pytest.MonkeyPatch, condition: str) -> None:
    """Make calls fail in the processes that are started, by a condition on Python's audit `event` and `arguments`."""
    start = process.python_command

    def refusing(module: str, *arguments: int, search_own: bool) -> list[str]:
        python, option, program = start(module, *arguments, search_own=search_own)
        hook = (
            "import sys, itertools\n"
            "def hook(event, arguments, counter=itertools.count(1)):\n"
            f"    if {condition}:\n"
            "        raise OSError('refused')\n"
            "sys.addaudithook(hook)\n"
        )
        return [python, option, hook + program]

    monkeypatch.setattr(process, "python_command", refusing)


def test_a_refused_fork_takes_nobody_with_it(forkable: MakeSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system has no memory for one more process, that model fails alone, with the reason."""
    refuse_in_processes(monkeypatch, "event == 'os.fork' and next(counter) == 2")
    result, rounds = timed([forkable("a"), forkable("b"), forkable("c")], launches=1)
    (failed,) = result.failures
    assert failed.failure.stage == "start"
    assert failed.failure.message == "no process could be started: refused"
    others = {"a", "b", "c"} - {failed.name}
    assert len(others) == 2
    assert all(recorded_s(rounds, name) >= 0.12 for name in others)


def test_a_fork_that_fails_leaves_no_descriptor(forkable: MakeSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that dies before or during a fork is a failure of the model, and its files are closed."""
    member = (forkable("a"), False)

    def refuse(pid: int) -> int:
        raise ProcessLookupError(pid)

    before = os.listdir("/proc/self/fd")
    for is_alive in (True, False):
        launcher = process.Launcher(member, 60.0)
        with launcher, monkeypatch.context() as patched:
            launcher.start_import()
            launcher.finish_import()
            if is_alive:
                patched.setattr(os, "pidfd_open", refuse)
            else:
                launcher.kill()
            with pytest.raises(ProcessFailed):
                launcher.fork(member)
        assert not launcher.is_alive
    assert os.listdir("/proc/self/fd") == before


def test_forked_processes_are_waited_for_with_many_open_files(forkable: MakeSubject) -> None:
    """A process whose descriptors are above 1023 does not count as ended."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("the system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    with ExitStack() as files:
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1050):
            files.enter_context(open(os.devnull, "rb"))
        with Launchers(60.0) as launchers, ExitStack() as stack:
            (forked,) = launchers.start([(forkable("a"), False)], stack, affordable_ns=math.inf)
            assert isinstance(forked, TimedProcess)
            forked.open(0, 1, 10**9)
            assert forked._process.poll() is None


@pytest.mark.parametrize("how", ["raise", "exit", int(signal.SIGKILL)])
def test_a_forked_model_that_fails_takes_nobody_with_it(forkable: MakeSubject, how: str | int) -> None:
    """A forked process that raises, exits or is killed, at any stage, fails alone, with its own log and exit code."""
    stages = ["load", "first call", "warm-up", "time"]
    result, rounds = timed([forkable("a"), *(forkable(stage, stage=stage, how=how) for stage in stages)])
    assert all(opened.facts["forked"] for opened in result.opened)
    assert [(failed.name, failed.failure.stage) for failed in result.failures] == [(stage, stage) for stage in stages]
    kinds = {"raise": "RuntimeError", "exit": "ExitError"}
    assert {failed.failure.type for failed in result.failures} == {kinds.get(str(how), "SIGKILL")}
    if how == "exit":
        assert all("leaving now" in failed.failure.log for failed in result.failures)
    assert recorded_s(rounds, "a") >= 0.12
    assert recorded_s(rounds, "a", twin=True) >= 0.12


def test_a_framework_with_threads_is_not_forked(forkable: MakeSubject) -> None:
    """Where the import starts threads, which a fork would lose, each model gets a process of its own."""
    result, rounds = timed([forkable("a", "threaded"), forkable("b", "threaded"), forkable("c")])
    assert not result.failures
    assert rounds
    assert {opened.facts["forked"] for opened in result.opened if opened.name in "ab"} == {False}
    assert all(opened.facts["forked"] for opened in result.opened if opened.name == "c")


@pytest.mark.skipif(not process.CAN_FORK, reason="forks from one process per launch are for Linux")
def test_a_forked_process_loads_a_model_as_a_fresh_one_does(folder: Path) -> None:
    """Pages that the import has read or written count as memory before the model, and cost no time while it is loaded.

    Page faults stand for the time of loading and of the first calls, which tests do not measure.
    """
    product = matrix_product(folder, 1024)
    with Launchers(60.0) as launchers, ExitStack() as stack:
        (forked,) = launchers.start([(product, False)], stack, affordable_ns=math.inf)
        assert isinstance(forked, TimedProcess)
        before = page_faults(forked)
        cost = forked.open(0, 3, 10**12)
        faults = page_faults(forked) - before
        assert cost.facts["forked"]
    with TimedProcess(product, False, 60.0) as fresh:
        fresh.start_import()
        fresh.finish_import()
        before = page_faults(fresh)
        expected = fresh.open(0, 3, 10**12)
        expected_faults = page_faults(fresh) - before
    assert expected.peak_bytes - expected.base_bytes > 2**22
    assert cost.peak_bytes - cost.base_bytes == pytest.approx(expected.peak_bytes - expected.base_bytes, abs=2**21)
    assert cost.base_bytes == pytest.approx(expected.base_bytes, abs=2**22)
    assert faults == pytest.approx(expected_faults, abs=750)  # one huge page in the place of 512 small ones is no fault


def page_faults(timed_process: TimedProcess) -> int:
    """Return how many pages a process has faulted in, read from a file or copied (proc(5), `minflt`)."""
    return int(Path(f"/proc/{timed_process.pid}/stat").read_text().rpartition(")")[2].split()[7])


@pytest.mark.skipif(not process.CAN_FORK, reason="forks from one process per launch are for Linux")
def test_an_interrupt_while_a_launcher_answers_ends_it(forkable: MakeSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer that nobody has read is not taken for that of a later command."""
    with process.Launcher((forkable("a"), False), 60.0) as launcher:
        launcher.start_import()
        launcher.finish_import()
        with monkeypatch.context() as patched:
            patched.setattr(launcher, "_answer", interrupted)
            with pytest.raises(KeyboardInterrupt):
                launcher.fork((forkable("b"), False))
        with pytest.raises(ProcessFailed):
            launcher.fork((forkable("c"), False))


def interrupted(timeout_s: float) -> None:
    raise KeyboardInterrupt


def matrix_product(folder: Path, size: int) -> Subject:
    """A graph that multiplies a square matrix by itself, with two threads."""
    helper = pytest.importorskip("onnx.helper")
    value = [helper.make_tensor_value_info(name, 1, [size, size]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "graph", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    np.savez(folder / "large.npz", x=np.zeros((size, size), np.float32))
    options = {"intra_op_num_threads": 2}
    return Subject("a", "onnxruntime", folder / "model.onnx", folder / "large.npz", 1, options)


def test_a_model_that_hangs_is_ended(folder: Path) -> None:
    """A process that does not answer in time fails at its stage, and the message says how to allow more time."""
    with TimedProcess(subject(folder, "a", stage="time", how="hang"), False, 60.0) as process:
        opened(process, warmup_runs=3)
        process.timeout_s = 0.1
        with pytest.raises(ProcessFailed) as failed:
            process.time_block(1, 0)
    failure = failed.value.failure.failure
    assert (failure.stage, failure.type) == ("time", "TimeoutError")
    assert failure.message.startswith("no answer in 0.1 s")
    assert "`timeout_s`" in failure.message


@pytest.mark.parametrize(("how", "kind"), [("exit", "ExitError"), ("hang", "TimeoutError"), ("raise", "RuntimeError")])
def test_a_timed_process_ends_with_its_children(folder: Path, how: str, kind: str) -> None:
    """A process that a model started, and that holds the pipe of the answers open, is ended with the timed process."""
    pid_file = folder / "grandchild"
    model = subject(folder, "a", stage="time", how=how, grandchild=str(pid_file))
    with TimedProcess(model, False, 60.0) as process:
        opened(process, warmup_runs=3)
        if how == "hang":
            process.timeout_s = 0.1
        with pytest.raises(ProcessFailed) as failed:
            process.time_block(1, 0)
    failure = failed.value.failure.failure
    assert (failure.stage, failure.type) == ("time", kind)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(pid_file.read_text())).wait(20)


def test_a_lone_surrogate_in_a_message_is_replaced(folder: Path) -> None:
    """The message of an exception is kept in a form that a file can hold."""
    result, _ = timed([subject(folder, "a", stage="load", how="surrogate")], None)
    (failed,) = result.failures
    assert failed.failure.message == "half of ?"
    part = TimedPart(folder / "part", ("a",))
    now = MachineState(at_ns=1)
    failures = (PartFailure(name="a", twin=False, **asdict(failed.failure)),)
    part.finish(PartOutcome(rounds=0, baseline=None, opened=(), failures=failures, before=now, after=now))
    assert part.outcome is not None


def test_a_framework_that_cannot_be_imported_is_a_failure(folder: Path) -> None:
    """A missing framework fails at the stage `import`; for an unknown name the message has the known ones."""
    missing = Subject("a", "no_such_module:Model", folder, folder / "inputs.npz")
    unknown = Subject("b", "onnxruntme", folder, folder / "inputs.npz")
    unreadable = Subject("c", "fake_framework:Model", folder, folder / "missing.npz")
    result, rounds = timed([missing, unknown, unreadable], None)
    assert not rounds
    assert [(failed.failure.stage, failed.failure.type) for failed in result.failures] == [
        ("import", "ModuleNotFoundError"),
        ("import", "BenchcardError"),
        ("inputs", "FileNotFoundError"),
    ]
    assert "onnxruntime" in result.failures[1].failure.message


def test_what_a_model_prints_is_not_taken_for_an_answer(folder: Path) -> None:
    """A framework may write to standard output."""
    result, rounds = timed([subject(folder, "a", chatty=True)])
    assert not result.failures
    assert rounds


def test_a_block_has_the_latency_of_every_call() -> None:
    """A block lasts until its time is over: unrecorded calls first, then calls with a latency each."""
    now = calls = 0

    def call(inputs: object) -> None:
        nonlocal now, calls
        calls += 1
        now += 8_000_000 if calls == 1 else 1_000_000  # the first call fills the caches

    reply, latencies = time_block(call, None, Time(block_ns=2_500_000, warm_ns=1_500_000), lambda: now)
    assert list(latencies) == [1_000_000] * 3
    assert (reply["warm_calls"], reply["elapsed_ns"]) == (3, 3_000_000)
    calls = 0
    reply, latencies = time_block(call, None, Time(block_ns=0, warm_ns=800_000), lambda: now)
    assert (list(latencies), reply["warm_calls"]) == ([1_000_000], 1)


def test_latencies_are_those_of_the_calls(folder: Path) -> None:
    """No call is faster than the time that its model waits, and no block is shorter than its calls."""
    _, rounds = timed([subject(folder, "a", ms=1), subject(folder, "b", ms=2)])
    for block in (block for each_round in rounds for block in each_round.blocks):
        assert block.latencies_ns.min() >= (1_000_000 if block.name == "a" else 2_000_000)
        assert block.elapsed_ns >= block.latencies_ns.sum()


def test_only_the_forward_call_is_timed(folder: Path) -> None:
    """Where a model has `prepare` and `run`, inputs are prepared once and only `run` is called."""
    result, _ = timed([subject(folder, "a", "Prepared")], None)
    assert not result.failures
    assert result.opened[0].facts["prepared"] == ["x"]


def test_garbage_is_not_collected_while_the_clock_runs(folder: Path) -> None:
    """Automatic collection is off during blocks."""
    result, rounds = timed([subject(folder, "a", "WithoutCollection")], None)
    assert not result.failures
    assert rounds


def test_threads_and_spinning_are_set_and_read_back(folder: Path) -> None:
    """Threads reach the options and the environment and have a default; idle threads spin unless asked not to."""
    subjects = [
        subject(folder, "a", intra_op_num_threads=3, allow_spinning=True),
        subject(folder, "b"),
        subject(folder, "c", allow_spinning=False),
    ]
    result, _ = timed(subjects, None, launches=1)
    asked, unasked, refused = (opened.facts for opened in result.opened)
    assert asked["options"]["intra_op_num_threads"] == 3
    assert asked["environment"] == {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"}
    assert unasked["options"] == {"intra_op_num_threads": physical_cores(), "allow_spinning": True}
    assert unasked["environment"] == {"OMP_NUM_THREADS": str(physical_cores()), "OMP_WAIT_POLICY": None}
    assert refused["options"]["allow_spinning"] is False
    assert refused["environment"]["OMP_WAIT_POLICY"] == "PASSIVE"


def test_a_timed_process_holds_little_but_the_model(folder: Path) -> None:
    """The child imports no heavy library by itself."""
    result, _ = timed([subject(folder, "a")], None)
    heavy = {"torch", "transformers", "scipy", "pandas", "datasets", "onnx", "psutil"}
    assert not heavy & set(result.opened[0].facts["modules"])


def test_memory_is_counted_from_before_the_model(folder: Path) -> None:
    """A model of 64 MiB needs about that much more memory than one without."""
    result, rounds = timed([subject(folder, "a", bytes=2**26), subject(folder, "b")], None)
    large, small = (opened.peak_bytes - opened.base_bytes for opened in result.opened[:2])
    assert large - small == pytest.approx(2**26, rel=0.1)
    peaks = {block.name: block.peak_bytes for timed in rounds for block in timed.blocks}
    assert peaks["a"] - peaks["b"] == pytest.approx(2**26, rel=0.1)


def test_onnxruntime_is_timed_without_torch(folder: Path) -> None:
    """A graph runs in a process without torch, and the runtime reports the requested threads."""
    helper = pytest.importorskip("onnx.helper")
    value = [helper.make_tensor_value_info(name, 1, [3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    relu = Subject("a", "onnxruntime", folder / "model.onnx", folder / "inputs.npz", 1, {"intra_op_num_threads": 2})
    result, rounds = timed([relu], None)
    assert not result.failures
    facts = result.opened[0].facts
    assert (facts["torch_imported"], facts["intra_op_num_threads"], facts["allow_spinning"]) == (False, 2, True)
    assert result.opened[0].import_ns > 0
    assert rounds


def test_an_interrupt_ends_every_process(folder: Path) -> None:
    """No child is left when an interrupt ends the conductor."""

    def interrupt(_: Round) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        timed([subject(folder, "a"), subject(folder, "b")], keep=interrupt)
    assert not [child for child in children_of(os.getpid()) if "benchcard.measure.child" in " ".join(child.cmdline())]


def test_a_killed_conductor_leaves_no_process_behind(folder: Path) -> None:
    """After kill -9 of the parent in the middle of a block, all children are gone."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from benchcard.measure.blocks import Subject\n"
        "from benchcard.measure.conductor import time_group\n"
        "folder = Path(sys.argv[1])\n"
        "subjects = [Subject(n, 'fake_framework:Model', folder, folder / 'inputs.npz') for n in 'ab']\n"
        "say = lambda progress: print(progress.activity, flush=True)\n"
        "time_group(subjects, 0, duration_s=600, block_s=60, keep=print, progress=say)\n"
    )
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    with parent, parent.stdout as lines:
        while "timing 3 processes" not in lines.readline():
            pass
        children = children_of(parent.pid)
        assert len(children) == 3
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


@pytest.mark.slow
@pytest.mark.skipif(not process.CAN_FORK, reason="reads /proc, as only Linux has it")
def test_no_process_is_left_after_kill_at_any_moment(folder: Path) -> None:
    """Killed 50 times, at random moments of starting, importing, forking, opening and timing, nothing stays behind."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from dataclasses import replace\n"
        "import fake_framework\n"
        "from benchcard import registry\n"
        "from benchcard.measure.blocks import Subject\n"
        "from benchcard.measure.conductor import time_group\n"
        "registry.register_framework('forkable', fake_framework.Forkable())\n"
        "folder = Path(sys.argv[2])\n"
        "names = [('a', 'forkable'), ('b', 'forkable'), ('c', 'fake_framework:Model')]\n"
        "subjects = [Subject(n, f, folder, folder / 'inputs.npz', options={'ms': 1}) for n, f in names]\n"
        "print('begin', flush=True)\n"
        "time_group(subjects, 0, duration_s=0.3, launches=30, keep=lambda timed: None)\n"
    )
    draw, mark = random.Random(0), f"BENCHCARD_TEST={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    tests = str(Path(fake_framework.__file__).parent)
    environment = {**os.environ, name: value, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(50):
        parent = subprocess.Popen(
            [sys.executable, "-c", script, tests, str(folder)], stdout=subprocess.PIPE, env=environment
        )
        with parent:
            assert parent.stdout is not None
            parent.stdout.readline()
            time.sleep(draw.uniform(0, 1.2))
            parent.kill()
    deadline = time.monotonic() + 20
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def processes_with(variable: str) -> list[str]:
    """The command lines of processes that were started with an environment variable."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_text())
    return found


def test_a_child_ends_when_its_commands_end() -> None:
    """Without help from the system, the closed pipe alone ends a child that is busy in a call."""
    child = subprocess.Popen(
        python_command("measure.child", os.getpid(), search_own=False),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=child_environment(),
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        inputs = str(Path(tempfile.gettempdir()) / "inputs.npz")
        busy = Open(".", {"ms": 3_600_000}, inputs, warmup_runs=0, warmup_ns=0)
        child.stdin.write(encode_command(Import("fake_framework:Model", [])) + encode_command(busy))
        child.stdin.flush()
        answers = b""
        while b"first call" not in answers:
            answers += child.stdout.read1()
        child.stdin.close()
        assert child.wait(20) == 3


def test_a_child_whose_parent_ended_exits() -> None:
    """A child whose parent ended before the child could ask for its own end exits by itself."""
    child = subprocess.run(python_command("measure.child", 1, search_own=False), stdin=subprocess.DEVNULL, timeout=60)
    assert child.returncode == 3


def test_a_kill_loses_at_most_the_current_round(folder: Path) -> None:
    """Every round that the conductor passed to `keep` is on disk after kill -9, with the costs of opening."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from benchcard.measure.blocks import Subject, append_round\n"
        "from benchcard.measure.conductor import time_group\n"
        "folder = Path(sys.argv[1])\n"
        "def keep(timed):\n"
        "    append_round(folder / 'rounds.bin', timed)\n"
        "    print(timed.number, flush=True)\n"
        "subject = Subject('a', 'fake_framework:Model', folder, folder / 'inputs.npz')\n"
        "time_group([subject], 0, duration_s=600, block_s=0.05, keep=keep)\n"
    )
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    with parent, parent.stdout as lines:
        while int(lines.readline()) < 4:
            pass
        parent.kill()
    rounds = recover_rounds(folder / "rounds.bin")
    assert [timed.number for timed in rounds] == list(range(len(rounds)))
    assert len(rounds) >= 5
    assert sorted(opened.twin for opened in rounds[0].opened) == [False, True]


def test_a_process_sleeps_between_blocks(folder: Path) -> None:
    """After a block of ONNX Runtime with two threads, its process uses no processor time until the next one."""
    product = matrix_product(folder, 256)
    with TimedProcess(product, False, 60.0) as process:
        opened(process)
        process.time_block(10**8, 0)
        before = psutil.Process(process.pid).cpu_times()
        time.sleep(0.5)
        after = psutil.Process(process.pid).cpu_times()
    assert after.user + after.system - before.user - before.system <= 0.1 * 0.5
