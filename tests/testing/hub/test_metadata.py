"""`benchcard.testing.hub.metadata`: the known rules of the Hub for front matter."""

from __future__ import annotations

import pytest

from benchcard.testing.hub.metadata import check_metadata


def matter(text: str) -> str:
    return f"---\n{text}\n---\nWords\n"


INDEX = (
    "model-index:\n- name: m\n  results:\n  - task: {{type: t}}\n    dataset: {{type: d, name: n{more}}}\n"
    "    metrics: {metrics}"
)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("model-index: foo", '"model-index" must be an array'),
        ("license: nope", '"license" must be one of'),
        (INDEX.format(more=", config: null", metrics="[{type: f1, value: 1}]"), 'dataset.config" must be a string'),
        (INDEX.format(more=", revision: 12", metrics="[{type: f1, value: 1}]"), 'dataset.revision" must be a string'),
        (INDEX.format(more="", metrics="[{type: f1}]"), 'metrics[0].value" is required'),
        (INDEX.format(more="", metrics="[{type: f1, value: null}]"), 'metrics[0].value" is required'),
        (INDEX.format(more="", metrics="[{value: 1}]"), 'metrics[0].type" is required'),
        (INDEX.format(more="", metrics="[{type: f1, value: .nan}]"), "must be a finite number"),
        (INDEX.format(more="", metrics="3"), 'metrics" must be an array'),
        ("model-index:\n- name: m\n  results:\n  - task: {type: t}\n    metrics: []", 'dataset" is required'),
        ("datasets: [null]", '"datasets[0]" must be a string'),
        ("datasets: [/var/hf/images/]", "use a dataset id from https://hf.co/datasets"),
        ("base_model: a local model", "Use a model id from https://hf.co/models"),
        ("base_model: ./model", "Use a model id from https://hf.co/models"),
        ("widget: null", '"widget" must be an array'),
        ("tags: !!python/tuple [a]", "unknown tag"),
        ("x: !!binary aGk=", "unknown tag"),
        ("license: mit\nlicense: mit", "duplicated mapping key"),
        ("languages: [en]", '"languages" is deprecated'),
        ("language: English", "ISO 639-1"),
        ("- a\n- b", "must be a mapping"),
        ("a: [", "expected the node content"),
    ],
)
def test_metadata_that_is_refused(text: str, error: str) -> None:
    """Each known error is found, and names its field."""
    errors, _ = check_metadata(matter(text), "model")
    assert any(error in message for message in errors), errors


@pytest.mark.parametrize(
    "text",
    [
        "license: apache-2.0\nlanguage: [en, zh-Hant]\ntags: [a, 'b:c']\nmetrics: [acc, latency_in_seconds]",
        "datasets: [beans, someone/some.thing_1]\nbase_model: [org/model]",
        INDEX.format(more=", config: '1'", metrics="[{type: cosine_accuracy@1, value: '20.0 +/- 1.2'}]"),
        "widget: []\nfree_key: {deep: [1, 2, no]}\npipeline_tag: image-classification",
    ],
)
def test_metadata_that_is_taken(text: str) -> None:
    """The content of real cards gives no error and no warning."""
    assert check_metadata(matter(text), "model") == ([], [])


@pytest.mark.parametrize("text", ["", "# Only words\n", "---\n---\nWords", "---\nnever closed: yes\n"])
def test_a_card_without_metadata_is_a_warning(text: str) -> None:
    """Missing or empty front matter gives a warning."""
    assert check_metadata(text, "model") == ([], ["empty or missing yaml metadata in repo card"])


def test_an_unknown_pipeline_tag_is_a_warning() -> None:
    """A tag that is not in the list of the Hub gives a warning and no error."""
    errors, warnings = check_metadata(matter("pipeline_tag: mind-reading"), "model")
    assert (errors, len(warnings)) == ([], 1)
