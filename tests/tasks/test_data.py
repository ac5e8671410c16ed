"""Loading rows from files, folders, saved data sets and parts of splits; their fingerprint and digest."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys

import datasets
import pytest
import tiny_text

from benchcard.errors import BenchcardError, SpecError
from benchcard.tasks import data

ROWS = {"text": ["good film", 'bad, "dull" film', "anna lives"], "label": [0, 1, 2]}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Put the cache of `datasets` into the test's own folder."""
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
    rows = data.load_dataset(str(path), None, "validation", None)
    assert rows.to_dict() == ROWS
    assert data.fingerprint(rows) == data.fingerprint(table)
    part = data.load_dataset(str(path), None, "validation[1:]", None)
    assert part["label"][:] == [1, 2]
    assert data.fingerprint(part) != data.fingerprint(table)
    assert data.load_dataset(str(path), None, "validation[:1]+validation[2:]", None)["label"][:] == [0, 2]


@pytest.mark.parametrize("form", FORMS)
def test_the_layout_of_local_data(table, form, tmp_path):
    """Columns, splits and rows are known; a split without a name is `train`."""
    path = written(table, form, tmp_path / "data")
    layout = data.read_layout(str(path), None, None)
    assert list(layout.features)[:2] in (["text", "label"], ["text"])
    assert set(layout.splits.values()) == {3}
    assert set(layout.splits) <= {"train", "validation"}


def test_the_layout_of_data_with_configurations(tmp_path):
    """Without a name or a default nothing is read; a name selects a configuration."""
    readme = "---\nconfigs:\n- {config_name: a, data_files: a.csv}\n- {config_name: b, data_files: b.csv}\n---\n"
    (tmp_path / "README.md").write_text(readme)
    (tmp_path / "a.csv").write_text("text\ngood\n")
    (tmp_path / "b.csv").write_text("words\ngood\nbad\n")
    unnamed = data.read_layout(str(tmp_path), None, None)
    assert (unnamed.configurations, unnamed.configuration, unnamed.splits) == (("a", "b"), "", {})
    named = data.read_layout(str(tmp_path), "b", None)
    assert (named.configuration, list(named.features), named.splits) == ("b", ["words"], {"train": 2})
    with pytest.raises(SpecError, match="a data set that can be loaded"):
        data.read_layout(str(tmp_path), "c", None)
    (tmp_path / "README.md").write_text(readme.replace("name: a", "name: a, default: true"))
    assert data.read_layout(str(tmp_path), None, None).configuration == "a"


@pytest.mark.parametrize("form", FORMS)
def test_local_data_may_have_a_name_for_the_card(table, form, tmp_path):
    """Local data that configure nothing are read whatever name they are given; where they do, it selects."""
    path = written(table, form, tmp_path / "data")
    assert data.load_dataset(str(path), "Anna and Bob", "validation", None).to_dict() == ROWS
    if form == "folder":
        (path / "README.md").write_text(CONFIGS.format(path="validation*", text=""))
        assert data.load_dataset(str(path), "a", "validation", None).to_dict() == ROWS
        with pytest.raises(SpecError, match="with name `Anna and Bob`"):
            data.load_dataset(str(path), "Anna and Bob", "validation", None)


@pytest.mark.parametrize("form", FORMS)
def test_a_split_without_rows_is_said(table, form, tmp_path):
    """A split without rows, and an empty part of one, raise an error with its name."""
    path = written(table, form, tmp_path / "data")
    with pytest.raises(SpecError, match=r"found the split `validation\[1:1\]`, which has no rows"):
        data.load_dataset(str(path), None, "validation[1:1]", None)
    if form not in ("json", "jsonl", "jsonl.gz"):
        empty = written(table.select([]), form, tmp_path / "empty")
        with pytest.raises(SpecError, match=r"found the split `validation`, which has no rows"):
            data.load_dataset(str(empty), None, "validation", None)


def test_a_split_without_rows_beside_others(table, tmp_path):
    """The other splits of a saved data set with an empty split can be loaded."""
    datasets.DatasetDict({"test": table.select([]), "validation": table}).save_to_disk(tmp_path / "data")
    assert data.load_dataset(str(tmp_path / "data"), None, "validation", None).to_dict() == ROWS
    with pytest.raises(SpecError, match="`test`, which has no rows"):
        data.load_dataset(str(tmp_path / "data"), None, "test[:5]", None)


