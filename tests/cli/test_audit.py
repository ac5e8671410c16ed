"""The audit of a folder with good and broken files of a trained model by one command, and 200 of resampled data."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_text
from click.testing import CliRunner
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16
from tiny_graphs import saved, written

from benchcard import Benchmark, Results
from benchcard.analysis.verdict import Evidence, Verdict, chance_agreement, judge
from benchcard.cli.commands import main
from benchcard.evaluation.rows import Rows, read_predictions
from benchcard.measure import significance
from benchcard.metrics import fidelity
from benchcard.metrics.info import MetricInfo

REVIEWS = Path(__file__).parents[2] / "examples" / "reviews"
GOOD = {"fp16": 16, "int8": 8, "uint8": 8, "quantized": 8, "q4": 4, "bnb4": 4}
BROKEN = {"scale", "swapped", "zeroed", "dtype", "damaged"}


def write_good(graph, folder):
    """The files that Transformers.js names, made by the tools of ONNX Runtime."""
    onnx.save(convert_float_to_float16(onnx.load(graph), keep_io_types=True), str(folder / "model_fp16.onnx"))
    for name, settings in {
        "int8": {"weight_type": QuantType.QInt8},
        "uint8": {"weight_type": QuantType.QUInt8},
        "quantized": {"weight_type": QuantType.QInt8, "per_channel": True},
    }.items():
        quantize_dynamic(graph, folder / f"model_{name}.onnx", **settings)
    blocks = MatMulNBitsQuantizer(onnx.load(graph), block_size=32, is_symmetric=True, bits=4)
    blocks.process()
    # With external data, whose size counts.
    external = {"save_as_external_data": True, "location": "model_q4.onnx_data", "size_threshold": 1024}
    onnx.save(blocks.model.model, str(folder / "model_q4.onnx"), **external)
    normal = MatMulBnb4Quantizer(onnx.load(graph), quant_type=1, block_size=64)
    normal.process()
    onnx.save(normal.model.model, str(folder / "model_bnb4.onnx"))


def write_broken(graph, folder):
    """The float graph with a wrong scale, with swapped labels, with a layer of zeros, of a wrong type, and cut off."""

    def write(name, weight, change):
        model = onnx.load(graph)
        (tensor,) = (each for each in model.graph.initializer if each.name == weight)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(tensor))), weight))
        onnx.save(model, str(folder / f"{name}.onnx"))

    layer = "bert.encoder.layer.0.attention.self.value/MatMul_input_1"
    write("scale", "classifier.weight", lambda array: array * np.float32(0.1))
    write("swapped", "classifier.weight", lambda array: array[::-1])
    write("zeroed", "bert.pooler.dense.weight", np.zeros_like)
    write("dtype", layer, lambda array: array.astype(np.float16))
    (folder / "damaged.onnx").write_bytes(graph.read_bytes()[:1000])


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    """The folder, what the command wrote, and its run."""
    from benchcard.export.export import export_model

    folder = tmp_path_factory.mktemp("audit")
    model = folder / "model"
    shutil.copytree(REVIEWS / "model", model)
    for name in ("onnx", "broken", "other"):
        (model / name).mkdir()
    export_model(REVIEWS / "model", "text-classification", None, model / "onnx")
    write_good(model / "onnx" / "model.onnx", model / "onnx")
    write_broken(model / "onnx" / "model.onnx", model / "broken")
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[b, 8] frames) => (float[b, 8] y) { y = Neg(frames) }'
    saved(written(text, {}), model / "other" / "encoder.onnx")
    # The float model without its classifier: the inputs of the task, and other outputs.
    float_model = onnx.load(model / "onnx" / "model.onnx")
    hidden = next(node.input[0] for node in float_model.graph.node if node.name == "bert.pooler/Gather")
    inputs = [each.name for each in float_model.graph.input]
    onnx.utils.extract_model(model / "onnx" / "model.onnx", model / "other" / "hidden.onnx", inputs, [hidden])
    given = ["--dataset", str(REVIEWS / "data"), "--duration", "0", "--out", str(folder / "run")]
    result = CliRunner().invoke(main, ["audit", str(model), *given, "--quiet", "--json"])
    return model, result, Results.load(folder / "run")


@pytest.mark.slow
def test_each_file_has_its_verdict(audit):
    """Every good file is faithful and every broken one broken, with its reason; a graph of other inputs or
    outputs is unknown. The status says that something is broken.
    """
    model, result, results = audit
    assert result.exit_code == 1
    files = {Path(row["file"]).stem.removeprefix("model_"): row for row in json.loads(result.stdout)["files"]}
    assert len(files) == len(GOOD) + len(BROKEN) + 3
    examples = json.loads(result.stdout)["examples"]
    rows = next(record.outcomes.prepare.values for record in results.records.records if record.outcomes.prepare)
    assert (examples["evaluated"], examples["split_rows"]) == (rows.samples, rows.split_rows)
    assert examples["split"] == "validation"
    assert files["model"]["verdict"] == "reference"
    assert {name for name in files if files[name]["verdict"] == "faithful"} == set(GOOD), result.stdout
    assert {name for name in files if files[name]["verdict"] == "broken"} == BROKEN, result.stdout
    assert files["encoder"]["verdict"] == files["hidden"]["verdict"] == "unknown"
    assert "`frames`" in files["encoder"]["why"]
    assert "the task reads `logits`" in files["hidden"]["why"]
    assert "float16" in files["dtype"]["why"]
    assert "ONNX Runtime cannot load dtype.onnx: " in files["dtype"]["why"]
    assert ".unfinished" not in result.stdout
    assert "accuracy" in files["swapped"]["why"]
    assert "kl_mean" in files["scale"]["why"]
    for name, bits in GOOD.items():
        assert bits <= files[name]["bits"] < bits + 8, name
        assert files[name]["accuracy_low"] < files[name]["accuracy"] < files[name]["accuracy_high"]
    external = sum(path.stat().st_size for path in (model / "onnx").glob("model_q4.onnx*"))
    assert files["q4"]["size_mb"] == pytest.approx(external / 1e6)
    uses = {use: name for name, row in files.items() for use in (row["use"] or "").split(", ")}
    assert uses["the reference"] == "model"
    assert uses["smallest faithful"] == min(GOOD, key=lambda name: files[name]["size_mb"])
    assert uses["closest of those measured in 16 bits"] == "fp16"
    assert all(row["use"] for row in files.values() if row["verdict"] != "unknown")
    assert uses["closest of those measured in 8 bits"] in ("int8", "uint8", "quantized")
    assert uses["closest of those measured below 8 bits"] in ("q4", "bnb4")
    assert str(results.path) not in result.stdout.partition('"notes"')[0]


@pytest.mark.slow
def test_no_broken_file_is_recommended(audit):
    """The broken files of half the weights' size, or of the same, are neither chosen nor on the Pareto front."""
    _, _, results = audit
    files = results.files()
    broken = set(files["row"][files["verdict"] == "broken"])
    best, evaluated = results.best(objective="size"), set(results.quality.dropna(subset="accuracy")["row"])
    assert best.row not in broken
    reasons = {each.row: each.reason for each in best.alternatives}
    assert broken & evaluated
    assert all(reasons[row].startswith("broken: ") for row in broken & evaluated)
    assert not broken & set(results.pareto("size")["row"])


