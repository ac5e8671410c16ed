"""Sources: current ids of old ones, inherited metadata, and digests of content."""

from __future__ import annotations

import os

import msgspec
import pytest
import tiny_text

from benchcard.errors import HubError, SpecError
from benchcard.sources import resolve
from benchcard.spec import spec as specs
from benchcard.tasks import data as data_
from benchcard.testing import Fault, LocalHub
from benchcard.utils import files


def spec_of(model, path):
    """Return a spec of one configuration."""
    dataset = {"path": path, "eval_split": "validation"}
    return specs.read_spec({"task": "text-classification", "model": str(model), "dataset": dataset})


def test_old_ids_are_resolved_to_those_of_today(tmp_path, monkeypatch):
    """An old id and the current one are the same source at one commit, and a note names both."""
    rows = tiny_text.write_data(tmp_path / "data", {"text": ["good"], "label": [0]})
    (tmp_path / "model").mkdir()
    with LocalHub() as hub:
        hub.add_dataset("nyu-mll/glue", rows)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        found, notes = {}, {}
        for name in ("glue", "nyu-mll/glue"):
            sources = resolve.resolve_sources(spec_of(tmp_path / "model", name))
            (found[name],), notes[name] = sources.datasets.values(), sources.notes
        head = hub.head("nyu-mll/glue", repo_type="dataset")
    assert {(each.location, each.revision) for each in found.values()} == {("nyu-mll/glue", head)}
    assert found["glue"].identity == found["nyu-mll/glue"].identity
    assert found["glue"].name == "glue"
    assert notes["glue"] == ["`glue` is an old id: the rows are those of `nyu-mll/glue`"]
    assert notes["nyu-mll/glue"] == []


@pytest.mark.parametrize("body", [b"[]", b"{}", b"null", b'"text"', b'{"id": 7}', b"<html>x</html>", b""], ids=repr)
@pytest.mark.parametrize("what", ["model", "data set"])
def test_an_answer_of_another_form_is_told(tmp_path, monkeypatch, what, body):
    """A successful answer that describes no repository is a `HubError` that names the model or data set."""
    (tmp_path / "model").mkdir()
    model, data = ("someone/tiny", "memory:abc") if what == "model" else (tmp_path / "model", "someone/shades")
    with LocalHub() as hub:
        hub.strike(Fault("info", status=200, times=None, body=body))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        with pytest.raises(HubError, match=f"{what} `someone/.*cannot be read"):
            resolve.resolve_sources(spec_of(model, data))


def test_every_old_id_is_one_and_has_an_owner_today():
    """No old id has an owner, and each current id has one."""
    assert all("/" not in old and new.count("/") == 1 for old, new in resolve.RENAMED.items())


def test_data_in_memory_that_is_gone_is_said(tmp_path):
    """A spec that names data in memory cannot be run without the data."""
    (tmp_path / "model").mkdir()
    with pytest.raises(SpecError, match=r"memory:abc.*pass the data again"):
        resolve.resolve_sources(spec_of(tmp_path / "model", "memory:abc"), memory_folder=tmp_path)


@pytest.mark.parametrize(
    ("readme", "told"),
    [
        ("---\nlicense: mit\nlibrary_name: timm\ntags: [a]\n---\n", {"license": "mit", "library_name": "timm"}),
        ("---\nlicense: [mit, apache-2.0]\n---\n", {"license": ["mit", "apache-2.0"]}),
        ("---\nlicense: []\nlibrary_name: [timm]\n---\n", {}),
        ("---\nlicense: [mit, 3]\n---\n", {}),
        ("---\nlicense: [mit\n---\n", {}),
        ("---\n- mit\n---\n", {}),
        ("# No front matter\n", {}),
        ("---\nlicense: \udcff\n---\n", {}),
        ('---\nlicense: "\\ud800"\nlibrary_name: timm\n---\n', {"library_name": "timm"}),
        ("---\nlicense: mit\na: !!bool foo\n---\n", {}),
        ("---\nlicense: mit\na: " + "[" * 2000 + "\n---\n", {}),
        ("---\nlicense: mit\na: 2024-13-45\n---\n", {"license": "mit"}),
        (None, {}),
    ],
)
def test_a_model_hands_on_its_licence_and_library(tmp_path, readme, told):
    """Licence and library in a readable README of the model are stored with the source."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    if readme is not None:
        (tmp_path / "model" / "README.md").write_bytes(readme.encode("utf-8", "surrogateescape"))
    rows = tiny_text.write_data(tmp_path / "data", {"text": ["good"], "label": [0]})
    found = resolve.resolve_sources(spec_of(tmp_path / "model", str(rows)))
    assert found.models[str(tmp_path / "model")].inherited == told
    assert msgspec.json.decode(msgspec.json.encode(found), type=resolve.Sources) == found


def test_a_folder_without_its_small_files_is_refused(tmp_path):
    """A configuration or vocabulary that is a Git LFS pointer is refused; weights of other formats may be."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"
    rows = tiny_text.write_data(tmp_path / "data", {"text": ["good"], "label": [0]})
    (tmp_path / "model").mkdir()
    for name, is_refused in (("tf_model.h5", False), ("vocab.txt", True)):
        (tmp_path / "model" / name).write_text(pointer)
        if not is_refused:
            assert resolve.resolve_sources(spec_of(tmp_path / "model", str(rows))).models
            continue
        with pytest.raises(SpecError, match=rf"{name} is a Git LFS pointer.*git lfs pull.*\$\.model"):
            resolve.resolve_sources(spec_of(tmp_path / "model", str(rows)))


def test_a_step_knows_the_content_of_local_data_alone(tmp_path):
    """Only local data sets have a digest that is checked when they are read."""
    rows = tiny_text.write_data(tmp_path / "data", {"text": ["good"], "label": [0]})
    (tmp_path / "model").mkdir()
    (tmp_path / "abc").mkdir()
    (local,) = resolve.resolve_sources(spec_of(tmp_path / "model", str(rows))).datasets.values()
    assert local.content == data_.data_digest(rows) == local.digest
    (handed,) = resolve.resolve_sources(
        spec_of(tmp_path / "model", "memory:abc"), memory_folder=tmp_path
    ).datasets.values()
    assert handed.content is None
    assert resolve.Source("a/b", "a/b", False, "c0ffee", "d").content is None


def test_every_file_that_may_be_read_counts(tmp_path):
    """Hidden data files, names that are not UTF-8, and files behind links count in a digest."""
    (tmp_path / ".rows.csv").write_text("a")
    before = files.content_digest(tmp_path / ".rows.csv")
    (tmp_path / ".rows.csv").write_text("b")
    assert files.content_digest(tmp_path / ".rows.csv") != before
    (tmp_path / "data").mkdir()
    odd = tmp_path / "data" / os.fsdecode(b"\xff.csv")
    try:
        odd.write_text("a")
    except OSError:
        pytest.skip("this file system has no such names")
    assert len(files.content_digest(tmp_path / "data")) == 64
