"""Where rows come from: files, folders, saved data sets and parts of splits; and what they are known by."""

from __future__ import annotations

import gzip
import json
import sys

import datasets
import pytest
import tiny_text

from benchcard.errors import SpecError
from benchcard.tasks import data

ROWS = {"text": ["good film", 'bad, "dull" film', "anna lives"], "label": [0, 1, 2]}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """What `datasets` keeps goes into the test's own folder."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def table():
    """Three rows in memory."""
    return datasets.Dataset.from_dict(ROWS)


def written(table, form, folder):
    """The rows as a file or folder of some form."""
    folder.mkdir()
    path = folder / f"validation.{form}"
    if form in ("csv", "tsv"):
        table.to_csv(path, sep="\t" if form == "tsv" else ",")
    elif form in ("json", "jsonl"):
        table.to_json(path, lines=form == "jsonl")
    elif form == "jsonl.gz":
        with gzip.open(path, "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in table)
    elif form == "parquet":
        table.to_parquet(path)
    elif form == "folder":
        table.to_parquet(folder / "validation-00000-of-00001.parquet")
        return folder
    elif form == "saved":
        datasets.DatasetDict({"validation": table}).save_to_disk(folder)
        return folder
    else:
        table.save_to_disk(folder)
        return folder
    return path


FORMS = ["csv", "tsv", "json", "jsonl", "jsonl.gz", "parquet", "folder", "saved", "saved alone"]


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_the_same_wherever_they_lie(table, form, tmp_path):
    """Each form gives the same rows, the same fingerprint, and parts of a split."""
    path = written(table, form, tmp_path / "data")
    rows = data.load(str(path), None, "validation", None)
    assert rows.to_dict() == ROWS
    assert data.fingerprint(rows) == data.fingerprint(table)
    part = data.load(str(path), None, "validation[1:]", None)
    assert part["label"][:] == [1, 2]
    assert data.fingerprint(part) != data.fingerprint(table)
    assert data.load(str(path), None, "validation[:1]+validation[2:]", None)["label"][:] == [0, 2]


@pytest.mark.parametrize("form", FORMS)
def test_a_split_without_rows_is_said(table, form, tmp_path):
    """A split of no rows, and a part of one that holds none, are told by its name."""
    path = written(table, form, tmp_path / "data")
    with pytest.raises(SpecError, match=r"found the split `validation\[1:1\]`, which has no rows"):
        data.load(str(path), None, "validation[1:1]", None)
    if form not in ("json", "jsonl", "jsonl.gz"):
        empty = written(table.select([]), form, tmp_path / "empty")
        with pytest.raises(SpecError, match=r"found the split `validation`, which has no rows"):
            data.load(str(empty), None, "validation", None)


def test_a_split_without_rows_beside_others(table, tmp_path):
    """A saved data set with an empty split gives its others."""
    datasets.DatasetDict({"test": table.select([]), "validation": table}).save_to_disk(tmp_path / "data")
    assert data.load(str(tmp_path / "data"), None, "validation", None).to_dict() == ROWS
    with pytest.raises(SpecError, match="`test`, which has no rows"):
        data.load(str(tmp_path / "data"), None, "test[:5]", None)


def test_a_fingerprint_is_of_what_the_rows_hold(table):
    """A value, a column's name, the names of labels and the order of rows count; the way to them does not."""
    names = datasets.ClassLabel(names=["a", "b", "c"])
    others = [
        table.select([1, 0, 2]),
        table.rename_column("text", "texts"),
        table.cast_column("label", names),
        table.map(lambda row: {"text": row["text"] + " "}),
    ]
    assert len({data.fingerprint(rows) for rows in [table, *others]}) == 5
    assert data.fingerprint(table.select([2, 1, 0]).select([2, 1, 0])) == data.fingerprint(table)
    assert data.fingerprint(
        datasets.concatenate_datasets([table.select([0]), table.select([1, 2])])
    ) == data.fingerprint(table)


