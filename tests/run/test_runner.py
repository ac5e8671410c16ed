"""A whole run of a tiny model: what comes out, and what the same command says of it afterwards."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_run import GRID, SPEC, spec_with

from benchcard import Benchmark, Card, Results, RoundEvent, RowEvent, StepEvent
from benchcard.analysis.frames.quality import PASS_METRICS
from benchcard.analysis.frames.time import NOT_ASKED
from benchcard.analysis.run_results import FRAMES
from benchcard.cli.commands import main
from benchcard.errors import BenchcardError, MachineError, SpecError
from benchcard.publishing import facts
from benchcard.quantization.outcomes import FAR_DB
from benchcard.run.runner import run_plan
from benchcard.utils.values import Shape


def test_every_row_is_there_with_figures(results):
    """All rows have an accuracy and, at both batch sizes, latencies; nothing failed."""
    assert len(results.quality) == 6
    assert results.quality["accuracy"].between(0, 1).all()
    assert (results.quality["samples"] == 24).all()
    assert len(results.time) == 12
    assert (results.time["latency_mean_ms"] > 0).all()
    assert (results.time["runs"] > 0).all()
    assert results.failures.empty


def test_fp32_agrees_with_pytorch_row_by_row(results):
    """Onnxruntime and pytorch see the same inputs in the same order and answer alike."""
    import numpy as np

    scores = []
    for row in (0, 5):
        folder = results.records.records[row].outcomes.evaluate.folder
        with np.load(folder / "predictions.npz") as kept:
            scores.append(kept["scores"])
    assert scores[0].shape == (24, 3)
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    assert results.quality["accuracy"][0] == results.quality["accuracy"][5]


def test_accuracy_is_that_of_the_predictions(results, ground):
    """The accuracy in the frame is the share of predictions that agree with the data set's labels."""
    import datasets
    import numpy as np

    labels = datasets.load_dataset(str(ground / "data"), split="validation")["label"][:]
    for record, accuracy in zip(results.records.records, results.quality["accuracy"]):
        with np.load(record.outcomes.evaluate.folder / "predictions.npz") as kept:
            assert accuracy == np.mean(kept["predictions"] == np.asarray(labels))


def test_throughput_is_samples_in_elapsed_seconds(results):
    """Throughput counts samples, so a batch of three counts three, over the time that really went by."""
    time = results.time
    expected = time["runs"] * time["batch_size"] / time["elapsed_s"]
    assert (time["throughput_per_s"] / expected - 1).abs().max() < 1e-9


def test_latencies_are_kept_raw(results):
    """Every call's latency is on disk; their mean is the mean of the frame."""
    import numpy as np

    for record in results.records.records:
        for cell in record.cells.values():
            part = results.records.parts[cell.name][0]
            raw = np.concatenate(
                [
                    block.latencies_ns
                    for timed in part.rounds
                    for block in timed.blocks
                    if block.name == cell.name and not block.twin
                ]
            )
            shown = results.time[
                (results.time["row"] == record.configuration.row)
                & (results.time["batch_size"] == cell.shape.batch_size)
            ]
            assert len(raw) == shown["runs"].iloc[0]
            assert raw.mean() / 1e6 == pytest.approx(shown["latency_mean_ms"].iloc[0])


def test_threads_and_level_reached_the_runtime(results):
    """What the timed processes read back from their runtimes is what was asked."""
    asked = 0
    for parts in results.records.parts.values():
        for opened in parts[0].outcome.opened:
            assert opened.facts["intra_op_num_threads"] == 1
            asked += 1
            if "optimization_level" in opened.facts:
                assert opened.facts["optimization_level"] == 1
    assert asked


def test_the_graph_has_the_asked_opset_and_was_compared(results):
    """The exported graph has opset 13, and the record says how near it is to PyTorch, at which shapes."""
    import onnx

    export = results.records.records[0].outcomes.export
    graph = onnx.load(export.folder / export.values.file)
    assert [entry.version for entry in graph.opset_import if entry.domain == ""] == [13]
    assert results.models["opset"].dropna().unique().tolist() == [13]
    assert 0 <= results.models["export_max_abs_difference"].dropna().max() < 1e-4


def test_a_model_is_measured_once(results):
    """Dynamic quantization of `Add` changes nothing: the row is the fp32 model, evaluated once and timed once."""
    quality = results.quality
    same = quality[
        (quality["quantization_approach"] == "dynamic")
        & quality["operators_to_quantize"].map(lambda operators: operators == ["Add"])
    ]
    assert same["same_model_as"].tolist() == [0]
    rows = results.records.records
    assert rows[2].outcomes.evaluate.folder == rows[0].outcomes.evaluate.folder
    assert rows[2].cells[Shape(1)].name == rows[0].cells[Shape(1)].name


