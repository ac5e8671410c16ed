"""Data sets in memory: frames, data sets, and splits of them, from `Benchmark` to results."""

from __future__ import annotations

import datasets
import numpy as np
import pandas as pd
import pytest
import tiny
import tiny_text

from benchcard import Benchmark, Results
from benchcard.errors import BenchcardError, SpecError
from benchcard.sources import in_memory
from benchcard.tasks import data

COLUMNS = {"text": ["good film", "the dull film is bad", "anna lives"], "label": [0, 1, 2]}
FRAME = pd.DataFrame(COLUMNS, index=[7, 3, 5])
TABLE = datasets.Dataset.from_dict(COLUMNS)


def benchmark(dataset, model="./none", **more):
    """Return a benchmark of PyTorch alone, without timing."""
    grid = more.pop("grid", {"framework": ["pytorch"]})
    return Benchmark(task="text-classification", model=str(model), dataset=dataset, grid=grid, duration=0, **more)


def path_of(dataset):
    """Return the data set in the spec of a benchmark."""
    return benchmark(dataset).spec.fixed["dataset"]


def test_data_stands_in_a_spec_by_what_it_holds():
    """Equal rows get the same name however they are passed, other rows another one, and the spec holds no data."""
    alone = path_of(FRAME)
    assert alone["eval_split"] == "validation"
    assert alone["path"].startswith("memory:")
    assert path_of(TABLE) == alone
    assert path_of({"path": FRAME}) == alone
    assert path_of({"path": {"validation": FRAME}}) == alone
    assert path_of({"path": datasets.DatasetDict({"validation": TABLE})}) == alone
    assert path_of(TABLE.select([2, 1, 0]).select([2, 1, 0])) == alone
    assert path_of({"path": FRAME, "eval_split": "test"}) == {
        "path": path_of({"path": {"test": TABLE}})["path"],
        "eval_split": "test",
    }
    assert path_of(FRAME.iloc[:2])["path"] != alone["path"]
    told = Benchmark.from_spec({"task": "text-classification", "model": "m", "dataset": {"path": FRAME}})
    assert told.spec.fixed["dataset"] == alone
    several = benchmark(None, grid={"dataset": [{"path": FRAME}, {"path": TABLE.select([0])}]})
    assert len({each["path"] for each in several.spec.grid["dataset"]}) == 2
    assert len(several.plan()) == 2


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (TABLE.to_iterable_dataset(), "a data set with all of its rows.*from_list"),
        ({"path": {"train": FRAME, "validation": TABLE}}, r"\$\.dataset\.eval_split.*is required|eval_split"),
        (pd.DataFrame({"text": ["a", 3]}), "columns that `datasets` can hold"),
        (pd.DataFrame({"text": pd.period_range("2020", periods=2)}), "columns that `datasets` can hold"),
        (pd.DataFrame([["a", 1, 2]], columns=["text", "label", "label"]), r"same name, `label` @ \$\.dataset$"),
        (pd.DataFrame([["a", 1]], columns=["1", 1]), "columns of the same name, `1`"),
        ({"path": {"a": FRAME, "b": FRAME.T.T.set_axis(["x", "x"], axis=1)}}, r"`x` @ \$\.dataset\.b"),
        ({"path": {1: FRAME, "1": FRAME}, "eval_split": "1"}, "splits of the same name, `1`"),
        (42, r"\$\.dataset"),
    ],
)
def test_what_cannot_be_handed_over(dataset, said):
    """Streams, several splits without a choice, and columns of mixed values are mistakes with their place."""
    with pytest.raises(SpecError, match=said):
        benchmark(dataset)


def test_columns_are_named_by_their_text():
    """Column names that are numbers or tuples become text, and sparse columns are made dense."""
    names = pd.MultiIndex.from_tuples([("x", "text"), ("x", "label")])
    for columns, expected in (([0, 1], ["0", "1"]), (names, ["('x', 'text')", "('x', 'label')"])):
        _, handed = in_memory.extract_datasets({"dataset": FRAME.set_axis(columns, axis=1)})
        assert next(iter(handed.values()))["validation"].column_names == expected
    sparse = FRAME.assign(label=pd.arrays.SparseArray([0, 1, 2]))
    assert path_of(sparse) == path_of(FRAME)


