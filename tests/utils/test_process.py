"""Child processes import what their parent can, and nothing that is merely in the working directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import benchcard
from benchcard.measure.blocks import Subject
from benchcard.measure.process import TimedProcess
from benchcard.steps.evaluate import MetricRequest
from benchcard.utils import process
from benchcard.workers.worker import Worker

PACKAGES = ["numpy", "evaluate", "datasets", "onnx", "onnxruntime", "polars", "benchcard"]
NAMES = ["types", "enum", "json", "sitecustomize", "usercustomize", *PACKAGES]
CANARY = "from pathlib import Path\nPath({ran!r}).joinpath(__name__).touch()\nraise ImportError(__name__)\n"


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A folder where each file of the working directory that hides a package notes that it ran; the parent has that
    directory on its path in every possible way.
    """
    (tmp_path / "ran").mkdir()
    (tmp_path / "here").mkdir()
    for name in NAMES:
        (tmp_path / "here" / f"{name}.py").write_text(CANARY.format(ran=str(tmp_path / "ran")))
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "plugged.py").write_text("class Thing: pass\n")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "../beside", "."]))
    monkeypatch.setattr(sys, "path", ["", ".", str(tmp_path / "here"), tmp_path / "here", *sys.path, "../beside"])
    return tmp_path / "ran"


def test_a_step_imports_nothing_from_the_working_directory(ran, tmp_path):
    """A child that runs steps loads a metric, `evaluate` and `datasets` from where they are installed."""
    worker = Worker(threads=1)
    try:
        reply = worker.do(MetricRequest(name="accuracy", scripts={}), tmp_path, lambda done, total: None)
    finally:
        worker.stop()
    assert reply.failure is None, reply.failure
    assert not list(ran.iterdir())


def test_a_timed_process_imports_nothing_from_the_working_directory(ran):
    """A child that times imports its runtime from where it is installed."""
    with TimedProcess(Subject("a", "onnxruntime", Path(), Path()), False, 60.0) as timed:
        timed.start_import()
        timed.finish_import()
    assert not list(ran.iterdir())


def imported(folder, module, *, code="", **variables):
    """Return the path of a child of a program in `folder`, and the file where the child finds a module; empty if it
    finds none.
    """
    script = folder / "program.py"
    script.write_text(
        f"import subprocess, sys\nfrom benchcard import registry\nfrom benchcard.utils import process\n{code}\n"
        "own = bool(registry.registered_by_call())\n"
        "command = process.python_command('workers.child', search_own=own)\n"
        "command[-1] = command[-1].partition('from benchcard.workers.child')[0] + '''\nimport importlib.util, json\n"
        f"found = importlib.util.find_spec({module!r})\n"
        'print(json.dumps([sys.path, found.origin if found else "", sys.modules["benchcard"].__file__]))\'\'\'\n'
        "done = subprocess.run(command, env=process.child_environment(), capture_output=True, text=True)\n"
        "sys.exit(done.stderr) if done.returncode else print(done.stdout)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_folder_of_a_program_is_searched_last_where_something_was_registered(tmp_path):
    """If a plugin was registered, a child finds a module beside the program, which hides nothing; else it does not
    search there.
    """
    (tmp_path / "beside.py").write_text("class Metric:\n    compute = features = None\n")
    (tmp_path / "colorsys.py").touch()
    path, origin, _ = imported(tmp_path, "beside")
    assert str(tmp_path) not in path
    assert origin == ""
    register = "import beside\nfrom benchcard import register_metric\nregister_metric('mine', beside.Metric)"
    path, origin, _ = imported(tmp_path, "beside", code=register)
    assert path[-1] == str(tmp_path)
    assert origin == str(tmp_path / "beside.py")
    _, origin, _ = imported(tmp_path, "colorsys", code=register)
    assert not origin.startswith(str(tmp_path))


def test_what_the_parent_can_import_a_child_can(tmp_path):
    """A child has the entries of `sys.path` and PYTHONPATH, relative ones made absolute; entries that are not text are
    dropped.
    """
    for name in ("added", "named"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"in_{name}.py").touch()
    code = "from pathlib import Path\nsys.path += [Path('nowhere'), b'nowhere', 'added', '__editable__.x.finder']"
    path, origin, package = imported(tmp_path, "in_added", code=code, PYTHONPATH="named")
    assert origin == str(tmp_path / "added" / "in_added.py")
    assert "__editable__.x.finder" in path
    assert package == str(Path(benchcard.__file__))
    assert imported(tmp_path, "in_named", PYTHONPATH="named")[1] == str(tmp_path / "named" / "in_named.py")
    assert str(tmp_path) in imported(tmp_path, "in_named", PYTHONPATH=str(tmp_path))[0]
    assert str(tmp_path) not in imported(tmp_path, "in_named", PYTHONPATH=".")[0]


def test_a_child_has_the_package_that_its_parent_has(tmp_path, monkeypatch):
    """The package is loaded by its location, even if that is not on the path or another one comes first."""
    (tmp_path / "benchcard").mkdir()
    (tmp_path / "benchcard" / "__init__.py").write_text("raise ImportError('another one')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    command = process.python_command("measure.child", 1, search_own=True)
    done = subprocess.run(command, env=process.child_environment(), stdin=subprocess.DEVNULL, check=False, timeout=60)
    assert done.returncode == 3


def test_the_command_line_as_a_module_imports_nothing_from_the_working_directory(ran, tmp_path):
    """`python -m benchcard` takes what it needs from where it is installed, once Python has found it."""
    (tmp_path / "spec.yaml").write_text("task: image-classification\n")
    for name in ("types", "enum", "json", "sitecustomize", "usercustomize", "benchcard"):
        Path(f"{name}.py").unlink()
    for name in ("click", "ruamel"):
        Path(f"{name}.py").write_text(CANARY.format(ran=str(ran)))
    command = [sys.executable, "-m", "benchcard", "plan", str(tmp_path / "spec.yaml")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path[4:-1]))}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert "$.model" in done.stderr
    assert not list(ran.iterdir())


def test_a_working_directory_that_was_removed_stops_no_command(tmp_path):
    """`python -m benchcard` answers also where the folder it is started in is gone."""
    code = (
        "import os, runpy, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); sys.path.insert(0, sys.argv[1]); "
        "sys.argv[1:] = ['--version']; runpy.run_module('benchcard', run_name='__main__')"
    )
    (tmp_path / "gone").mkdir()
    command = [sys.executable, "-c", code, str(tmp_path / "gone")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("benchcard, version")
