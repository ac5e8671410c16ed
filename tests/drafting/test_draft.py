"""Drafts of specs from model cards as people write them, against a local Hub with the real client."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from typing import Any

import drafting_hub
import pandas as pd
import pytest
import tiny
import tiny_text
from click.testing import CliRunner
from datasets import ClassLabel, Features, Value, load_dataset
from drafting_hub import CARDS, CONFIGS, CONVERTED, Drafted, drafts

from benchcard import Benchmark, Results, SpecError
from benchcard.cli import main
from benchcard.drafting.draft import draft_spec
from benchcard.spec.spec import read_spec
from benchcard.testing import Fault, LocalHub, write_data, write_image_data, write_text_model
from benchcard.utils.parsing import load_yaml

COLUMNS = ["dataset.eval_split", "dataset.data_keys.primary", "dataset.ref_keys"]
NO_DATA = ["dataset.path", *COLUMNS]
BEANS = {"path": "AI-Lab-Makerere/beans", "calibration_split": "train", "data_keys": {"primary": "image"}}
GLUE = {"path": "nyu-mll/glue", "eval_split": "validation", "calibration_split": "train", "ref_keys": ["label"]}
CONLL = {"path": "eriktks/conll2003", "revision": CONVERTED, "data_keys": {"primary": "tokens"}}
STS = {"data_keys": {"primary": "sentence1", "secondary": "sentence2"}, "ref_keys": ["score"]}

# What is drafted for each model: values, with those of `dataset` that are named here, and the lines to fill in.
EXPECTED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "beans-index": (
        {"task": "image-classification", "metrics": ["accuracy"], "batch_sizes": [1]}
        | {"dataset": {**BEANS, "eval_split": "test", "ref_keys": ["labels"]}},
        [],
    ),
    "beans-datasets": (
        {"task": "image-classification", "dataset": {**BEANS, "eval_split": "validation"}, "metrics": ["accuracy"]},
        [],
    ),
    "beans-odd-lists": ({"task": "image-classification", "dataset": BEANS, "metrics": ["accuracy"]}, []),
    "beans-after-others": ({"dataset": BEANS}, []),
    "beans-other-labels": ({"dataset": {**BEANS, "ref_keys": ["labels"]}}, ["task_args.label_mapping"]),
    "imagefolder": ({"task": "image-classification"}, NO_DATA),
    "sst2-args": (
        {"task": "text-classification", "metrics": ["accuracy"]}
        | {"dataset": {**GLUE, "name": "sst2", "data_keys": {"primary": "sentence"}}},
        [],
    ),
    "sst2-config": ({"dataset": {**GLUE, "name": "sst2"}, "metrics": ["accuracy", "precision"]}, []),
    "glue-without-config": ({"dataset": {"path": "nyu-mll/glue"}}, ["dataset.name", *COLUMNS]),
    "stsb-cross-encoder": (
        {"task": "text-classification", "task_args": {"is_regression": True}, "metrics": ["spearman", "pearson"]}
        | {"dataset": {**GLUE, "name": "stsb", "data_keys": STS["data_keys"]}},
        [],
    ),
    "imdb-scalars": (
        {"dataset": {"path": "stanfordnlp/imdb", "eval_split": "test"}, "metrics": ["accuracy"], "input_lengths": [32]},
        [],
    ),
    "emotion-f1": ({"dataset": {"path": "dair-ai/emotion", "name": "split"}, "metrics": ["accuracy", "f1_macro"]}, []),
    "go-emotions": (
        {"task_args": {"is_multi_label": True}, "metrics": ["f1_macro"]}
        | {"dataset": {"path": "google-research-datasets/go_emotions", "name": "simplified", "ref_keys": ["labels"]}},
        [],
    ),
    "conll-wrong-tag": (
        {"task": "token-classification", "dataset": {**CONLL, "ref_keys": ["ner_tags"]}}
        | {"metrics": ["precision", "recall", "f1"]},
        [],
    ),
    "conll-pos": ({"dataset": {**CONLL, "ref_keys": ["pos_tags"]}, "metrics": ["accuracy"]}, []),
    "squad": (
        {"task": "question-answering", "metrics": ["exact_match", "f1"]}
        | {"dataset": {"path": "rajpurkar/squad", "data_keys": {"primary": "question", "secondary": "context"}}},
        [],
    ),
    "stsb-sentences": (
        {"task": "sentence-similarity", "batch_sizes": [1, 32], "input_lengths": [24]}
        | {"dataset": {**STS, "path": "sentence-transformers/stsb", "eval_split": "validation"}},
        [],
    ),
    "mteb": (
        {"task": "sentence-similarity", "metrics": ["pearson", "spearman"]}
        | {"dataset": {**STS, "path": "mteb/biosses-sts", "eval_split": "test", "calibration_split": "test"}},
        [],
    ),
    "broken-yaml": ({"task": "text-classification"}, NO_DATA),
    "text-generation": ({"task": "text-generation"}, [place for place in NO_DATA if place != "dataset.ref_keys"]),
    "remote-code": ({"dataset": {"path": "stanfordnlp/imdb"}}, ["trust_remote_code"]),
    "hostile": ({"task": "text-classification"}, NO_DATA),
    "no-card": ({"task": "text-classification"}, NO_DATA),
}
NOTES = {
    "no-card": "the model has no model card",
    "broken-yaml": "nothing was taken from the model card: the front matter cannot be read, line 4",
    "imagefolder": "`model-index` of the model card has `imagefolder` with the configuration `default`, which cannot",
    "beans-after-others": "`datasets` of the model card has `imagenet-21k`, which cannot be used",
    "squad": "some results in the `model-index` of the model card lack a field",
    "hostile": "`/etc`, which cannot be used: a remote card cannot name a path of this machine",
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with all models and data sets."""
    with LocalHub() as running:
        drafting_hub.fill(running, tmp_path_factory.mktemp("content"))
        yield running


