"""The file `export.json` of the exporters of transformers."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_text

from benchcard import Benchmark
from benchcard.errors import ArtifactError
from benchcard.export.existing import take_existing
from benchcard.export.manifest import FILE, Component, Manifest, read_manifest
from benchcard.graphs.graph import rename_values

exporters = pytest.importorskip(
    "transformers.exporters.metadata", reason="transformers below 5.23 writes no export.json"
)
LABELS = ["bad", "good"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A folder that transformers exported, with the tokenizer of its model."""
    import torch
    from transformers.exporters import OnnxConfig, OnnxExporter

    folder = tmp_path_factory.mktemp("exported")
    model = tiny_text.testing.text_model(
        "ForSequenceClassification", len(tiny_text.WORDS.split()), labels=LABELS, max_position_embeddings=32
    )
    inputs = {name: torch.ones(2, 9, dtype=torch.int64) for name in ("input_ids", "token_type_ids", "attention_mask")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            exported = OnnxExporter().export(model, inputs, OnnxConfig(dynamic=True, opset_version=18))
            exported.save_pretrained(folder)
        finally:
            logging.disable(logging.NOTSET)
    tiny_text.write_tokenizer(folder)
    model.save_pretrained(folder / "pytorch")
    tiny_text.write_tokenizer(folder / "pytorch")
    return folder


def rename(folder: Path, source: Path) -> None:
    """Copy an export whose graph has names of no meaning, in a file that is in no usual place beside another graph."""
    folder.mkdir()
    for path in source.iterdir():
        if path.suffix == ".json":
            (folder / path.name).write_bytes(path.read_bytes())
    graph = onnx.load(source / "model.onnx")
    names = [value.name for value in (*graph.graph.input, *graph.graph.output)]
    rename_values(graph, {name: f"v{index}" for index, name in enumerate(names)})
    onnx.save(graph, folder / "graph.onnx")
    (folder / "other.onnx").write_bytes((folder / "graph.onnx").read_bytes())
    manifest = json.loads((folder / FILE).read_text())
    manifest["components"]["model"]["file"] = "graph.onnx"
    (folder / FILE).write_text(json.dumps(manifest))


@pytest.mark.slow
def test_an_export_of_transformers_runs_without_a_mapping(exported, tmp_path):
    """Also where the names of the graph say nothing and the folder has another graph: `export.json` names the file and
    the order of inputs and outputs, which types and shapes leave open. Figures are those of PyTorch.
    """
    rename(tmp_path / "model", exported)
    texts = ["a good film", "the bad dull film", "bob works", "a", "bright film good bright film"] * 3
    columns = {"text": texts, "label": [1, 0, 1, 0, 1] * 3}
    data = tiny_text.write_data(tmp_path / "data", columns)
    results = Benchmark(
        task="text-classification",
        model=str(tmp_path / "model"),
        from_transformers=False,
        dataset={"path": str(data), "eval_split": "validation"},
        duration=0,
    ).run(tmp_path / "run", progress=False)
    expected = tiny_text.passed("text-classification", exported / "pytorch", data, tmp_path, ("accuracy",))
    assert results.quality.failure.isna().all()
    assert results.quality.accuracy[0] == expected.scored.metrics["accuracy"]
    (note,) = [note for note in results.notes if "the names of the graph" in note]
    for name in ("`v0` is `input_ids`", "`v1` is `token_type_ids`", "`v3` is `logits`"):
        assert name in note


def test_what_transformers_recorded_stays_with_the_graph(exported, tmp_path):
    """The report of a graph of a folder has its metadata; names that may not be in order are left alone."""
    _, report = take_existing(exported, None, None, tmp_path)
    assert report["metadata"]["architecture"] == "BertForSequenceClassification"
    assert report["names"]["logits"] == "logits"
    graph = onnx.load(exported / "model.onnx").graph
    del graph.input[2]
    assert Component("model.onnx", report["metadata"]).names(graph) == {"logits": "logits"}
    nested = {"out_spec": report["metadata"]["out_spec"].replace('"type": null', '"type": "builtins.tuple"')}
    assert Component("model.onnx", nested).names(graph) == {}


@pytest.mark.parametrize("content", ["[]", "{", '{"components": {"model": {}}}', '{"components": 3}'])
def test_a_file_of_others_is_refused_by_name(tmp_path, content):
    """An `export.json` that transformers did not write is named, with what to do."""
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ArtifactError, match=r"export\.json is not what the exporters of transformers write.*Remove it"):
        read_manifest(tmp_path)


def test_an_export_to_another_format_or_of_several_graphs_names_no_graph(exported, tmp_path):
    """Then the graph is found as in any folder; a graph that the file names and that is missing is reported."""
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "target").mkdir()
    onnx.save(onnx.load(exported / "model.onnx"), model / "own.onnx")
    several = {name: Component(f"{name}.onnx") for name in ("encode", "decode")}
    for manifest in (Manifest({"model": Component("model.xml")}, "openvino"), Manifest(several)):
        (model / FILE).write_bytes(manifest.encoded())
        assert take_existing(model, None, None, tmp_path / "target")[0] == "own.onnx"
    (model / FILE).write_bytes(Manifest({"model": Component("gone.onnx")}).encoded())
    with pytest.raises(ArtifactError, match=r"has no gone\.onnx; it has `own\.onnx`"):
        take_existing(model, None, None, tmp_path / "target")


def test_transformers_loads_what_is_written_for_a_graph_that_was_exported_here(tmp_path):
    """Its `ExportedModel` gives the outputs of PyTorch at a shape that the export did not see."""
    import torch
    from transformers.exporters.base import ExportedModel

    from benchcard.export.export import export_model

    tiny_text.write_tokenizer(tmp_path / "model")
    tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", LABELS)
    report = export_model(tmp_path / "model", "text-classification", 17, tmp_path / "target")
    (tmp_path / "target" / "model.onnx.data").touch()
    component = Component("model.onnx", report.metadata)
    (tmp_path / "target" / FILE).write_bytes(Manifest({"model": component}).encoded())
    inputs = {name: torch.ones(5, 13, dtype=torch.int64) for name in ("input_ids", "token_type_ids", "attention_mask")}
    outputs = ExportedModel.from_pretrained(tmp_path / "target")(**inputs)
    session = onnxruntime.InferenceSession(tmp_path / "target" / "model.onnx", providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    feed = {name: tensor.numpy() for name, tensor in inputs.items() if name in names}
    np.testing.assert_allclose(outputs.logits.numpy(), session.run(None, feed)[0], rtol=1e-5)
    assert type(outputs).__name__ == "SequenceClassifierOutput"
    expected = tiny_text.testing.text_model(
        "ForSequenceClassification", len(tiny_text.WORDS.split()), labels=LABELS, max_position_embeddings=32
    )(**inputs)
    np.testing.assert_allclose(outputs.logits.numpy(), expected.logits.detach().numpy(), atol=1e-5)