def test_data_is_written_where_it_is_said(tmp_path):
    """A run directory with `::` in its name, which could mean a chain of file systems, holds the data."""
    made = benchmark(FRAME)
    made._write_data(tmp_path / "run::1")
    name = made.spec.fixed["dataset"]["path"].removeprefix("memory:")
    rows = data.load_dataset(str(tmp_path / "run::1" / "data" / name), None, "validation", None)
    assert rows.to_dict() == COLUMNS
    assert [path.name for path in tmp_path.iterdir()] == ["run::1"]


def test_images_are_written_into_the_run_directory(tmp_path):
    """Images in memory and on disk are copied into the run directory, so that it can be read without them."""
    from PIL import Image

    pixels = np.full((4, 4), 9, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    frame = pd.DataFrame({"image": [Image.fromarray(pixels)], "label": ["dark"]})
    table = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.png")], "label": ["dark"]})
    for number, dataset in enumerate((frame, table.cast_column("image", datasets.Image()))):
        made = benchmark(dataset)
        made._write_data(tmp_path / str(number))
        if number:
            (tmp_path / "a.png").unlink()
        name = made.spec.fixed["dataset"]["path"].removeprefix("memory:")
        rows = data.load_dataset(str(tmp_path / str(number) / "data" / name), None, "validation", None)
        assert np.asarray(rows[0]["image"]).tolist() == pixels.tolist()


@pytest.mark.slow
def test_a_run_of_a_frame_needs_it_once(tmp_path):
    """A run of a frame has the figures of the same rows in a file, continues without the frame, and refuses another
    one.
    """
    tiny_text.write_tokenizer(tmp_path / "model")
    model = tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", ["a", "b", "c"])
    made = benchmark(FRAME, model)
    results = made.run(tmp_path / "run", progress=False)
    assert results.failures.empty
    prepared = results.records.records[0].outcomes.prepare.values
    assert prepared.fingerprint == data.fingerprint(TABLE)
    predicted = tiny_text.passed("text-classification", model, tiny_text.write_data(tmp_path / "d", COLUMNS), tmp_path)
    assert results.quality["accuracy"][0] == np.mean(np.equal(predicted.predictions, COLUMNS["label"]))
    again = Benchmark.from_spec(Results.load(tmp_path / "run").spec).run(tmp_path / "run", progress=False)
    assert again.quality.equals(results.quality)
    with pytest.raises(SpecError, match="another spec"):
        benchmark(FRAME.iloc[:2], model).run(tmp_path / "run", progress=False)
    assert len(list((tmp_path / "run" / "data").iterdir())) == 1


@pytest.mark.slow
def test_a_finished_run_may_get_names(tmp_path, monkeypatch):
    """Names for the card change neither the default folder nor a step, and a continued run has the newest ones."""
    monkeypatch.chdir(tmp_path)
    tiny_text.write_tokenizer(tmp_path / "model")
    tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", ["a", "b", "c"])
    path = tiny_text.write_data(tmp_path / "data", COLUMNS)
    dataset = {"path": str(path), "eval_split": "validation", "data_keys": {"primary": "text"}, "ref_keys": ["label"]}
    first, second = benchmark(dataset, "model"), benchmark({**dataset, "name": "Films"}, "model", model_name="Tiny")
    assert first.default_path == second.default_path
    first.run(progress=False)
    steps = {step: step.stat().st_mtime_ns for step in first.default_path.glob("steps/*/outcome.json")}
    second.run(progress=False)
    assert {step: step.stat().st_mtime_ns for step in first.default_path.glob("steps/*/outcome.json")} == steps
    results = Results.load(first.default_path)
    assert "with Tiny on Films\n" in results.card().text
    assert results.failures.empty


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path):
    """Data is not written into a folder that is no run directory."""
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(BenchcardError, match="no run of benchcard"):
        benchmark(FRAME, tiny.__file__).run(tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
