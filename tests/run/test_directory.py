"""The run directory: what stands under its final name is whole, and belongs to one spec."""

from __future__ import annotations

import errno
import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from benchcard.errors import BenchcardError, SpecError
from benchcard.measure.machine_state import MachineState
from benchcard.run.directory import PartOutcome, RunDirectory
from benchcard.sources.resolve import Source
from benchcard.spec import spec as specs
from benchcard.steps.models import ConvertOutcome, ConvertRequest
from benchcard.steps.step import Outcome
from benchcard.utils.files import reporting_disk_errors
from benchcard.utils.values import Failure


@pytest.fixture
def directory(tmp_path, beans):
    """A run directory that was begun."""
    run = RunDirectory(tmp_path / "run")
    with run.locked():
        run.begin(specs.read_spec(beans), {"versions": {}})
    return run


GRAPH = Outcome("export", "g" * 64, Path(), ConvertOutcome(file="", digest=""))
REQUEST = ConvertRequest(framework="numpy", arguments={}, graph=GRAPH)
VALUES = {"file": "model.onnx", "digest": "d", "size_bytes": 5}


def finish(run, failure=None, content=b"graph"):
    """Finish a step with one file."""
    work = run.unfinished(REQUEST)
    (work / "model.onnx").write_bytes(content)
    (work / "log.txt").write_text("said\n")
    return run.finish(work, REQUEST, {} if failure else VALUES, 1.5, failure)


def test_a_finished_step_is_found_again(directory):
    """Its values and files come back from disk as they were given."""
    finish(directory)
    stored = directory.outcome(REQUEST)
    assert stored.values == ConvertOutcome(**VALUES)
    assert (stored.folder / "model.onnx").read_bytes() == b"graph"
    assert (stored.folder / "log.txt").read_text() == "said\n"


def test_an_unfinished_step_counts_for_nothing(directory):
    """The files of a killed process are no outcome, and are deleted when the directory is next locked."""
    work = directory.unfinished(REQUEST)
    (work / "model.onnx").write_bytes(b"half")
    assert directory.outcome(REQUEST) is None
    with directory.locked():
        assert not work.exists()


def test_a_step_whose_file_was_cut_is_not_finished(directory):
    """A file that is gone or has another size means that the step must be done again."""
    outcome = finish(directory)
    (outcome.folder / "model.onnx").write_bytes(b"gra")
    assert directory.outcome(REQUEST) is None
    (outcome.folder / "model.onnx").unlink()
    assert directory.outcome(REQUEST) is None


def test_a_failed_step_keeps_its_reason_and_log_but_no_files(directory):
    """A failure comes back from disk; its half-made files are deleted."""
    failure = Failure("convert", "ValueError", "no such opset", "log")
    finish(directory, failure=failure)
    assert directory.outcome(REQUEST) == failure
    (folder,) = directory.path.glob("steps/convert-*")
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "outcome.json"]


def test_a_step_may_be_finished_again(directory):
    """A step that failed and then worked has one outcome, the later."""
    finish(directory, failure=Failure("convert", "OSError", "x"))
    finish(directory, content=b"later")
    assert (directory.outcome(REQUEST).folder / "model.onnx").read_bytes() == b"later"


def test_another_spec_is_refused(directory, beans):
    """A directory belongs to one spec; the refusal says in what the other differs, and changes nothing."""
    before = (directory.path / "run.json").read_bytes()
    with pytest.raises(SpecError, match=r"`fixed.duration`|`fixed\.duration`"):
        directory.begin(specs.read_spec({**beans, "duration": 3}), {})
    assert (directory.path / "run.json").read_bytes() == before
    directory.begin(specs.read_spec(beans), {})


