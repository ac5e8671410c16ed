"""The export of transformers models: true opsets, graphs that compute what PyTorch computes, the same bytes twice."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from benchcard.errors import ArtifactError
from benchcard.export import export as export_module
from benchcard.export.export import DEFAULT_OPSET, export_model
from benchcard.export.loading import load_model
from benchcard.export.parity import TOLERANCE, compare

# transformers and optimum say on import what they will rename; `export` itself is silent.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers.*"),
]

LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TEXT = {"vocab_size": 50, "max_position_embeddings": 40}


def tiny(name: str):
    """A seeded model of two layers, its weights large enough for a wrong graph to show."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    image = {"image_size": 16, "num_labels": 3}
    stages = {"hidden_sizes": [8, 12], "depths": [1, 1], "num_labels": 3}
    model = {
        "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(patch_size=8, **image, **LAYERS)),
        "resnet": lambda: hf.ResNetForImageClassification(
            hf.ResNetConfig(embedding_size=8, layer_type="basic", **stages)
        ),
        "convnext": lambda: hf.ConvNextForImageClassification(hf.ConvNextConfig(num_stages=2, image_size=32, **stages)),
        "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**TEXT, **LAYERS)),
        "bert-base": lambda: hf.BertModel(hf.BertConfig(**TEXT, **LAYERS), add_pooling_layer=False),
        "distilbert": lambda: hf.DistilBertForTokenClassification(
            hf.DistilBertConfig(**TEXT, dim=32, n_layers=2, n_heads=4, hidden_dim=48)
        ),
        "roberta": lambda: hf.RobertaForQuestionAnswering(hf.RobertaConfig(**TEXT, **LAYERS, type_vocab_size=1)),
        "deberta": lambda: hf.DebertaV2ForSequenceClassification(
            hf.DebertaV2Config(
                **TEXT,
                **LAYERS,
                type_vocab_size=0,
                relative_attention=True,
                position_buckets=8,
                pos_att_type=["p2c", "c2p"],
                share_att_key=True,
                position_biased_input=False,
            )
        ),
        "bart": lambda: hf.BartForSequenceClassification(
            hf.BartConfig(
                **TEXT,
                d_model=32,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=48,
                decoder_ffn_dim=48,
            )
        ),
    }[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


TASKS = {
    "vit": "image-classification",
    "resnet": "image-classification",
    "convnext": "image-classification",
    "bert": "text-classification",
    "bert-base": "feature-extraction",
    "distilbert": "token-classification",
    "roberta": "question-answering",
    "deberta": "text-classification",
    "bart": "text-classification",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder of a tiny model, by its name; made when it is first asked for."""
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        path = root / name
        if not path.exists():
            tiny(name).save_pretrained(path)
        return path

    return folder


@pytest.fixture
def only(monkeypatch):
    """Has `export` try the given exporters alone, and search for no other opsets."""
    from benchcard.export import exporters

    def use(*ways):
        monkeypatch.setattr(exporters, "exporters", lambda opset, **_: ways)
        monkeypatch.setattr(export_module, "_SEARCH_S", -1.0)

    return use


def opset_of(path: Path) -> int:
    """The opset in the header of a file."""
    return next(entry.version for entry in onnx.load(path).opset_import if entry.domain == "")


@pytest.mark.parametrize(
    ("name", "opset"),
    [
        *[(name, opset) for name in ("vit", "bert", "distilbert") for opset in (11, 13, 17, 18, 21)],
        *[(name, opset) for name in ("resnet", "convnext") for opset in (11, 20, 22)],
        *[(name, 23) for name in ("resnet", "distilbert")],
        *[(name, opset) for name in ("roberta", "bart") for opset in (12, 20)],
    ],
)
def test_the_asked_opset_is_written_and_right(folders, tmp_path, name, opset):
    """The file has the asked opset, and every output is PyTorch's at shapes not seen at export."""
    report = export_model(folders(name), TASKS[name], opset, tmp_path)
    assert report.opset == opset == opset_of(tmp_path / "model.onnx")
    assert 0 < report.max_abs_difference < 1e-5
    assert {check.optimized for check in report.checks} == {False, True}
    assert len({check.shapes[report.inputs[0].name] for check in report.checks}) >= 2


def test_a_text_model_agrees_in_a_session_of_ones_own(folders, tmp_path):
    """At opset 11, BERT gives what PyTorch gives for batches, lengths, masks and token types of any kind."""
    import torch

    export_model(folders("bert"), "text-classification", 11, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    model = tiny("bert")
    generator = np.random.default_rng(3)
    for batch, length in [(1, 1), (4, 6), (2, 40)]:
        mask = generator.integers(0, 2, (batch, length))
        mask[:, 0] = 1
        feed = {
            "input_ids": generator.integers(0, 50, (batch, length)),
            "attention_mask": mask,
            "token_type_ids": generator.integers(0, 2, (batch, length)),
        }
        with torch.no_grad():
            expected = model(**{key: torch.tensor(value) for key, value in feed.items()}).logits.numpy()
        np.testing.assert_allclose(session.run(["logits"], feed)[0], expected, atol=1e-5)


def test_inputs_and_outputs_have_the_names_and_axes_of_the_model(folders, tmp_path):
    """Inputs are named as the tokenizer names them, outputs as the model's output does; batch and length are free."""
    report = export_model(folders("roberta"), "question-answering", 14, tmp_path)
    assert [(entry.name, entry.dtype, entry.shape) for entry in report.inputs] == [
        ("input_ids", "int64", ("batch", "sequence")),
        ("attention_mask", "int64", ("batch", "sequence")),
    ]
    assert report.outputs == ("start_logits", "end_logits")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [value.name for value in graph.input] == ["input_ids", "attention_mask"]
    assert [value.name for value in graph.output] == ["start_logits", "end_logits"]


def test_without_an_opset_the_default_is_taken(folders, tmp_path):
    """An image has a free batch and the model's own size, and nothing asked for means the default opset."""
    report = export_model(folders("vit"), "image-classification", None, tmp_path)
    assert report.opset == DEFAULT_OPSET
    assert [entry.shape for entry in report.inputs] == [("batch", 3, 16, 16)]


def test_the_report_is_plain_data(folders, tmp_path):
    """`asdict` of a report goes through JSON."""
    report = export_model(folders("convnext"), "image-classification", 17, tmp_path)
    data = json.loads(json.dumps(asdict(report)))
    assert data["opset"] == 17
    assert data["files"] == ["model.onnx"]
    assert data["inputs"] == [{"name": "pixel_values", "dtype": "float32", "shape": ["batch", 3, 32, 32]}]
    assert data["exporter_version"].startswith("torch ")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_the_processor_says_the_size_of_an_image(folders, tmp_path):
    """A convolutional model has no size of its own: its image processor's is taken."""
    from transformers import ViTImageProcessorPil

    model = tmp_path / "model"
    tiny("resnet").save_pretrained(model)
    ViTImageProcessorPil(size={"height": 24, "width": 40}).save_pretrained(model)
    report = export_model(model, "image-classification", 13, tmp_path / "graph")
    assert report.inputs[0].shape == ("batch", 3, 24, 40)


def test_an_image_model_of_an_architecture_that_also_reads_texts_is_fed_with_images(tmp_path):
    """Perceiver has a tokenizer that needs no files; its image classifier takes what its image processor gives."""
    import transformers as hf

    small = {"num_latents": 4, "d_latents": 8, "num_self_attends_per_block": 1, "num_self_attention_heads": 2}
    config = hf.PerceiverConfig(**small, num_cross_attention_heads=1, image_size=8, num_labels=3)
    hf.PerceiverForImageClassificationLearned(config).save_pretrained(tmp_path / "model")
    hf.ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "model")
    report = export_model(tmp_path / "model", "image-classification", 14, tmp_path / "graph")
    assert [(entry.name, entry.shape) for entry in report.inputs] == [("pixel_values", ("batch", 3, 8, 8))]


def test_an_input_that_the_model_does_not_read_is_said(folders, tmp_path):
    """DeBERTa's tokenizer gives token types that this model has no embedding for."""
    report = export_model(folders("deberta"), "text-classification", 13, tmp_path)
    assert [entry.name for entry in report.inputs] == ["input_ids", "attention_mask"]
    assert "the model does not read token_type_ids: the graph has no such input" in report.notes


def test_weights_too_many_for_one_file_lie_beside_it(folders, tmp_path, monkeypatch):
    """With a limit of 1 kB the graph keeps its weights in `model.onnx.data`, and still runs."""
    from benchcard.export import normal_form

    monkeypatch.setattr(normal_form, "INLINE_LIMIT_BYTES", 1000)
    report = export_model(folders("vit"), "image-classification", 13, tmp_path)
    assert report.files == ("model.onnx", "model.onnx.data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert onnxruntime.InferenceSession(tmp_path / "model.onnx").run(
        None, {"pixel_values": np.zeros((5, 3, 16, 16), "f")}
    )


# What goes wrong


@pytest.mark.parametrize(("opset", "working"), [(9, "11, 12"), (24, "22")])
def test_an_opset_that_nobody_writes_fails_naming_those_that_work(folders, tmp_path, opset, working, monkeypatch):
    """The message names the nearest opsets that were tried and are right, and nothing is left in the folder."""
    from benchcard.export import exporters

    without_23 = exporters.exporters
    monkeypatch.setattr(exporters, "exporters", lambda asked, **_: () if asked == 23 else without_23(asked))
    with pytest.raises(ArtifactError, match=f"at opset {opset}.*Opsets that work: (21, )?{working}"):
        export_model(folders("vit"), "image-classification", opset, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_opset_that_lacks_an_operator_fails_with_the_reason(folders, tmp_path):
    """DeBERTa clips integers, which opset 11 cannot; 12 and 13 can."""
    with pytest.raises(ArtifactError, match=r"opset 11: torchscript: .*Clip.*Opsets that work: 12, 13\."):
        export_model(folders("deberta"), "text-classification", 11, tmp_path)


def test_another_opset_than_asked_for_is_never_taken(folders, tmp_path, only):
    """An exporter that falls back silently is found out."""
    from benchcard.export.exporters import Exporter, torchscript

    only(Exporter("liar", (), lambda traceable, opset: torchscript(traceable, 17)))
    with pytest.raises(ArtifactError, match="liar: it wrote opset 17 without a warning"):
        export_model(folders("vit"), "image-classification", 13, tmp_path)


def exporting(change_mask):
    """An exporter of a model that sees another attention mask than it is given: what tracers do that bake one in."""
    from benchcard.export.exporters import Exporter, torchscript

    def write(traceable, opset):
        forward = traceable.model.forward

        def changed(input_ids, attention_mask, **others):
            return forward(input_ids=input_ids, attention_mask=change_mask(attention_mask), **others)

        traceable.model.forward = changed
        try:
            return torchscript(traceable, opset)
        finally:
            traceable.model.forward = forward

    return Exporter("baked", (), write)


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_a_mask_that_was_baked_in_is_caught(folders, tmp_path, only, name):
    """A graph that does not heed the mask fails, naming the shape and the difference."""
    only(exporting(lambda mask: mask * 0 + 1))
    with pytest.raises(ArtifactError, match=r"baked: logits differs from PyTorch by \d\S* at input_ids \[\d+, \d+\]"):
        export_model(folders(name), TASKS[name], 13, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_length_that_was_baked_in_is_caught(folders, tmp_path, only):
    """A graph that runs at the traced length alone fails in ONNX Runtime, at the first other shape."""
    import torch

    from benchcard.export.probes import TRACED

    only(exporting(lambda mask: mask * torch.ones(TRACED[1], dtype=torch.int64)))
    with pytest.raises(ArtifactError, match=r"baked: ONNX Runtime cannot run the graph at input_ids \[1, 3\]"):
        export_model(folders("distilbert"), "token-classification", 13, tmp_path)


def test_the_next_exporter_stands_in(folders, tmp_path, only):
    """Where one exporter fails the next one is taken, and the report says so."""
    from benchcard.export.exporters import Exporter, torchscript

    def missing(traceable, opset):
        raise ImportError("No module named 'transformers.exporters'")

    only(Exporter("first", (), missing), Exporter("second", ("torch",), torchscript))
    report = export_model(folders("vit"), "image-classification", 13, tmp_path)
    assert report.exporter == "second"
    assert "first: No module named 'transformers.exporters'" in report.notes


def test_without_an_opset_the_next_best_is_taken(folders, tmp_path, monkeypatch):
    """A default that does not work gives way to its neighbour, and the report says why."""
    from benchcard.export import exporters

    real = exporters.exporters
    monkeypatch.setattr(exporters, "exporters", lambda opset, **_: () if opset == DEFAULT_OPSET else real(opset))
    report = export_model(folders("vit"), "image-classification", None, tmp_path)
    assert report.opset == DEFAULT_OPSET - 1
    assert any(f"opset {DEFAULT_OPSET}" in note for note in report.notes)


@pytest.mark.parametrize(
    ("name", "task", "said"),
    [
        ("bert-base", "text-classification", "no weights for bert.pooler.dense.bias, .*, classifier.weight, which"),
        ("bert", "no-such-task", "Unknown task"),
        ("vit", "question-answering", "Unrecognized configuration class"),
    ],
)
def test_a_model_that_is_not_of_the_task_is_refused(folders, tmp_path, name, task, said):
    """A missing head, an unknown task and a task of another kind are said before anything is written."""
    with pytest.raises(ArtifactError, match=said):
        export_model(folders(name), task, 17, tmp_path / "graph")
    assert not (tmp_path / "graph").exists()


def test_a_missing_folder_is_refused(tmp_path):
    """A path that is not there is no Hub id."""
    with pytest.raises(ArtifactError, match="does not exist, or is a file"):
        export_model(tmp_path / "nothing", "image-classification", 17, tmp_path)


def test_missing_weights_beside_the_head_are_drawn_alike(folders, tmp_path):
    """A pooler that the checkpoint lacks has the same weights in every load, and is named in the notes."""
    import torch

    first, second = (load_model(folders("bert-base"), "sentence-similarity") for _ in range(2))
    assert torch.equal(first.pooler.dense.weight, second.pooler.dense.weight)
    assert not first.training
    report = export_model(folders("bert-base"), "sentence-similarity", 13, tmp_path)
    assert report.outputs == ("last_hidden_state", "pooler_output")
    assert any("pooler.dense.weight" in note for note in report.notes)


def without(source: Path, target: Path, *parts: str) -> Path:
    """A copy of a model's folder whose checkpoint lacks all weights with any of the parts in their names."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target)
    weights = load_file(target / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if not any(part in name for part in parts)}
    assert len(kept) < len(weights)
    save_file(kept, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.mark.parametrize(
    ("name", "task", "part"),
    [
        ("bert", "text-classification", "bert.pooler.dense.weight"),
        ("bert", "text-classification", "bert.encoder.layer.1.output.dense.bias"),
        ("bert-base", "feature-extraction", "encoder.layer.1.attention.self.query.weight"),
        ("distilbert", "token-classification", "distilbert.transformer.layer.0.ffn.lin1.bias"),
        ("vit", "image-classification", "vit.embeddings.cls_token"),
        ("resnet", "image-classification", "resnet.embedder.embedder.normalization.running_mean"),
        ("bart", "text-classification", "model.encoder.layers.0.fc1.weight"),
    ],
)
def test_a_missing_weight_that_the_outputs_come_from_is_refused(folders, tmp_path, name, task, part):
    """A weight inside the base model is no less drawn at random than the head: export and PyTorch name it."""
    from benchcard.frameworks.pytorch import PyTorch

    model = without(folders(name), tmp_path / "model", part)
    said = f"no weights for {re.escape(part)}, which would be random"
    with pytest.raises(ArtifactError, match=said):
        export_model(model, task, 17, tmp_path / "graph")
    with pytest.raises(ArtifactError, match=said):
        PyTorch().open(model, {"task": task})


def test_layers_that_only_the_configuration_has_are_refused(folders, tmp_path):
    """A configuration of four layers on a checkpoint of two names all that the other two lack."""
    model = tmp_path / "model"
    shutil.copytree(folders("bert"), model)
    told = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**told, "num_hidden_layers": 4}))
    with pytest.raises(ArtifactError, match=r"layer\.2\.attention\.output\.dense\.bias.*layer\.3\.") as caught:
        load_model(model, "text-classification")
    assert str(caught.value).count("bert.encoder.layer.") == 32


@pytest.mark.parametrize(
    ("name", "task", "parts"),
    [
        ("bert", "feature-extraction", ("pooler",)),
        ("bart", "text-classification", ()),
        ("resnet", "image-classification", ("num_batches_tracked",)),
    ],
)
def test_missing_names_that_no_output_comes_from_are_none(folders, tmp_path, name, task, parts):
    """A pooler that is not read, tied weights under another name and counters are no reason to refuse a model."""
    model = without(folders(name), tmp_path / "model", *parts) if parts else folders(name)
    assert not load_model(model, task).training


@pytest.mark.parametrize("form", ["safetensors", "sharded", "bin", "cut short"])
def test_weights_that_cannot_be_read_are_refused(folders, tmp_path, form):
    """Weights that Git LFS has not fetched, in each form, and weights that are cut short, are told with what to do."""
    model = tmp_path / "model"
    shutil.copytree(folders("bert"), model)
    weights = model / "model.safetensors"
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
    if form == "sharded":
        part = "model-00001-of-00001.safetensors"
        (model / f"{weights.name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": part}}))
        weights.rename(model / part).write_text(pointer)
    elif form == "bin":
        weights.rename(model / "pytorch_model.bin").write_text(pointer)
    else:
        weights.write_bytes(pointer.encode() if form == "safetensors" else weights.read_bytes()[:5000])
    message = "download it again" if form == "cut short" else "Git LFS pointer.*git lfs pull"
    with pytest.raises(ArtifactError, match=rf"the weights of .* cannot be read.*{message}"):
        load_model(model, "text-classification")


def test_a_model_that_gives_no_numbers_is_refused(tmp_path):
    """NaN in PyTorch itself is no reference."""
    model = tiny("vit")
    model.classifier.bias.data[0] = float("nan")
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ArtifactError, match="logits that is not finite, in PyTorch itself"):
        export_model(tmp_path / "model", "image-classification", 13, tmp_path / "graph")


def test_the_model_is_as_it_was_after_an_export():
    """Neither dropout nor another attention stays behind, by which later comparisons would be off."""
    from benchcard.export.exporters import Traceable, torchscript
    from benchcard.export.probes import example, model_inputs, vocabulary

    model = tiny("bert")
    own = model.config._attn_implementation
    inputs = model_inputs(model, None)
    traced = example(inputs, vocabulary(model, None), 2, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchscript(Traceable(model, inputs, traced, ("logits",)), 13)
    assert not any(module.training for module in model.modules())
    assert model.config._attn_implementation == own != "eager"


# The comparison


def identity(path: Path, operator: str = "Identity", output: str = "y") -> Path:
    """A graph of one operator from `x` to an output, both (batch, tokens) float32."""
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", "tokens"]) for name in ("x", output)
    ]
    graph = onnx.helper.make_graph([onnx.helper.make_node(operator, ["x"], [output])], "g", values[:1], values[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def probe(inputs, outputs, real=None):
    """A probe of `x` and `y`, whose second axis runs along the tokens."""
    from benchcard.export.probes import Probe

    return Probe({"x": np.array(inputs, "f")}, {"y": np.array(outputs, "f")}, real, frozenset({"y"}))


def test_a_difference_within_the_tolerance_passes(tmp_path):
    """The tolerance is absolute for small outputs and grows with large ones."""
    path = identity(tmp_path / "g.onnx")
    checks = compare(path, [probe([[1.0]], [[1.0 + TOLERANCE / 2]]), probe([[1000.0]], [[1000.0 + TOLERANCE * 500]])])
    assert [check.optimized for check in checks] == [False, False, True, True]
    assert checks[0].max_abs_difference == pytest.approx(TOLERANCE / 2, rel=0.01)


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ([[1.0, 2.0]], [[1.0, 2.001]], r"y differs from PyTorch by 0\.001 at x \[1, 2\], graph optimizations off"),
        ([[float("nan"), 2.0]], [[1.0, 2.0]], "y is not finite"),
        ([[float("inf"), 2.0]], [[1.0, 2.0]], "y is not finite"),
        ([[1.0, 2.0]], [[1.0]], r"y has shape \[1, 2\] instead of \[1, 1\]"),
    ],
)
def test_a_wrong_output_is_an_error(tmp_path, inputs, outputs, said):
    """A difference, a NaN, an infinity and another shape are named with the shape of the inputs."""
    with pytest.raises(ArtifactError, match=said):
        compare(identity(tmp_path / "g.onnx"), [probe(inputs, outputs)])


def test_padded_positions_do_not_count(tmp_path):
    """What stands at a padded position may differ; at a real one it may not."""
    path = identity(tmp_path / "g.onnx")
    real = np.array([[True, False]])
    assert compare(path, [probe([[1.0, 2.0]], [[1.0, 9.0]], real)])[0].max_abs_difference == 0.0
    with pytest.raises(ArtifactError, match="differs"):
        compare(path, [probe([[1.0, 2.0]], [[1.0, 9.0]], ~real)])


def test_a_graph_that_does_not_run_is_an_error(tmp_path):
    """A graph with an operator that the runtime does not know, and one without the output, fail with the reason."""
    with pytest.raises(ArtifactError, match=r"cannot load the graph.*NoSuchOperator"):
        compare(identity(tmp_path / "g.onnx", "NoSuchOperator"), [probe([[1.0]], [[1.0]])])
    with pytest.raises(ArtifactError, match="has no output y"):
        compare(identity(tmp_path / "g.onnx", output="z"), [probe([[1.0]], [[1.0]])])


def test_the_reason_why_a_graph_does_not_run_is_readable(tmp_path):
    """It names the node and what is wrong with its inputs, without codes and places in the runtime's source."""
    make = onnx.helper.make_node
    nodes = [
        make("Cast", ["x"], ["index"], to=onnx.TensorProto.INT64),
        make("Gather", ["table", "index"], ["y"], "layer/Gather"),
    ]
    path = identity(tmp_path / "g.onnx")
    model = onnx.load(path)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 2], "f"), "table"))
    onnx.save(model, path)
    with pytest.raises(ArtifactError) as caught:
        compare(path, [probe([[5.0]], [[1.0]])])
    assert str(caught.value) == (
        "ONNX Runtime cannot run the graph at x [1, 1], graph optimizations off: Gather `layer/Gather`: indices "
        "element out of data bounds, idx=5 must be within the inclusive range [-2,1]"
    )