def test_a_folder_of_images(tmp_path):
    """Images in a folder a label; they are known by their bytes, not by where they lie."""
    from PIL import Image

    for place in ("one", "other"):
        for label, shade in (("dark", 10), ("light", 240)):
            folder = tmp_path / place / "validation" / label
            folder.mkdir(parents=True)
            Image.new("L", (8, 8), shade).save(folder / "0.png")
    rows = [data.load(str(tmp_path / place), None, "validation", None) for place in ("one", "other")]
    assert rows[0].features["label"].names == ["dark", "light"]
    assert data.fingerprint(rows[0]) == data.fingerprint(rows[1])
    Image.new("L", (8, 8), 11).save(tmp_path / "other" / "validation" / "dark" / "0.png")
    assert data.fingerprint(rows[0]) != data.fingerprint(data.load(str(tmp_path / "other"), None, "validation", None))


@pytest.mark.parametrize("form", ["folder", "saved"])
def test_a_split_that_is_not_there(table, form, tmp_path):
    """The error has the splits that are, and a near miss, for a part of one too."""
    path = written(table, form, tmp_path / "data")
    for split in ("validaton", "validaton[:2]"):
        with pytest.raises(SpecError, match=r"`validaton`.*did you mean `validation`"):
            data.load(str(path), None, split, None)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.xlsx", "PK", r"ends in `\.parquet`.*rows\.xlsx"),
        ("rows", "a", "ends in"),
        ("rows.json", "{", "can be loaded"),
        ("rows.parquet", "no parquet", "can be loaded"),
        ("rows.csv", 'a,b\n1,2\n"', "can be loaded"),
    ],
)
def test_a_file_that_cannot_be_read(name, content, said, tmp_path):
    """An unknown ending, and a file that is broken, are mistakes with their place."""
    (tmp_path / name).write_text(content)
    with pytest.raises(SpecError, match=said):
        data.load(str(tmp_path / name), None, "train", None)


def test_a_data_set_of_a_script_says_where_its_rows_are(monkeypatch):
    """What `datasets` no longer runs is told, with the revision that needs no script."""

    def refuse(*given, **named):
        raise RuntimeError("Dataset scripts are no longer supported, but found conll2003.py")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(SpecError, match=r"revision: refs/convert/parquet"):
        data.load("eriktks/conll2003", None, "train", None)


def test_a_models_own_code_runs_only_where_asked(tmp_path, monkeypatch):
    """A model with code of its own is refused, and the error names the parameter; with it, the model is read, and the
    note says that its code ran.
    """
    from benchcard.errors import ArtifactError
    from benchcard.tasks.trust import NOTE, trusted

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])
    model = tmp_path / "model"
    tiny_text.write_tokenizer(model)
    tiny_text.write_model(model, "ForSequenceClassification", ["a", "b", "c"])
    (model / "odd.py").write_text(
        "import pathlib\nfrom transformers import BertConfig, BertForSequenceClassification\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class OddConfig(BertConfig):\n    model_type = 'odd-bert'\n"
        "class Odd(BertForSequenceClassification):\n    config_class = OddConfig\n"
    )
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "odd-bert", "architectures": ["Odd"]}
    config["auto_map"] = {"AutoConfig": "odd.OddConfig", "AutoModelForSequenceClassification": "odd.Odd"}
    (model / "config.json").write_text(json.dumps(config))
    rows = tiny_text.write_data(tmp_path / "data", ROWS)
    monkeypatch.setattr("builtins.input", lambda *given: "n")
    with pytest.raises(ArtifactError, match="trust_remote_code"):
        tiny_text.prepare("text-classification", model, rows, tmp_path / "one")
    assert not (tmp_path / "ran").exists()
    told = tiny_text.prepare("text-classification", model, rows, tmp_path / "two", trust_remote_code=True)
    assert NOTE in told["notes"]
    assert (tmp_path / "ran").exists()
    assert not trusted()
