"""The timed processes: what they measure, what becomes of them when they fail, and that none is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
import pytest
import timing_fixtures
from timing_fixtures import children_of, recorded_s, subject, timed

from benchcard.measure.blocks import Round, Subject, recover_rounds
from benchcard.measure.conductor import default_threads
from benchcard.measure.process import Child, ChildFailed
from benchcard.run.directory import TimedPart
from benchcard.utils import process

folder = timing_fixtures.folder


@pytest.mark.parametrize("how", ["raise", "exit", int(signal.SIGKILL)])
def test_a_failure_is_data_and_the_others_go_on(folder: Path, how: str | int) -> None:
    """A model that raises, leaves or is killed, at any stage, costs its own figures only."""
    stages = ["load", "first call", "warm-up", "time"]
    result, rounds = timed([subject(folder, "a"), *(subject(folder, stage, stage=stage, how=how) for stage in stages)])
    assert [(failure.name, failure.stage) for failure in result.failures] == [(stage, stage) for stage in stages]
    for failure in result.failures:
        assert failure.type == ("RuntimeError" if how == "raise" else "Died")
        if how == "raise":
            assert failure.message == "out of luck"
            assert "break_at" in failure.log
        elif how == "exit":
            assert failure.exit_code == 7
            assert "leaving now" in failure.log
        else:
            assert failure.signal == "SIGKILL"
            assert "memory" in failure.message
    assert recorded_s(rounds, "a") >= 0.12
    assert recorded_s(rounds, "a", twin=True) >= 0.12


@pytest.mark.parametrize("precision", [None, 50.0])
def test_a_broken_model_that_is_tried_again_changes_nothing_else(folder: Path, precision: float | None) -> None:
    """What the others have been timed stands: no round is added, nor an opening, and the failure is told again."""
    subjects = [subject(folder, "a"), subject(folder, "b"), subject(folder, "c", stage="load", how="raise")]
    settings = {"precision": precision, "block_s": 0.01, "duration_s": 0.04}
    result, whole = timed(subjects, **settings)
    again, rest = timed(subjects, earlier=whole, **settings)
    assert not rest
    assert (again.opened, again.rounds) == (result.opened, result.rounds)
    assert [failure.name for failure in result.failures] == [failure.name for failure in again.failures] == ["c"]


def test_a_model_that_dies_later_keeps_its_rounds(folder: Path) -> None:
    """One that breaks in its third launch is out from there on; what was timed before stays raw, and the others and
    their ratios come to their end.
    """
    fragile = subject(folder, "b", stage="load", how="raise", counter=str(folder / "b"), after=2)
    result, rounds = timed([subject(folder, "a"), fragile, subject(folder, "c")], launches=3, duration_s=0.12)
    (failure,) = result.failures
    assert (failure.name, failure.stage) == ("b", "load")
    assert {timed.launch for timed in rounds for block in timed.blocks if block.name == "b"} == {0, 1}
    assert {timed.launch for timed in rounds for block in timed.blocks if block.name == "c"} == {0, 1, 2}
    assert recorded_s(rounds, "a") >= 0.12


def test_a_model_that_hangs_is_ended(folder: Path) -> None:
    """No answer within the timeout is a failure like any other, and the process is gone."""
    hung = subject(folder, "b", stage="time", how="hang")
    result, rounds = timed([subject(folder, "a"), hung], None, timeout_s=5.0, launches=1)
    (failure,) = result.failures
    assert (failure.name, failure.stage, failure.type) == ("b", "time", "TimedOut")
    assert recorded_s(rounds, "a") >= 0.12


@pytest.mark.parametrize(("how", "kind"), [("exit", "Died"), ("hang", "TimedOut"), ("raise", "RuntimeError")])
def test_what_a_timed_process_started_ends_with_it(folder: Path, how: str, kind: str) -> None:
    """A process that a model leaves behind keeps nobody waiting, though it holds the pipe of the answers, and is ended;
    no answer within the time that is allowed is told with that time, and with the stage.
    """
    left = folder / "grandchild"
    command = {"do": "open", "model": ".", "inputs": str(folder / "inputs.npz"), "warmup_runs": 0, "warmup_ns": 0}
    command |= {"options": {"stage": "first call", "how": how, "grandchild": str(left)}}
    with Child("a", False, threads=1, spinning=False) as child:
        child.ask({"do": "import", "framework": "fake_framework:Model", "registered": []}, 60)
        with pytest.raises(ChildFailed) as failed:
            child.ask(command, 3.0 if how == "hang" else 60)
    failure = failed.value.failure
    assert (failure.stage, failure.type) == ("first call", kind)
    if how == "hang":
        assert failure.message.startswith("no answer in 3 s")
        assert "`timeout_s`" in failure.message
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(left.read_text())).wait(20)


def test_half_a_character_in_a_message_can_be_kept(folder: Path) -> None:
    """What an exception says in a timed process is kept in a form that a file can hold."""
    result, _ = timed([subject(folder, "a", stage="load", how="surrogate")], None)
    (failure,) = result.failures
    assert failure.message == "half of ?"
    part = TimedPart(folder / "part", ("a",))
    moment = {"at_ns": 1}
    ends = {"before": moment, "after": moment}
    part.finish({"rounds": 0, "baseline": None, "opened": [], "failures": [asdict(failure)], **ends})
    assert part.outcome is not None


def test_a_framework_that_cannot_be_imported_is_a_failure(folder: Path) -> None:
    """The stage of a framework that is not there is `import`; an unknown name says which are known."""
    missing = Subject("a", "no_such_module:Model", folder, folder / "inputs.npz")
    unknown = Subject("b", "onnxruntme", folder, folder / "inputs.npz")
    unreadable = Subject("c", "fake_framework:Model", folder, folder / "missing.npz")
    result, rounds = timed([missing, unknown, unreadable], None)
    assert not rounds
    assert [(failure.stage, failure.type) for failure in result.failures] == [
        ("import", "ModuleNotFoundError"),
        ("import", "BenchcardError"),
        ("inputs", "FileNotFoundError"),
    ]
    assert "onnxruntime" in result.failures[1].message


def test_every_model_failing_leaves_no_rounds(folder: Path) -> None:
    """A group of which nothing opens comes back with its failures, at once."""
    result, rounds = timed([subject(folder, "a", stage="load", how="raise")])
    assert [failure.twin for failure in result.failures] == [False, True]
    assert not rounds


def test_what_a_model_prints_is_not_taken_for_an_answer(folder: Path) -> None:
    """A framework may write to standard output as it likes."""
    result, rounds = timed([subject(folder, "a", chatty=True)])
    assert not result.failures
    assert rounds


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
    """Asked threads reach the options and the environment; unasked ones are ours, and nothing spins unless asked."""
    subjects = [subject(folder, "a", intra_op_num_threads=3, allow_spinning=True), subject(folder, "b")]
    result, _ = timed(subjects, None, launches=1)
    asked, unasked = (opened.facts for opened in result.opened)
    assert asked["options"]["intra_op_num_threads"] == 3
    assert asked["environment"] == {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"}
    assert unasked["options"] == {"intra_op_num_threads": default_threads(), "allow_spinning": False}
    assert unasked["environment"] == {"OMP_NUM_THREADS": str(default_threads()), "OMP_WAIT_POLICY": "PASSIVE"}


def test_a_timed_process_holds_little_but_the_model(folder: Path) -> None:
    """The child imports none of the heavy libraries by itself."""
    result, _ = timed([subject(folder, "a")], None)
    heavy = {"torch", "transformers", "scipy", "pandas", "datasets", "onnx", "psutil"}
    assert not heavy & set(result.opened[0].facts["modules"])


def test_memory_is_counted_from_before_the_model(folder: Path) -> None:
    """A model that takes 64 MiB shows as that much over the base, give or take the interpreter's own."""
    result, rounds = timed([subject(folder, "a", bytes=2**26), subject(folder, "b")], None)
    large, small = (opened.peak_bytes - opened.base_bytes for opened in result.opened[:2])
    assert large - small == pytest.approx(2**26, rel=0.1)
    peaks = {block.name: block.peak_bytes for timed in rounds for block in timed.blocks}
    assert peaks["a"] - peaks["b"] == pytest.approx(2**26, rel=0.1)


