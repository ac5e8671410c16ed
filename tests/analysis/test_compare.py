"""The comparison of two runs: matched rows, verdicts by intervals, and no times across machines by default."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny
from click.testing import CliRunner
from made_part import died, made_part
from scipy.stats import ttest_ind

from benchcard import Benchmark, Results
from benchcard.analysis import compare
from benchcard.analysis.compare import ALIKE, BETTER, WORSE
from benchcard.analysis.compare_times import CONTROL, NO_CONTROL
from benchcard.cli.commands import main
from benchcard.errors import BenchcardError
from benchcard.measure.intervals import unpaired_ratio
from benchcard.measure.significance import independent
from benchcard.utils.values import Interval, Shape

SHAPE = Shape(1)
SPEC = """
task: image-classification
model: ./model
dataset:
  {path: ./data, eval_split: validation, calibration_split: train, data_keys: {primary: image}, ref_keys: [label]}
metrics: [accuracy, f1_macro]
grid: {apply_quantization: [false, true]}
fixed: {weights_dtype: uint8}
duration: 0.2
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of two rows."""
    folder = tmp_path_factory.mktemp("two")
    tiny.write_model(folder / "model")
    tiny.write_data(folder / "data")
    (folder / "spec.yaml").write_text(SPEC)
    Benchmark.from_spec(folder / "spec.yaml").run(folder / "run", progress=False)
    return folder / "run"


def changed(run, target, predictions=None, machine=None):
    """Return the results of a copy of a run with other predictions, or from another machine."""
    shutil.copytree(run, target)
    results = Results.load(target)
    for record in results.records.records if predictions is not None else ():
        outcome = record.outcomes.evaluate
        scores = np.load(outcome.folder / "predictions.npz")["scores"]
        np.savez(outcome.folder / "predictions.npz", scores=scores, predictions=np.asarray(predictions))
    if machine:
        about = json.loads((target / "run.json").read_text())
        about["machine"] |= machine
        (target / "run.json").write_text(json.dumps(about))
    return Results.load(target)


def test_a_run_is_not_worse_than_itself(run):
    """A run compared with itself has metrics without differences, and latencies with a ratio of 1 and a control."""
    found = Results.load(run).compare(Results.load(run))
    assert len(found.frame) == 2 * 2 + 2
    assert found.frame["verdict"].tolist() == [*[ALIKE] * 4, CONTROL, ALIKE]
    assert found.worse.empty
    quality = found.frame[found.frame["figure"].isin(["accuracy", "f1_macro"])]
    assert quality["paired"].all()
    assert (quality["change"] == 0).all()
    assert found.frame.loc[found.frame["figure"].str.startswith("latency"), "change"].tolist() == [1.0, 1.0]
    assert "<table" in found._repr_html_()


@pytest.mark.slow
def test_what_got_worse_and_better_is_said_with_status(run, tmp_path):
    """Correct predictions are better than those of an untrained model; the command exits with 1 only if something is
    worse.
    """
    right = changed(run, tmp_path / "right", predictions=[0] * 8 + [1] * 8 + [2] * 8)
    before = Results.load(run)
    better = before.compare(right, times=False)
    assert set(better.frame["verdict"]) == {"better"}
    worse = right.compare(before, times=False)
    assert set(worse.worse["figure"]) == {"accuracy", "f1_macro"}
    for pair, status in (((run, tmp_path / "right"), 0), ((tmp_path / "right", run), 1)):
        command = [sys.executable, "-m", "benchcard.cli", "compare", *map(str, pair), "--csv", "--quality-only"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert done.stdout.startswith("row_a,row_b,apply_quantization,figure,a,b,change")


def test_a_change_that_is_the_same_on_every_draw_is_told(run, tmp_path):
    """A change that is equal on every resample has a verdict without an interval; one that may be chance is not
    compared.
    """
    right = changed(run, tmp_path / "right", predictions=[0] * 8 + [1] * 8 + [2] * 8)
    wrong = changed(run, tmp_path / "wrong", predictions=[1] * 8 + [2] * 8 + [0] * 8)
    worse = right.compare(wrong, times=False).worse.set_index("figure")
    assert worse.loc["f1_macro", "change"].tolist() == [-1.0, -1.0]
    assert worse.loc["f1_macro", "change_low"].isna().all()
    assert set(wrong.compare(right, times=False).frame["verdict"]) == {"better"}
    assert compare._verdict(Interval(0.5, None, None), 0.0, True, False) == "not compared: no interval"


def test_what_else_differs_is_said(run, tmp_path):
    """Fixed parameters that differ are notes; the command exits with 2 for runs that cannot be compared."""
    shutil.copytree(run, tmp_path / "other")
    about = json.loads((tmp_path / "other" / "run.json").read_text())
    about["spec"]["fixed"]["duration"] = 3
    (tmp_path / "other" / "run.json").write_text(json.dumps(about))
    assert "`duration` is `0.2` in A and `3` in B" in Results.load(run).compare(Results.load(tmp_path / "other")).notes
    command = [sys.executable, "-m", "benchcard.cli", "compare", str(run), str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "holds no run" in done.stderr


def edited(run, target, change):
    """Return the results of a copy of a run whose `run.json` was changed by a function of its content."""
    shutil.copytree(run, target)
    about = json.loads((target / "run.json").read_text())
    change(about)
    (target / "run.json").write_text(json.dumps(about))
    return Results.load(target)


def renamed(about, name, digest):
    """Give the model of a run another name and content."""
    about["spec"]["fixed"]["name_or_path"] = name
    (source,) = about["sources"]["models"].values()
    about["sources"]["models"] = {name: {**source, "name": name, "digest": digest}}


def test_runs_of_two_models_or_tasks_are_refused(run, tmp_path, monkeypatch):
    """Two models or tasks have no better and worse; a model that was moved is the same, one that was trained on has a
    note.
    """
    before = Results.load(run)
    digest = before.records.info.sources.models["./model"].digest
    other = edited(run, tmp_path / "other", lambda about: renamed(about, "me/other", "0" * 64))
    with pytest.raises(
        BenchcardError, match=r"two models, `./model` in A and `me/other` in B.*benchmark both in one run"
    ):
        before.compare(other)
    moved = edited(run, tmp_path / "moved", lambda about: renamed(about, "../model", digest))
    assert before.compare(moved, times=False).frame["paired"].all()
    trained = edited(run, tmp_path / "trained", lambda about: renamed(about, "./model", "0" * 64))
    assert "the model `./model` has another content or revision in B" in before.compare(trained, times=False).notes
    spec = dataclasses.replace(before.spec, task="text-classification")
    plan = dataclasses.replace(before.plan, spec=spec)
    with pytest.raises(BenchcardError, match="two tasks, `image-classification` in A and `text-classification` in B"):
        before.compare(Results(dataclasses.replace(before.records, plan=plan)))


def test_figures_of_other_data_are_not_compared(run, tmp_path):
    """On other data no quality got better or worse; rows of the same data, from wherever, are compared."""

    def with_data(label, fingerprint, digest="0" * 64, **changes):
        def change(about):
            about["spec"]["fixed"]["dataset"] |= changes
            for source in about["sources"]["datasets"].values():
                source["digest"] = digest or source["digest"]

        results = edited(run, tmp_path / label, change)
        outcomes = [record.outcomes for record in Results.load(run).records.records]
        rows = []
        for record, outcome in zip(results.records.records, outcomes):
            values = dataclasses.replace(outcome.prepare.values, fingerprint=fingerprint)
            prepare = dataclasses.replace(outcome.prepare, values=values)
            rows.append(dataclasses.replace(record, outcomes=dataclasses.replace(outcome, prepare=prepare)))
        return Results(dataclasses.replace(results.records, records=tuple(rows)))

    before = Results.load(run)
    quality = before.compare(with_data("other", "other"), times=False)
    assert set(quality.frame["verdict"]) == {"not compared: other data"}
    assert quality.compared.empty
    same = before.records.records[0].outcomes.prepare.values.fingerprint
    assert before.compare(with_data("same", same), times=False).frame["paired"].all()
    column = with_data("column", same, ref_keys=["other"])
    assert set(before.compare(column, times=False).frame["verdict"]) == {"not compared: other data"}
    named = with_data("named", "other", digest=None, name="Beans of 2026")
    assert not before.compare(named, times=False).compared.empty
    part = with_data("part", "other", eval_split="train")
    assert set(before.compare(part, times=False).frame["verdict"]) == {"not compared: other data"}


def test_the_command_says_that_nothing_was_compared(run, tmp_path):
    """Where no figure has a verdict, the command says so and exits with 2, not as if all was well."""

    def other_data(about):
        about["spec"]["fixed"]["dataset"]["ref_keys"] = ["other"]

    edited(run, tmp_path / "other", other_data)
    done = CliRunner().invoke(main, ["compare", str(run), str(tmp_path / "other"), "--quality-only"])
    assert done.exit_code == 2, done.output
    assert "not compared: other data" in done.output
    assert "none of 4 figures can be compared" in done.output


def test_no_sentence_is_long(run, tmp_path):
    """Whatever differs between two runs, a note or message about it has at most some hundred characters."""
    before = Results.load(run)
    mapping = {f"label {number}": number for number in range(500)}
    change = dataclasses.replace(before.spec, fixed={**before.spec.fixed, "task_args": {"label_mapping": mapping}})
    after = dataclasses.replace(before.records, plan=dataclasses.replace(before.plan, spec=change))
    notes = before.compare(Results(after), times=False).notes
    assert any("`task_args` is not set in A and `{'label_mapping'" in note or "task_args" in note for note in notes)
    long = "x" * 3000
    rows = [dataclasses.replace(row, axes={"node_exclusion": [long]}) for row in before.plan]
    plan = dataclasses.replace(before.plan, configurations=tuple(rows) * 20)
    none = dataclasses.replace(before.records, plan=plan, records=())
    with pytest.raises(BenchcardError, match="no row in common") as error:
        before.compare(Results(none), times=False)
    assert max(map(len, [*notes, str(error.value)])) < 700


def test_times_of_two_machines_are_refused_unless_asked_for(run, tmp_path):
    """Times of two machines are refused with the names of both, unless quality alone is compared or times anyway."""
    before = Results.load(run)
    limited = changed(run, tmp_path / "limited", machine={"quota_cpus": 0.25})
    with pytest.raises(BenchcardError, match=r"two machines .*; .* a CPU quota of 0\.25\)"):
        before.compare(limited)
    other = changed(run, tmp_path / "other", machine={"processor": "Z80"})
    with pytest.raises(BenchcardError, match=r"Z80.*--across-machines"):
        before.compare(other)
    assert not before.compare(other, times=False).frame["figure"].str.startswith("latency").any()
    assert before.compare(other, across_machines=True).frame["figure"].str.startswith("latency").any()


def test_rows_of_one_run_alone_are_said(run):
    """A row without a counterpart is a note; runs without a common row cannot be compared."""
    before = Results.load(run)
    fewer = dataclasses.replace(before.records, records=before.records.records[:1])
    found = before.compare(Results(fewer), times=False)
    assert found.frame["row_a"].unique().tolist() == [0]
    assert any("row 1 of A" in note for note in found.notes)
    none = dataclasses.replace(before.records, records=())
    with pytest.raises(BenchcardError, match="no row in common"):
        before.compare(Results(none), times=False)


GONE = "worse: no figure in B"


def timed(run, baseline_ns, quantized_ns, seed=0, versions=None, digest=None, alone=False, dead=None):
    """Return the results of a run whose two rows have these latencies, with other versions, another baseline, no
    baseline, or a process that died.
    """
    records = Results.load(run).records
    rows, info = list(records.records), records.info
    if versions:
        info = dataclasses.replace(info, versions=versions)
    if digest:
        (shape, cell), *_ = rows[0].cells.items()
        rows[0] = dataclasses.replace(rows[0], cells={shape: dataclasses.replace(cell, digest=digest)})
    names = [row.cells[SHAPE].name for row in rows]
    failures = [died(names[dead])] if dead is not None else []
    part = made_part(dict(zip(names, (baseline_ns, quantized_ns))), seed=seed, failures=failures)
    part = dataclasses.replace(part, baseline=None) if alone else part
    parts = dict.fromkeys([(0, SHAPE), (1, SHAPE)], part)
    return Results(dataclasses.replace(records, records=tuple(rows), info=info, timed=parts))


def times_of(found):
    """Return the verdicts on the times of both rows, and how many times faster the second became."""
    frame = found.frame[found.frame["figure"] == f"latency_ms {SHAPE}"]
    return frame["verdict"].tolist(), frame["change"].tolist()[1]


def test_a_slower_day_is_no_slower_model(run):
    """If all models took 1.08 times as long, the baseline is the control, nothing is worse, and a note says so."""
    found = timed(run, 200_000, 100_000).compare(timed(run, 216_000, 108_000, seed=1))
    assert times_of(found) == ([CONTROL, ALIKE], pytest.approx(1, rel=0.01))
    assert found.worse.empty
    (note,) = found.notes
    assert note.startswith("the baseline took 1.08 times as long in B as in A, due to the machine: rows are compared")


@pytest.mark.parametrize("day", [1.0, 1.2])
def test_a_model_that_is_slower_beside_its_baseline_is_worse(run, day):
    """A model that gains less over its baseline is worse, and one that gains more is better, on any day."""
    before = timed(run, 200_000, 100_000)
    slower = before.compare(timed(run, day * 200_000, day * 105_000, seed=1))
    assert times_of(slower) == ([CONTROL, WORSE], pytest.approx(1 / 1.05, rel=0.01))
    assert slower.worse["row_a"].tolist() == [1]
    faster = before.compare(timed(run, day * 200_000, day * 95_000, seed=1))
    assert times_of(faster) == ([CONTROL, BETTER], pytest.approx(1 / 0.95, rel=0.01))


@pytest.mark.parametrize("other", [{"versions": {"onnxruntime": "9"}}, {"digest": "other"}])
@pytest.mark.parametrize(
    ("latencies", "verdict"),
    [
        ((260_000, 130_000), ALIKE),
        ((260_000, 100_000), ALIKE),
        ((200_000, 130_000), WORSE),
        ((200_000, 70_000), BETTER),
    ],
)
def test_after_an_upgrade_rows_must_move_further_than_the_baseline(run, other, latencies, verdict):
    """With other libraries or another baseline, a row differs only if it changed by more than the baseline; a note says
    so.
    """
    found = timed(run, 200_000, 100_000).compare(timed(run, *latencies, seed=1, **other))
    assert times_of(found) == ([CONTROL, verdict], pytest.approx(100_000 / latencies[1], rel=0.01))
    took = f"the baseline took {latencies[0] / 200_000:.2f} times as long in B as in A, due to the machine or to what"
    assert any(note.startswith(took) for note in found.notes)


def test_without_a_baseline_in_common_times_have_no_verdict(run):
    """If a run has no baseline, times have no verdict."""
    found = timed(run, 200_000, 100_000).compare(timed(run, 300_000, 150_000, alone=True))
    assert times_of(found) == ([NO_CONTROL] * 2, pytest.approx(1 / 1.5, rel=0.01))
    assert found.worse.empty
    assert "times without a baseline in common have no verdict" in found.notes[-1]


@pytest.mark.parametrize(("dead", "verdicts"), [(0, [GONE, NO_CONTROL]), (1, [CONTROL, GONE])])
def test_what_died_has_no_time(run, dead, verdicts):
    """A process that died in B has no figure there, and other rows have no control if it was the baseline's."""
    found = timed(run, 200_000, 100_000).compare(timed(run, 200_000, 100_000, seed=1, dead=dead))
    assert times_of(found)[0] == verdicts


