"""A Hub with models that have cards of the kinds seen on the Hub, and the data sets that these name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny_text
from datasets import ClassLabel, Features, Image, List, Value

from benchcard import testing
from benchcard.testing import LocalHub

CARDS = Path(__file__).parent / "drafting" / "cards"
ROWS = 12
BEANS = ["angular_leaf_spot", "bean_rust", "healthy"]
TAGS = ["NN", "VB", "DT"]
ENTITIES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
EMOTIONS = ["sadness", "joy", "love", "anger", "fear", "surprise"]
CONVERTED = "refs/convert/parquet"
_PROGRAM = """
import json, sys
from benchcard.drafting.draft import draft_spec
from benchcard.errors import BenchcardError
for name, arguments in json.load(sys.stdin):
    try:
        draft = draft_spec(name, **arguments)
        result = {"yaml": draft.to_yaml(), "missing": list(draft.missing), "notes": draft.notes}
    except BenchcardError as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    print("DRAFT", json.dumps(result))
"""


@dataclass(frozen=True)
class Drafted:
    """What a draft in a child process gave."""

    yaml: str = ""
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str = ""


def drafts(
    hub: LocalHub, *calls: tuple[str, dict[str, Any]], cwd: Path | None = None, **variables: str
) -> list[Drafted]:
    """Return the drafts for models with arguments, made in one process that uses this Hub."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=json.dumps(calls),
        env=os.environ | hub.environment() | variables,
        capture_output=True,
        text=True,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("DRAFT ") for line in done.stdout.splitlines() if line.startswith("DRAFT ")]
    return [Drafted(**json.loads(line)) for line in lines]


def text_config(kind: str, labels: list[str] | None = None, **more: object) -> dict[str, object]:
    """Return the configuration of a small BERT."""
    names = (
        {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}} if labels else {}
    )
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    words = {"vocab_size": len(tiny_text.WORDS.split()), "max_position_embeddings": 32}
    return {"model_type": "bert", "architectures": [f"Bert{kind}"], **sizes, **words, **names, **more}


def image_config(labels: list[str]) -> dict[str, object]:
    """Return the configuration of a small ViT."""
    return {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        "id2label": dict(enumerate(labels)),
        "label2id": {name: index for index, name in enumerate(labels)},
    }


