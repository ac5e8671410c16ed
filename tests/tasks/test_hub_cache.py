"""Rows of the Hub in the cache of `datasets`: commits, configurations, and CSV files whose words stay words."""

from __future__ import annotations

import os
import shutil

import datasets
import pytest

from benchcard.errors import SpecError
from benchcard.tasks import data
from benchcard.tasks.hub_cache import cached_commit

OLD, NEW = "0a" * 20, "1b" * 20
NAME = "someone/TinyShades"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of `datasets`, without the network."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def keep(cache, commit, text, config="default", **settings):
    """Put a CSV file into the cache as if it had been read from the Hub at a commit."""
    file = cache.parent / "rows.csv"
    file.write_text(text)
    reader = datasets.load_dataset_builder("csv", data_files={"validation": str(file)}, **settings)
    reader.download_and_prepare()
    name = datasets.BuilderConfig(config).create_config_id(settings)
    folder = cache / "someone___tiny_shades" / name / "0.0.0" / commit
    shutil.copytree(reader.cache_dir, folder)
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace('"config_name": "default"', f'"config_name": "{config}"'))
    for path in folder.iterdir():
        path.rename(path.with_name(path.name.replace("csv-", "tiny_shades-")))
    os.utime(folder, (1e9, 1e9 + int(commit == NEW)))


def test_the_rows_are_those_of_the_commit(cache):
    """The commit that was asked for is read, also if a newer one is there; else the newest counts."""
    keep(cache, OLD, "text,label\ngood,0\n")
    keep(cache, NEW, "text,label\nbad,1\n")
    assert (cached_commit(NAME, None), cached_commit(NAME, OLD)) == (NEW, OLD)
    for commit, text in ((OLD, "good"), (NEW, "bad")):
        assert data.load_dataset(NAME, None, "validation", commit)["text"][:] == [text]
    with pytest.raises(SpecError, match=r"`validaton`.*did you mean `validation`"):
        data.load_dataset(NAME, None, "validaton", NEW)


def test_what_is_not_in_the_cache_is_said(cache):
    """A data set, a commit, a branch and a configuration that are not there are refused with what is."""
    with pytest.raises(SpecError, match=r"HF_HUB_OFFLINE is set.*someone/other.*has nothing.*with the network"):
        cached_commit("someone/other", None)
    keep(cache, OLD, "text,label\ngood,0\n", "small")
    keep(cache, OLD, "text,label\nbad,0\n", "large")
    for revision in (NEW, "main"):
        with pytest.raises(SpecError, match=rf"revision {revision} .*has `{OLD}`"):
            cached_commit(NAME, revision)
    assert data.load_dataset(NAME, "small", "validation", OLD)["text"][:] == ["good"]
    for name in (None, "huge"):
        with pytest.raises(SpecError, match=r"`large` or `small`|`small` or `large`"):
            data.load_dataset(NAME, name, "validation", OLD)


def test_the_only_configuration_needs_no_name(cache):
    """Without a name, the only configuration of the cache is read."""
    keep(cache, OLD, "text,label\ngood,0\n", "plain_text")
    assert data.load_dataset(NAME, None, "validation", OLD)["text"][:] == ["good"]


def test_words_stay_words_as_they_were_with_the_network(cache):
    """Rows of a CSV file in which words stayed words are read so again; without them missing texts stay missing."""
    text = "text,label\nNA,0\ngood,1\n"
    keep(cache, OLD, text)
    assert data.load_dataset(NAME, None, "validation", OLD)["text"][:] == [None, "good"]
    keep(cache, OLD, text, keep_default_na=False, na_values={"text": [""], "label": list(data._MISSING)})
    assert data.load_dataset(NAME, None, "validation", OLD)["text"][:] == ["NA", "good"]