# The probes


def test_examples_are_ragged_and_the_same_everywhere():
    """Ids are within the vocabulary, padded where the mask is 0, and drawn alike by every process."""
    from benchcard.export.probes import ModelInput, Vocabulary, example

    inputs = [ModelInput(name, ("batch", "sequence")) for name in ("input_ids", "attention_mask", "token_type_ids")]
    tokens = Vocabulary(size=20, pad_id=3, end_id=7, types=2)
    made, again = (example(inputs, tokens, 3, 11) for _ in range(2))
    assert all(np.array_equal(made[name], again[name]) for name in made)
    real = made["attention_mask"].astype(bool)
    assert sorted(real.sum(axis=1)) == [6, 9, 11]
    assert (made["input_ids"][~real] == 3).all()
    assert set(made["input_ids"][real]) <= set(range(20)) - {3}
    assert ((made["input_ids"] == 7).sum(axis=1) == 1).all()
    assert set(made["token_type_ids"].ravel()) == {0, 1}
    left = example(inputs, Vocabulary(size=20, padding_side="left"), 2, 8)["attention_mask"]
    assert left[-1].tolist() == sorted(left[-1])
    assert 0 in example(inputs, tokens, 1, 12)["attention_mask"]


@pytest.mark.parametrize(("positions", "longest"), [(514, 510), (8192, 510), (40, 38), (None, 510)])
def test_texts_are_checked_near_the_longest(positions, longest):
    """The last shape is two short of what the model can take, or of 512, and none is the traced one."""
    from benchcard.export.probes import TRACED, ModelInput, check_shapes

    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=positions))
    shapes = check_shapes(model, [ModelInput("input_ids", ("batch", "sequence"))])
    assert shapes[-1] == (1, longest)
    assert TRACED not in shapes
    assert len({batch for batch, _ in shapes}) == 2