@pytest.mark.slow
def test_the_card_has_the_table_of_files(audit):
    """With verdicts, uses, and why a file is broken; it is read back as any other card."""
    _, _, results = audit
    card = results.card()
    table = card.text.partition("### Model files")[2].partition("###")[0]
    assert table.count("| broken") == len(BROKEN)
    assert "smallest faithful" in table
    assert "* `broken/swapped.onnx` is broken: accuracy" in table
    assert str(results.path) not in table
    assert len(Results.from_card(card.text).quality) == len(results.plan)


@pytest.mark.slow
def test_a_finished_audit_is_shown_with_its_verdicts(audit, tmp_path):
    """`show`, its CSV and JSON, and the report have the table of files, and say which examples they are of."""
    _, _, results = audit
    samples = int(results.quality["samples"].max())

    def shown(*arguments):
        return CliRunner().invoke(main, ["show", str(results.path), *arguments]).stdout

    assert f"evaluated on {samples} of " in shown()
    assert "broken/swapped.onnx is broken: accuracy" in shown()
    assert shown("--csv", "files") == results.files().to_csv(index=False)
    assert [row["verdict"] for row in json.loads(shown("--json"))["files"]] == results.files()["verdict"].tolist()
    report = tmp_path / "report.html"
    results.report(report)
    text = report.read_text(encoding="utf-8")
    assert "Model files" in text
    assert text.count(">broken<") >= len(BROKEN)
    assert f"Evaluated on {samples} of " in results.card().text