def test_a_fingerprint_is_of_what_the_rows_hold(table):
    """The fingerprint depends on values, names of columns and labels, and the order of rows, not on their source."""
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
    """The fingerprint of images in one folder a label depends on their bytes, not on their paths."""
    from PIL import Image

    for place in ("one", "other"):
        for label, shade in (("dark", 10), ("light", 240)):
            folder = tmp_path / place / "validation" / label
            folder.mkdir(parents=True)
            Image.new("L", (8, 8), shade).save(folder / "0.png")
    rows = [data.load_dataset(str(tmp_path / place), None, "validation", None) for place in ("one", "other")]
    assert rows[0].features["label"].names == ["dark", "light"]
    assert data.fingerprint(rows[0]) == data.fingerprint(rows[1])
    Image.new("L", (8, 8), 11).save(tmp_path / "other" / "validation" / "dark" / "0.png")
    assert data.fingerprint(rows[0]) != data.fingerprint(
        data.load_dataset(str(tmp_path / "other"), None, "validation", None)
    )


@pytest.mark.parametrize("form", ["folder", "saved"])
def test_a_split_that_is_not_there(table, form, tmp_path):
    """The error names the existing splits and a similar one, also for a part of a split."""
    path = written(table, form, tmp_path / "data")
    for split in ("validaton", "validaton[:2]"):
        with pytest.raises(SpecError, match=r"`validaton`.*did you mean `validation`"):
            data.load_dataset(str(path), None, split, None)


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
    """An unknown ending and a damaged file raise a `SpecError` with their place."""
    (tmp_path / name).write_text(content)
    with pytest.raises(SpecError, match=said):
        data.load_dataset(str(tmp_path / name), None, "train", None)


def test_a_data_set_of_a_script_says_where_its_rows_are(monkeypatch):
    """A data set with a script raises an error that names the revision without one."""

    def refuse(*given, **named):
        raise RuntimeError("Dataset scripts are no longer supported, but found conll2003.py")

    monkeypatch.setattr("datasets.load_dataset_builder", refuse)
    with pytest.raises(SpecError, match=r"revision: refs/convert/parquet"):
        data.load_dataset("eriktks/conll2003", None, "train", None)


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
    assert NOTE in told.notes
    assert (tmp_path / "ran").exists()
    assert not trusted()


