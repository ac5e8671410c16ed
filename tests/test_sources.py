"""What the names of data sets stand for: old ids and today's, and data that is handed over."""

from __future__ import annotations

import json

import pytest
import tiny_text

from benchcard import renamed, sources
from benchcard import spec as specs
from benchcard.errors import SpecError
from benchcard.testing import LocalHub


def spec_of(model, path):
    """A spec of one configuration."""
    dataset = {"path": path, "eval_split": "validation"}
    return specs.read({"task": "text-classification", "model": str(model), "dataset": dataset})


def test_old_ids_are_resolved_to_those_of_today(tmp_path, monkeypatch):
    """An id of the cards' time and today's are one source, at one commit; the record says both."""
    rows = tiny_text.write_data(tmp_path / "data", {"text": ["good"], "label": [0]})
    (tmp_path / "model").mkdir()
    with LocalHub() as hub:
        hub.add_dataset("nyu-mll/glue", rows)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        found = {}
        for name in ("glue", "nyu-mll/glue"):
            (found[name],) = sources.resolve(spec_of(tmp_path / "model", name)).datasets.values()
        head = hub.head("nyu-mll/glue", repo_type="dataset")
    assert {(each.location, each.revision) for each in found.values()} == {("nyu-mll/glue", head)}
    assert found["glue"].identity == found["nyu-mll/glue"].identity
    assert found["glue"].name == "glue"
    assert found["glue"].moved == "`glue` is an old id: the rows are those of `nyu-mll/glue`"
    assert found["nyu-mll/glue"].moved == ""


def test_every_old_id_is_one_and_has_an_owner_today():
    """No old id has an owner, each of today's has one."""
    assert all("/" not in old and new.count("/") == 1 for old, new in renamed.RENAMED.items())


def test_data_in_memory_that_is_gone_is_said(tmp_path):
    """A spec that names data in memory cannot be run without it."""
    (tmp_path / "model").mkdir()
    with pytest.raises(SpecError, match=r"memory:abc.*hand the data over again"):
        sources.resolve(spec_of(tmp_path / "model", "memory:abc"), handed=tmp_path)


@pytest.mark.parametrize(
    ("readme", "told"),
    [
        ("---\nlicense: mit\nlibrary_name: timm\ntags: [a]\n---\n", {"license": "mit", "library_name": "timm"}),
        ("---\nlicense: [mit]\n---\n", {}),
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
    """What its own card says in a readable front matter is kept with the source, and written and read like the rest."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    if readme is not None:
        (tmp_path / "model" / "README.md").write_bytes(readme.encode("utf-8", "surrogateescape"))
    rows = tiny_text.write_data(tmp_path / "data", {"text": ["good"], "label": [0]})
    found = sources.resolve(spec_of(tmp_path / "model", str(rows)))
    assert found.model(str(tmp_path / "model")).inherited == told
    assert sources.Sources.from_dict(json.loads(json.dumps(found.as_dict()))) == found
