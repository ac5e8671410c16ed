"""Export with a cache: parity with PyTorch and with `generate`, the graphs and models that are refused."""

from __future__ import annotations

import functools
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest

from benchcard.errors import ArtifactError, SpecError, UnfitGraphError
from benchcard.export import cache
from benchcard.export.existing import take_existing
from benchcard.export.export import export_model
from benchcard.export.interface import Contract, Names, adapt
from benchcard.graphs.cache import feed, past_names
from benchcard.graphs.signature import session_inputs
from benchcard.tasks.text_generation import TextGeneration
from export.test_export import decoder

TASK = "text-generation"
NO_NAMES = Names({}, {}, None)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function that returns a model, the report on its export, and the graph in a session. The llama has fewer heads
    of keys than of queries, and the GPT-2 has position embeddings.
    """

    @functools.cache
    def export(name):
        folder, model = tmp_path_factory.mktemp(name), decoder(name)
        model.save_pretrained(folder)
        report = export_model(folder, TASK, None, folder / "graph", with_cache=True)
        return model, report, onnxruntime.InferenceSession(folder / "graph" / "model.onnx")

    return export


def run(session, arrays):
    """The outputs of a graph by name."""
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(names, feed(session_inputs(session), arrays))))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_prompt_and_decoding_equal_pytorch(exported, name):
    """At shapes not seen at export, with padding on the left, the logits of the prompt and of tokens after it, and all
    keys and values, are those of a model that `generate` would call.
    """
    import torch
    from transformers import DynamicCache

    model, report, session = exported(name)
    names = past_names(2)
    assert [entry.name for entry in report.inputs] == ["input_ids", "attention_mask", "position_ids", *names]
    assert report.outputs == ("logits", *(name.replace("past_key_values", "present") for name in names))
    assert {input_.shape for input_ in report.inputs[3:]} == {("batch", session.get_inputs()[3].shape[1], "past", 8)}
    generator = np.random.default_rng(1)
    for batch, length, padding in [(1, 5, 0), (4, 7, 3), (2, 30, 11)]:
        cached, pasts = DynamicCache(), {}
        mask = np.ones((batch, 0), dtype=np.int64)
        for tokens in (length, 1, 1, 2):
            ids = generator.integers(0, 50, (batch, tokens))
            mask = np.concatenate([mask, np.ones((batch, tokens), dtype=np.int64)], axis=1)
            mask[-1, :padding] = 0
            positions = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -tokens:]
            given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
            with torch.inference_mode():
                tensors = {name: torch.tensor(array) for name, array in given.items()}
                expected = model(**tensors, past_key_values=cached, use_cache=True)
            actual = run(session, {"input_ids": ids, "attention_mask": mask, **pasts})
            real = mask[:, -tokens:] == 1
            np.testing.assert_allclose(actual["logits"][real], expected.logits.numpy()[real], atol=1e-5)
            pasts = {name: actual[name.replace("past_key_values", "present")] for name in names}
            parts = [part for layer in expected.past_key_values.layers for part in (layer.keys, layer.values)]
            for name, part in zip(names, parts, strict=True):
                found, wanted = (np.moveaxis(array, 2, 1)[mask == 1] for array in (pasts[name], part.numpy()))
                np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_greedy_decoding_gives_the_tokens_of_generate(exported, name):
    """A batch of two prompts, the shorter one padded on the left, is continued as transformers continues it."""
    import torch

    model, _, session = exported(name)
    ids, mask = np.array([[3, 4, 5, 6], [0, 0, 7, 8]]), np.array([[1, 1, 1, 1], [0, 0, 1, 1]])
    with torch.inference_mode():
        expected = model.generate(
            torch.tensor(ids), attention_mask=torch.tensor(mask), max_new_tokens=8, do_sample=False, pad_token_id=0
        )
    text, tokens, pasts = ids, ids, {}
    for _ in range(8):
        outputs = run(session, {"input_ids": tokens, "attention_mask": mask, **pasts})
        tokens = outputs["logits"][:, -1:].argmax(axis=-1)
        text, mask = (np.concatenate([before, new], axis=1) for before, new in ((text, tokens), (mask, [[1], [1]])))
        pasts = {name: outputs[name.replace("past_key_values", "present")] for name in past_names(2)}
    np.testing.assert_array_equal(text, expected.numpy())


@pytest.mark.parametrize("part", ["attention_mask", "present.1.key"])
def test_a_wrong_graph_is_refused(tmp_path, monkeypatch, part):
    """The comparison finds a graph that reads no mask, by its logits, and one that gives other keys."""

    def wrong_call(model, inputs):
        if part in inputs:
            return cache.call(model, {**inputs, part: inputs[part] * 0 + 1})
        outputs = cache.call(model, inputs)
        return {**outputs, part: outputs[part] * 1.01}

    monkeypatch.setattr("benchcard.export.exporters.call", wrong_call)
    monkeypatch.setattr("benchcard.export.export._SEARCH_S", 0)
    decoder("gpt2").save_pretrained(tmp_path)
    found = "logits" if part == "attention_mask" else part
    with pytest.raises(ArtifactError, match=f"{found} differs from PyTorch by"):
        export_model(tmp_path, TASK, 17, tmp_path / "graph", with_cache=True)
    assert not list((tmp_path / "graph").iterdir())


def test_a_model_with_another_cache_is_refused(monkeypatch):
    """State-space models, layers without keys and values, and a cache of another size than the configuration says."""
    from transformers import GPT2Config, MambaConfig, Qwen3NextConfig

    for config, what in [
        (MambaConfig(num_hidden_layers=2, hidden_size=8), "`mamba`"),
        (Qwen3NextConfig(num_hidden_layers=2), "linear_attention"),
    ]:
        with pytest.raises(SpecError, match=what) as raised:
            cache.cache_shape(config)
        assert "$.task_args.use_cache" in str(raised.value)
    assert cache.cache_shape(GPT2Config(n_layer=3, n_head=4, n_embd=32)) == cache.CacheShape(3, 4, 8)
    monkeypatch.setattr(cache, "cache_shape", lambda config: cache.CacheShape(2, 7, 8))
    with pytest.raises(SpecError, match=r"whose cache has \(1, 4, 2, 8\) after two tokens"):
        cache.expect_cache(decoder("gpt2"))


@functools.cache
def example(model, phase):
    """The inputs of a call as the task makes them, without a tokenizer."""
    ids = {"input_ids": np.ones((1, 3), dtype=np.int64), "attention_mask": np.ones((1, 3), dtype=np.int64)}
    if phase is None:
        return ids
    shape = cache.cache_shape(model.config)
    size = (1, shape.heads, 2, shape.width)
    return {**ids, "input_ids": ids["input_ids"][:, 2:], **dict.fromkeys(past_names(shape.layers), np.zeros(size))}


def test_a_given_graph_keeps_its_cache_and_must_have_what_the_spec_says(exported, tmp_path):
    """A graph with a cache is taken as it is, with its positions; without `use_cache`, and for a graph without a cache
    with it, the message says what to do.
    """
    model, _, session = exported("gpt2")
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(session._model_path, source / "with_cache.onnx")
    model.save_pretrained(tmp_path / "model")
    export_model(tmp_path / "model", TASK, None, source)
    for name in ("with_cache.onnx", "model.onnx"):
        (tmp_path / name).mkdir()
        take_existing(source, name, None, tmp_path / name)
    outputs = TextGeneration.outputs
    path = tmp_path / "with_cache.onnx" / "with_cache.onnx"
    before = path.read_bytes()
    assert adapt(path, NO_NAMES, Contract(example(model, "token"), outputs)).notes == ()
    assert path.read_bytes() == before
    with pytest.raises(UnfitGraphError, match=r"write `task_args: \{use_cache: true\}`"):
        adapt(path, NO_NAMES, Contract(example(model, None), outputs))
    path = tmp_path / "model.onnx" / "model.onnx"
    with pytest.raises(UnfitGraphError, match=r"no input `past_key_values.0.key`, with which `use_cache` calls it"):
        adapt(path, NO_NAMES, Contract(example(model, "token"), outputs))


def test_the_axes_of_the_graph_are_named(exported):
    """Each dynamic axis has a name, and those of the cache are as long as the mask."""
    graph = onnx.load(exported("gpt2")[2]._model_path, load_external_data=False).graph
    axes = {value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.output)}  # fmt: skip
    assert axes["attention_mask"] == ["batch", "context"]
    heads = axes["past_key_values.1.value"][1]
    assert axes["past_key_values.1.value"] == ["batch", heads, "past", 8]
    assert axes["present.1.value"][0] == "batch"
    assert axes["present.1.value"][2] == "context"