def test_times_of_two_runs_are_compared_by_welch():
    """The interval is that of Welch's test on the logarithms of launch medians, as scipy computes it."""
    draw = np.random.default_rng(0)
    one, other = (
        {(launch, 0): float(np.exp(draw.normal(level, 0.05))) for launch in range(count)}
        for level, count in ((1.0, 7), (0.9, 5))
    )
    found = unpaired_ratio(one, other)
    logs = [np.log(list(each.values())) for each in (one, other)]
    expected = ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    assert found.value == pytest.approx(np.exp(logs[0].mean() - logs[1].mean()))
    assert (found.low, found.high) == (pytest.approx(np.exp(expected.low)), pytest.approx(np.exp(expected.high)))
    assert unpaired_ratio({(0, 0): 2.0}, {(0, 0): 1.0}) == Interval(pytest.approx(2.0), None, None)


def test_other_examples_are_compared_by_the_intervals_of_each():
    """Newcombe's worked example: 56 of 70 against 48 of 80 is 0.2, from 0.0524 to 0.3339 (his method 10, table II)."""
    from benchcard.measure.significance import wilson

    found = independent(wilson(48, 80), wilson(56, 70))
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))
    assert independent(Interval(1.0, None, None), Interval(2.0, 1.0, 3.0)) == Interval(1.0, None, None)


def test_a_loss_is_not_hidden_by_the_number_of_figures(run, tmp_path):
    """Five of 24 predictions became wrong and none right: a loss alone, but perhaps chance among four figures, so it
    `may be worse`.
    """
    right = [0] * 8 + [1] * 8 + [2] * 8
    before = changed(run, tmp_path / "before", predictions=right)
    after = changed(run, tmp_path / "after", predictions=[1] * 5 + right[5:])
    verdicts = before.compare(after, times=False).frame.set_index("figure")["verdict"]
    assert set(verdicts["accuracy"]) == {"may be worse"}
    assert set(after.compare(before, times=False).frame.set_index("figure")["verdict"]["accuracy"]) == {ALIKE}