def test_onnxruntime_is_timed_without_torch(folder: Path) -> None:
    """A graph runs in a process that never imports torch, with the asked threads read back from the runtime."""
    helper = pytest.importorskip("onnx.helper")
    value = [helper.make_tensor_value_info(name, 1, [3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    relu = Subject("a", "onnxruntime", folder / "model.onnx", folder / "inputs.npz", 1, {"intra_op_num_threads": 2})
    result, rounds = timed([relu], None)
    assert not result.failures
    facts = result.opened[0].facts
    assert (facts["torch_imported"], facts["intra_op_num_threads"], facts["allow_spinning"]) == (False, 2, False)
    assert result.opened[0].import_ns > 0
    assert rounds


def test_an_interrupt_ends_every_process(folder: Path) -> None:
    """Whatever leaves the conductor early, no child stays behind."""

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
        "say = lambda progress: print(progress.doing, flush=True)\n"
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


def test_a_child_ends_when_its_commands_end() -> None:
    """Without help from the system, the closed pipe alone ends a child that is busy in a call."""
    child = subprocess.Popen(
        process.python_command("measure.child", os.getpid(), search_own=False),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=process.child_environment(),
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        opener = {"do": "import", "framework": "fake_framework:Model", "registered": []}
        busy = {"do": "open", "model": ".", "warmup_runs": 0, "options": {"ms": 3_600_000}}
        busy["inputs"] = str(Path(tempfile.gettempdir()) / "inputs.npz")
        child.stdin.write(b"".join(json.dumps(command).encode() + b"\n" for command in (opener, busy)))
        child.stdin.flush()
        said = b""
        while b"first call" not in said:
            said += child.stdout.read1()
        child.stdin.close()
        assert child.wait(20) == 3


def test_a_child_of_another_parent_does_not_stay() -> None:
    """A child whose parent was gone before it could say so ends by itself."""
    child = subprocess.run(
        process.python_command("measure.child", 1, search_own=False), stdin=subprocess.DEVNULL, timeout=60
    )
    assert child.returncode == 3


def test_a_kill_loses_at_most_the_round_at_work(folder: Path) -> None:
    """Every round that the conductor had handed over is on disk after kill -9, whole, with what opening cost."""
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
    assert [opened.twin for opened in rounds[0].opened] == [False, True]


def test_who_is_not_timed_sleeps(folder: Path) -> None:
    """After a block of ONNX Runtime with two threads, its process uses no processor time until the next one."""
    helper = pytest.importorskip("onnx.helper")
    value = [helper.make_tensor_value_info(name, 1, [256, 256]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "graph", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    np.savez(folder / "large.npz", x=np.zeros((256, 256), np.float32))
    command = {"do": "open", "model": str(folder / "model.onnx"), "inputs": str(folder / "large.npz")}
    command |= {"options": {"intra_op_num_threads": 2}, "warmup_runs": 1, "warmup_ns": 10**9}
    with Child("a", False, threads=2, spinning=False) as child:
        child.ask({"do": "import", "framework": "onnxruntime", "registered": []}, 60)
        child.ask(command, 60)
        child.ask({"do": "block", "block_ns": 10**8, "warm_ns": 0}, 60)
        before = psutil.Process(child.pid).cpu_times()
        time.sleep(0.5)
        after = psutil.Process(child.pid).cpu_times()
    assert after.user + after.system - before.user - before.system <= 0.1 * 0.5