@pytest.mark.slow
def test_no_good_file_is_broken_in_200_audits_of_resampled_data(audit):
    """Examples are drawn again from the kept predictions, and compared as a run compares them."""
    _, _, results = audit
    records = {str(record.configuration.axes["framework_args.file_name"]): record for record in results.records.records}

    def kept(name):
        outcomes = records[name].outcomes
        predictions, arrays = read_predictions(outcomes.evaluate.folder)
        return np.array(predictions), arrays["scores"], np.array(Rows(outcomes.prepare.folder).references)

    expected, logits, references = kept("onnx/model.onnx")
    models = {name: kept(f"onnx/model_{name}.onnx")[:2] for name in GOOD}
    models |= {name: kept(f"broken/{name}.onnx")[:2] for name in ("scale", "swapped", "zeroed")}
    generator, info = np.random.default_rng(0), MetricInfo(True, "share")
    verdicts: dict[str, set[str]] = {name: set() for name in models}
    for number in range(200):
        chosen = generator.integers(0, len(references), (60, 120, len(references))[number % 3])
        owners = np.arange(len(chosen))
        right = expected[chosen] == references[chosen]
        for name, (predictions, scores) in models.items():
            actual = predictions[chosen]
            figures = {
                "kl_mean": fidelity.mean(fidelity.label_divergences(logits[chosen], scores[chosen]), owners, least=0.0),
                "agreement": fidelity.share(expected[chosen] == actual, owners),
            }
            difference = significance.mcnemar(right, actual == references[chosen]).difference
            chance = chance_agreement(expected[chosen].tolist(), actual.tolist())
            evidence = Evidence("accuracy", info, difference, figures, len(chosen), GOOD.get(name, 32), chance)
            verdicts[name].add(judge(evidence).name)
    for name, names in verdicts.items():
        assert names == {"faithful" if name in GOOD else "broken"}, (name, names)


@pytest.mark.slow
def test_a_processor_whose_products_saturate_is_named(audit, monkeypatch):
    """An int8 file that is bad on such a processor may be good on another; a float one is not."""
    _, _, results = audit
    monkeypatch.setattr("benchcard.analysis.files.judge", lambda evidence, max_drop: Verdict("broken", "accuracy -0.3"))
    info = results.records.info
    for saturates in (False, True):
        machine = replace(info.machine, int8=replace(info.machine.int8, u8s8_saturates=saturates))
        other = Results(replace(results.records, info=replace(info, machine=machine)))
        why = other.files().set_index("file")["why"]
        assert ("saturate" in why["onnx/model_int8.onnx"]) == saturates
        assert "saturate" not in why["onnx/model_fp16.onnx"]


@pytest.mark.slow
def test_pytorch_is_the_reference_where_there_is_no_float_graph(tmp_path):
    """The model itself is a row of its own, and a file of float16 is faithful to it."""
    from benchcard.export.export import export_model

    model = tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", ["no", "yes"])
    tiny_text.write_tokenizer(model)
    export_model(model, "text-classification", None, tmp_path)
    half = convert_float_to_float16(onnx.load(tmp_path / "model.onnx"), keep_io_types=True)
    onnx.save(half, str(model / "model_fp16.onnx"))
    texts = ["a good film", "a bad film", "anna lives in paris", "bob works for acme"] * 15
    data = tiny_text.write_data(tmp_path / "data", {"text": texts, "label": ["yes", "no"] * 30})
    results = Benchmark.audit(model, data, duration=0).run(tmp_path / "run", progress=False)
    files = results.files()
    assert files["file"].tolist() == ["pytorch", "model_fp16.onnx"]
    assert files["verdict"].tolist() == ["reference", "faithful"], files["why"].tolist()