def test_an_input_of_an_unknown_kind_is_refused():
    """No example can be made for what nobody knows: the message names it."""
    from benchcard.export.probes import model_inputs

    class Model:
        config = SimpleNamespace()

        def forward(self, input_ids, smell): ...

    processor = SimpleNamespace(model_input_names=["input_ids", "smell"])
    with pytest.raises(ArtifactError, match="takes smell"):
        model_inputs(Model(), processor)


# The form of the graph


def test_nodes_are_called_by_their_layers(folders, tmp_path):
    """Names are the module's path and the operator, each once; weights keep the checkpoint's names."""
    export_model(folders("bert"), "text-classification", 13, tmp_path)
    graph = onnx.load(tmp_path / "model.onnx").graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert "bert.encoder.layer.0.attention.self.query/MatMul" in names
    assert "bert.encoder.layer.1.output.LayerNorm/ReduceMean_1" in names
    assert "classifier/Gemm" in names
    assert all(name.rsplit("/")[-1].startswith(node.op_type) for name, node in zip(names, graph.node))
    weights = {weight.name for weight in graph.initializer}
    assert set(tiny("bert").state_dict()) & weights >= {"classifier.weight", "bert.embeddings.LayerNorm.weight"}
    assert "bert.encoder.layer.0.attention.self.query/MatMul_input_1" in weights