def test_a_pass_is_timed_for_the_threads_that_it_had(ground, tmp_path):
    """Rows that differ in threads alone share one evaluation: the second has its quality and its kernels, and neither
    the time of the pass nor any share of it.
    """
    threads = "framework_args: [{intra_op_num_threads: 1}, {intra_op_num_threads: 2}]"
    text = f"grid: {{{threads}}}\nduration: 0\nexplain: false\n"
    results = Benchmark.from_spec(spec_with(ground, SPEC + text)).run(tmp_path / "run", progress=False)
    quality = results.quality
    first, second = (record.outcomes.evaluate for record in results.records.records)
    assert first.folder == second.folder
    assert quality["accuracy"].nunique() == 1
    assert quality["samples"].tolist() == [24, 24]
    for name in PASS_METRICS:
        assert quality[name].notna().tolist() == [True, False]
    kernels, models = results.kernels, results.models
    assert kernels.groupby("row")["nodes"].sum().nunique() == 1
    assert kernels.groupby("row")["time_share"].agg(lambda shares: shares.notna().all()).tolist() == [True, False]
    assert models["conversion_share"].notna().tolist() == [True, False]
    assert models["nodes_in_8_bits"].notna().all()
    assert "is only known of another row, with `intra_op_num_threads` 1." in results.explain(1)
    assert "Time of a call: " not in results.explain(1)
    assert "Time of a call: " in results.explain(0)
    assert repr(results.explain(0)) == str(results.explain(0))


# Not every version has a kernel for `ConvInteger` of signed weights.
TWO_WAYS = """
grid: {duration: [0.2, 1.0], apply_quantization: [true, false], quantization_approach: [dynamic]}
fixed: {weights_dtype: uint8}
explain: false
"""


@pytest.mark.slow
def test_rows_that_are_timed_in_two_ways_have_times_of_their_own(ground, tmp_path):
    """The same cells, timed for as long as each row asks: a row has figures and raw latencies of its own."""
    from benchcard.publishing import bundle

    results = Benchmark.from_spec(spec_with(ground, SPEC + TWO_WAYS)).run(tmp_path / "run", progress=False)
    cells = [record.cells[Shape(1)].name for record in results.records.records]
    assert cells[:2] == cells[2:]
    time = results.time
    quantized = time[time["apply_quantization"]]
    assert (quantized["elapsed_s"] - quantized["duration"]).between(0, 0.4).all()
    raw = bundle.latencies_frame(results)
    assert raw[~raw["twin"]].groupby("row").size().tolist() == time["runs"].tolist()
    card = results.card()
    assert "Time benchmarks were run for" not in card.text
    back = Results.from_card(card.save(tmp_path / "README.md"))
    assert back.spec.grid["duration"] == [0.2, 1.0]
    assert "duration" not in back.spec.fixed
    shown = CliRunner().invoke(main, ["show", str(results.path)])
    assert shown.exit_code == 0, shown.output
    assert "best: row" in shown.output


@pytest.mark.slow
def test_what_was_timed_beside_a_baseline_that_died_is_timed_anew(ground, tmp_path):
    """Rounds without a baseline give no ratio: none of them counts when it is tried again."""
    from benchcard.measure.blocks import read_rounds

    text = "grid: {apply_quantization: [true, false]}\nfixed: {weights_dtype: uint8}\nduration: 0.2\nexplain: false\n"
    benchmark = Benchmark.from_spec(spec_with(ground, SPEC + text))
    benchmark.run(tmp_path / "run", progress=False)
    (path,) = (tmp_path / "run").glob("times/*/part-*/outcome.json")
    told = json.loads(path.read_text())
    died = {"name": told["baseline"], "twin": False, "stage": "time", "type": "Died", "message": "", "log": ""}
    path.write_text(json.dumps({**told, "failures": [died]}))
    ended = max(block.started_ns for each in read_rounds(path.with_name("rounds.bin")) for block in each.blocks)
    results = benchmark.run(tmp_path / "run", progress=False)
    again = read_rounds(path.with_name("rounds.bin"))
    assert min(block.started_ns for each in again for block in each.blocks) > ended
    assert results.time["ratio"].notna().all()
    assert not len(results.failures)


@pytest.mark.parametrize("is_left", [True, False])
def test_a_second_process_of_the_baseline_that_died_is_told(results, ground, tmp_path, monkeypatch, is_left):
    """The noise certificate, the failures and the card say that it failed, and of how many rounds the floor is; no row
    lacks figures for it.
    """
    import shutil

    from benchcard.measure.blocks import append_round, read_rounds

    shutil.copytree(results.path, tmp_path / "run")
    path = min((tmp_path / "run").glob("times/*/part-*/outcome.json"))
    told = json.loads(path.read_text())
    died = {"name": told["baseline"], "twin": True, "stage": "time", "type": "Died", "log": "the end"}
    path.write_text(json.dumps({**told, "failures": [{**died, "message": "ended by SIGKILL"}]}))
    rounds = path.with_name("rounds.bin")
    timed = read_rounds(rounds)
    rounds.unlink()
    for each in timed:
        is_dead = each.number or not is_left
        append_round(rounds, replace(each, blocks=tuple(one for one in each.blocks if not (one.twin and is_dead))))
    found = Results.load(tmp_path / "run")
    floor = f"the noise floor is of 1 of {len(timed)} rounds" if is_left else "there is no noise floor"
    said = f"the second process of the baseline failed (time: Died): {floor}"
    (noise,) = found.noise[found.noise["warnings"].str.contains("second process")].to_dict("records")
    assert said in noise["warnings"]
    assert (str(noise["ratio"]) in ("nan", "None", "<NA>")) is not is_left
    (failure,) = found.failures.to_dict("records")
    assert (failure["row"], failure["type"], failure["log"]) == (found.baseline, "Died", "the end")
    assert failure["missing"] == f"noise floor batch {noise['batch_size']}"
    assert failure["message"] == "time: ended by SIGKILL"
    assert said in found.card().text.replace("\\", "")
    monkeypatch.setattr(Benchmark, "run", lambda self, *path, **more: found)
    done = CliRunner().invoke(main, ["run", str(ground / "spec.yaml"), "--quiet"])
    assert said in done.output
    assert "figures: " not in done.output
    assert "with failures" not in repr(found)
    assert found.time["latency_mean_ms"].notna().all()


