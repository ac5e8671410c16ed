"""Whole runs of graphs that were not exported here: what is calibrated, evaluated and timed is the user's own graph."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import tiny
import tiny_text
from tiny_graphs import normal, saved, written

from benchcard import Benchmark, testing
from benchcard.errors import SpecError


def image_graph(folder, labels=3):
    """A graph as converted from TensorFlow: `input_0` (batch, height, width, channels), and `output_0`; its scores grow
    with the darkness, the middle and the lightness of an image.
    """
    weights = {
        "slope": np.array([[-2.0, 0, 2]] * 3, np.float32)[:, :labels] / 3,
        "offset": np.array([-0.5, 0, -0.5], np.float32)[:labels],
    }
    body = (
        "pooled = ReduceMean <axes: ints = [1, 2], keepdims: int = 0> (input_0) scaled = MatMul(pooled, slope) "
        "output_0 = Add(scaled, offset)"
    )
    text = (
        f'<ir_version: 8, opset_import: ["" : 13]> g (float[b, 8, 8, 3] input_0) => (float[b, n] output_0) {{ {body} }}'
    )
    folder.mkdir(parents=True)
    saved(written(text, weights), folder / "filter.onnx")
    # What the documentation asks for, and no more: the names of the labels, and how an image is read.
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(tiny.LABELS))}))
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def spec(task, folder, data, **more):
    """A spec of a graph in a folder."""
    dataset = {"path": str(data), "eval_split": "validation", "calibration_split": "train"}
    return {"task": task, "model": str(folder), "from_transformers": False, "dataset": dataset, **more}


STATIC = {"calibration": {"num_calibration_samples": 6}}


@pytest.mark.slow
def test_a_filter_with_images_as_nhwc_is_an_image_classifier(tmp_path):
    """A graph of no transformers model, with `input_0` in NHWC, is found, quantized, evaluated, timed and pushed with
    the names that libraries read; the notes say which of its names is which.
    """
    model, data = image_graph(tmp_path / "filter"), tiny.write_data(tmp_path / "data")
    settings = {"duration": 0.2, "batch_sizes": [2], "framework_args": {"intra_op_num_threads": 1}}
    grid = {"apply_quantization": [False, True], "quantization_approach": ["static"]}
    fixed = {**STATIC, "reduce_range": True}  # products of 7 bits do not saturate on any processor
    results = Benchmark(**spec("image-classification", model, data, fixed=fixed, grid=grid, **settings)).run(
        tmp_path / "run", progress=False
    )
    assert results.failures.empty, results.failures["message"].tolist()
    assert (results.quality["accuracy"] > 0.9).all()
    assert len(results.time) == 2
    assert any("`input_0` is `pixel_values`, in the layout NHWC" in note for note in results.notes)
    quantized = next((tmp_path / "run" / "steps").glob("quantize-*/model.onnx"))
    assert [each.name for each in onnx.load(quantized).graph.input] == ["pixel_values"]
    assert "`input_0` is `pixel_values`" in results.card().text


@pytest.mark.slow
def test_a_corrected_spec_has_the_folder_of_the_mistaken_one(tmp_path):
    """A mistake in the data leaves no run behind, though the graph was read before them."""
    model, data = image_graph(tmp_path / "filter"), tiny.write_data(tmp_path / "data")
    made = spec("image-classification", model, data, duration=0, fixed={"apply_quantization": False})
    made["dataset"]["ref_keys"] = ["labels"]
    with pytest.raises(SpecError, match="did you mean `label`"):
        Benchmark(**made).run(tmp_path / "run", progress=False)
    made["dataset"]["ref_keys"] = ["label"]
    assert Benchmark(**made).run(tmp_path / "run", progress=False).failures.empty


@pytest.mark.slow
def test_a_graph_that_does_not_fit_fails_before_anything_is_calibrated(tmp_path):
    """A graph of other labels than the configuration's fails its rows with its own names, before it is calibrated; a
    name that it does not have is a mistake of the spec.
    """
    model, data = image_graph(tmp_path / "filter", labels=2), tiny.write_data(tmp_path / "data")
    grid = {"quantization_approach": ["static"]}
    common = spec("image-classification", model, data, fixed=STATIC, grid=grid, duration=0)
    results = Benchmark(**common).run(tmp_path / "run", progress=False)
    assert "`output_0` float32 [1, 2]" in results.failures["message"][0]
    assert not list((tmp_path / "run" / "steps").glob("calibrate-*"))
    with pytest.raises(SpecError, match=r"found `input_1`.*framework_args\.inputs\.pixel_values"):
        Benchmark(**common, framework_args={"inputs": {"pixel_values": "input_1"}}).run(tmp_path / "b", progress=False)


LENGTH = 8


@pytest.fixture
def text_model(tmp_path):
    """A folder with a tokenizer and a graph of eight tokens a text, whose inputs have names of their own, and which
    asks for positions; its label is whether the text has the word `good`.
    """
    folder = tmp_path / "text"
    tokenizer = tiny_text.write_tokenizer(folder)
    table = np.zeros((len(tokenizer), 2), np.float32)
    table[tokenizer.convert_tokens_to_ids("good")] = [-3, 3]
    table[tokenizer.convert_tokens_to_ids("bad")] = [3, -3]
    body = (
        "each = Gather(table, ids) kept = Cast <to: int = 1> (mask) column = Unsqueeze(kept, two) "
        "real = Mul(each, column) "
        "places = Cast <to: int = 1> (position_ids) nothing = Mul(places, zero) third = Unsqueeze(nothing, two) "
        "all = Add(real, third) pooled = ReduceSum <keepdims: int = 0> (all, one) out = MatMul(pooled, eye)"
    )
    inputs = ", ".join(f"int64[b, {LENGTH}] {name}" for name in ("ids", "mask", "position_ids"))
    text = f'<ir_version: 8, opset_import: ["" : 13]> g ({inputs}) => (float[b, 2] out) {{ {body} }}'
    weights = {
        "table": table,
        "two": np.array([2]),
        "one": np.array([1]),
        "zero": np.zeros((), np.float32),
        "eye": np.eye(2, dtype=np.float32),
    }
    saved(written(text, weights), folder / "model.onnx")
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "no", "1": "yes"}}))
    return folder


@pytest.mark.slow
def test_a_graph_of_a_fixed_length_gets_texts_padded_and_cut_to_it(text_model, tmp_path):
    """Shorter texts are padded, longer ones cut by the tokenizer, with a note; timed inputs have the length."""
    texts = [
        "good",
        "a bad film",
        "the film a good film",
        "bad " + "a " * 20,
        "a film a film a film good good good good",
    ]
    labels = ["yes", "no", "yes", "no", "no"]
    data = testing.write_data(
        tmp_path / "data", {split: {"text": texts, "label": labels} for split in ("train", "validation")}
    )
    arguments = {"inputs": {"input_ids": "ids", "attention_mask": "mask"}, "intra_op_num_threads": 1}
    grid = {"apply_quantization": [False, True], "quantization_approach": ["static"]}
    fixed = {"calibration": {"num_calibration_samples": 5}}
    common = spec("text-classification", text_model, data, fixed=fixed, grid=grid, duration=0.2)
    results = Benchmark(**common, framework_args=arguments).run(tmp_path / "run", progress=False)
    assert results.failures.empty, results.failures["message"].tolist()
    # The last text has no `good` within its first six words: without it, both scores are 0 and the first label wins.
    assert results.quality["accuracy"].tolist() == [1.0, 1.0]
    assert results.time["input_length"].tolist() == [LENGTH, LENGTH]
    assert any(f"cut to {LENGTH} tokens" in note for note in results.notes)
    assert any("`position_ids` is computed" in note for note in results.notes)


@pytest.mark.slow
def test_positions_follow_from_the_type_of_the_model(text_model, tmp_path):
    """The graph of a RoBERTa counts from its padding id + 1."""
    data = testing.write_data(tmp_path / "data", {"validation": {"text": ["good", "bad"], "label": ["yes", "no"]}})
    arguments = {"inputs": {"input_ids": "ids", "attention_mask": "mask"}}
    labels = {"id2label": {"0": "no", "1": "yes"}, "pad_token_id": 1}
    (text_model / "config.json").write_text(json.dumps({"model_type": "roberta", **labels}))
    given = {"task": "text-classification", "model": str(text_model), "from_transformers": False, "duration": 0}
    given |= {"dataset": {"path": str(data), "eval_split": "validation"}, "framework_args": arguments}
    results = Benchmark(**given).run(tmp_path / "run", progress=False)
    assert results.failures.empty, results.failures["message"].tolist()
    assert any("`position_ids` is computed (from 2 on, without padding)" in note for note in results.notes)


@pytest.mark.slow
def test_a_graph_that_gives_sentence_embeddings_is_read_by_them(tmp_path):
    """The embedding that a graph of sentence-transformers pools itself is the one that is compared."""
    folder = tmp_path / "sentences"
    tokenizer = tiny_text.write_tokenizer(folder)
    table = normal(len(tokenizer), 4)
    body = (
        "token_embeddings = Gather(table, input_ids) sum = ReduceSum <keepdims: int = 0> (token_embeddings, one) "
        "sentence_embedding = Neg(sum)"
    )
    outputs = "float[b, t, n] token_embeddings, float[b, n] sentence_embedding"
    text = f'<ir_version: 8, opset_import: ["" : 13]> g (int64[b, t] input_ids) => ({outputs}) {{ {body} }}'
    saved(written(text, {"table": table, "one": np.array([1])}), folder / "model.onnx")
    (folder / "config.json").write_text("{}")
    rows = {"sentence1": ["a good film", "anna", "bob lives"], "sentence2": ["a bad film", "paris", "rome"]}
    data = tiny_text.write_data(tmp_path / "data", {**rows, "score": [0.9, 0.1, 0.5]})
    found = Benchmark(**spec("sentence-similarity", folder, data, duration=0)).run(tmp_path / "run", progress=False)
    assert found.failures.empty, found.failures["message"].tolist()
    with np.load(next((tmp_path / "run" / "steps").glob("evaluate-*/predictions.npz"))) as kept:
        ids = tokenizer("a good film")["input_ids"]
        np.testing.assert_allclose(kept["embedding"][0], -table[ids].sum(axis=0), rtol=1e-4)
