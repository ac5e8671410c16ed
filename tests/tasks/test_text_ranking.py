"""Text ranking: scores as plain PyTorch gives them for each pair, and hostile rows."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_text

from benchcard import testing
from benchcard.errors import SpecError
from benchcard.evaluation.fidelity import compare_outputs
from benchcard.evaluation.rows import Rows, write_predictions
from benchcard.tasks.text_ranking import TextRanking

TASK = "text-ranking"
ROWS = {
    "query": ["anna lives in rome", "a good film", "bob", "the bright film"],
    "documents": [
        ["paris", "rome works for anna", "anna lives in paris " * 12],
        ["the bad film", "bright"],
        ["bob works for acme"],
        ["dull", "film", "good bad dull bright film", "a"],
    ],
    "labels": [[0, 2, 1], [0, 1], [0], [0, 0, 1, 0]],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a cross-encoder."""
    folder = tmp_path_factory.mktemp("model")
    tiny_text.write_tokenizer(folder)
    return tiny_text.write_model(folder, "ForSequenceClassification", ["score"])


def expected_scores(model):
    """The output of PyTorch for each pair alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)

    def score(query, document):
        pair = tokenizer(query, document, truncation=True, max_length=32, return_tensors="pt")
        with torch.inference_mode():
            return float(network(**pair).logits)

    return [[score(query, each) for each in row] for query, row in zip(ROWS["query"], ROWS["documents"])]


@pytest.mark.parametrize("framework", ["pytorch", "onnxruntime"])
def test_figures_are_those_of_plain_pytorch(model, tmp_path, framework):
    """Of scores and rankings, for pairs that are cut, too, in graphs at other lengths than at the export; a query
    without a relevant document is not scored, and the notes say so.
    """
    from sklearn.metrics import ndcg_score

    data = tiny_text.write_data(tmp_path / "data", ROWS)
    passed = testing.pass_through(TASK, model, data, tmp_path, framework=framework)
    expected = expected_scores(model)
    for predicted, scores in zip(passed.predictions, expected, strict=True):
        np.testing.assert_allclose(predicted, scores, atol=1e-4)
    scored = [0, 1, 3]
    gains = [ndcg_score([ROWS["labels"][row]], [expected[row]], k=10) for row in scored]
    assert passed.metrics["ndcg_at_10"] == pytest.approx(np.mean(gains))
    ranks = [
        1
        + min(
            np.argsort(-np.array(expected[row])).tolist().index(index) for index in np.flatnonzero(ROWS["labels"][row])
        )
        for row in scored
    ]
    assert passed.metrics["mrr_at_10"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert "1 of 10 texts was cut to 32 tokens" in passed.notes
    assert "1 of 4 queries has no relevant document: it is not scored" in passed.notes


def test_models_are_compared_by_their_scores(model, tmp_path):
    """The figure is the root of the mean squared difference over documents."""
    data = tiny_text.write_data(tmp_path / "data", ROWS)
    tiny_text.prepare(TASK, model, data, tmp_path / "prepared")
    rows = Rows(tmp_path / "prepared")
    scores = np.arange(10, dtype=np.float32)[:, None]
    for name, values in (("float", scores), ("int8", scores + 0.5)):
        (tmp_path / name).mkdir()
        kept = [{"scores": value} for value in values]
        write_predictions(tmp_path / name, kept, rows.predictions(TextRanking(), kept))
    figures = compare_outputs(TextRanking(), rows, tmp_path / "float", tmp_path / "int8", 0)
    assert figures["rms_difference"].value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"documents": [["a"], []]}, "a list of one text or more.*row 1"),
        ({"documents": [["a"], None]}, "a list of one text or more.*row 1"),
        ({"documents": [["a"], [" "]]}, "a text that is not empty.*row 1"),
        ({"documents": ["a", "b"]}, "a column of lists of texts"),
        ({"labels": [[1], [1, 0]]}, "a list of 1 numbers.*row 1"),
        ({"labels": [[1], None]}, "a list of 1 numbers.*row 1"),
        ({"labels": [[1], [-1]]}, "0 for no relevance.*row 1"),
        ({"labels": [1, 0]}, "a column of lists of numbers"),
    ],
)
def test_rows_that_do_not_fit_are_refused(model, tmp_path, changes, message):
    """The message names the row and its column."""
    rows = {"query": ["anna", "bob"], "documents": [["a"], ["the"]], "labels": [[1], [0]], **changes}
    data = tiny_text.write_data(tmp_path / "data", rows)
    with pytest.raises(SpecError, match=message):
        tiny_text.prepare(TASK, model, data, tmp_path / "prepared")


def test_a_classifier_is_refused(tmp_path):
    """A model of several labels gives no score."""
    tiny_text.write_tokenizer(tmp_path / "model")
    model = tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", ["bad", "good"])
    with pytest.raises(SpecError, match="a cross-encoder with one output, found a model with 2 outputs"):
        tiny_text.prepare(TASK, model, tiny_text.write_data(tmp_path / "data", ROWS), tmp_path / "prepared")