def test_what_runs_is_told_row_by_row(results):
    """Each row of onnxruntime has the kernels that its level leaves, and their shares of time make a whole: of dynamic
    rows some compute in 8 bits, of static rows at level 1 none; of PyTorch nothing is known.
    """
    kernels, models = results.kernels, results.models.set_index("row")
    assert set(kernels["row"]) == {0, 1, 2, 3, 4}
    assert kernels.groupby("row")["time_share"].sum().tolist() == pytest.approx([1] * 5)
    assert set(kernels[kernels["row"] == 0]["numbers"]) == {"float", "other"}
    approaches, quantized = models["quantization_approach"], models["nodes_quantized"].fillna(0)
    for row, model in models.iloc[:5].iterrows():
        is_dynamic = approaches[row] == "dynamic" and quantized[row] > 0
        assert (model["nodes_in_8_bits"] > 0) == is_dynamic
        assert (model["conversion_share"] > 0) == (quantized[row] > 0)
        assert ("None of them computes in 8 bits" in results.explain(row)) == (approaches[row] == "static")
        assert "Time of a call: " in results.explain(row)
    assert models[["nodes_in_8_bits", "conversion_share"]].iloc[5].isna().all()


def test_calibration_rows_are_drawn_by_class(results, ground):
    """The calibration samples come from all classes alike although the split is sorted, and their numbers are
    recorded.
    """
    import datasets

    sample = next(record.outcomes.sample for record in results.records.records if record.outcomes.sample)
    labels = datasets.load_dataset(str(ground / "data"), split="train")["label"]
    drawn = [labels[row] for row in sample.values.rows]
    assert sorted(drawn) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(sample.values.rows_digest) == 64


def test_the_same_command_again_does_nothing_again(results, ground):
    """A finished run is read, not repeated."""
    before = {
        path: path.stat().st_mtime_ns
        for path in (ground / "run").rglob("*")
        if path.is_file() and path.name not in ("lock", "README.md", "job.json")
    }
    again = Benchmark.from_spec(ground / "spec.yaml").run(ground / "run", progress=False)
    after = {
        path: path.stat().st_mtime_ns
        for path in (ground / "run").rglob("*")
        if path.is_file() and path.name not in ("lock", "README.md", "job.json")
    }
    assert after == before
    assert again.quality.equals(results.quality)
    assert Results.load(ground / "run").time.equals(results.time)


@pytest.mark.slow
def test_the_steps_of_some_rows_are_those_of_the_whole_run(results, ground, tmp_path):
    """Untimed rows do what they lack, and what their comparison lacks, with the keys of the whole grid; nothing is
    timed. A static row finds the calibration for the operators of all. A baseline has the data of all rows read.
    """
    import shutil

    run = tmp_path / "run"
    shutil.copytree(results.path, run)
    lacking = ("sample", "quantize", "evaluate", "score", "compare")
    for path in [*run.glob("times/*"), *(run / "steps").iterdir()]:
        if path.parent.name == "times" or path.name.partition("-")[0] in lacking:
            shutil.rmtree(path)
    plan = Benchmark.from_spec(ground / "spec.yaml").configurations
    (row,) = (
        row for row in plan if row["quantization_approach"] == "static" and row["operators_to_quantize"] == ["Add"]
    )

    def made_by(number):
        before = {path.name for path in (run / "steps").iterdir()}
        run_plan(plan, run, rows=[number], timed=False, progress=False)
        made = {path.name for path in (run / "steps").iterdir()} - before
        assert made <= {path.name for path in (results.path / "steps").iterdir()}
        assert not any((run / "times").iterdir())
        return sorted(name.partition("-")[0] for name in made)

    assert made_by(row.baseline) == ["compare", "evaluate", "sample", "score"]
    assert made_by(row.row) == ["compare", "evaluate", "quantize", "score"]


