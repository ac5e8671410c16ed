"""Text classification: inputs, predictions, references, and mistakes in data and arguments."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pytest
import tiny_text

from benchcard import registry
from benchcard.errors import ArtifactError, SpecError
from benchcard.metrics.info import MetricInfo
from benchcard.tasks import default_metrics

LABELS = ["negative", "positive", "mixed"]
TEXTS = [
    "good film",
    "a dull film",
    "anna works in the bright film",
    "bad",
    "the good the bad",
    "bob lives in rome and works for acme in paris",
]
TASK = "text-classification"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny classifier of three labels."""
    folder = tmp_path_factory.mktemp("model")
    tiny_text.write_tokenizer(folder)
    return tiny_text.write_model(folder, "ForSequenceClassification", LABELS)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Forty texts of different lengths with labels."""
    texts = [" ".join([TEXTS[index % 6]] * (1 + index % 3)) for index in range(40)]
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=LABELS)}
    return tiny_text.write_data(
        tmp_path_factory.mktemp("data"), {"text": texts, "label": [index % 3 for index in range(40)]}, features
    )


def directly(model, *texts):
    """The logits that transformers itself gives for one text or pair."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    encoding = AutoTokenizer.from_pretrained(model)(*texts, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        return AutoModelForSequenceClassification.from_pretrained(model).eval()(**encoding).logits[0].numpy()


def test_predictions_are_those_of_the_model_alone(model, rows, tmp_path):
    """In padded batches every text gets the logits that it gets alone, and accuracy is that of scikit-learn."""
    from sklearn.metrics import accuracy_score

    found = tiny_text.passed(
        TASK, model, rows, tmp_path, ("accuracy",), ref_keys=["label"], data_keys={"primary": "text"}
    )
    texts = datasets.load_dataset(str(rows), split="validation")["text"][:]
    for index in (0, 7, 23, 39):
        np.testing.assert_allclose(found.kept["scores"][index], directly(model, texts[index]), atol=1e-5)
    assert len(set(found.predictions)) > 1
    assert found.predictions == found.kept["scores"].argmax(axis=1).tolist()
    assert found.scored.metrics["accuracy"] == accuracy_score(found.references, found.predictions)
    assert found.scored.readings["accuracy"] == MetricInfo(True, "share")


def test_padding_changes_no_result(model, rows, tmp_path):
    """Batches of 1 and of 32 give the same logits."""
    one = tiny_text.passed(TASK, model, rows, tmp_path / "1", batch_size=1)
    many = tiny_text.passed(TASK, model, rows, tmp_path / "32", batch_size=32)
    np.testing.assert_allclose(one.kept["scores"], many.kept["scores"], atol=1e-5)
    assert one.predictions == many.predictions


def test_padding_on_the_left_changes_no_mask(model, rows, tmp_path):
    """A tokenizer that pads on the left has its padding there, hidden by the attention mask."""
    from benchcard.evaluation.rows import Rows

    folder = tmp_path / "left"
    tiny_text.write_tokenizer(folder, padding_side="left")
    tiny_text.write_model(folder, "ForSequenceClassification", LABELS)
    tiny_text.prepare(TASK, folder, rows, tmp_path / "prepared")
    _, batch = next(iter(Rows(tmp_path / "prepared").items.batches(40)))
    assert (batch["attention_mask"][:, -1] == 1).all()
    assert (batch["attention_mask"][:, 0] == 0).any()
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 0).all()
    assert (batch["input_ids"][:, -1] == 3).all()


def test_pairs_go_in_as_pairs(model, tmp_path):
    """Two columns become one input with token types, as the tokenizer makes it."""
    data = tiny_text.write_data(
        tmp_path / "data",
        {"premise": ["good film", "anna works"], "hypothesis": ["bad", "bob lives in rome"], "label": [0, 2]},
    )
    keys = {"primary": "premise", "secondary": "hypothesis"}
    found = tiny_text.passed(TASK, model, data, tmp_path, data_keys=keys, ref_keys=["label"])
    np.testing.assert_allclose(found.kept["scores"][1], directly(model, "anna works", "bob lives in rome"), atol=1e-5)
    assert any("matched by number" in note for note in found.notes)