CONFIGS: dict[str, dict[str, object]] = {
    **dict.fromkeys(("beans-index", "beans-datasets", "beans-odd-lists", "beans-after-others"), image_config(BEANS)),
    "beans-other-labels": image_config(["cat", "dog", "bird"]),
    "imagefolder": image_config(["cat", "dog"]),
    "sst2-args": text_config("ForSequenceClassification"),
    "sst2-config": text_config("ForSequenceClassification", ["NEGATIVE", "POSITIVE"]),
    "glue-without-config": text_config("ForSequenceClassification"),
    "stsb-cross-encoder": text_config("ForSequenceClassification", ["LABEL_0"]),
    "imdb-scalars": text_config("ForSequenceClassification", ["neg", "pos"]),
    "emotion-f1": text_config("ForSequenceClassification", [f"LABEL_{i}" for i in range(6)]),
    "go-emotions": text_config("ForSequenceClassification", EMOTIONS, problem_type="multi_label_classification"),
    "conll-wrong-tag": text_config("ForTokenClassification", ENTITIES),
    "conll-pos": text_config("ForTokenClassification", TAGS),
    "squad": text_config("ForQuestionAnswering"),
    "stsb-sentences": text_config("Model"),
    "mteb": text_config("ForMaskedLM"),
    "broken-yaml": text_config("ForSequenceClassification", ["neg", "pos"]),
    "text-generation": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
    "remote-code": {
        "model_type": "own_model",
        "architectures": ["OwnForSequenceClassification"],
        "auto_map": {"AutoConfig": "own.OwnConfig"},
        "id2label": {"0": "neg", "1": "pos"},
        "label2id": {"neg": 0, "pos": 1},
    },
    "hostile": text_config("ForSequenceClassification", ["neg", "pos"]),
    "no-card": text_config("ForSequenceClassification", ["neg", "pos"]),
}
_POOLING = {
    "modules.json": json.dumps(
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]
    ),
    "1_Pooling/config.json": json.dumps({"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}),
    "sentence_bert_config.json": json.dumps({"max_seq_length": 24}),
}


def fill(hub: LocalHub, folder: Path) -> None:
    """Add all models, without weights, and all data sets."""
    tiny_text.write_tokenizer(folder / "tokenizer")
    tokenizer = {path.name: path.read_bytes() for path in (folder / "tokenizer").iterdir()}
    for name, config in CONFIGS.items():
        files: dict[str, bytes | str | None] = {"config.json": json.dumps(config)}
        if (CARDS / f"{name}.md").exists():
            files["README.md"] = (CARDS / f"{name}.md").read_bytes()
        if config["model_type"] == "bert":
            files |= tokenizer
        if name in ("stsb-sentences", "mteb"):
            files |= _POOLING
        if name == "remote-code":
            files["own.py"] = "raise SystemExit('code of a repository ran')"
        hub.add_model(f"someone/{name}", files)
    add_datasets(hub, folder)


def _labels(count: int) -> list[int]:
    return [index % count for index in range(ROWS)]


def add_datasets(hub: LocalHub, folder: Path) -> None:
    """Add the data sets that the cards name."""
    texts, flag = ["good film"] * ROWS, ClassLabel(names=["negative", "positive"])
    picture = testing.write_image_data(folder / "picture", rows=ROWS, labels=BEANS)
    from datasets import Dataset

    images = Dataset.from_parquet(str(picture / "train-00000-of-00001.parquet"), cache_dir=str(folder / "cache"))[
        "image"
    ]

    def add(
        repo_id: str, features: dict[str, Any], columns: dict[str, Any], splits: str, readme: str = "", at=""
    ) -> None:
        testing.write_data(folder / repo_id / at, dict.fromkeys(splits.split(), columns), Features(features))
        if readme:
            (folder / repo_id / "README.md").write_text(readme)
        hub.add_dataset(repo_id, folder / repo_id)

    beans = {"image_file_path": ["a"] * ROWS, "image": list(images), "labels": _labels(3)}
    kinds = {"image_file_path": Value("string"), "image": Image(), "labels": ClassLabel(names=BEANS)}
    add("AI-Lab-Makerere/beans", kinds, beans, "train validation test")
    cifar = {"img": list(images), "label": _labels(2)}
    add("uoft-cs/cifar10", {"img": Image(), "label": ClassLabel(names=["cat", "ship"])}, cifar, "train test")
    imdb = {"text": texts, "label": _labels(2)}
    add("stanfordnlp/imdb", {"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])}, imdb, "train test")
    readme = _configs("sst2", "cola", "mrpc", "stsb")
    one = {"sentence": texts, "label": _labels(2), "idx": list(range(ROWS))}
    features = {"sentence": Value("string"), "label": flag, "idx": Value("int32")}
    for name in ("sst2", "cola"):
        add("nyu-mll/glue", features, one, "train validation test", readme, name)
    pairs = {"sentence1": texts, "sentence2": texts}
    strings = dict.fromkeys(pairs, Value("string"))
    add("nyu-mll/glue", {**strings, "label": flag}, {**pairs, "label": _labels(2)}, "train validation", readme, "mrpc")
    scores = [index / 2 for index in range(ROWS)]
    stsb = {**pairs, "label": scores}
    add("nyu-mll/glue", {**strings, "label": Value("float32")}, stsb, "train validation", readme, "stsb")
    scored = {**pairs, "score": scores}
    for name, splits in (("sentence-transformers/stsb", "train validation test"), ("mteb/biosses-sts", "test")):
        add(name, {**strings, "score": Value("float64")}, scored, splits)
    emotion = {"text": texts, "label": _labels(6)}
    kinds = {"text": Value("string"), "label": ClassLabel(names=EMOTIONS)}
    readme = _configs("split", "unsplit", default="split")
    for name in ("split", "unsplit"):
        add("dair-ai/emotion", kinds, emotion, "train validation test" if name == "split" else "train", readme, name)
    several = {"text": texts, "labels": [[index] for index in _labels(6)], "id": ["a"] * ROWS}
    kinds = {"text": Value("string"), "labels": List(ClassLabel(names=EMOTIONS)), "id": Value("string")}
    readme = _configs("raw", "simplified")
    for name in ("raw", "simplified"):
        add("google-research-datasets/go_emotions", kinds, several, "train test", readme, name)
    answers = {"id": ["a"] * ROWS, "title": texts, "context": texts, "question": texts}
    given = {"answers": [{"text": ["good"], "answer_start": [0]}] * ROWS}
    kinds = {
        **dict.fromkeys(answers, Value("string")),
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int32"))},
    }
    add("rajpurkar/squad", kinds, {**answers, **given}, "train validation")
    words = {
        "id": ["a"] * ROWS,
        "tokens": [["anna", "lives"]] * ROWS,
        "pos_tags": [[0, 1]] * ROWS,
        "ner_tags": [[1, 0]] * ROWS,
    }
    kinds = {
        "id": Value("string"),
        "tokens": List(Value("string")),
        "pos_tags": List(ClassLabel(names=TAGS)),
        "ner_tags": List(ClassLabel(names=ENTITIES)),
    }
    parquet = testing.write_data(
        folder / "conll", dict.fromkeys(("train", "validation", "test"), words), Features(kinds)
    )
    hub.add_dataset("eriktks/conll2003", {"conll2003.py": "raise SystemExit('a script ran')"})
    repo = hub.repo("eriktks/conll2003", "dataset")
    repo.refs[CONVERTED] = repo.at("main").oid
    files: dict[str, bytes | str | None] = {
        f"conll2003/{path.name.partition('-')[0]}/0000.parquet": path.read_bytes() for path in parquet.iterdir()
    }
    hub.commit("eriktks/conll2003", {"conll2003.py": None, **files}, repo_type="dataset", revision=CONVERTED)


def _configs(*names: str, default: str = "") -> str:
    lines = ["---", "configs:"]
    for name in names:
        lines += [f"- config_name: {name}", *(["  default: true"] if name == default else []), "  data_files:"]
        splits = ("train",) if name == "unsplit" else ("train", "validation", "test")
        if name in ("mrpc", "stsb"):
            splits = ("train", "validation")
        if name in ("raw", "simplified"):
            splits = ("train", "test")
        lines += [f"  - {{split: {split}, path: {name}/{split}-*}}" for split in splits]
    return "\n".join([*lines, "---", ""])