@pytest.fixture(scope="module")
def drafted(hub, tmp_path_factory) -> dict[str, Drafted]:
    """The drafts of all models, made where folders have names as in the card `hostile`."""
    folder = tmp_path_factory.mktemp("working")
    write_data(folder / "data", {"train": {"text": ["a"], "label": [0]}})
    return dict(zip(CONFIGS, drafts(hub, *((f"someone/{name}", {}) for name in CONFIGS), cwd=folder)))


def holds(values: Any, expected: Any) -> bool:
    """Return whether mappings have the expected values, and all else is equal."""
    if isinstance(expected, dict):
        return all(name in values and holds(values[name], value) for name, value in expected.items())
    return values == expected


def test_each_card_is_expected():
    """There are at least twenty cards, and each has an expectation."""
    assert len(list(CARDS.glob("*.md"))) >= 20
    assert set(EXPECTED) == set(CONFIGS) == {*(path.stem for path in CARDS.glob("*.md")), "no-card"}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_draft_reads_without_an_edit_or_leaves_what_cannot_be_known(drafted, name):
    """The spec has the expected values, and its mistakes are exactly the lines to fill in."""
    values, missing = EXPECTED[name]
    draft = drafted[name]
    assert draft.error == ""
    data = load_yaml(draft.yaml)
    assert holds(data, {"model": f"someone/{name}", "grid": "recommended", **values})
    assert draft.missing == missing
    places = []
    try:
        read_spec(data)
    except SpecError as error:
        places = [mistake.place.removeprefix("$.").removesuffix("[0]") for mistake in error.mistakes]
    assert sorted(places) == sorted(missing)
    assert draft.yaml.count("# FILL IN: ") == len(missing)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_value_has_a_comment(drafted, name):
    """Beside each value stands where it was taken from; no line of the card can become a line of the spec."""
    lines = [line for line in drafted[name].yaml.splitlines() if not line.lstrip().startswith("#")]
    assert all(re.search(r":$|: .+  # \S", line) for line in lines)
    assert max(map(len, drafted[name].yaml.splitlines())) <= 160


@pytest.mark.parametrize(("name", "note"), NOTES.items())
def test_what_cannot_be_read_is_a_note(drafted, name, note):
    """The spec says what in the model card was not used, and why."""
    assert any(note in text for text in drafted[name].notes)
    head = " ".join(line.removeprefix("# ") for line in drafted[name].yaml.splitlines() if line.startswith("# "))
    assert note in head


def test_a_comment_says_what_else_a_value_could_be(drafted):
    """Other data sets of the card, other configurations, splits and averages are named beside the chosen ones."""
    expected = {
        "beans-after-others": "else `cifar10`",
        "sst2-config": "name: sst2  # `model-index` of the model card; else `cola`, `mrpc` or `stsb`",
        "sst2-args": "the model does not name its labels: they were matched by number",
        "glue-without-config": "candidates: `sst2`, `cola`, `mrpc`, `stsb`",
        "beans-index": "as `beans`, an old id of it",
        "emotion-f1": "`f1` does not say which average",
        "conll-wrong-tag": "`pipeline_tag` of the model card says text-classification",
        "beans-other-labels": "and of the model ['cat', 'dog', 'bird']",
    }
    for name, text in expected.items():
        assert text in re.sub(r"\n +# ", " ", drafted[name].yaml)


