"""Masked language models: figures as a plain loop over PyTorch gives them, what is hidden, and hostile texts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny_text

from benchcard import testing
from benchcard.errors import ArtifactError, SpecError
from benchcard.evaluation.fidelity import compare_outputs
from benchcard.evaluation.rows import Rows, write_predictions
from benchcard.tasks.fill_mask import FillMask

TASK = "fill-mask"
TEXTS = [
    "anna lives in paris",
    "the good film",
    "bob works for acme " * 30,
    "the bright film lives in rome for anna " * 3,
    "a",
    "the dull film lives",
] * 4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a masked language model."""
    folder = tmp_path_factory.mktemp("model")
    tiny_text.write_tokenizer(folder)
    return tiny_text.write_model(folder, "ForMaskedLM")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of texts."""
    return tiny_text.write_data(tmp_path_factory.mktemp("texts"), {"text": TEXTS})


def expected_scores(model, prepared):
    """The logits of PyTorch at the mask of each text alone, and the id that was hidden, by the tokenizer itself."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    network, tokenizer = AutoModelForMaskedLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    scores, hidden = [], []
    for index, text in enumerate(TEXTS):
        item = prepared.items.item(index)
        whole = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
        (place,) = np.flatnonzero(item["input_ids"] == tokenizer.mask_token_id)
        hidden.append(int(whole["input_ids"][0, place]))
        whole["input_ids"][0, place] = tokenizer.mask_token_id
        np.testing.assert_array_equal(whole["input_ids"][0], item["input_ids"])
        with torch.inference_mode():
            scores.append(network(**whole).logits[0, place].numpy())
    return np.array(scores), hidden


@pytest.mark.parametrize("framework", ["pytorch", "onnxruntime"])
def test_figures_are_those_of_plain_pytorch(model, data, tmp_path, framework):
    """Of the share of right tokens, also among the first five, for texts that were cut and of other lengths than at the
    export.
    """
    passed = testing.pass_through(TASK, model, data, tmp_path, framework=framework)
    scores, hidden = expected_scores(model, Rows(tmp_path / "prepare"))
    np.testing.assert_allclose(passed.kept["scores"], scores, atol=1e-4)
    assert passed.references == hidden
    assert passed.predictions == scores.argmax(axis=1).tolist()
    best = [token in np.argsort(-row)[:5] for row, token in zip(scores, hidden)]
    assert passed.metrics["accuracy"] == pytest.approx(np.mean(scores.argmax(axis=1) == hidden))
    assert passed.metrics["top_k_accuracy"] == pytest.approx(np.mean(best))
    assert "4 of 24 texts were cut to 32 tokens" in passed.notes


def test_what_is_hidden_is_drawn_by_the_seed_and_the_row(model, data, tmp_path):
    """It is an ordinary token; another seed draws others, and equal texts of other rows, too."""
    hidden = {}
    for seed in (None, 0, 1):
        folder = tmp_path / str(seed)
        tiny_text.prepare(TASK, model, data, folder, task_args=None if seed is None else {"mask_seed": seed})
        hidden[seed] = Rows(folder).references
    assert hidden[None] == hidden[0] != hidden[1]
    assert len({*hidden[0][1::6], *hidden[0][0::6]}) > 2
    assert min(hidden[0]) >= len(tiny_text.SPECIAL)


def test_models_are_compared_by_their_scores_of_the_vocabulary(model, data, tmp_path):
    """The mean divergence is that of scipy, and tokens that became right or wrong are counted."""
    from scipy.special import softmax
    from scipy.stats import entropy

    tiny_text.prepare(TASK, model, data, tmp_path / "prepared")
    rows = Rows(tmp_path / "prepared")
    scores, hidden = expected_scores(model, rows)
    changed = scores + np.random.default_rng(0).standard_normal(scores.shape).astype(np.float32)
    for name, logits in (("float", scores), ("int8", changed)):
        (tmp_path / name).mkdir()
        write_predictions(tmp_path / name, [{"scores": row} for row in logits], logits.argmax(axis=1).tolist())
    figures = compare_outputs(FillMask(), rows, tmp_path / "float", tmp_path / "int8", 0)
    divergences = entropy(softmax(scores.astype(float), axis=1), softmax(changed.astype(float), axis=1), axis=1)
    assert figures["kl_mean"].value == pytest.approx(divergences.mean())
    assert figures["agreement"].value == np.mean(scores.argmax(axis=1) == changed.argmax(axis=1))
    lost = (scores.argmax(axis=1) == hidden) & (changed.argmax(axis=1) != hidden)
    assert figures["lost"].value == np.count_nonzero(lost)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "a text that is not empty"),
        (" ", "a text that is not empty"),
        ("the [MASK] film", r"without the mask token `\[MASK\]`"),
        ("xyzzy", "a token of the vocabulary to hide"),
        ("[SEP]", "a token of the vocabulary to hide"),
    ],
)
def test_a_text_in_which_nothing_can_be_hidden_is_refused_with_its_row(model, tmp_path, text, message):
    """The message names the row and what to do."""
    data = tiny_text.write_data(tmp_path / "data", {"text": ["a good film", text]})
    with pytest.raises(SpecError, match=rf"{message}.*row 1 of `text` \(take such rows out"):
        tiny_text.prepare(TASK, model, data, tmp_path / "prepared")


def test_a_tokenizer_without_a_mask_is_refused(tmp_path, data):
    """As that of a decoder is; the message says what is needed."""
    tiny_text.write_tokenizer(tmp_path / "model", mask_token=None)
    model = tiny_text.write_model(tmp_path / "model", "ForMaskedLM")
    with pytest.raises(ArtifactError, match=r"has no mask token\. Use a masked language model"):
        tiny_text.prepare(TASK, model, data, tmp_path / "prepared")


def test_divergences_of_many_units_are_those_of_each():
    """They are computed in parts, which change nothing."""
    from benchcard.metrics.fidelity import label_divergences

    before, after = np.random.default_rng(0).standard_normal((2, 150, 7))
    together = label_divergences(before, after)
    assert together.shape == (150,)
    for index in (0, 63, 64, 149):
        (alone,) = label_divergences(before[index : index + 1], after[index : index + 1])
        assert math.isclose(together[index], alone)
