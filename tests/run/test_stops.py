"""Runs that are refused, that fail in part, that are killed, and that run out of disk or memory."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny
from kill_and_resume import finished, kill_and_resume
from tiny_run import GRID, SPEC, spec_with

from benchcard import Benchmark, registry
from benchcard.analysis.frames.time import NOT_ASKED
from benchcard.errors import BenchcardError, MachineError, SpecError
from benchcard.run.groups import Group
from benchcard.run.record import Cell
from benchcard.steps.step import Outcome
from benchcard.utils.values import Shape


def test_instructions_that_are_not_here_are_refused_first(ground):
    """`supported_instructions` that this processor lacks, alone or in a list, stop the run before anything is made."""
    for given in ("{supported_instructions: avx9000}", "{supported_instructions: [avx9000]}"):
        spec = spec_with(ground, SPEC + f"backend_args: {given}\n")
        with pytest.raises(MachineError, match="avx9000; this processor"):
            Benchmark.from_spec(spec).run(ground / "none", progress=False)
    spec = spec_with(ground, SPEC + "backend_args.supported_instructions: avx9000\n")
    with pytest.raises(MachineError, match="avx9000"):
        Benchmark.from_spec(spec).run(ground / "none", progress=False)
    assert not (ground / "none").exists()
    with pytest.raises(SpecError, match="a text, or a list, each a text, found 5"):
        Benchmark.from_spec(spec_with(ground, SPEC + "backend_args: {supported_instructions: 5}\n"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("./model", "./modell"), "model"),
        (("./data", "./datta"), "path"),
        (("eval_split: validation", "eval_split: validaton"), "did you mean `validation`"),
        (("primary: image", "primary: imag"), "did you mean `image`"),
        (("ref_keys: [label]", "ref_keys: [labels]"), "did you mean `label`"),
        (("task: image-classification", "task: image-classification\nmetrics: [no_such_metric]"), "no_such_metric"),
    ],
)
def test_what_is_not_there_is_said_with_its_place(ground, change, said, tmp_path):
    """A missing model, data set, split or column is a SpecError that names it and what is near."""
    spec = spec_with(ground, SPEC.replace(*change) + "duration: 0\n")
    with pytest.raises(SpecError, match=said):
        Benchmark.from_spec(spec).run(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_labels_that_do_not_agree_are_refused(ground, tmp_path):
    """A data set whose label names are not the model's is an error that shows both lists; a mapping mends it."""
    tiny.write_data(ground / "named", names=["night", "dusk", "day"])
    text = SPEC.replace("./data", "./named") + "duration: 0\n"
    with pytest.raises(SpecError, match=r"night.*dark"):
        Benchmark.from_spec(spec_with(ground, text)).run(tmp_path / "a", progress=False)
    mapping = "task_args: {label_mapping: {night: dark, dusk: middling, day: light}}\n"
    results = Benchmark.from_spec(spec_with(ground, text + mapping)).run(tmp_path / "b", progress=False)
    assert results.failures.empty
    assert results.time["failure"].tolist() == [NOT_ASKED]


def test_more_calibration_samples_than_rows_are_refused(ground, tmp_path):
    """Asking for more samples than the split has says how many there are."""
    text = SPEC + "quantization_approach: static\ncalibration: {num_calibration_samples: 99}\nduration: 0\n"
    with pytest.raises(SpecError, match="has 24 rows"):
        Benchmark.from_spec(spec_with(ground, text)).run(tmp_path / "run", progress=False)


FAILING = """
import os, signal
from benchcard.steps import quantize as actions

real = actions.quantize


def quantize(request: actions.QuantizeRequest, target, progress):
    if request.approach == "dynamic" and request.operators_to_quantize == ["Add", "MatMul"]:
        raise RuntimeError("the moon is in the wrong quarter")
    if request.approach == "static":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(request, target, progress)


actions.quantize = quantize
"""


