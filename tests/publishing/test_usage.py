"""The lines of a card that use a published model give what was measured, as they are printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny_text
from hub_fixtures import MINE, hub
from tasks.test_feature_extraction import PAIRS, settle, write_model
from tasks.test_text_generation import write_decoder
from tiny_graphs import normal, saved, written

from benchcard import Benchmark
from benchcard.evaluation.rows import Rows, read_predictions
from benchcard.publishing import usage
from benchcard.publishing.weights import Weights
from benchcard.steps import evaluate

__all__ = ["hub"]
LONG = "Good film by Anna " * 4
TEXTS = ["a good film", LONG, "bob works", "a bright film"]


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The graph of the tiny model that `write_model` writes, whatever its folder says of pooling."""
    from benchcard.export.export import export_model

    folder = tmp_path_factory.mktemp("graph")
    export_model(write_model(folder / "model"), "feature-extraction", 17, folder)
    return folder / "model.onnx"


def measured(task, model, graph, data, folder, **asked):
    """What the steps `prepare` and `evaluate` keep of a graph, the predictions, and the context of the rows."""
    tiny_text.prepare(task, model, data, folder / "prepared", **asked)
    (folder / "predicted").mkdir()
    request = tiny_text.evaluate_request(task, folder / "prepared", graph, framework="onnxruntime", batch_size=1)
    evaluate.evaluate(request, folder / "predicted", lambda done, total: None)
    predictions, kept = read_predictions(folder / "predicted")
    return kept, predictions, Rows(folder / "prepared").context


def python(card):
    """The lines for Python of a card."""
    return card.split("```python\n")[1].split("```")[0]


