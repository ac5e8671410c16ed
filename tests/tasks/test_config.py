"""The configuration of a model's folder, also of a graph that is no model of transformers."""

from __future__ import annotations

import json

import pytest

from benchcard.errors import ArtifactError
from benchcard.tasks.config import load_config


def test_a_folder_without_a_model_of_transformers_has_its_own_words(tmp_path):
    """Labels are read where there is no `model_type`; an unknown one is an error of transformers, as ever."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"id2label": {"0": "safe", "1": "unsafe"}}))
    assert load_config(tmp_path).id2label == {0: "safe", 1: "unsafe"}
    file.write_text(json.dumps({"model_type": "resnet", "id2label": {"0": "a"}}))
    assert type(load_config(tmp_path)).__name__ == "ResNetConfig"
    file.write_text(json.dumps({"model_type": "of nobody"}))
    with pytest.raises(ValueError, match="of nobody"):
        load_config(tmp_path)


def test_a_folder_without_a_configuration_says_what_to_add(tmp_path):
    """The message has the least content of the file."""
    with pytest.raises(ArtifactError, match=r"has no config\.json.*Add one.*id2label"):
        load_config(tmp_path)