@pytest.mark.slow
def test_a_failed_row_leaves_the_others_alone(ground, tmp_path, monkeypatch):
    """Steps that raise or die become failures with stage, type, message and log; every other row completes; mended,
    they are tried again.
    """
    (tmp_path / "failing.py").write_text(FAILING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "registered_by_call", lambda: tiny.importing("failing"))
    small = GRID.replace("[1, 3]", "[1]").replace(", pytorch]", "]").replace(", {}]", "]")
    benchmark = Benchmark.from_spec(spec_with(ground, SPEC + small))
    results = benchmark.run(tmp_path / "run", progress=False)
    failed = results.failures.set_index("row")
    assert set(failed.index) == {1, 3, 4}
    assert (failed.loc[1, "stage"], failed.loc[1, "type"]) == ("quantize", "RuntimeError")
    assert "wrong quarter" in failed.loc[1, "log"]
    assert failed.loc[3, "type"] == "SIGKILL"
    assert results.quality["accuracy"].notna().tolist() == [True, False, True, False, False]
    timed = results.time.set_index("row")
    assert timed["latency_mean_ms"].notna().tolist() == [True, False, True, False, False]
    assert "SIGKILL" in timed.loc[3, "failure"]
    assert results.models["size_mb"].notna().tolist() == [True, False, True, False, False]
    card = results.card().text
    assert "failed" in card
    assert "nan" not in card
    assert "not finished" not in card
    monkeypatch.setattr(registry, "registered_by_call", list)
    mended = benchmark.run(tmp_path / "run", progress=False)
    assert mended.failures.empty
    # The rows that had times already are timed again beside the new ones: what was timed without them is another group.
    assert len(list((tmp_path / "run" / "times").iterdir())) == 2
    assert mended.noise["models"].tolist() == [4]
    assert len({id(part) for part in mended.records.timed.values()}) == 1


FILLING = """
from benchcard.steps import models as actions


def export(request: actions.ExportRequest, target, progress):
    raise OSError(28, "No space left on device")


actions.export = export
"""


def test_a_full_disk_stops_the_run_and_keeps_what_is_finished(ground, tmp_path, monkeypatch):
    """When a child finds the disk full, the run ends with what to do, and the finished steps are there."""
    (tmp_path / "filling.py").write_text(FILLING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "registered_by_call", lambda: tiny.importing("filling"))
    with pytest.raises(BenchcardError, match="Free some space"):
        Benchmark.from_spec(ground / "spec.yaml").run(tmp_path / "run", progress=False)
    # Both data sets are read before the first export.
    assert sorted(name.split("-")[0] for name in finished(tmp_path / "run")) == ["prepare", "sample"]


REMOVING = """
import shutil
from benchcard.steps import models as actions


def export(request: actions.ExportRequest, target, progress):
    shutil.rmtree({path!r})
    {ending}


actions.export = export
"""