def run(card, model, graph, monkeypatch):
    """The names that the lines for Python of a card define, run with a repository that is this folder."""
    (model / "onnx").mkdir(exist_ok=True)
    (model / "onnx" / "model.onnx").write_bytes(graph.read_bytes())
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo_id, allow_patterns: str(model))
    names = {}
    exec(python(card), names)
    return names


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    "modes",
    [
        "cls",
        "max",
        "mean",
        "mean_sqrt_len_tokens",
        "weightedmean",
        "lasttoken",
        ["mean", "cls"],
    ],
)
def test_the_lines_give_the_measured_embedding(tmp_path, graph, monkeypatch, modes, side):
    """Of every pooling, of a text that is cut, too; normalized or not, with a prompt, lower case and cut embeddings
    where the folder says so; and with other texts beside it, whose padding on the right this model does not mind.
    """
    whole = side == "left"
    reading = {"max_seq_length": 12, "do_lower_case": True} if whole else None
    model = write_model(tmp_path / "model", (), normalize=whole, transformer=reading, pooling_mode=modes)
    tiny_text.write_tokenizer(model, padding_side=side)
    if whole:
        settle(model, prompts={"q": "Film: "}, default_prompt_name="q", truncate_dim=9)
    pairs = {"sentence1": TEXTS, "sentence2": TEXTS[::-1], "score": [1.0, 2.0, 3.0, 4.0]}
    data = tiny_text.write_data(tmp_path / "data", pairs)
    kept, _, context = measured("sentence-similarity", model, graph, data, tmp_path)
    weights = [Weights(0, False, "model.onnx", graph)]
    card = usage.section("me/it", "sentence-similarity", weights, ["as it is"], ["tokenizer.json"], None, context)
    names = run(card, model, graph, monkeypatch)
    assert names["embeddings"].shape == (2, len(kept["embedding"][0]))
    alone = np.concatenate([names["embed"]([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, kept["embedding"][::2], atol=1e-5)
    if side == "right":
        np.testing.assert_allclose(names["embed"](TEXTS), kept["embedding"][::2], atol=1e-5)


@pytest.mark.parametrize(
    ("context", "line"),
    [
        ({}, 'await run("A text", { pooling: "mean", normalize: true });  // up to 32 tokens'),
        ({"modes": ["cls"], "normalize": False}, 'await run("A text", { pooling: "cls", normalize: false });'),
        ({"modes": ["lasttoken"]}, 'pooling: "last_token"'),
        ({"prompt": 'say "it": ', "lower_case": True}, r'await run(("say \"it\": " + "A text").toLowerCase(), {'),
        ({"modes": ["max"]}, None),
        ({"modes": ["mean", "cls"]}, None),
        ({"truncate_dim": 5}, None),
    ],
)
def test_transformers_js_is_shown_where_it_gives_the_measured_embedding(graph, context, line):
    """Its pipeline is called with the measured pooling and normalisation; where it knows none, it is left out."""
    plain = {"modes": ["mean"], "normalize": True, "truncate_dim": None, "prompt": "", "lower_case": False}
    weights = [Weights(0, True, "model_quantized.onnx", graph)]
    given = {**plain, "maximum": 32, **context}
    card = usage.section("me/it", "feature-extraction", weights, ["as it is"], ["tokenizer.json"], None, given)
    if line is None:
        assert "Transformers.js" not in card
    else:
        assert 'pipeline("feature-extraction", "me/it", { dtype: "q8" });\n' in card
        assert line in card


@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh"])
def test_the_lines_give_the_measured_number(tmp_path, monkeypatch, activation):
    """A model with one output gives the number that was measured, and no pipeline of Transformers.js is shown, which
    gives 1 whatever the text.
    """
    from benchcard.export.export import export_model

    task = "text-classification"
    tiny_text.write_tokenizer(tmp_path / "model")
    model = tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", ["score"])
    export_model(model, task, 17, tmp_path)
    data = tiny_text.write_data(tmp_path / "data", {"a": ["A text"], "b": ["Another text"], "label": [0.5]})
    given = {"is_regression": True, "activation_fn": activation}
    keys = {"primary": "a", "secondary": "b"}
    asked = {"data_keys": keys, "task_args": given}
    _, predictions, context = measured(task, model, tmp_path / "model.onnx", data, tmp_path, **asked)
    weights = [Weights(0, False, "model.onnx", tmp_path / "model.onnx")]
    card = usage.section("me/it", task, weights, ["as it is"], ["tokenizer.json"], None, context)
    names = run(card, model, tmp_path / "model.onnx", monkeypatch)
    assert names["score"].shape == ()
    assert float(names["score"]) == pytest.approx(predictions[0], abs=1e-5)
    assert "Transformers.js" not in card


@pytest.mark.parametrize("batch", ["b", 4])
def test_the_lines_call_a_graph_of_a_fixed_length_that_pools_itself(tmp_path, monkeypatch, batch):
    """Texts are padded and cut to the length that a graph takes, one text fills its batch, and its own sentence
    embedding is read; no library that knows nothing of it is shown.
    """
    model = write_model(tmp_path / "model", (), normalize=True, pooling_mode="mean")
    body = (
        "each = Gather(table, input_ids) kept = Cast <to: int = 1> (attention_mask) column = Unsqueeze(kept, two) "
        "real = Mul(each, column) sentence_embedding = ReduceSum <keepdims: int = 0> (real, one)"
    )
    inputs, output = (
        f"int64[{batch}, 8] input_ids, int64[{batch}, 8] attention_mask",
        f"float[{batch}, n] sentence_embedding",
    )
    text = f'<ir_version: 8, opset_import: ["" : 13]> g ({inputs}) => ({output}) {{ {body} }}'
    weights = {"table": normal(50, 4), "one": np.array([1]), "two": np.array([2])}
    graph = saved(written(text, weights), tmp_path / "graph.onnx")
    pairs = {"sentence1": TEXTS, "sentence2": TEXTS[::-1], "score": [1.0, 2.0, 3.0, 4.0]}
    data = tiny_text.write_data(tmp_path / "data", pairs)
    kept, _, context = measured("sentence-similarity", model, graph, data, tmp_path, maximum=8)
    snippets = usage.section(
        "me/it",
        "sentence-similarity",
        [Weights(0, False, "model.onnx", graph)],
        ["as it is"],
        ["tokenizer.json"],
        None,
        context,
    )
    alone = np.concatenate([run(snippets, model, graph, monkeypatch)["embed"]([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, kept["embedding"][::2], atol=1e-5)
    assert "Transformers.js" not in snippets


def test_the_lines_open_images_in_the_mode_of_the_model(tmp_path):
    """A model of gray images gets gray ones."""
    graph = saved(written('<ir_version: 8, opset_import: ["" : 13]> g (float[b] x) => () { }'), tmp_path / "graph.onnx")
    weights = [Weights(0, False, "model.onnx", graph)]
    for mode in ("RGB", "L"):
        context = {"image_mode": mode}
        snippets = usage.section(
            "me/it", "image-classification", weights, ["as it is"], ["config.json"], "me/its", context
        )
        assert f'Image.open("image.png").convert("{mode}")' in snippets
        assert ("Transformers.js" in snippets) == (mode == "RGB")


@pytest.mark.parametrize(
    ("task", "context", "result"),
    [
        ("text-classification", {}, "outputs"),
        ("text-classification", {"activation": "identity", "texts": 1, "maximum": None}, "score"),
    ],
)
def test_the_lines_fill_the_batch_of_a_graph_that_takes_no_other(task, context, result, tmp_path, monkeypatch):
    """A text is repeated to the only batch size, and Transformers.js, which would give one text, is not shown."""
    tiny_text.write_tokenizer(tmp_path)
    body = "f = Cast <to: int = 1> (input_ids) logits = ReduceMean <axes: ints = [1]> (f)"
    text = f'<ir_version: 8, opset_import: ["" : 13]> g (int64[4, t] input_ids) => (float[4, n] logits) {{ {body} }}'
    graph = saved(written(text), tmp_path / "graph.onnx")
    weights = [Weights(0, False, "model.onnx", graph)]
    card = usage.section("me/it", task, weights, ["as it is"], ["tokenizer.json"], None, context)
    value = run(card, tmp_path, graph, monkeypatch)[result]
    assert np.shape(value) == (() if result == "score" else (1, 4, 1))
    assert "Transformers.js" not in card


def test_the_lines_of_a_decoder_with_a_cache_generate_as_transformers_does(tmp_path, monkeypatch, capsys):
    """The loop of a card, run as printed, gives the text of greedy decoding in transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from benchcard.export.export import export_model

    model = write_decoder(tmp_path / "model")
    export_model(model, "text-generation", None, tmp_path, with_cache=True)
    graph = tmp_path / "model.onnx"
    weights = [Weights(0, False, "model.onnx", graph)]
    context = {"windows": {}, "use_cache": True}
    card = usage.section("me/it", "text-generation", weights, ["as it is"], ["tokenizer.json"], None, context)
    text = run(card, model, graph, monkeypatch)["text"]
    prompt = AutoTokenizer.from_pretrained(model)("A text", return_tensors="pt")
    expected = AutoModelForCausalLM.from_pretrained(model).generate(
        **{name: prompt[name] for name in ("input_ids", "attention_mask")}, max_new_tokens=20, do_sample=False
    )
    np.testing.assert_array_equal(text, expected.numpy())
    assert capsys.readouterr().out.strip()
    assert "Transformers.js" not in card


@pytest.mark.slow
def test_the_lines_of_a_pushed_card_give_the_measured_embedding(tmp_path, hub):
    """A quantized model that was pushed comes with the files that say how it pools, and its lines, run as printed
    against the Hub, give the embedding that its row was measured with.
    """
    model = settle(write_model(tmp_path / "model", ("cls_token",)), similarity_fn_name="dot")
    texts = {"sentence1": ["A text", *PAIRS["sentence1"]], "sentence2": ["Another, longer text", *PAIRS["sentence2"]]}
    data = tiny_text.write_data(tmp_path / "data", {**texts, "score": [1.0, *PAIRS["score"]]})
    fixed = {"task": "sentence-similarity", "model": str(model), "duration": 0, "explain": False}
    dataset = {"path": str(data), "eval_split": "validation"}
    grid = {"quantization_approach": ["dynamic"], "apply_quantization": [False, True]}
    results = Benchmark(**fixed, dataset=dataset, grid=grid).run(tmp_path / "run", progress=False)
    assert results.quality["similarity_fn_name"].tolist() == ["dot", "dot"]
    assert any("dot product" in note for note in results.notes)
    results.push_to_hub(MINE, endpoint=hub.endpoint, token=hub.token, artifacts=[1])
    files = hub.files(MINE)
    assert {"modules.json", "1_Pooling/config.json", "config_sentence_transformers.json"} <= set(files)
    card = hub.read(MINE, "README.md").decode()
    assert "the score of two texts is the dot product" in card
    program = f"{python(card)}\nimport json\nprint(json.dumps(embeddings.tolist()))"
    environment = {**os.environ, **hub.environment()}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    evaluated = results.records.records[1].outcomes.evaluate
    _, kept = read_predictions(evaluated.folder)
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), kept["embedding"][:2], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("model_fp16.onnx", 'dtype: "fp16"'),
        ("model_q4f16.onnx", 'dtype: "q4f16"'),
        ("model_q8.onnx", 'model_file_name: "model_q8", dtype: "fp32"'),
    ],
)
def test_transformers_js_loads_each_kind_of_file(graph, name, options):
    """A file with a name of Transformers.js is loaded by its dtype, another one by its own name."""
    card = usage.section(
        "me/it", "text-classification", [Weights(0, True, name, graph)], ["as it is"], ["tokenizer.json"], None, {}
    )
    assert f'pipeline("text-classification", "me/it", {{ {options} }});' in card