def test_labels_are_aligned_by_name(model, tmp_path):
    """A data set with another order of labels gives references in the model's numbers, and a note."""
    features = {
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["Mixed", "NEGATIVE", "pos_itive"]),
    }
    data = tiny_text.write_data(tmp_path / "data", {"text": TEXTS[:3], "label": [0, 1, 2]}, features)
    found = tiny_text.passed(TASK, model, data, tmp_path)
    assert found.references == [2, 0, 1]
    assert any("aligned by name" in note for note in found.notes)


def test_labels_as_text(model, tmp_path):
    """A column of names needs no declaration."""
    data = tiny_text.write_data(tmp_path / "data", {"text": TEXTS[:2], "label": ["mixed", "negative"]})
    assert tiny_text.passed(TASK, model, data, tmp_path).references == [2, 0]


def test_regression(tmp_path):
    """A model with one output gives numbers, and the metrics are those of scipy and scikit-learn."""
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_squared_error

    tiny_text.write_tokenizer(tmp_path / "model")
    model = tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", ["score"])
    right = [0.5, 4.0, 2.5, 1.0, 3.25, 5.0]
    data = tiny_text.write_data(tmp_path / "data", {"text": TEXTS, "label": right})
    metrics = default_metrics(registry.task(TASK), {"is_regression": True})
    given = {"is_regression": True, "activation_fn": "identity"}
    found = tiny_text.passed(TASK, model, data, tmp_path, metrics, task_args=given)
    assert found.predictions[3] == pytest.approx(float(directly(model, TEXTS[3])[0]), abs=1e-5)
    assert found.scored.metrics == {
        "pearson": pearsonr(found.predictions, right).statistic,
        "spearman": spearmanr(found.predictions, right).statistic,
        "mse": mean_squared_error(right, found.predictions),
    }
    assert found.scored.readings["mse"].higher_is_better is False
    with pytest.raises(SpecError, match=r"is_regression: true`, found a model with one output"):
        tiny_text.passed(TASK, model, data, tmp_path / "none")
    broken = tiny_text.write_data(tmp_path / "broken", {"text": TEXTS[:2], "label": [1.0, None]})
    with pytest.raises(SpecError, match=r"null in row 1 of `label`"):
        tiny_text.passed(TASK, model, broken, tmp_path / "b", task_args={"is_regression": True})


def numbers(folder, config=None, settings=None, task_args=None, **model):
    """A model with one output, of which config.json and the file of sentence-transformers say something, its data and
    what came of it.
    """
    tiny_text.write_tokenizer(folder / "model")
    tiny_text.write_model(folder / "model", "ForSequenceClassification", ["score"], **model)
    path = folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **(config or {})}))
    if settings:
        (folder / "model" / "config_sentence_transformers.json").write_text(json.dumps(settings))
    pairs = {"text": TEXTS, "second": TEXTS[::-1], "label": [0.1, 0.9, 0.4, 0.2, 0.6, 1.0]}
    data = tiny_text.write_data(folder / "data", pairs)
    asked = {"data_keys": {"primary": "text", "secondary": "second"}, "task_args": {"is_regression": True}}
    asked["task_args"].update(task_args or {})
    return tiny_text.passed(TASK, folder / "model", data, folder, ("pearson", "spearman", "mse"), **asked)