def test_names_and_prices_are_those_of_the_newest_spec(directory, beans):
    """Another price, or name of the model, its base or local data, is no other spec; that of a configuration is."""
    named = {**beans, "model_name": "ViT for beans", "base_model": "google/vit-base-patch16-224"}
    directory.begin(specs.read_spec(named), {})
    assert directory.info.spec.fixed["model_name"] == "ViT for beans"
    directory.begin(specs.read_spec({**named, "price_per_core_hour": 0.05}), {})
    assert directory.info.spec.fixed["price_per_core_hour"] == 0.05
    assert directory.info.digest == specs.read_spec(beans).digest
    assert directory.info.versions == {}
    named["dataset"] = {**beans["dataset"], "name": "Beans of 2026"}
    with pytest.raises(SpecError, match=r"`fixed\.dataset`"):
        directory.begin(specs.read_spec(named), {})
    about = json.loads((directory.path / "run.json").read_text())
    source = asdict(Source("beans", "/data/beans", True, None, "d", freely_named=True))
    about["sources"] = {"datasets": {'["beans",null]': source}}
    (directory.path / "run.json").write_text(json.dumps(about))
    directory.begin(specs.read_spec(named), {})
    assert directory.info.spec.fixed["dataset"]["name"] == "Beans of 2026"


def test_a_folder_with_other_things_is_refused(tmp_path, beans):
    """A folder that is not empty and no run is left alone."""
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(BenchcardError, match="holds no run"):
        RunDirectory(tmp_path).begin(specs.read_spec(beans), {})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_whose_job_ended_before_it_began_can_be_used_again(tmp_path, beans):
    """It holds the job and the report of its worker, and the same command starts another job."""
    for name in ("job.json", "worker.json"):
        (tmp_path / name).write_text("{}")
    RunDirectory(tmp_path).begin(specs.read_spec(beans), {})
    assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("name", "reason"), [("none", "it does not exist"), ("empty", "it has no run.json"), ("file", "it is a file")]
)
def test_a_path_without_a_run_is_refused(tmp_path, name, reason):
    """The message says what is at the path, what was expected, and what makes it."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    expected = f"{tmp_path / name} holds no run: {reason}. Expected a run directory, as `benchcard run SPEC --out"
    with pytest.raises(BenchcardError, match=re.escape(expected)):
        _ = RunDirectory(tmp_path / name).info


def test_one_process_works_in_a_directory_at_a_time(directory):
    """A second one is refused at once."""
    with (
        directory.locked(),
        pytest.raises(BenchcardError, match="another process"),
        RunDirectory(directory.path).locked(),
    ):
        pass


def test_a_newer_format_is_refused(directory):
    """A directory of a format that is not known yet is not guessed at."""
    about = json.loads((directory.path / "run.json").read_text())
    (directory.path / "run.json").write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(BenchcardError, match="newer"):
        _ = directory.info


@pytest.mark.parametrize("content", ["", "{", None])
def test_what_is_no_run_is_said(tmp_path, content):
    """A missing or broken run.json is an error in words."""
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(BenchcardError, match=r"run\.json"):
        _ = RunDirectory(tmp_path).info


def test_parts_stay_as_they_were_divided(directory):
    """How cells are divided into parts is decided once: memory that is free later does not change it."""
    parts = directory.parts("g" * 64, lambda: [["a", "b"], ["a", "c"]])
    again = directory.parts("g" * 64, lambda: [["a", "b", "c"]])
    assert parts == again
    assert [part.names for part in directory.stored_parts("g" * 64)] == [("a", "b"), ("a", "c")]
    assert directory.stored_parts("h" * 64) == []


def test_a_part_is_finished_when_it_has_an_outcome(directory):
    """A part without an outcome is at work still, whatever rounds it has."""
    part = directory.parts("g" * 64, lambda: [["a"]])[0]
    part.begin()
    part.rounds.write_bytes(b"")
    assert part.outcome is None
    state = MachineState(at_ns=1, load_1m=0.5)
    outcome = PartOutcome(rounds=3, baseline=None, opened=(), failures=(), before=state, after=state)
    part.finish(outcome)
    assert part.outcome == outcome


@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "make room"), (errno.EROFS, "another folder")])
def test_the_disks_refusals_say_what_to_do(tmp_path, number, said):
    """A full or read-only disk is an error that says what to do."""
    with pytest.raises(BenchcardError, match=said), reporting_disk_errors(tmp_path):
        raise OSError(number, "refused")


def test_a_path_that_can_be_no_folder_is_refused(tmp_path):
    """A name that the system does not take, and a path below a file, are errors that say what to do."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / ("a" * 300), tmp_path / "file" / "run"):
        with pytest.raises(BenchcardError, match="another folder"), RunDirectory(path).locked():
            pass