def test_a_layer_that_is_called_model_keeps_its_name(folders, tmp_path):
    """BART's own `model` is not taken for the module that was put around it to be traced."""
    export_model(folders("bart"), "text-classification", 13, tmp_path)
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert "model.encoder.layers.0.self_attn.q_proj/MatMul" in {node.name for node in graph.node}
    assert "model.encoder.layers.0.self_attn.q_proj.bias" in {weight.name for weight in graph.initializer}


def test_a_graph_holds_no_trace_of_where_it_was_made(folders, tmp_path):
    """No metadata, documentation, inner shapes or constants as nodes: nothing that varies or goes stale."""
    export_model(folders("distilbert"), "token-classification", 17, tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    assert not model.metadata_props
    assert not model.doc_string
    assert not model.graph.value_info
    assert not [node for node in model.graph.node if node.metadata_props or node.doc_string]
    assert not {"Constant", "Identity"} & {node.op_type for node in model.graph.node}
    assert b"site-packages" not in (tmp_path / "model.onnx").read_bytes()


def test_equal_exports_are_equal_bytes(folders, tmp_path):
    """The second export in one process is the first one, byte for byte."""
    for place in ("a", "b"):
        export_model(folders("distilbert"), "token-classification", 13, tmp_path / place)
    assert (tmp_path / "a/model.onnx").read_bytes() == (tmp_path / "b/model.onnx").read_bytes()


@pytest.mark.slow
def test_equal_exports_are_equal_bytes_in_another_process(folders, tmp_path):
    """A process with its own hash seed writes the bytes that this one writes, by either kind of exporter."""
    program = (
        "import sys; from pathlib import Path; from benchcard.export.export import export_model\n"
        "for model, task, opset, target in zip(*[iter(sys.argv[1:])] * 4):\n"
        "    export_model(Path(model), task, int(opset), Path(target))"
    )
    asked = [("bert", 12), ("convnext", 23)]
    arguments = [
        text for name, opset in asked for text in (str(folders(name)), TASKS[name], str(opset), str(tmp_path / name))
    ]
    child = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    assert child.stdout == b""
    for name, opset in asked:
        export_model(folders(name), TASKS[name], opset, tmp_path / "here")
        here, there = ((tmp_path / place / "model.onnx").read_bytes() for place in ("here", name))
        assert hashlib.sha256(here).hexdigest() == hashlib.sha256(there).hexdigest()


@pytest.mark.slow
def test_opset_23_has_its_own_attention_and_the_same_names(folders, tmp_path):
    """The exporter of transformers writes opset 23 with `Attention` nodes, whose layers are called as at any opset."""
    export_model(folders("bert"), "text-classification", 13, tmp_path / "13")
    report = export_model(folders("bert"), "text-classification", 23, tmp_path / "23")
    assert report.opset == 23
    old, new = (onnx.load(tmp_path / opset / "model.onnx").graph.node for opset in ("13", "23"))
    assert [node.name for node in new if node.op_type == "Attention"] == [
        f"bert.encoder.layer.{layer}.attention.self/Attention" for layer in (0, 1)
    ]
    dense = [
        {node.name for node in nodes if node.name.endswith(("dense/MatMul", "query/MatMul"))} for nodes in (old, new)
    ]
    assert dense[0] == dense[1]
    assert len(dense[0]) == 8


@pytest.mark.slow
def test_a_transformers_without_exporters_is_enough(folders, tmp_path, monkeypatch):
    """Where transformers brings no exporters, torch's own writes opset 23."""
    monkeypatch.setitem(sys.modules, "transformers.exporters.exporter_onnx", None)
    report = export_model(folders("vit"), "image-classification", 23, tmp_path)
    assert (report.opset, report.exporter) == (23, "torch-dynamo")
    assert any(note.startswith("transformers: ") for note in report.notes)


# What is said on the way


def test_what_exporters_say_is_noted_and_not_printed(capfd):
    """Warnings and logged warnings become notes, once each; deprecations and progress do not; nothing is printed."""
    from benchcard.export.exporters import noted

    logger = logging.getLogger("torch.onnx")
    before = (logger.handlers, logger.propagate)
    notes: list[str] = []
    with noted(notes):
        warnings.warn("a constant\nand more", UserWarning, stacklevel=1)
        warnings.warn("a constant", UserWarning, stacklevel=1)
        warnings.warn("will be removed", DeprecationWarning, stacklevel=1)
        logger.warning("no %s", "symbol")
        sys.stdout.write("progress")
        os.write(1, b"a whole graph")
        warnings.warn("x" * 1000, UserWarning, stacklevel=1)
    assert notes[:1] == ["a constant"]
    assert len(notes) == 3
    assert len(notes[1]) < 300
    assert notes[2] == "no symbol"
    assert (logger.handlers, logger.propagate) == before
    assert capfd.readouterr() == ("", "")


def test_a_reason_is_the_cause_and_not_its_wrapping():
    """Exporters wrap errors; the first line of the innermost one is what tells, but our own text stands."""
    from benchcard.export.exporters import reason

    cause = ValueError("\x1b[96mno such axis\x1b[0m\nat line 3")
    wrapped = RuntimeError("Failed to export the model")
    wrapped.__cause__ = cause
    assert reason(wrapped) == "no such axis"
    ours = ArtifactError("logits differs")
    ours.__cause__ = cause
    assert reason(ours) == "logits differs"
    assert reason(KeyError()) == "KeyError"


def decoder(name: str):
    """A seeded language model of two layers, its weights large enough for a wrong graph to show."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    small = {"vocab_size": 50, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    model = {
        "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(n_positions=40, n_embd=32, n_layer=2, n_head=4, **small)),
        "llama": lambda: hf.LlamaForCausalLM(
            hf.LlamaConfig(max_position_embeddings=40, num_key_value_heads=2, **LAYERS, **small)
        ),
        "qwen2": lambda: hf.Qwen2ForCausalLM(
            hf.Qwen2Config(max_position_embeddings=40, num_key_value_heads=2, **LAYERS, **small)
        ),
    }[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2"])
def test_a_decoder_reads_the_mask_at_any_shape(tmp_path, name):
    """A decoder gives PyTorch's logits in batches, at lengths not seen at export, without padding and with padding on
    either side: the mask is an input of the graph, and no constant. There is no cache.
    """
    import torch

    model = decoder(name)
    model.save_pretrained(tmp_path / "model")
    report = export_model(tmp_path / "model", "text-generation", None, tmp_path / "graph")
    assert report.outputs == ("logits",)
    assert [entry.name for entry in report.inputs] == ["input_ids", "attention_mask"]
    session = onnxruntime.InferenceSession(tmp_path / "graph" / "model.onnx")
    generator = np.random.default_rng(3)
    for batch, length in [(1, 1), (4, 6), (2, 40)]:
        for padding in ("none", "left", "right"):
            mask = np.ones((batch, length), dtype=np.int64)
            if padding != "none" and length > 1:
                mask[-1, slice(None, 2) if padding == "left" else slice(-2, None)] = 0
            feed = {"input_ids": generator.integers(0, 50, (batch, length)), "attention_mask": mask}
            with torch.no_grad():
                expected = model(**{key: torch.tensor(value) for key, value in feed.items()}).logits.numpy()
            actual = session.run(["logits"], feed)[0]
            np.testing.assert_allclose(actual[mask == 1], expected[mask == 1], atol=1e-5)
