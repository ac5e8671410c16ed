"""Public names of local folders in everything that is published."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import tiny

from benchcard import Benchmark, Results, testing
from benchcard.analysis import public_names
from benchcard.analysis.choice import Choice
from benchcard.card.readme import merge
from benchcard.publishing import bundle, facts
from benchcard.sources.resolve import Sources

ROWS = {"one": 24, "two": 12}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The results of two models of one name and two data sets of one name, all given by absolute paths."""
    home = tmp_path_factory.mktemp("alice")
    for seed, (name, rows) in enumerate(ROWS.items()):
        testing.write_image_model(home / name / "checkpoint", labels=tiny.LABELS, seed=seed)
        tiny.write_data(home / name / "data", rows=rows)
    data = {"path": str(home / "one" / "data"), "eval_split": "validation"}
    return Benchmark(
        task="image-classification",
        dataset={**data, "data_keys": {"primary": "image"}, "ref_keys": ["label"]},
        grid={
            "name_or_path": [str(home / name / "checkpoint") for name in ROWS],
            "dataset.path": [str(home / name / "data") for name in ROWS],
        },
        duration=0,
    ).run(home / "run", progress=False)


@pytest.fixture(params=["full", "classic"])
def published(ran, tmp_path, request):
    """A folder with what a push of that run publishes."""
    made = bundle.write_bundle(ran, tmp_path / "out", "a/b", slug="x", artifacts="none", layout=request.param)
    (tmp_path / "out" / "repo" / "README.md").write_text(merge("", made.card, "x").text)
    return tmp_path / "out" / "repo"


def test_no_benchmarked_folder_is_published(ran, published):
    """No published file has the folders of models and data."""
    home = str(ran.path.parent).encode()
    assert not [path for path in published.rglob("*") if path.is_file() and home in path.read_bytes()]


def test_folders_of_one_name_stay_apart(ran, published):
    """A second folder of a name gets a number, on the card and in the files, and keeps its own figures."""
    names = ["checkpoint", "checkpoint", "checkpoint (2)", "checkpoint (2)"]
    found = Results.from_card(published)
    assert found.quality["name_or_path"].tolist() == names
    assert found.quality["dataset.path"].tolist() == ["data", "data (2)"] * 2
    assert found.spec.grid["name_or_path"] == names[::2]
    told = json.loads((published / "benchcard" / "x" / "run.json").read_text())
    assert [source["name"] for source in told["sources"]["models"]] == names[::2]
    verified = ran.verify(published)
    assert set(verified.frame["row"]) == {0, 1, 2, 3}
    assert set(verified.frame["verdict"]) == {"reproduced"}
    card = Results.from_card(published / "README.md")
    assert ran.quality["accuracy"].tolist() == pytest.approx(card.quality["accuracy"].tolist(), abs=0.0006)


def test_every_way_to_give_a_folder_is_known(ran):
    """A whole data set, its path alone, metric scripts and their directions get public names."""
    (path, _) = ran.spec.grid["dataset.path"]
    assert public_names.public_parameter(ran.records, "dataset", {"path": path, "eval_split": "a"}) == {
        "path": "data",
        "eval_split": "a",
    }
    assert public_names.public_parameter(ran.records, "dataset.path", "~/other") == "other"
    assert public_names.public_parameter(ran.records, "dataset.path", "../alice/other") == "other"
    assert public_names.public_parameter(ran.records, "dataset.path", "models/..mine") == "models/..mine"
    assert public_names.public_parameter(ran.records, "metrics", ["f1", "/home/alice/own.py"]) == ["f1", "own.py"]
    directions = {"higher_is_better": {"/home/alice/own.py": True}}
    assert public_names.public_value(ran.records, directions) == {"higher_is_better": {"own.py": True}}
    assert public_names.public_parameter(ran.records, "node_exclusion", ["/vit/MatMul"]) == ["/vit/MatMul"]


@pytest.mark.parametrize("row", [0, 1])
def test_the_testing_data_are_those_of_the_row_to_ship(ran, monkeypatch, row):
    """Of several data sets, the card has the name and samples of the recommended row, and none in its title."""

    def best(results, max_drop=None, *, baseline, fidelity=None):
        return Choice(row if baseline == row else None, baseline, {}, "it is the best")

    monkeypatch.setattr(Results, "best", best)
    card = ran.card()
    told = card.facts().data
    assert (told.dataset, told.samples) == [("data", 24), ("data (2)", 12)][row]
    assert "\n## Benchmark: image-classification\n" in card.text


def test_the_hub_is_told_of_one_model_and_one_split_alone(ran, monkeypatch):
    """Of several models none is the base model, even if one alone is on the Hub; with several data sets `model-index`
    is empty.
    """
    records, sources = ran.records, ran.records.info.sources
    hub = {"local": False, "revision": "0a1b"}
    datasets = {name: replace(source, **hub, location="me/data") for name, source in sources.datasets.items()}
    (first, local), second = sources.models.items()
    on_hub = (first, replace(local, **hub, name="me/model"))

    def use(*models):
        info = replace(records.info, sources=Sources(dict(models), datasets))
        monkeypatch.setattr(ran, "records", replace(records, info=info))

    use(on_hub, second)
    assert facts.make_facts(ran).front_matter.base_model is None
    use(on_hub)
    told = facts.make_facts(ran).front_matter
    assert (told.base_model, list(told.model_index)) == ("me/model", [])