def test_a_small_split_is_evaluated_whole(drafted, tmp_path):
    """A local split of few rows has no cap, and the comment on a cap says nothing of one metric."""
    model, data = local_text(
        tmp_path, "ForSequenceClassification", ["bad", "good"], {"text": ["a film"], "label": [0, 1]}
    )
    small = draft_spec(model, data).to_yaml()
    assert "max_eval_samples: null  # all rows: the evaluation split has " in small
    assert "max_eval_samples: 500  # a cap on the time" in drafted["no-card"].yaml
    assert not any("accuracy to" in draft.yaml for draft in drafted.values())


def test_what_is_missing_can_be_given(hub):
    """Options and arguments replace unknown values, and others; the rest follows from them."""
    calls = [
        ("someone/glue-without-config", {"dataset": {"name": "mrpc"}}),
        ("someone/no-card", {"dataset": "imdb", "duration": 1}),
        (
            "someone/beans-other-labels",
            {"dataset": "uoft-cs/cifar10", "task_args": {"label_mapping": {"ship": "bird"}}},
        ),
        ("someone/imdb-scalars", {"dataset": {"eval_split": "train"}, "metrics": ["f1"], "grid": "dynamic"}),
    ]
    mrpc, imdb, cifar, changed = drafts(hub, *calls)
    assert [draft.missing for draft in (mrpc, imdb, cifar, changed)] == [[], [], [], []]
    keys = load_yaml(mrpc.yaml)["dataset"]["data_keys"]
    assert keys == {"primary": "sentence1", "secondary": "sentence2"}
    assert holds(load_yaml(imdb.yaml), {"dataset": {"path": "imdb", "eval_split": "test"}, "duration": 1})
    assert load_yaml(cifar.yaml)["dataset"]["data_keys"] == {"primary": "img"}
    values = {"dataset": {"path": "stanfordnlp/imdb", "eval_split": "train"}, "metrics": ["f1"], "grid": "dynamic"}
    assert holds(load_yaml(changed.yaml), values)
    for draft in (mrpc, imdb, cifar, changed):
        read_spec(load_yaml(draft.yaml))


def test_a_repository_that_cannot_be_read_is_said(hub):
    """A missing model or data set, and a Hub that cannot be reached, end with what to do."""
    none, data = drafts(hub, ("someone/none", {}), ("someone/no-card", {"dataset": "someone/none"}))
    assert "SpecError: expected a model on the Hub or a local path, found `someone/none`" in none.error
    assert "SpecError: expected a data set on the Hub or a local path, found `someone/none`" in data.error
    (unreached,) = drafts(hub, ("someone/unseen", {}), HF_ENDPOINT="http://127.0.0.1:9")
    assert "HubError: The model `someone/unseen` could not be read from the Hub" in unreached.error


@pytest.mark.slow
def test_a_gated_repository_is_said(hub):
    """The message says to accept the terms of a gated model or data set and to log in."""
    hub.add_model("someone/gated", {"config.json": json.dumps(CONFIGS["no-card"])})
    gate = {"status": 403, "times": None, "headers": {"X-Error-Code": "GatedRepo"}}
    hub.strike(Fault("resolve", **gate))
    try:
        (model,) = drafts(hub, ("someone/gated", {}))
    finally:
        hub.heal()
    assert "HubError: The model `someone/gated` could not be read from the Hub" in model.error
    assert "gated: accept its terms on its page" in model.error
    (before,) = drafts(hub, ("someone/gated", {}))
    assert before.missing == NO_DATA
    hub.strike(Fault("resolve", **gate))
    try:
        (data,) = drafts(hub, ("someone/gated", {"dataset": "mteb/biosses-sts"}))
    finally:
        hub.heal()
    assert "gated" in data.error