@pytest.mark.parametrize("problem", [None, "regression"])
def test_one_output_is_what_the_pipeline_of_transformers_gives(tmp_path, problem):
    """A model with one output gives the sigmoid of it, unless its `problem_type` is regression; the rank correlation
    is that of the outputs.
    """
    from scipy.stats import spearmanr
    from sklearn.metrics import mean_squared_error
    from transformers import pipeline

    found = numbers(tmp_path, problem_type=problem)
    asked = pipeline(TASK, model=str(tmp_path / "model"), device="cpu")
    expected = [asked({"text": first, "text_pair": second})["score"] for first, second in zip(TEXTS, TEXTS[::-1])]
    assert found.predictions == pytest.approx(expected, abs=1e-5)
    assert found.scored.metrics["mse"] == pytest.approx(mean_squared_error(found.references, expected), abs=1e-5)
    ranks = spearmanr(found.kept["scores"][:, 0], found.references).statistic
    assert found.scored.metrics["spearman"] == pytest.approx(ranks)
    assert found.facts == {"activation_fn": "identity" if problem else "sigmoid"}
    assert any(("as it is" if problem else "sigmoid of the model's output") in note for note in found.notes)


@pytest.mark.parametrize(
    ("folder", "activation"),
    [
        ({"config": {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}}, "identity"),
        ({"config": {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"}}, "tanh"),
        ({"settings": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "identity"),
        (
            {
                "problem_type": "regression",
                "config": {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
            },
            "sigmoid",
        ),
        (
            {
                "config": {"sentence_transformers": {"activation_fn": "mine.Scaled"}},
                "task_args": {"activation_fn": "tanh"},
            },
            "tanh",
        ),
    ],
)
def test_one_output_is_what_a_cross_encoder_gives(tmp_path, folder, activation):
    """The activation is that of `task_args`, else that of the files of sentence-transformers."""
    found = numbers(tmp_path, **folder)
    logits = found.kept["scores"][:, 0].astype(float)
    expected = {"identity": logits, "sigmoid": 1 / (1 + np.exp(-logits)), "tanh": np.tanh(logits)}[activation]
    assert found.predictions == pytest.approx(expected.tolist(), abs=1e-6)
    assert found.facts == {"activation_fn": activation}


@pytest.mark.parametrize(
    ("folder", "error"),
    [
        ({"config": {"sentence_transformers": {"activation_fn": "mine.Scaled"}}}, "activation `mine.Scaled`"),
        ({"settings": {"prompts": {"q": "query: "}, "default_prompt_name": "q"}}, "with the prompt 'query: '"),
    ],
)
def test_a_cross_encoder_that_asks_for_more_is_refused(tmp_path, folder, error):
    """An unknown activation and a prompt raise an error that names them."""
    with pytest.raises(ArtifactError, match=error):
        numbers(tmp_path, **folder)


def test_the_sigmoid_keeps_the_order_of_outputs(tmp_path):
    """Outputs far from 0 stay apart, where the sigmoid of float32 would make them equal."""
    sigmoid = registry.task(TASK).prediction
    context = {"problem": "is_regression", "activation": "sigmoid"}
    outputs = [-700.0, -90.0, -40.0, -39.9, 0.0, 17.0, 17.1, 30.0]
    found = [sigmoid([{"scores": np.array([value])}], None, context) for value in outputs]
    assert found == sorted(set(found))
    assert found[4] == 0.5


@pytest.mark.parametrize("form", ["lists", "flags", "columns", "names"])
def test_several_labels(model, tmp_path, form):
    """Lists of labels, lists of 0 and 1, a column a label, and lists of names come to the same references; scores above
    the threshold count.
    """
    from sklearn.metrics import f1_score

    text = {"text": TEXTS[:3]}
    features, keys = None, ["labels"]
    if form == "lists":
        columns = {**text, "labels": [[0, 2], [], [1]]}
        features = {"text": datasets.Value("string"), "labels": datasets.List(datasets.ClassLabel(names=LABELS))}
    elif form == "flags":
        columns = {**text, "labels": [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]}
    elif form == "names":
        columns = {**text, "labels": [["negative", "mixed"], [], ["positive"]]}
    else:
        columns, keys = (
            {**text, "Mixed": [1, 0, 0], "negative": [1, 0, 0], "positive": [0, 0, 1]},
            ["Mixed", "negative", "positive"],
        )
    data = tiny_text.write_data(tmp_path / "data", columns, features)
    arguments = {"is_multi_label": True, "threshold": 0.4}
    found = tiny_text.passed(TASK, model, data, tmp_path, ("f1_micro", "accuracy"), ref_keys=keys, task_args=arguments)
    assert found.references == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    probabilities = 1 / (1 + np.exp(-found.kept["scores"].astype(float)))
    assert found.predictions == (probabilities >= 0.4).astype(int).tolist()
    assert found.scored.metrics["f1_micro"] == f1_score(
        found.references, found.predictions, average="micro", zero_division=0
    )
    assert found.scored.metrics["accuracy"] == np.mean(
        [one == other for one, other in zip(found.references, found.predictions)]
    )


def test_cut_texts_are_counted(model, tmp_path):
    """A text above the maximum is cut as the tokenizer cuts it, and the note says how many were."""
    long = " ".join(["film"] * 50)
    data = tiny_text.write_data(tmp_path / "data", {"text": ["good", long, "bad"], "label": [0, 1, 2]})
    found = tiny_text.passed(TASK, model, data, tmp_path)
    assert "1 of 3 texts was cut to 32 tokens" in found.notes
    np.testing.assert_allclose(found.kept["scores"][1], directly(model, long), atol=1e-5)


def test_inputs_to_time_with_are_real(model):
    """Timed inputs have the asked shape, special tokens at their places and nowhere else, no padding; the same seed
    gives the same.
    """
    arrays, length = registry.task(TASK).inputs(model, 3, 11, 7)
    assert length == 11
    assert {name: array.shape for name, array in arrays.items()} == dict.fromkeys(
        ("input_ids", "token_type_ids", "attention_mask"), (3, 11)
    )
    assert {str(array.dtype) for array in arrays.values()} == {"int64"}
    ids = arrays["input_ids"]
    assert (ids[:, 0] == 2).all()
    assert (ids[:, -1] == 3).all()
    assert ids[:, 1:-1].min() >= len(tiny_text.SPECIAL)
    assert ids.max() < len(tiny_text.WORDS.split())
    assert len(np.unique(ids)) > 5
    assert (arrays["attention_mask"] == 1).all()
    again, _ = registry.task(TASK).inputs(model, 3, 11, 7)
    np.testing.assert_array_equal(ids, again["input_ids"])
    assert registry.task(TASK).inputs(model, 1, None, 0)[1] == 32


@pytest.mark.parametrize(("length", "said"), [(33, "is above 32"), (2, "is below 3")])
def test_lengths_that_cannot_be(model, length, said):
    """A length above the model's maximum, or without room for a token, is refused with the bound."""
    with pytest.raises(ArtifactError, match=said):
        registry.task(TASK).inputs(model, 1, length, 0)


def test_positions_that_roberta_loses(tmp_path):
    """A model that counts positions from the padding id on takes fewer tokens than it has positions."""
    from transformers import BertConfig, PretrainedConfig, RobertaConfig

    from benchcard.tasks import text

    tiny_text.write_tokenizer(tmp_path, maximum=None)
    config = {
        "vocab_size": 30,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "max_position_embeddings": 20,
    }
    RobertaConfig(**config, pad_token_id=1).save_pretrained(tmp_path)
    assert text.load_texts(tmp_path).maximum == 18
    assert text.position_padding_id(RobertaConfig(**config, pad_token_id=1)) == 1
    assert text.position_padding_id(BertConfig(**config, pad_token_id=1)) is None
    with pytest.raises(ArtifactError, match="no model of the type"):
        text.position_padding_id(PretrainedConfig())


def test_a_model_without_a_mask_gets_no_padding(model, rows, tmp_path):
    """Where padding could not be hidden, batches hold texts of one length only, and every text is there once."""
    from benchcard.evaluation.rows import Rows

    folder = tmp_path / "bare"
    tiny_text.write_tokenizer(folder, model_input_names=["input_ids", "token_type_ids"])
    tiny_text.write_model(folder, "ForSequenceClassification", LABELS)
    tiny_text.prepare(TASK, folder, rows, tmp_path / "prepared")
    batches = list(Rows(tmp_path / "prepared").items.batches())
    assert all((batch["input_ids"] != 0).all() for _, batch in batches)
    assert sorted(place for places, _ in batches for place in places) == list(range(40))
    assert 1 < len(batches) < 40


def test_a_tokenizer_without_a_pad_token(tmp_path, rows):
    """A tokenizer without a pad token raises an error that says what to do."""
    tiny_text.write_tokenizer(tmp_path, pad_token=None)
    tiny_text.write_model(tmp_path, "ForSequenceClassification", LABELS)
    with pytest.raises(ArtifactError, match=r"no pad token.*tokenizer\.pad_token"):
        tiny_text.prepare(TASK, tmp_path, rows, tmp_path / "prepared")


def test_a_folder_without_a_tokenizer(tmp_path, rows):
    """A folder without a tokenizer raises an error."""
    tiny_text.write_model(tmp_path, "ForSequenceClassification", LABELS)
    with pytest.raises(ArtifactError, match="has no tokenizer"):
        tiny_text.prepare(TASK, tmp_path, rows, tmp_path / "prepared")


@pytest.mark.parametrize(
    ("columns", "asked", "said"),
    [
        ({"text": ["good"], "label": [0]}, {"data_keys": {"primary": "txt"}}, r"column `txt`.*did you mean `text`"),
        (
            {"text": ["good"], "label": [0]},
            {"data_keys": {"primary": "text", "secondary": "other"}},
            r"`other`.*data_keys\.secondary",
        ),
        ({"text": ["good"], "label": [0]}, {"ref_keys": ["labell"]}, r"did you mean `label`"),
        ({"text": ["good", "bad"], "label": [0, 3]}, {}, r"\['0', '3'\].*'negative', 'positive', 'mixed'"),
        ({"text": ["good", " "], "label": [0, 1]}, {}, r'" " in row 1 of `text`'),
        ({"text": ["good", None], "label": [0, 1]}, {}, r"null in row 1 of `text`"),
        ({"text": ["good", "bad", "dull", ""], "label": [0, 1, 0, 1]}, {"max_samples": 2}, None),
        ({"text": ["good", "bad", "", "dull"], "label": [0, 1, 0, 1]}, {"max_samples": 2}, r'"" in row 2 of `text`'),
        ({"text": [3], "label": [0]}, {}, r"3 in row 0 of `text`"),
        ({"text": ["good"], "label": [0.5]}, {}, r"column of labels"),
        (
            {"text": ["good"], "label": [0]},
            {"task_args": {"activation_fn": "sigmoid"}},
            r"one output, for a number, found a model that gives labels",
        ),
        ({"text": ["good"], "label": [0]}, {"task_args": {"is_regresion": True}}, r"did you mean `is_regression`"),
        (
            {"text": ["good"], "label": [0]},
            {"task_args": {"is_regression": True}},
            r"one output for a number, found a model with 3 outputs \(leave `is_regression` out",
        ),
        (
            {"text": ["good", "bad"], "label": ["fine", "mixed"]},
            {"task_args": {"label_mapping": {"fine": "postive"}}},
            r'`mixed`, found "postive" \(did you mean `positive`\?\) @ \$\.task_args\.label_mapping\.fine',
        ),
        (
            {"text": ["good", "bad", "dull"], "label": ["fine", "great", "mixed"]},
            {"task_args": {"label_mapping": {"fine": "positive", "great": "positive"}}},
            r"found `fine` and `great` of the data set, all `positive` of the model",
        ),
        ({"text": ["good", "bad"], "label": ["fine", "mixed"]}, {}, r"say what `fine` is in the model"),
        (
            {"text": ["good"], "label": [0]},
            {"task_args": {"is_regression": True, "is_multi_label": True}},
            r"one of them",
        ),
        ({"text": ["good"], "label": [0]}, {"task_args": {"is_multi_label": True}}, r"column of lists"),
        (
            {"text": ["good"], "label": [0], "other": [1]},
            {"ref_keys": ["label", "other"]},
            r"one column, found 2 columns, `label`, `other` .*`task_args: {is_multi_label: true}`.*ref_keys",
        ),
    ],
)
def test_what_does_not_fit_is_said(model, tmp_path, columns, asked, said):
    """Each mistake in data or arguments names its column, the row's number in the split, and what is near."""
    asked = {"ref_keys": ["label"], **asked}
    data = tiny_text.write_data(tmp_path / "data", columns)
    if said is None:
        assert tiny_text.prepare(TASK, model, data, tmp_path / "prepared", **asked).rows == (0, 2)
        return
    with pytest.raises(SpecError, match=said):
        tiny_text.prepare(TASK, model, data, tmp_path / "prepared", **asked)


@pytest.mark.parametrize(
    ("labels", "settings", "said"),
    [
        (
            ["score"],
            {},
            r"expected a model with an output for each label, or `is_regression: true`, found a model with one",
        ),
        (LABELS, {"problem_type": "regression"}, r"3 outputs \(its `problem_type` says so: `is_regression: false`"),
    ],
)
def test_a_number_is_asked_of_one_output(rows, tmp_path, labels, settings, said):
    """A model with one output gives no labels, and one with several no number; the message says what to do."""
    tiny_text.write_tokenizer(tmp_path / "model")
    model = tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", labels, **settings)
    with pytest.raises(SpecError, match=said):
        tiny_text.prepare(TASK, model, rows, tmp_path / "prepared")


def test_a_label_that_is_not_declared(model, tmp_path):
    """A number outside the declared names (-1 for rows without a label) names its row."""
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=LABELS)}
    data = tiny_text.write_data(tmp_path / "data", {"text": TEXTS[:2], "label": [0, -1]}, features)
    with pytest.raises(SpecError, match="label -1 in row 1"):
        tiny_text.prepare(TASK, model, data, tmp_path / "prepared")


def test_calibration_rows_need_no_labels(model, tmp_path):
    """Samples are drawn and prepared without references; a column of lists as label is no reason to fail."""
    from benchcard.steps import data as data_
    from benchcard.steps.data import SampleRequest

    data = tiny_text.write_data(tmp_path / "data", {"text": TEXTS, "label": [[0], [1, 2], [], [0], [1], [2]]})
    (tmp_path / "out").mkdir()
    fields = {"num_samples": 4, "seed": 0, "ref_keys": ["label"]}
    request = tiny_text.rows_request(TASK, model, data, SampleRequest, **fields)
    outcome = data_.sample(request, tmp_path / "out", lambda done, total: None)
    assert outcome.items == len(outcome.rows) == 4


@pytest.mark.slow
def test_a_whole_run(model, rows, tmp_path):
    """From spec to card: fp32 agrees with pytorch, a quantized row has figures, and lengths are those asked."""
    from benchcard import Benchmark

    results = Benchmark(
        task=TASK,
        model=str(model),
        dataset={
            "path": str(rows),
            "eval_split": "validation",
            "data_keys": {"primary": "text"},
            "ref_keys": ["label"],
        },
        metrics=["accuracy", "f1_macro"],
        grid={"framework": ["onnxruntime", "pytorch"], "apply_quantization": [False, True]},
        batch_sizes=[2],
        input_lengths=[8, 64],
        duration=0.1,
    ).run(tmp_path / "run", progress=False)
    quality = results.quality.set_index("framework")
    assert quality["accuracy"].notna().all()
    assert quality.loc["onnxruntime", "f1_macro"].iloc[0] == quality.loc["pytorch", "f1_macro"]
    assert results.time.loc[results.time["input_length"] == 8, "latency_mean_ms"].notna().all()
    assert results.failures["message"].str.contains("above 32, the token limit").all()
    assert "f1_macro" in results.card().text