@pytest.mark.parametrize(
    "ending", ["raise ValueError(1)", "return {'file': 'm', 'digest': 'd', 'size_bytes': 0, 'report': {}}"]
)
def test_a_run_directory_that_is_removed_is_told(ground, tmp_path, monkeypatch, ending):
    """A step that finds the run directory gone, or comes to its end without it, ends the run with that as the reason;
    nothing of the directory comes back.
    """
    (tmp_path / "removing.py").write_text(REMOVING.format(path=str(tmp_path / "run"), ending=ending))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "registered_by_call", lambda: tiny.importing("removing"))
    with pytest.raises(BenchcardError, match=r"run was removed or moved during the run"):
        Benchmark.from_spec(ground / "spec.yaml").run(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def timing(monkeypatch, time):
    """Have `time` stand in for the timing of a group."""
    from benchcard.measure import machine_state
    from benchcard.measure.blocks import GroupTiming

    def group(subjects, baseline, *, launchers, **rest):
        failures = time([subject.name for subject in subjects], launchers.timeout_s)
        now = machine_state.read_machine_state()
        return GroupTiming((), tuple(failures), 0, 0, now, now)

    monkeypatch.setattr("benchcard.measure.conductor.time_group", group)


def test_a_run_directory_that_is_removed_while_models_are_timed_is_told(ground, results, tmp_path, monkeypatch):
    """It ends the run with that as the reason, and nothing of the directory comes back."""
    shutil.copytree(results.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "times")
    timing(monkeypatch, lambda names, timeout_s: shutil.rmtree(tmp_path / "run") or [])
    with pytest.raises(BenchcardError, match=r"run was removed or moved during the run"):
        Benchmark.from_spec(ground / "spec.yaml").run(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("given", "limit_s"), [(25.0, 25.0), (None, 600.0)])
def test_the_time_limit_reaches_the_processes_that_are_timed(ground, results, tmp_path, monkeypatch, given, limit_s):
    """`timeout_s` bounds each answer of theirs, and the rows of a model that gave none say so; without it they have
    ten minutes.
    """
    from benchcard.measure.blocks import TimedFailure
    from benchcard.utils.values import Failure

    limits = []

    def hang(names, timeout_s):
        limits.append(timeout_s)
        failure = Failure("first call", "TimeoutError", f"no answer in {timeout_s:g} s")
        return [TimedFailure(name, False, failure) for name in names]

    shutil.copytree(results.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "times")
    timing(monkeypatch, hang)
    found = Benchmark.from_spec(ground / "spec.yaml").run(tmp_path / "run", progress=False, timeout_s=given)
    assert set(limits) == {limit_s}
    assert found.time["failure"].str.contains(f"no answer in {limit_s:g} s").all()


PRECISE = """
grid: {per_channel: [false, true], quantization_approach: [dynamic], apply_quantization: [true, false]}
batch_sizes: [1]
fixed: {weights_dtype: uint8}
input_lengths: [8, 16]
duration: 0.3
precision: 0.9
explain: false
"""


def test_the_processes_that_fork_take_memory_too(ground, monkeypatch):
    """Models have less room by the parent of each framework, and by that of the baseline's second process."""
    from benchcard.run import timing

    inputs = Outcome("shape", "", ground, None)
    cells = tuple(Cell(name, ground, name, {}, inputs, Shape(1)) for name in ("onnxruntime", "pytorch"))
    monkeypatch.setattr(timing, "available_bytes", lambda: 10 << 30)
    alone, beside = (
        timing._Timing._room(Group(cells, (), baseline, 1.0, None, 1, 0)) for baseline in (None, cells[1].name)
    )
    assert (10 << 30) * 0.8 - alone == pytest.approx(900 << 20, abs=1)
    assert alone - beside == 700 << 20


@pytest.mark.slow
def test_precision_reaches_the_timing_and_memory_may_run_out(ground, tmp_path, monkeypatch):
    """A configuration is timed until its ratio is known as asked; lengths of images are one row, and said so; a model
    that there is no memory for is a failed cell, and is timed once there is.
    """
    from benchcard.run import timing as timed_groups

    needs = timed_groups._needs
    benchmark = Benchmark.from_spec(spec_with(ground, SPEC + PRECISE))
    assert benchmark.plan()["timed_s"].tolist() == [0.6, 0.3, 0.3]
    assert benchmark.plan()["expected_half_width"].tolist()[1:] == [0.9, 0.9]
    monkeypatch.setattr(timed_groups, "_needs", lambda cell: 1 << 60)
    with pytest.raises(MachineError, match="not one model can be timed"):
        benchmark.run(tmp_path / "run", progress=False)
    sizes = iter([1, 1, 1 << 60])
    known = {}
    monkeypatch.setattr(timed_groups, "_needs", lambda cell: known.setdefault(cell.name, next(sizes, 1)))
    results = benchmark.run(tmp_path / "run", progress=False)
    assert results.failures["type"].tolist() == ["MachineError"]
    assert results.time["failure"].str.contains("not enough memory").eq(True).tolist() == [False, False, True]
    assert results.best().row is not None
    monkeypatch.setattr(timed_groups, "_needs", needs)
    results = benchmark.run(tmp_path / "run", progress=False)
    assert results.failures.empty
    assert len(results.time) == 3
    assert any("input_lengths (8, 16) have no effect" in note for note in results.notes)
    part = results.records.parts[results.records.records[1].cells[Shape(1)].name][0]
    assert part.outcome.precision == 0.9
    assert len({timed.launch for timed in part.rounds}) >= 5


def test_what_the_runtime_notes_lies_in_the_step(results, tmp_path, monkeypatch):
    """The profile of a model that is evaluated is written into the step's folder, which the next run sweeps where the
    process was killed, and is gone when the step is over.
    """
    from benchcard.evaluation import passes
    from benchcard.steps import evaluate
    from benchcard.steps.models import path_of
    from benchcard.steps.step import Outcome

    outcome = results.records.records[1].outcomes.evaluate
    asked = json.loads((outcome.folder / "outcome.json").read_text())["asked"]
    inputs = Outcome("prepare", "", results.path / "steps" / asked.pop("needs")["inputs"], None)
    model = path_of(results.records.records[1].outcomes.quantize)
    request = evaluate.EvaluateRequest(**asked, inputs=inputs, model_path=model, threads=1)
    run, seen = passes.run_pass, []

    def looked(*given, **named):
        seen.extend(path.name for path in tmp_path.iterdir())
        return run(*given, **named)

    monkeypatch.setattr(passes, "run_pass", looked)
    values = evaluate.evaluate(request, tmp_path, lambda done, total: None)
    assert values.kernels
    assert [name.partition("-")[0] for name in seen] == [".profile"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".profile")]


KILLED = """
grid: {quantization_approach: [dynamic, static], apply_quantization: [true, false]}
fixed: {calibration: {num_calibration_samples: 9}}
duration: 0.1
"""


@pytest.mark.slow
def test_kill_and_resume(ground, tmp_path):
    """A run that is killed at random moments comes to what an undisturbed one comes to, and repeats nothing."""
    said = kill_and_resume(spec_with(ground, SPEC + KILLED), tmp_path, kills=2)
    assert "none was repeated" in said
