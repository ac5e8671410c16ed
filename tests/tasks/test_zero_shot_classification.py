"""Zero-shot classification: predictions as the pipeline of transformers gives them, candidates, and hostile specs."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import tiny_text

from benchcard import testing
from benchcard.errors import ArtifactError, SpecError
from benchcard.evaluation.rows import Rows

TASK = "zero-shot-classification"
NAMES = ["rome", "paris", "film"]
TEXTS = ["anna lives in paris", "the good film", "bob works for acme " * 30, "a", "bright film lives in rome"] * 3
LABELS = [1, 2, 0, 0, 2] * 3


def write_model(folder, names=("contradiction", "neutral", "entailment")):
    """A seeded model of natural language inference."""
    tiny_text.write_tokenizer(folder)
    return tiny_text.write_model(folder, "ForSequenceClassification", list(names))


def write_data(folder, labels=LABELS, names=NAMES):
    """A data set of texts with labels of these names."""
    feature = datasets.ClassLabel(names=names) if names else None
    features = {"text": datasets.Value("string"), "label": feature} if feature else None
    return tiny_text.write_data(folder, {"text": TEXTS, "label": labels}, features)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model."""
    return write_model(tmp_path_factory.mktemp("model"))


def pipeline_labels(model, names, template):
    """The first label of each text by the pipeline of transformers."""
    from transformers import pipeline

    classify = pipeline(TASK, model=str(model))
    return [names.index(classify(text, names, hypothesis_template=template)["labels"][0]) for text in TEXTS]


@pytest.mark.parametrize("framework", ["pytorch", "onnxruntime"])
@pytest.mark.parametrize("template", ["This example is {}.", "anna lives in the {}"])
def test_predictions_are_those_of_the_pipeline(model, tmp_path, framework, template):
    """Of all candidates of the data set, for texts that are cut, too, in graphs at other lengths than at the export."""
    arguments = {} if template.startswith("This") else {"hypothesis_template": template}
    data = write_data(tmp_path / "data")
    passed = testing.pass_through(TASK, model, data, tmp_path, framework=framework, task_args=arguments)
    expected = pipeline_labels(model, NAMES, template)
    assert passed.predictions == expected
    assert passed.references == LABELS
    assert len({*expected}) > 1
    assert passed.metrics["accuracy"] == pytest.approx(np.mean(np.array(expected) == LABELS))
    assert "the candidates are rome, paris, film, as" in passed.notes[0]
    assert "3 of 15 texts were cut to 32 tokens with a hypothesis" in passed.notes


def test_candidates_are_matched_with_the_labels_of_the_data_by_name(model, tmp_path):
    """In another order, with a mapping, and of a column of texts or of numbers."""
    words = [NAMES[label] for label in LABELS]
    turned = [2 - label for label in LABELS]
    cases = [
        (write_data(tmp_path / "named"), {"candidate_labels": ["film", "paris", "rome"]}, turned),
        (write_data(tmp_path / "texts", words, None), {}, [sorted(NAMES).index(word) for word in words]),
        (write_data(tmp_path / "numbers", LABELS, None), {"candidate_labels": ["bad", "good", "dull"]}, LABELS),
        (
            write_data(tmp_path / "mapped"),
            {"candidate_labels": ["a", "b", "c"], "label_mapping": {"rome": "c", "paris": "b", "film": "a"}},
            turned,
        ),
    ]
    for data, arguments, references in cases:
        folder = tmp_path / f"{data.name}-prepared"
        tiny_text.prepare(TASK, model, data, folder, task_args=arguments)
        assert Rows(folder).references == references


def test_rows_to_calibrate_with_need_no_labels(model, tmp_path):
    """Where the candidates are in the spec, the data set needs no column of labels."""
    data = tiny_text.write_data(tmp_path / "data", {"text": TEXTS})
    prepared = tiny_text.prepare(
        TASK, model, data, tmp_path / "prepared", ref_keys=[], task_args={"candidate_labels": ["rome", "paris"]}
    )
    assert prepared.items == 2 * len(TEXTS)


@pytest.mark.parametrize(
    ("labels", "names", "arguments", "message"),
    [
        (LABELS, None, {}, "whose labels are numbers without names.*candidate_labels"),
        (LABELS, NAMES, {"candidate_labels": ["rome", "milan", "film"]}, "paris"),
        (LABELS, NAMES, {"hypothesis_template": "no place"}, r"a text with `\{\}`"),
        ([*LABELS[:-1], None], NAMES, {}, "row 14"),
    ],
)
def test_what_does_not_fit_is_refused(model, tmp_path, labels, names, arguments, message):
    """The message names the labels, the row or the argument."""
    data = write_data(tmp_path / "data", labels, names)
    with pytest.raises(SpecError, match=message):
        tiny_text.prepare(TASK, model, data, tmp_path / "prepared", task_args=arguments)


@pytest.mark.parametrize("names", [["bad", "good"], ["entailment", "entailed"]])
def test_a_model_without_entailment_is_refused(tmp_path, names):
    """The pipeline of transformers would take its last label without a word."""
    model, data = write_model(tmp_path / "model", names), write_data(tmp_path / "data")
    with pytest.raises(ArtifactError, match=r"expected one `entailment`\. Use a model of natural language inference"):
        tiny_text.prepare(TASK, model, data, tmp_path / "prepared")