@pytest.mark.slow
def test_offline_a_draft_is_made_from_the_cache(hub, tmp_path):
    """Without the network, a draft is the same if model and data are in the cache, else it says what is missing."""
    program = "import datasets; datasets.load_dataset('stanfordnlp/imdb')"
    subprocess.run([sys.executable, "-c", program], env=os.environ | hub.environment(), check=True, capture_output=True)
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    (online,) = drafts(hub, ("someone/imdb-scalars", {}))
    (cached,) = drafts(hub, ("someone/imdb-scalars", {}), **offline)
    assert online == cached
    assert load_yaml(online.yaml)["calibration"] == {"num_calibration_samples": drafting_hub.ROWS}
    (none,) = drafts(hub, ("someone/not-cached", {}), **offline)
    assert "HF_HUB_OFFLINE is set" in none.error


@pytest.mark.slow
def test_offline_another_configuration_is_not_taken(hub, tmp_path):
    """The configuration of the model card or of the user must be in the cache, and stands in the spec."""
    program = "import datasets; datasets.load_dataset('nyu-mll/glue', 'mrpc')"
    cache = {"HF_DATASETS_CACHE": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", program], env=os.environ | hub.environment() | cache, check=True, capture_output=True
    )
    drafts(hub, ("someone/sst2-config", {}), ("someone/glue-without-config", {}))
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9", **cache}
    sst2, other, mrpc, given = drafts(
        hub,
        ("someone/sst2-config", {}),
        ("someone/glue-without-config", {"dataset": {"name": "sst2"}}),
        ("someone/glue-without-config", {"dataset": {"name": "mrpc"}}),
        ("someone/glue-without-config", {"dataset": {"path": "nyu-mll/glue", "name": "sst2"}}),
        **offline,
    )
    assert sst2.missing == other.missing == NO_DATA
    for draft in (sst2, other):
        assert any("`glue` with the configuration `sst2`, which cannot be used" in note for note in draft.notes)
    assert mrpc.missing == []
    assert holds(load_yaml(mrpc.yaml)["dataset"], {**GLUE, "name": "mrpc", "data_keys": STS["data_keys"]})
    assert "found `nyu-mll/glue` with name sst2" in given.error
    subprocess.run(
        [sys.executable, "-c", program.replace("mrpc", "sst2")],
        env=os.environ | hub.environment() | cache,
        check=True,
        capture_output=True,
    )
    (cached,) = drafts(hub, ("someone/sst2-config", {}), **offline)
    assert cached.missing == []
    assert "name: sst2  # `model-index` of the model card" in cached.yaml


def test_no_code_of_a_repository_runs(drafted):
    """The model and the data set with scripts were drafted in a process that their scripts would have ended."""
    assert "own.py" not in drafted["remote-code"].yaml
    assert drafted["remote-code"].missing == ["trust_remote_code"]
    assert drafted["conll-pos"].missing == []