def test_damaged_rounds_are_said_and_timed_again(results, ground, tmp_path):
    """A byte that changed in the raw latencies is noticed, never averaged over, and the same command mends it."""
    import shutil

    shutil.copytree(ground / "run", tmp_path / "run")
    path = next((tmp_path / "run").glob("times/*/part-0/rounds.bin"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(BenchcardError, match="damaged"):
        Results.load(tmp_path / "run")
    mended = Benchmark.from_spec(ground / "spec.yaml").run(tmp_path / "run", progress=False)
    assert mended.time["latency_mean_ms"].notna().all()


def test_a_broken_outcome_is_said(results, ground, tmp_path):
    """JSON that is no outcome is an error that names the file."""
    import shutil

    shutil.copytree(ground / "run", tmp_path / "run")
    path = next((tmp_path / "run" / "steps").glob("export-*/outcome.json"))
    for content in ("{}", "[]", "{"):
        path.write_text(content)
        with pytest.raises(BenchcardError, match="outcome"):
            Results.load(tmp_path / "run")


def test_the_layers_are_told_and_how_sure_that_is(results, ground, tmp_path):
    """Layers are searched where the outputs are far off. `explain` names them to paste, and says what was not tried."""
    import shutil

    shutil.copytree(ground / "run", tmp_path / "run")
    row = next(record for record in results.records.records if record.outcomes.explain)
    path = tmp_path / "run" / "steps" / row.outcomes.explain.folder.name / "outcome.json"
    kept = json.loads(path.read_text())
    assert kept["values"]["outputs"]["snr_db"] > FAR_DB
    assert (kept["values"]["layers"], kept["values"]["trials"]) == ([], 0)
    worst, far = "/a/MatMul", {"snr_db": 12.0, "max_abs_difference": 1.0, "is_finite": True}
    layer = {"node": worst, "operator": "MatMul", "effect": far, "alone": far, "together": far}
    for outputs, complete, said, paste in (
        ({"snr_db": 30.0, "max_abs_difference": 0.1, "is_finite": True}, True, "cost its outputs most: ", False),
        ({"snr_db": 9.0, "max_abs_difference": 2.0, "is_finite": True}, False, "as far as 7 trials can tell: ", True),
        ({"snr_db": None, "max_abs_difference": None, "is_finite": False}, True, "Some of its outputs are not f", True),
    ):
        kept["values"] |= {"outputs": outputs, "layers": [layer], "is_complete": complete, "trials": 7}
        path.write_text(json.dumps(kept))
        told = Results.load(tmp_path / "run").explain(row.configuration.row)
        assert said in told
        assert f"`{worst}`" in told
        assert (f'node_exclusion: ["{worst}"' in told) == paste
        assert ("as far as" in told) != complete


def test_a_run_of_another_spec_is_refused(results, ground):
    """Another spec may not write into a run directory."""
    other = spec_with(ground, SPEC + GRID.replace("0.2", "0.3"))
    with pytest.raises(SpecError, match=r"fixed\.duration"):
        Benchmark.from_spec(other).run(ground / "run", progress=False)


def test_a_changed_model_is_refused(results, ground, monkeypatch):
    """A model that is no longer the one with which the run was begun is noticed."""
    config = ground / "model" / "config.json"
    before = config.read_text()
    config.write_text(before.replace('"layer_norm_eps"', '"layer_norm_eps "'))
    try:
        with pytest.raises(SpecError, match="it has changed"):
            Benchmark.from_spec(ground / "spec.yaml").run(ground / "run", progress=False)
    finally:
        config.write_text(before)


def test_other_libraries_and_machines_are_refused(results, ground, monkeypatch):
    """Numbers of other library versions or another processor are never put beside those of a run."""
    from benchcard.measure import machine
    from benchcard.run import environment as checks
    from benchcard.run import runner

    real = machine.versions()
    monkeypatch.setattr(checks, "library_versions", lambda further: {**real, "onnxruntime": "0.1"})
    with pytest.raises(MachineError, match="onnxruntime"):
        Benchmark.from_spec(ground / "spec.yaml").run(ground / "run", progress=False)
    monkeypatch.setattr(checks, "library_versions", lambda further: real)
    for other, said in (({"processor": "Z80"}, "Z80"), ({"quota_cpus": 0.25}, r"this is .* a CPU quota of 0\.25\)")):
        here = replace(machine.this_machine(), **other)
        monkeypatch.setattr(runner, "this_machine", lambda here=here: here)
        with pytest.raises(MachineError, match=said):
            Benchmark.from_spec(ground / "spec.yaml").run(ground / "run", progress=False)


@pytest.mark.usefixtures("results")
def test_an_opset_that_cannot_be_had_is_a_failed_row(ground, tmp_path):
    """A graph that is taken as it is and has another opset fails its row, and says which opset it has."""
    import shutil

    model = tmp_path / "given"
    shutil.copytree(ground / "model", model)
    export = next((ground / "run" / "steps").glob("export-*/model.onnx"))
    (model / "onnx").mkdir()
    shutil.copy(export, model / "onnx" / "model.onnx")
    text = (
        SPEC.replace("./model", str(model)).replace("./data", str(ground / "data"))
        + "from_transformers: false\nduration: 0\ngrid: {framework_args.opset: [13, 17]}\n"
    )
    results = Benchmark.from_spec(spec_with(tmp_path, text)).run(tmp_path / "run", progress=False)
    assert results.quality["accuracy"].notna().tolist() == [True, False]
    assert "has opset 13" in results.failures["message"][0]


@pytest.mark.slow
@pytest.mark.usefixtures("results")
def test_a_given_graph_that_is_quantized_is_scored_one_by_one(ground, tmp_path):
    """A graph that takes its scales over the whole batch has the same accuracy whoever quantized it: each example is
    given to it alone.
    """
    import shutil

    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = tmp_path / "given"
    shutil.copytree(ground / "model", model)
    (model / "onnx").mkdir()
    export = next((ground / "run" / "steps").glob("export-*/model.onnx"))
    quantize_dynamic(export, model / "onnx" / "model.onnx", weight_type=QuantType.QInt8)
    text = (
        SPEC.replace("./model", str(model)).replace("./data", str(ground / "data"))
        + "from_transformers: false\nduration: 0\n"
    )
    found = Benchmark.from_spec(spec_with(tmp_path, text)).run(tmp_path / "run", progress=False)
    told = json.loads(next((tmp_path / "run" / "steps").glob("evaluate-*/outcome.json")).read_text())
    assert told["asked"]["batch_size"] == 1
    assert found.quality["accuracy"].notna().all()


def test_results_outlive_a_change_of_the_working_directory(ground, monkeypatch, tmp_path, results):
    """What was loaded from a relative path reads its files from there, wherever the process has gone since."""
    monkeypatch.chdir(ground)
    loaded = Results.load("run")
    monkeypatch.chdir(tmp_path)
    assert loaded.quality.equals(results.quality)
    assert loaded.best().row == results.best().row
    assert loaded.card().text


def test_every_figure_of_time_has_its_interval(results):
    """Percentiles, throughput, ratio and drift stand between their bounds; threads and spinning are what was read
    back; the certificate has the machine beside the floor.
    """
    time = results.time
    for name in ("latency_mean_ms", "latency_p50_ms", "latency_p90_ms", "throughput_per_s", "ratio"):
        assert (time[f"{name}_low"] <= time[name]).all()
        assert (time[name] <= time[f"{name}_high"]).all()
    assert time["drift"].notna().all()
    assert set(time["threads"]) == {1}
    assert set(time["spinning"][time["framework"] == "onnxruntime"]) == {True}
    assert results.noise["ratio"].notna().all()
    assert set(results.noise["launches"]) == {2}
    assert results.noise["warnings"].str.contains("launched only 2 times").all()
    assert (results.noise["others_cpus"].dropna() >= 0).all()
    torch = {
        opened.facts["torch_imported"]
        for record in results.records.records
        if record.configuration["framework"] == "onnxruntime"
        for cell in record.cells.values()
        for opened in results.records.parts[cell.name][0].opened(cell.name)
    }
    assert torch == {False}


def test_every_model_has_its_size(results, ground):
    """A model in PyTorch is as large as its weights on disk, an ONNX model as its file."""
    sizes = dict(zip(results.models["framework"], results.models["size_mb"]))
    assert sizes["pytorch"] == (ground / "model" / "model.safetensors").stat().st_size / 1e6
    assert results.models["size_mb"].notna().all()


def test_nothing_timed_is_said_and_the_rest_works(ground, tmp_path):
    """With `duration: 0` every row of time says why it is empty; the choice and the card are there all the same."""
    results = Benchmark.from_spec(spec_with(ground, SPEC + "duration: 0\nbatch_sizes: [1, 2]\n")).run(
        tmp_path / "run", progress=False
    )
    assert results.time["failure"].tolist() == [NOT_ASKED] * 2
    assert results.time["batch_size"].tolist() == [1, 2]
    assert results.failures.empty
    assert results.noise.empty
    assert results.notes == ("not timed: `duration` is 0",)
    assert "nothing was timed" in results.best().reason
    assert "Time metrics" not in results.card("classic").text


def test_the_card_of_a_run_is_valid_for_the_hub(results, tmp_path):
    """The card names every row in both tables, has no problem that the Hub would refuse, and no local path in its front
    matter.
    """
    card = results.card()
    assert [problem for problem in card.problems() if problem.severity == "error"] == []
    assert card.front_matter["pipeline_tag"] == "image-classification"
    assert "base_model" not in card.front_matter
    assert "datasets" not in card.front_matter
    assert results.card("classic").text.count("| `onnxruntime` |") == 5 * 3
    path = card.save(tmp_path / "README.md")
    assert path.read_text(encoding="utf-8") == card.merge_into("", card.slug).text
    (picture,) = card.files
    assert (tmp_path / picture).read_bytes() == card.files[picture]
    back = card.facts()
    assert [row.parameters for row in back.rows] == [dict(row.axes) for row in results.plan]
    assert [row.same_model_as for row in back.rows] == [None, None, 0, None, None, None]
    assert len(back.shapes) == 2
    assert (back.baseline, back.chosen) == (results.baseline, results.best().row)
    assert str(tmp_path.parent) not in card.text


def test_results_are_exported(results, tmp_path):
    """CSV and JSON hold the frames; both reprs show them."""
    import pandas as pd

    written = results.to_csv(tmp_path)
    assert [path.name for path in written] == [f"{name}.csv" for name in FRAMES]
    assert pd.read_csv(tmp_path / "quality.csv")["accuracy"].tolist() == results.quality["accuracy"].tolist()
    told = json.loads(json.dumps(results.to_json()))
    assert len(told["time"]) == 12
    assert len(told["kernels"]) == len(results.kernels)
    assert "accuracy" in repr(results)
    assert "<table" in results._repr_html_()


def test_the_best_is_never_empty_handed(results):
    """The choice names a row, its parameters and a reason; an unknown metric is refused."""
    best = results.best()
    assert best.row in results.quality["row"].tolist()
    assert best.reason
    assert results.best(max_drop=1.0).row is not None
    for objective in ("latency", "memory", "size"):
        chosen = results.best(objective=objective)
        assert (chosen.objective, chosen.metric) == (objective, "accuracy")
        assert {each.row for each in chosen.alternatives} | {chosen.row, chosen.baseline} == set(range(6))
        front = results.pareto(objective=objective)
        assert len(front)
        assert set(front["row"]) <= set(range(6))
    sizes = results.models.set_index("row")["size_mb"]
    smallest = results.best(max_drop=1.0, objective="size")
    assert sizes[smallest.row] == sizes.min()
    assert (smallest.gain is None) == (smallest.row == smallest.baseline)
    with pytest.raises(BenchcardError, match="accuracy"):
        results.best(metric="f1")
    with pytest.raises(BenchcardError, match="did you mean `latency`"):
        results.best(objective="latancy")


@pytest.mark.slow
def test_the_command_line_runs_and_shows(results, ground, tmp_path):
    """`run` on a finished directory prints card and best; `show` and `card` read it; statuses are as documented."""

    def benchcard(*arguments, status=0):
        done = subprocess.run(
            [sys.executable, "-m", "benchcard.cli", *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    said = benchcard("run", ground / "spec.yaml", "--out", ground / "run", "--quiet")
    assert f"card: {ground / 'run' / 'README.md'}" in said
    assert "best: row" in said
    for frame in FRAMES:
        assert benchcard("show", ground / "run", "--csv", frame) == getattr(results, frame).to_csv(index=False)
    assert len(json.loads(benchcard("show", ground / "run", "--json"))["quality"]) == 6
    shown = benchcard("show", ground / "run")
    assert "Quality" in shown
    assert "framework_args: {'opset': 13, 'optimization_level': 1, 'intra_op_num_threads': 1} in rows 0, 1, 2" in shown
    assert "; {} in row 5" in shown
    assert benchcard("card", ground / "run") == results.card().text
    benchcard("card", ground / "run", "-o", tmp_path / "CARD.md")
    card = results.card()
    assert (tmp_path / "CARD.md").read_text() == card.merge_into("", card.slug).text
    assert "Traceback" not in benchcard("show", tmp_path, status=1)
    assert "mistake" in benchcard(
        "run", spec_with(ground, "task: x\n", "bad.yaml"), "--out", tmp_path / "new", status=2
    )
    assert not (tmp_path / "new").exists()
    assert "is no" not in benchcard("plan", ground / "spec.yaml")
    assert "Traceback" in benchcard("--debug", "show", tmp_path, status=1)


def test_a_run_reports_each_step_row_and_round(results, ground, tmp_path):
    """A function gets an event for each step that is done, for each row and for each recorded round."""
    import shutil

    from benchcard.measure.blocks import read_rounds

    path = tmp_path / "run"
    shutil.copytree(results.path, path)
    shutil.rmtree(min((path / "times").iterdir()))
    others = set(path.glob("times/*/part-*/rounds.bin"))
    scores = list((path / "steps").glob("score-*"))
    for folder in scores:
        shutil.rmtree(folder)
    events = []
    Benchmark.from_spec(ground / "spec.yaml").run(path, progress=events.append)
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert [event.kind for event in steps] == ["score"] * len(scores) + ["time"]
    assert (steps[-1].done, steps[-1].left_s) == (steps[-1].total, 0)
    assert not any(event.failures for event in steps)
    rows = [event for event in events if isinstance(event, RowEvent)]
    assert [(event.row, event.rows, event.failures) for event in rows] == [(row, 6, ()) for row in range(6)]
    assert [event.label for event in rows] == [row.label for row in results.plan]
    rounds = [event for event in events if isinstance(event, RoundEvent)]
    (file,) = set(path.glob("times/*/part-*/rounds.bin")) - others
    assert [event.number for event in rounds] == [timed.number for timed in read_rounds(file)]
    done_s = [event.done_s for event in rounds]
    assert done_s == sorted(done_s)
    assert 0 < done_s[0] < done_s[-1] <= rounds[-1].total_s
    assert events.index(rows[-1]) < events.index(rounds[0])
    assert str(rows[0]).startswith("row 0 (framework=onnxruntime")


def test_one_drop_is_allowed_everywhere(results, ground, tmp_path):
    """`run`, `show` and `card` with `--max-drop`, and the card that `run` writes, go by the same choice; without it, it
    is a point of the metric.
    """
    import shutil

    from click.testing import CliRunner

    from benchcard.cli.commands import main

    def benchcard(*arguments):
        done = CliRunner().invoke(main, [*map(str, arguments)])
        assert done.exit_code == 0, done.output
        return done.output

    path = tmp_path / "run"
    shutil.copytree(results.path, path)
    best, card = results.best(max_drop=1.0), results.card(max_drop=1.0)
    assert best.reason != results.best().reason
    assert f"best: {best}" in benchcard("run", ground / "spec.yaml", "--out", path, "--quiet", "--max-drop", 1)
    assert Card.load(path / "README.md").facts().reasons == card.facts().reasons
    assert benchcard("card", path, "--max-drop", 1) == card.text
    assert best.explain() in benchcard("show", path, "--max-drop", 1)
    assert results.best() == results.best(max_drop=0.01)
    assert benchcard("card", path) == results.card(max_drop=0.01).text


NO_DROPS = [(math.nan, "NaN"), (math.inf, "Infinity"), (-0.5, "-0.5"), ("much", '"much"'), (True, "true")]


@pytest.mark.parametrize(("max_drop", "shown"), [*NO_DROPS, (10**400, "10{76}[.]{3}")])
def test_what_may_be_lost_is_a_number(results, max_drop, shown):
    """Anything but a finite number of at least 0 is refused in words, wherever it is given."""
    for ask in (
        results.best,
        lambda drop: results.card(max_drop=drop),
        lambda drop: results.push_to_hub("a/b", max_drop=drop),
    ):
        with pytest.raises(BenchcardError, match=f"expected a number of at least 0, found {shown} @ max_drop"):
            ask(max_drop)


@pytest.mark.parametrize(("max_drop", "shown"), NO_DROPS[:3])
@pytest.mark.parametrize("command", ["run", "show", "card", "push"])
def test_the_command_line_refuses_a_drop_before_anything_is_run(tmp_path, command, max_drop, shown):
    """A mistake in `--max-drop` is told at once, with the status of a mistake."""
    repo = ["a/b"] if command == "push" else []
    done = CliRunner().invoke(main, [command, str(tmp_path), *repo, "--max-drop", str(max_drop)])
    assert done.exit_code == 2
    assert f"expected a number of at least 0, found {shown}" in done.output


def test_numbers_of_other_libraries_may_be_lost(results):
    """A drop of numpy or of fractions is a number as any other."""
    import numpy as np

    assert results.best(np.float32(0.5)).max_drop == results.best(Fraction(1, 2)).max_drop == 0.5
    assert results.best(np.int64(1)).max_drop == 1


def test_a_long_name_of_data_still_names_a_section(results, monkeypatch):
    """Data may have a name of any length: the section's is cut to what can name one."""
    monkeypatch.setitem(results.plan[0]["dataset"], "name", "d" * 255)
    assert facts.default_slug(results) == f"{'d' * 80}-{results.spec.digest[:8]}"


def test_a_point_of_a_metric_in_percent_is_one(results, monkeypatch):
    """What may be lost where nobody says follows from the unit that the record has."""
    for record in results.records.records:
        readings = record.outcomes.score.values.readings
        monkeypatch.setitem(readings, "accuracy", replace(readings["accuracy"], unit="%"))
    assert results.best().max_drop == 1.0
    assert facts.make_facts(results).reasons == (results.best(max_drop=1.0).reason,)


def test_numbers_of_given_names(ground):
    """Relative paths of a spec start at its folder, wherever the command is given."""
    assert Benchmark.from_spec(ground / "spec.yaml").spec.local_path("./model") == Path(ground / "model").resolve()


def test_quality_has_intervals_and_paired_tests(results):
    """Accuracy has Wilson's interval and McNemar's test against row 0 on the same examples, from kept predictions."""
    import numpy as np
    from scipy.stats import binomtest

    frame = results.quality.set_index("row")
    kept = [
        np.load(record.outcomes.evaluate.folder / "predictions.npz")["predictions"]
        for record in results.records.records
    ]
    labels = np.asarray([0] * 8 + [1] * 8 + [2] * 8)
    for row, predictions in enumerate(kept):
        right = predictions == labels
        bounds = binomtest(int(right.sum()), 24).proportion_ci(0.95, "wilson")
        assert (frame.loc[row, "accuracy_low"], frame.loc[row, "accuracy_high"]) == (bounds.low, bounds.high)
        if row == 0:
            continue
        better, worse = ((right & ~(kept[0] == labels)).sum(), (~right & (kept[0] == labels)).sum())
        assert frame.loc[row, "accuracy_difference"] == (better - worse) / 24
        changed = int(better + worse)
        expected = binomtest(int(better), changed).pvalue if changed else 1.0
        assert frame.loc[row, "accuracy_p_value"] == expected
        assert frame.loc[row, "predictions_changed"] == (predictions != kept[0]).sum()
        assert frame.loc[row, "accuracy_detectable_difference"] >= 6 / 24
    assert frame["accuracy_difference"].isna().tolist() == [True] + [False] * 5
    assert frame["not_compared"].isna().all()


def test_fidelity_is_that_of_the_kept_outputs(results):
    """The divergence of each row is scipy's, of the softmax of kept logits; the baseline has none. What the card shows
    is read back into a frame.
    """
    import numpy as np
    from scipy.special import softmax
    from scipy.stats import entropy

    frame = results.quality.set_index("row")
    kept = [
        softmax(np.load(record.outcomes.evaluate.folder / "predictions.npz")["scores"].astype(np.float64), axis=-1)
        for record in results.records.records
    ]
    for row in range(1, 6):
        expected = entropy(kept[0], kept[row], axis=-1)
        assert frame.loc[row, "kl_mean"] == pytest.approx(expected.mean(), rel=1e-6, abs=1e-13)
        assert frame.loc[row, "kl_max"] == pytest.approx(expected.max(), rel=1e-6, abs=1e-13)
        assert frame.loc[row, "agreement"] == pytest.approx(1 - frame.loc[row, "predictions_changed"] / 24)
        counts = frame.loc[row, ["lost", "gained", "swapped"]].sum()
        assert counts == frame.loc[row, "predictions_changed"]
        ratio = frame.loc[row, "accuracy"] / frame.loc[0, "accuracy"]
        assert frame.loc[row, "recovery"] == pytest.approx(100 * ratio)
        assert frame.loc[row, "recovery_low"] <= frame.loc[row, "recovery"] <= frame.loc[row, "recovery_high"]
    closeness = ["kl_mean", "kl_p99", "agreement", "lost", "recovery"]
    assert frame.loc[0, closeness].isna().all()
    shown = read_quality(results)
    for name in closeness:
        assert shown[name].astype(float).tolist() == pytest.approx(
            frame[name].astype(float).tolist(), rel=0.01, abs=1e-3 if name != "kl_mean" else 1e-12, nan_ok=True
        )


def read_quality(results):
    """Return the frame of quality that the card of a run gives, read as text."""
    from benchcard import Results

    return Results.from_card(results.card().text).quality.set_index("row")


def test_what_a_row_saves(results):
    """Bits of weights are those of the types, with scales; size and memory saved are in % of the baseline's."""
    models, time = results.models.set_index("row"), results.time
    onnx = models["framework"] == "onnxruntime"
    quantized = models["apply_quantization"] == True  # noqa: E712
    assert models.loc[0, "bits_per_weight"] == 32
    assert models.loc[quantized, "bits_per_weight"].between(4, 40).all()
    assert models.loc[~onnx, "bits_per_weight"].isna().all()
    expected = 100 * (1 - models["size_mb"] / models["size_mb"][0])
    assert models["size_saved"].tolist() == pytest.approx(expected.tolist())
    memory = time[time["batch_size"] == 1].set_index("row")
    expected = 100 * (1 - memory["memory_mb"] / memory["memory_mb"][0])
    assert memory["memory_saved"].tolist() == pytest.approx(expected.tolist())


def test_a_limit_of_fidelity_holds_everywhere(results):
    """`best`, `choices`, `to_json`, the card and the commands go by the same limits; a number is one of the leading
    figure. A figure that was not computed is refused, with those that were.
    """
    import json

    from click.testing import CliRunner

    from benchcard.cli.commands import main

    def benchcard(*arguments):
        return CliRunner().invoke(main, [*map(str, arguments)])

    limit = float(results.quality["kl_mean"].median())
    best = results.best(max_drop=1.0, fidelity=limit, objective="size")
    exceeding = set(results.quality.index[results.quality["kl_mean"] > limit])
    assert best.row not in exceeding
    reasons = {each.row: each.reason for each in best.alternatives}
    assert all(f"is above {limit:g}" in reasons[row] for row in exceeding)
    assert best.fidelity == {"kl_mean": limit}
    assert results.best(max_drop=1.0, fidelity={"kl_mean": limit}, objective="size") == best
    for limits, options in (
        (limit, [str(limit)]),
        ({"kl_mean": limit, "agreement": 0.6}, [f"kl_mean={limit}", "agreement=0.6"]),
    ):
        chosen = results.best(fidelity=limits)
        arguments = [word for option in options for word in ("--fidelity", option)]
        assert chosen.explain() in benchcard("show", results.path, *arguments).output
        shown = json.loads(benchcard("show", results.path, "--json", *arguments).output)
        assert shown["choices"][0]["fidelity"] == dict(chosen.fidelity)
        assert benchcard("card", results.path, *arguments).output == results.card(fidelity=limits).text
    with pytest.raises(BenchcardError, match=r"`kl_mena` was not computed.*did you mean `kl_mean`"):
        results.best(fidelity={"kl_mena": 1.0})
    with pytest.raises(BenchcardError, match=r"fidelity\.kl_mean"):
        results.best(fidelity=math.nan)
    for wrong in (["--fidelity", "much"], ["--fidelity", "0.1", "--fidelity", "agreement=0.9"]):
        assert "Invalid value for '--fidelity'" in benchcard("show", results.path, *wrong).output