def table_at(path, text="good", label=1):
    """One row as a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"text,label\n{text},{label}\n")
    return path


def labels_of(path, **more):
    """The labels of the validation split."""
    return data.load_dataset(str(path), more.get("name"), "validation", None, more.get("content"))["label"][:]


@pytest.mark.parametrize("name", ["data[1]", "da*a", "dat?", "**", "a::b", "[!d]ata"])
def test_a_path_is_no_pattern(name, tmp_path):
    """A folder, a file and a folder above, whose names could be patterns or chains of file systems, give their own rows
    and not those of a neighbour.
    """
    table_at(tmp_path / "data1" / "validation.csv", "other", 9)
    table_at(tmp_path / "data1.csv", "other", 9)
    assert labels_of(table_at(tmp_path / name / "validation.csv").parent) == [1]
    assert labels_of(table_at(tmp_path / f"{name}.csv", label=2)) == [2]
    assert labels_of(table_at(tmp_path / name / "inner" / "validation.csv", label=3)) == [3]
    assert labels_of(table_at(tmp_path / name / "folder" / "validation.csv", label=4).parent) == [4]
    datasets.Dataset.from_dict({"text": ["good"], "label": [5]}).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved").rename(tmp_path / name / "saved")
    assert labels_of(tmp_path / name / "saved") == [5]


def test_names_inside_a_folder_are_no_patterns(tmp_path):
    """Files and folders of data, and labels that are names of folders, may have any name but one with `::`."""
    from PIL import Image

    for label, name in enumerate(("validation-[1].csv", "validation-*.csv", "validation-1.csv")):
        table_at(tmp_path / "tables" / name, label=label)
    assert sorted(labels_of(tmp_path / "tables")) == [0, 1, 2]
    for label in ("c*t", "do[g]"):
        (tmp_path / "images" / "validation" / label).mkdir(parents=True)
        Image.new("L", (4, 4), 9).save(tmp_path / "images" / "validation" / label / "0 [1].png")
    rows = data.load_dataset(str(tmp_path / "images"), None, "validation", None)
    assert rows.features["label"].names == ["c*t", "do[g]"]
    assert len(list(rows)) == 2
    (tmp_path / "images" / "validation" / "do[g]").rename(tmp_path / "images" / "validation" / "do::g")
    with pytest.raises(SpecError, match=r"names without `::` in a folder.*do::g.*rename it"):
        data.load_dataset(str(tmp_path / "images"), None, "validation", None)


def test_a_file_with_another_content_gives_its_own_rows(tmp_path):
    """A file that is replaced by one of the same size and time gives the new rows: alone, packed, in a folder, and in
    one that was saved; and so does the old one when it comes back.
    """
    for label in (1, 2, 1):
        table_at(tmp_path / "rows.csv", label=label)
        table_at(tmp_path / "folder" / "validation.csv", label=label)
        text = json.dumps({"text": "good", "label": label}).encode()
        (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(text, mtime=0))
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        datasets.Dataset.from_dict({"text": ["good"], "label": [label]}).save_to_disk(tmp_path / "saved")
        for path in tmp_path.rglob("*"):
            if path.is_file() and "cache" not in path.parts:
                os.utime(path, (1e9, 1e9))
        for name in ("rows.csv", "folder", "rows.jsonl.gz", "saved"):
            assert labels_of(tmp_path / name) == [label]


@pytest.mark.parametrize("form", ["folder", "saved", "csv"])
def test_what_is_read_is_what_was_digested(table, form, tmp_path, monkeypatch):
    """Files with another digest than the run has, and files that change while they are read, are refused; of the latter
    nothing is kept.
    """
    path = written(table, form, tmp_path / "data")
    content = data.data_digest(path)
    assert labels_of(path, content=content) == [0, 1, 2]
    with pytest.raises(SpecError, match=r"the content that the run began with.*changed since"):
        labels_of(path, content="0" * 64)
    file = next(each for each in (tmp_path / "data").rglob("*.*") if each.is_file() and each.suffix != ".json")
    stamps, calls = data._stamps, []

    def changing(files):
        calls.append(os.utime(file, (0, len(calls))))
        return stamps(files)

    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    with monkeypatch.context() as patched:
        patched.setattr(data, "_stamps", changing)
        with pytest.raises(SpecError, match="are being written"):
            labels_of(path, content=content)
    assert not list((tmp_path / "cache").glob("benchcard/*"))
    assert labels_of(path, content=content) == [0, 1, 2]


CONFIGS = "---\nconfigs:\n- config_name: a\n  data_files:\n  - {{split: validation, path: '{path}'}}\n---\n{text}\n"


def test_the_patterns_of_a_folder_are_its_own(tmp_path):
    """What the README of a folder says of its files holds, as patterns, for files of the folder alone, and counts in
    its digest; its prose does not.
    """
    folder = table_at(tmp_path / "da[t]a" / "x" / "one.csv", label=1).parent.parent
    table_at(folder / "x" / "two.csv", label=2)
    table_at(folder / ".hidden" / "three.csv", label=3)
    table_at(tmp_path / "away.csv", label=9)

    def configured(path, text=""):
        (folder / "README.md").write_text(CONFIGS.format(path=path, text=text))
        return data.data_digest(folder)

    digests = {configured("x/o*.csv"), configured("x/o*.csv", "more")}
    assert labels_of(folder, name="a") == [1]
    digests.add(configured("x/[a-z]wo.csv"))
    assert labels_of(folder, name="a") == [2]
    assert len(digests) == 2
    (folder / "README.md").write_text("---\nconfigs: [{\n---\n")
    with pytest.raises(SpecError, match="can be loaded"):
        labels_of(folder, name="a")
    for path in (tmp_path / "away.csv", f"file://{tmp_path}/away.csv", "../away.csv", ".hidden/three.csv"):
        configured(path)
        with pytest.raises(SpecError, match=r"its own files only|Unable to find"):
            labels_of(folder, name="a")


def test_images_outside_of_the_data_are_refused(tmp_path):
    """Rows that name images by paths elsewhere are refused, as these are not digested; in the folder they are taken."""
    import pyarrow.parquet as pq
    from PIL import Image

    (tmp_path / "data").mkdir()
    for folder in (tmp_path, tmp_path / "data"):
        Image.new("L", (4, 4), 9).save(folder / "0.png")
        rows = datasets.Dataset.from_dict({"image": [str(folder / "0.png")]}).cast_column("image", datasets.Image())
        pq.write_table(rows.data.table, tmp_path / "data" / "validation.parquet")
        if folder == tmp_path:
            with pytest.raises(SpecError, match=r"0\.png.*put it into the folder"):
                data.load_dataset(str(tmp_path / "data" / "validation.parquet"), None, "validation", None)
    (tmp_path / "data" / "0.png").rename(tmp_path / "data" / "0.bin")
    with pytest.raises(SpecError, match=r"0\.png.*put it into the folder"):
        data.load_dataset(str(tmp_path / "data" / "validation.parquet"), None, "validation", None)


def test_links_to_folders_are_read_and_digested(tmp_path):
    """Files behind a link to a folder are data as others are, and a link to a folder above has no end."""
    file = table_at(tmp_path / "elsewhere" / "validation.csv")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data")
    assert labels_of(tmp_path / "data") == [1]
    content = data.data_digest(tmp_path / "data")
    table_at(file, label=2)
    assert data.data_digest(tmp_path / "data") != content
    assert labels_of(tmp_path / "data") == [2]


def test_links_that_were_cleaned_up_are_made_again(tmp_path):
    """A cache that somebody has cleaned up in part gives all rows."""
    from PIL import Image

    for name in ("0", "1"):
        (tmp_path / "data" / "validation" / name).mkdir(parents=True)
        Image.new("L", (4, 4), 9).save(tmp_path / "data" / "validation" / name / "0.png")
    for _ in range(2):
        assert len(list(data.load_dataset(str(tmp_path / "data"), None, "validation", None))) == 2
        next((tmp_path / "cache" / "benchcard").rglob("0.png")).unlink()


def test_a_cache_with_the_path_of_a_pattern_is_refused(table, tmp_path, monkeypatch):
    """Where the cache itself has a path that is a pattern, nothing is read by it."""
    path = written(table, "csv", tmp_path / "data")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache[1]")
    with pytest.raises(BenchcardError, match="Set HF_DATASETS_CACHE"):
        labels_of(path)


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"


@pytest.mark.parametrize("form", ["csv", "txt", "parquet", "folder", "saved"])
def test_data_that_git_lfs_has_not_fetched(table, form, tmp_path):
    """Pointers in place of files are told, with what to do, and are never rows."""
    path = written(table, "csv" if form == "txt" else form, tmp_path / "data")
    if form == "txt":
        path = path.rename(path.with_suffix(".txt"))
    for file in (tmp_path / "data").rglob("*.*"):
        if file.is_file() and file.suffix != ".json":
            file.write_text(POINTER)
    with pytest.raises(SpecError, match=r"Git LFS pointer.*git lfs pull.*\$\.dataset"):
        labels_of(path)


WORDS = "text,label,score,note\nnull,None,1,\nNA,pos,NA,\n,pos,3,\nnan,n/a,4,NA\n"


@pytest.mark.parametrize("form", ["csv", "tsv", "folder", "gz"])
def test_words_of_a_table_stay_words(form, tmp_path):
    """`null`, `NA` and `None` are texts in a column of texts of a CSV file, also where others are missing and where all
    are such words; an empty cell is missing, and so is such a word among numbers.
    """
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / {"folder": "validation.csv", "gz": "validation.csv.gz"}.get(form, f"validation.{form}")
    text = WORDS.replace(",", "\t") if form == "tsv" else WORDS
    path.write_bytes(gzip.compress(text.encode()) if form == "gz" else text.encode())
    for _ in range(2):
        rows = data.load_dataset(str(path.parent if form == "folder" else path), None, "validation", None)
        assert rows.to_dict() == {
            "text": ["null", "NA", None, "nan"],
            "label": ["None", "pos", "pos", "n/a"],
            "score": [1.0, None, 3.0, 4.0],
            "note": [None, None, None, "NA"],
        }
    assert labels_of(path.parent)[1:3] == ["pos", "pos"]


def test_a_readme_says_which_words_are_missing(tmp_path):
    """What the README of a folder says of its CSV files holds."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "validation.csv").write_text("text,label\nNA,1\nnone,2\n?,3\n")
    settings = "configs:\n- config_name: default\n  data_files: validation.csv\n  na_values: ['?']\n"
    (tmp_path / "data" / "README.md").write_text(f"---\n{settings}---\n")
    rows = data.load_dataset(str(tmp_path / "data"), None, "train", None)
    assert rows["text"][:] == [None, "none", None]


def test_an_empty_folder_is_no_data(tmp_path):
    """A folder without data, and one that went away, are mistakes with their place."""
    (tmp_path / "data").mkdir()
    for path in ("data", "gone"):
        with pytest.raises(SpecError, match=rf"can be loaded, found `{tmp_path}/{path}`"):
            labels_of(tmp_path / path)
