"""Models and data of the Hub: taken at one commit and named on the card; against a local Hub, with the real client."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import tiny

from benchcard import Results
from benchcard.testing import LocalHub

SPEC = """
task: image-classification
model: MODEL
dataset: {path: DATA, eval_split: validation, data_keys: {primary: image}, ref_keys: [label]}
duration: 0
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Hub with the tiny model and its data."""
    folder = tmp_path_factory.mktemp("content")
    tiny.write_model(folder / "model")
    tiny.write_data(folder / "data" / "data")
    with LocalHub() as running:
        running.add_model("someone/tiny", folder / "model")
        running.add_dataset("someone/shades", folder / "data")
        running.add_dataset("AI-Lab-Makerere/beans", folder / "data")
        yield running


def benchcard(hub, tmp_path, model="someone/tiny", data="someone/shades", **environment):
    """What `benchcard run` says, and its status."""
    (tmp_path / "spec.yaml").write_text(SPEC.replace("MODEL", model).replace("DATA", data))
    command = [sys.executable, "-m", "benchcard.cli", "run", "spec.yaml", "--out", "run", "--quiet"]
    variables = {**os.environ, **hub.environment(), **environment}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_of_the_hub_pins_and_names_what_it_read(hub, tmp_path):
    """The commits of model and data stand in the record, the card names both, an old id by today's, and a resumed run
    stays at them. Without the network, another run takes both from the cache, and says so.
    """
    status, said = benchcard(hub, tmp_path, data="beans")
    assert status == 0, said
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["sources"]["models"]["someone/tiny"]["revision"] == hub.head("someone/tiny")
    (dataset,) = about["sources"]["datasets"].values()
    assert dataset["revision"] == hub.head("AI-Lab-Makerere/beans", repo_type="dataset")
    assert (dataset["name"], dataset["location"]) == ("beans", "AI-Lab-Makerere/beans")
    assert "`beans` is an old id: the rows are those of `AI-Lab-Makerere/beans`" in Results.load(tmp_path / "run").notes
    card = (tmp_path / "run" / "README.md").read_text()
    assert "base_model: someone/tiny\n" in card
    assert "datasets:\n- AI-Lab-Makerere/beans\n" in card
    before = hub.head("someone/tiny")
    offline = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    (tmp_path / "offline").mkdir()
    status, said = benchcard(hub, tmp_path / "offline", data="beans", **offline)
    assert status == 0, said
    for name, commit in (("someone/tiny", before), ("beans", dataset["revision"])):
        assert f"`{name}` is from the cache, at commit {commit}: HF_HUB_OFFLINE was set" in said
    again = json.loads((tmp_path / "offline" / "run" / "run.json").read_text())["sources"]
    assert {key: value["digest"] for key, value in again["datasets"].items()} == {
        key: value["digest"] for key, value in about["sources"]["datasets"].items()
    }
    hub.commit("someone/tiny", {"README.md": "# Tiny\n"})
    status, said = benchcard(hub, tmp_path, data="beans")
    assert status == 0, said
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["sources"]["models"]["someone/tiny"]["revision"]
        == before
    )


@pytest.mark.parametrize(("model", "data"), [("someone/none", "someone/shades"), ("someone/tiny", "someone/none")])
def test_a_repository_that_is_not_there_is_a_mistake(hub, tmp_path, model, data):
    """A missing model or data set is told with its place, and nothing is created."""
    status, said = benchcard(hub, tmp_path, model, data)
    assert status == 2
    assert "`someone/none`" in said
    assert not (tmp_path / "run").exists()


def test_a_hub_that_cannot_be_reached_is_said(hub, tmp_path):
    """Without a connection the run ends with what to do."""
    status, said = benchcard(hub, tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert status == 1
    assert "could not be reached" in said
    assert "set HF_HUB_OFFLINE=1" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("model", "kind"), [("someone/none", "model"), (".", "data set")])
def test_what_the_cache_lacks_is_said(hub, tmp_path, model, kind):
    """Without the network, a model or data set that is not in the cache ends the run with what to do."""
    if model == ".":
        tiny.write_model(tmp_path / "model")
        model = "./model"
    status, said = benchcard(hub, tmp_path, model, "someone/none", HF_HUB_OFFLINE="1")
    assert status in (1, 2)
    assert "HF_HUB_OFFLINE is set" in said
    assert "someone/none" in said
    assert not (tmp_path / "run").exists()