@pytest.mark.slow
def test_a_model_of_the_hub_runs_by_its_id(hub, tmp_path):
    """From an id to a card, and again without the network from the cache, with the same plan."""
    tiny.write_model(tmp_path / "model")
    write_image_data(tmp_path / "shades" / "data", labels=tiny.LABELS, rows=120)
    card = "---\npipeline_tag: image-classification\nlicense: mit\ndatasets: someone/shades\n---\n# Tiny\n"
    hub.add_model("someone/tiny", tmp_path / "model")
    hub.commit("someone/tiny", {"README.md": card})
    hub.add_dataset("someone/shades", tmp_path / "shades")
    program = "import benchcard.drafting.draft as draft; draft._DURATION = 0.1; from benchcard.cli import main; main()"
    arguments = [sys.executable, "-c", program, "run", "someone/tiny", "--quiet", "--out"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    for out, variables in (("online", {}), ("offline", offline)):
        environment = os.environ | hub.environment() | variables
        done = subprocess.run(
            [*arguments, out], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert f"spec: {tmp_path / out / 'spec.yaml'}" in done.stdout.splitlines()
        results = Results.load(tmp_path / out)
        assert results.failures.empty
        assert "license: mit" in (tmp_path / out / "README.md").read_text()
    online, offline = ((tmp_path / out / "spec.yaml").read_text() for out in ("online", "offline"))
    assert online == offline


# Local models


def local_text(folder, kind, labels, columns, features=None):
    """Write a small text model and a data set of forty rows, and return both folders."""
    write_text_model(folder / "model", kind, tiny_text.WORDS.split()[5:], labels=labels)
    rows = {name: [values[index % len(values)] for index in range(40)] for name, values in columns.items()}
    write_data(folder / "data", {"train": rows, "validation": rows}, features)
    return folder / "model", folder / "data"


def test_a_local_folder_is_a_model(tmp_path, monkeypatch):
    """A path without a card needs only the data set; local rows are counted, so that calibration has enough."""
    tiny.write_model(tmp_path / "model")
    write_image_data(tmp_path / "data", labels=tiny.LABELS)
    monkeypatch.chdir(tmp_path)
    draft = draft_spec("model", "data")
    values = draft.values()
    assert (values["model"], values["dataset"]["path"]) == ("model", "data")
    assert values["calibration"] == {"num_calibration_samples": 24}
    with pytest.raises(SpecError, match=r"give it with `--dataset`.*@ \$\.dataset\.path$") as error:
        Benchmark.for_model("model")
    assert [mistake.place for mistake in error.value.mistakes] == ["$.dataset.path"]
    with pytest.raises(SpecError, match=r"found DatasetDict .save data in memory"):
        draft_spec("model", load_dataset("parquet", data_files=str(tmp_path / "data" / "train-*")))
    for config, reason in (
        ({"model_type": "unheard-of"}, "The checkpoint you are trying to load"),
        ({"model_type": "bert", "max_position_embeddings": "x"}, "Validation error"),
        ({"model_type": "bert", "id2label": []}, "'list' object"),
    ):
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
        with pytest.raises(SpecError, match=rf"whose `config\.json` cannot be used: {reason}"):
            draft_spec("model", "data")
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(SpecError, match="a transformers model"):
        draft_spec("model", "data")


def test_a_file_and_saved_data_have_a_split(tmp_path):
    """One file is evaluated and calibrated on, and the comment says so."""
    model, data = local_text(
        tmp_path, "ForSequenceClassification", ["bad", "good"], {"text": ["a film"], "label": [0, 1]}
    )
    draft = draft_spec(model, data / "train-00000-of-00001.parquet")
    assert holds(draft.values(), {"dataset": {"eval_split": "train", "calibration_split": "train"}})
    assert "may have been trained on it" in draft.to_yaml()
    assert "calibration_split: train  # the evaluation split itself" in draft.to_yaml()


@pytest.mark.parametrize(
    ("kind", "columns", "missing", "others"),
    [
        (
            "ForSequenceClassification",
            {"uid": ["a1"], "body": ["a film"], "label": [0, 1]},
            ["dataset.data_keys.primary"],
            ("uid", "body"),
        ),
        (
            "Model",
            {"left": ["a film"], "right": ["a play"], "score": [0.1, 0.2]},
            ["dataset.data_keys.primary", "dataset.data_keys.secondary"],
            ("left", "right"),
        ),
        ("ForSequenceClassification", {"body": ["a film"], "label": [0, 1]}, [], ()),
        (
            "ForSequenceClassification",
            {"id": [1, 2], "text": ["a film"], "genre": ["good", "bad"]},
            ["dataset.ref_keys"],
            ("id", "genre"),
        ),
        ("ForSequenceClassification", {"text": ["a film"], "genre": ["good", "bad"]}, [], ()),
    ],
)
def test_columns_without_usual_names_are_taken_only_alone(tmp_path, kind, columns, missing, others):
    """Several columns without a usual name are candidates: neither a pair nor the references are guessed."""
    model, data = local_text(tmp_path, kind, ["bad", "good"], columns)
    draft = draft_spec(model, data)
    assert list(draft.missing) == missing
    assert all(choice.others == others for choice in draft.missing.values())


def test_names_of_labels_show_the_column_of_references(tmp_path):
    """Of several columns, the only one that declares labels has the references."""
    columns = {"id": [1, 2], "text": ["a film"], "genre": [0, 1]}
    features = Features({"id": Value("int64"), "text": Value("string"), "genre": ClassLabel(names=["bad", "good"])})
    model, data = local_text(tmp_path, "ForSequenceClassification", ["bad", "good"], columns, features)
    assert draft_spec(model, data).values()["dataset"]["ref_keys"] == ["genre"]


def test_a_language_model_needs_no_references(tmp_path):
    """The draft of a decoder has a column of texts, perplexity and no reference, and reads without an edit. With a
    cache, its length leaves room for the next token.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    model = tmp_path / "model"
    GPT2LMHeadModel(GPT2Config(vocab_size=24, n_positions=32, n_embd=16, n_layer=1, n_head=2)).save_pretrained(model)
    tiny_text.write_tokenizer(model)
    data = tiny_text.write_data(tmp_path / "data", {"text": ["a film", "a good film"], "number": [1, 2]})
    draft = draft_spec(model, data)
    assert not draft.missing
    expected = {"task": "text-generation", "metrics": ["perplexity"], "dataset": {"data_keys": {"primary": "text"}}}
    assert holds(draft.values(), expected)
    assert "ref_keys" not in draft.to_yaml()
    assert draft.values()["input_lengths"] == [32]
    cached = draft_spec(model, data, task_args={"use_cache": True})
    assert cached.values()["input_lengths"] == [31]
    assert "the most that the model takes beside the next token" in cached.to_yaml()
    assert list(draft_spec(model).missing) == [place for place in NO_DATA if place != "dataset.ref_keys"]


def test_given_values_are_taken_as_they_are(tmp_path):
    """Any parameter can be given, also null, and stands in the YAML as in the spec."""
    model, data = local_text(
        tmp_path, "ForSequenceClassification", ["bad", "good"], {"text": ["a film"], "label": [0, 1]}
    )
    grid = {"operators_to_quantize": [["MatMul"], None], "apply_quantization": [False, True]}
    given = {"max_eval_samples": None, "fixed": {"seed": 3}, "calibration": {"num_calibration_samples": 9}}
    draft = draft_spec(model, {"path": str(data), "name": None}, grid=grid, metrics=None, task=None, **given)
    values = draft.values()
    assert holds(values, {**given, "grid": grid, "metrics": ["accuracy"], "task": "text-classification"})
    assert load_yaml(draft.to_yaml()) == values
    assert Benchmark.from_spec(values).spec.get("seed") == 3


@pytest.mark.parametrize(
    ("given", "absent"),
    [
        ({"fixed": {"duration": 3, "max_eval_samples": None}}, ["duration", "max_eval_samples"]),
        ({"grid": {"batch_sizes": [[1], [2]], "apply_quantization": [False]}}, ["batch_sizes"]),
        ({"grid": {"metrics": [["accuracy"]], "input_lengths": [[8], [16]]}}, ["metrics", "input_lengths"]),
        ({"fixed": {"calibration.num_calibration_samples": 9}}, ["calibration"]),
        ({"fixed": {"calibration.method": "entropy"}}, []),
        ({"fixed": {"budget": "10m"}}, ["duration", "max_eval_samples"]),
    ],
)
def test_what_fixed_or_grid_has_is_not_drafted(tmp_path, given, absent):
    """A parameter stands once in the spec, in the mapping in which it was given."""
    model, data = local_text(
        tmp_path, "ForSequenceClassification", ["bad", "good"], {"text": ["a film"], "label": [0, 1]}
    )
    benchmark = Benchmark.for_model(model, data, **given)
    values = load_yaml(benchmark._yaml)
    assert holds(values, given)
    assert not set(absent) & values.keys()


def test_models_and_data_in_fixed_or_grid_are_used(tmp_path):
    """The draft reads the given data set, or the first one of the grid, and takes the models of the grid."""
    model, data = local_text(
        tmp_path, "ForSequenceClassification", ["bad", "good"], {"text": ["a film"], "label": [0, 1]}
    )
    dataset = {"path": str(data), "eval_split": "validation", "data_keys": {"primary": "text"}, "ref_keys": ["label"]}
    models = {"model": [str(model)], "apply_quantization": [False]}
    for given in ({"fixed": {"dataset": dataset}}, {"grid": {"dataset": [dataset], **models}}):
        draft = draft_spec(model, **given)
        assert draft.missing == {}
        assert Benchmark.from_spec(draft.values()).configurations
    names = ("path", "eval_split", "data_keys", "ref_keys")
    draft = draft_spec(model, fixed={f"dataset.{name}": dataset[name] for name in names})
    assert draft.missing == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"grid": "recomended"}, r"did you mean `recommended`.* @ \$\.grid$"),
        ({"budget": "soon"}, r'expected a time, .*found "soon" @ \$\.budget$'),
        ({"task": "text-clasification"}, r"did you mean `text-classification`.* @ \$\.task$"),
        ({"durration": 3}, r"did you mean `duration`.* @ \$\.durration$"),
        ({"grid": {"batch_sizes": [0]}}, r"@ \$\.grid\.batch_sizes\[0\]$"),
        ({"fixed": {"sed": 3}}, r"did you mean `seed`.* @ \$\.fixed\.sed$"),
        ({"dataset": {"nmae": "mrpc"}}, r"did you mean `name`.* @ \$\.dataset\.nmae$"),
        ({"dataset": {"ref_keys": "label"}}, r'write \["label"\]\) @ \$\.dataset\.ref_keys$'),
        ({"task": "text-classification", "task_args": {"is_regresion": True}}, r"@ \$\.task_args\.is_regresion$"),
        ({"calibration": {"method": "entropi"}}, r"did you mean `entropy`.* @ \$\.calibration\.method$"),
        ({"task_args": {"label_mapping": object()}}, r"@ \$\.task_args\.label_mapping$"),
        ({"name_or_path": "other"}, r"each parameter once"),
    ],
)
def test_given_values_are_checked_before_anything_is_read(given, message):
    """A misspelt name or a wrong value is the only mistake, although there is no such model."""
    with pytest.raises(SpecError, match=message) as error:
        draft_spec("someone/none", **given)
    assert len(error.value.mistakes) == 1


def test_data_in_memory_is_refused_also_as_a_path():
    """A data frame as `path` is refused as it is alone."""
    frame = pd.DataFrame({"text": ["a film"], "label": [0]})
    for dataset, place in ((frame, r"\$\.dataset$"), ({"path": frame}, r"\$\.dataset\.path$")):
        with pytest.raises(SpecError, match=rf"found DataFrame \(save data in memory .* @ {place}"):
            Benchmark.for_model("someone/none", dataset)
    with pytest.raises(SpecError, match=r"found dict \(save data in memory .* @ \$\.dataset$"):
        Benchmark.for_model("someone/none", {"train": frame})


def test_a_budget_decides_how_much_is_measured(tmp_path):
    """A draft with a budget has no seconds and no cap on rows, which are chosen when it is run."""
    model, data = local_text(
        tmp_path, "ForSequenceClassification", ["bad", "good"], {"text": ["a film"], "label": [0, 1]}
    )
    values = draft_spec(model, data, budget="10m").values()
    assert values["budget"] == "10m"
    assert not {"duration", "max_eval_samples"} & values.keys()
    assert {"duration", "max_eval_samples"} <= draft_spec(model, data, budget=None).values().keys()


@pytest.fixture
def image_run(images, monkeypatch):
    """The folder with a model and its data, as the working directory."""
    monkeypatch.chdir(images)
    return images


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with a model and its data."""
    folder = tmp_path_factory.mktemp("images")
    tiny.write_model(folder / "model")
    write_image_data(folder / "data", labels=tiny.LABELS)
    (folder / "model" / "README.md").write_text("---\npipeline_tag: image-classification\nlicense: mit\n---\n")
    return folder


def command(*arguments):
    """Return the status, the output and the errors of a command in the working directory."""
    done = CliRunner().invoke(main, list(arguments))
    return done.exit_code, done.stdout, done.stderr


def test_init_writes_a_spec_and_names_what_is_missing(image_run):
    """`-o` writes the spec once; without a data set the lines are named on standard error."""
    status, output, errors = command("init", "model", "-o", "draft.yaml")
    assert (status, output) == (0, "spec: draft.yaml\n")
    named = [line.partition(":")[0] for line in errors.splitlines() if line.startswith("fill in ")]
    assert named == [f"fill in {place}" for place in NO_DATA]
    status, _, errors = command("init", "model", "-o", "draft.yaml")
    assert status == 1
    assert "draft.yaml exists" in errors
    status, output, errors = command("init", "model", "--dataset", "data", "--grid", "dynamic")
    assert status == 0
    assert load_yaml(output)["grid"] == "dynamic"
    status, _, errors = command("run", "model")
    assert status == 2
    assert "$.dataset.path" in errors
    assert "give it with `--dataset`" in errors


def test_spec_command_line_and_python_have_one_plan(image_run):
    """A spec that `init` wrote has the plan of `for_model`."""
    status, output, _ = command("init", "model", "--dataset", "data")
    assert status == 0
    (image_run / "own.yaml").write_text(output)
    written, drafted = Benchmark.from_spec("own.yaml"), Benchmark.for_model("model", "data")
    assert written.spec.digest == drafted.spec.digest
    assert [row.parameters for row in written.configurations] == [row.parameters for row in drafted.configurations]
    assert written.default_path == drafted.default_path


def test_the_hint_has_the_given_options(image_run):
    """The command that leaves a line to fill in has the options that were given, quoted for a shell."""
    columns = {"left": ["a film"], "right": ["a play"], "label": [0, 1]}
    _, data = local_text(image_run / "my text", "ForSequenceClassification", ["bad", "good"], columns)
    arguments = ["--task", "image-classification", "--dataset", str(data), "--grid", "dynamic"]
    status, _, errors = command("run", "model", *arguments)
    assert status == 2
    hint = re.search(r"fill in the line that `(benchcard init model .*?)` leaves", errors)
    assert shlex.split(hint[1]) == ["benchcard", "init", "model", *arguments, "-o", "spec.yaml"]
    with pytest.raises(
        SpecError, match=r"give it with `--dataset` or `dataset=`, or fill in .*init model --budget 10m"
    ):
        draft_spec("model", budget="10m").values()
    with pytest.raises(SpecError, match=r"give it with `dataset=`, or fill in .* @ \$\.dataset\.data_keys\.primary"):
        draft_spec("model", data).values()


@pytest.mark.slow
def test_run_of_a_model_keeps_its_spec(image_run, monkeypatch):
    """`run MODEL` writes `spec.yaml` and the card; the spec continues the run, with nothing left to do."""
    monkeypatch.setattr("benchcard.drafting.draft._DURATION", 0.1)
    status, output, errors = command("run", "model", "--dataset", "data", "--out", "run", "--quiet")
    assert (status, errors) == (0, "")
    assert f"spec: {image_run / 'run' / 'spec.yaml'}" in output.splitlines()
    results = Results.load("run")
    assert (image_run / "run" / "spec.yaml").read_text() == draft_spec("model", "data").to_yaml()
    assert len(results.quality) == len(Benchmark.for_model("model", "data").configurations)
    status, output, errors = command("run", "run/spec.yaml", "--out", "run", "--quiet")
    assert (status, errors) == (0, "")
    assert "best: " in output


def test_another_spec_in_the_directory_is_kept(image_run):
    """A `spec.yaml` that somebody edited is not replaced."""
    (image_run / "edited").mkdir()
    (image_run / "edited" / "spec.yaml").write_text("task: image-classification\n")
    status, output, errors = command("run", "model", "--dataset", "data", "--out", "edited")
    assert (status, output) == (1, "")
    assert "another spec than the one that was drafted" in errors
    assert (image_run / "edited" / "spec.yaml").read_text() == "task: image-classification\n"


def test_a_draft_that_cannot_be_run_leaves_no_spec(image_run):
    """The corrected command is not refused because of the spec of the one that failed."""
    status, output, errors = command("run", "model", "--dataset", "data", "--out", "wrong", "--budget", "1s")
    assert (status, output) == (2, "")
    assert "$.budget: expected more time" in errors
    assert not (image_run / "wrong").exists()


def test_a_spec_in_another_folder_has_absolute_paths(image_run):
    """Paths in a spec start at its folder."""
    (image_run / "specs" / "model").mkdir(parents=True)
    assert command("init", "model", "--dataset", "data", "-o", "specs/spec.yaml")[0] == 0
    spec = Benchmark.from_spec("specs/spec.yaml").spec
    assert spec.fixed["name_or_path"] == str(image_run / "model")
    assert spec.fixed["dataset"]["path"] == str(image_run / "data")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "labels", "columns", "task"),
    [
        (
            "ForSequenceClassification",
            ["bad", "good"],
            {"text": ["a good film", "a dull film"], "label": ["good", "bad"]},
            "text-classification",
        ),
        (
            "ForTokenClassification",
            ["O", "B-PER"],
            {"tokens": [["anna", "lives"], ["bob", "works"]], "ner_tags": [["B-PER", "O"]]},
            "token-classification",
        ),
        (
            "ForQuestionAnswering",
            None,
            {
                "question": ["the film"],
                "context": ["a good film in paris"],
                "answers": [{"text": ["good film"], "answer_start": [2]}],
            },
            "question-answering",
        ),
        (
            "Model",
            None,
            {
                "sentence1": ["a good film"],
                "sentence2": ["a dull film", "a good film", "rome"],
                "score": [0.2, 1.0, 0.0],
            },
            "feature-extraction",
        ),
    ],
)
def test_a_small_model_of_each_task_runs(tmp_path, kind, labels, columns, task):
    """A drafted spec runs without an edit, in all rows of the recommended grid."""
    model, data = local_text(tmp_path, kind, labels, columns)
    benchmark = Benchmark.for_model(model, data, duration=0.05, batch_sizes=[1])
    assert benchmark.spec.task == task
    results = benchmark.run(tmp_path / "run", progress=False)
    assert results.failures.empty
    assert len(results.quality) == len(benchmark.configurations)
