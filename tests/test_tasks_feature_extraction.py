"""Sentence embeddings: pooling as the folder says, and the cosine of pairs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny_text

from benchcard import registry
from benchcard.errors import ArtifactError, SpecError
from benchcard.tasks import pooling
from benchcard.tasks.feature_extraction import cosines

PAIRS = {
    "sentence1": ["good film", "anna lives in paris", "bob works", "the dull film is bad"],
    "sentence2": ["a bright good film", "bob lives in rome", "anna works for acme", "good"],
    "score": [4.5, 2.0, 3.0, 0.5],
}


def write_model(folder, modes=("mean_tokens",), normalize=True, transformer=None, **pooled):
    """A tiny model with the files of sentence-transformers."""
    tiny_text.write_tokenizer(folder)
    tiny_text.write_model(folder, "Model")
    kinds = [("", "models.Transformer"), ("1_Pooling", "models.Pooling")] + (
        [("2_Normalize", "models.Normalize")] if normalize else []
    )
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 16, **{f"pooling_mode_{mode}": True for mode in modes}, **pooled})
    )
    if transformer:
        (folder / "sentence_bert_config.json").write_text(json.dumps(transformer))
    return folder


def directly(model, sentence):
    """The token embeddings that transformers gives for one sentence."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    encoding = AutoTokenizer.from_pretrained(model)(sentence, return_tensors="pt")
    with torch.inference_mode():
        return AutoModel.from_pretrained(model).eval()(**encoding).last_hidden_state[0].numpy()


@pytest.mark.parametrize("task", ["feature-extraction", "sentence-similarity"])
def test_embeddings_and_their_correlation(tmp_path, task):
    """In padded batches each sentence has the mean of its own tokens, of length 1, and the figure is scipy's Spearman
    of the cosines.
    """
    from scipy.stats import spearmanr

    model = write_model(tmp_path / "model")
    data = tiny_text.write_data(tmp_path / "data", PAIRS)
    found = tiny_text.passed(task, model, data, tmp_path, registry.task(task).metrics)
    embeddings = found.kept["embedding"]
    assert embeddings.shape == (8, 16)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    for row, column in ((0, "sentence1"), (2, "sentence2")):
        mean = directly(model, PAIRS[column][row]).mean(axis=0)
        np.testing.assert_allclose(
            embeddings[2 * row + (column == "sentence2")], mean / np.linalg.norm(mean), atol=1e-5
        )
    assert found.predictions == pytest.approx(cosines(embeddings[::2], embeddings[1::2]).tolist())
    assert found.scored["metrics"] == {"spearman": spearmanr(found.predictions, PAIRS["score"]).statistic}
    one = tiny_text.passed(task, model, data, tmp_path / "one", batch_size=1)
    np.testing.assert_allclose(one.kept["embedding"], embeddings, atol=1e-5)


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (("cls_token",), lambda tokens: tokens[0]),
        (("max_tokens",), lambda tokens: tokens.max(axis=0)),
        (("mean_sqrt_len_tokens",), lambda tokens: tokens.sum(axis=0) / np.sqrt(len(tokens))),
        (("lasttoken",), lambda tokens: tokens[-1]),
        (
            ("weightedmean_tokens",),
            lambda tokens: (
                sum((index + 1) * each for index, each in enumerate(tokens)) / sum(range(1, len(tokens) + 1))
            ),
        ),
        (("mean_tokens", "cls_token"), lambda tokens: np.concatenate([tokens[0], tokens.mean(axis=0)])),
    ],
)
def test_every_pooling(tmp_path, modes, expected):
    """Each mode of a folder's configuration does what its name says; several are joined in the order of
    sentence-transformers.
    """
    pooled = pooling.load(write_model(tmp_path, modes, normalize=False))
    tokens = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    np.testing.assert_allclose(pooling.embedding(tokens, pooled.modes, pooled.normalize), expected(tokens), rtol=1e-5)


def test_what_the_folder_says_of_reading(tmp_path):
    """Its maximum, lower case, and prompt are obeyed and said."""
    model = write_model(tmp_path / "model", transformer={"max_seq_length": 6, "do_lower_case": True})
    (model / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "film: "}, "default_prompt_name": "query"})
    )
    data = tiny_text.write_data(tmp_path / "data", {**PAIRS, "sentence1": ["good " * 9, *PAIRS["sentence1"][1:]]})
    told = tiny_text.prepare("feature-extraction", model, data, tmp_path / "prepared")
    assert "every text has the model's prompt before it: 'film: '" in told["notes"]
    assert any(note.endswith("of 8 texts were cut to 6 tokens") for note in told["notes"])


def test_a_folder_that_says_nothing(tmp_path):
    """The mean is taken, and the note says that the folder did not ask for it."""
    tiny_text.write_tokenizer(tmp_path)
    tiny_text.write_model(tmp_path, "Model")
    pooled = pooling.load(tmp_path)
    assert pooled.modes == ("mean",)
    assert "does not say" in pooled.notes[0]


def test_newer_folders_name_their_pooling(tmp_path):
    """A mode may be told by name instead of by flags."""
    assert pooling.load(write_model(tmp_path, (), pooling_mode="lasttoken")).modes == ("lasttoken",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: (model / "1_Pooling" / "config.json").write_text("{}"), "pooling of nothing"),
        (lambda model: (model / "1_Pooling" / "config.json").write_text('{"pooling_mode": "median"}'), "median"),
        (
            lambda model: (model / "modules.json").write_text(
                '[{"type": "sentence_transformers.models.Dense", "path": "2"}]'
            ),
            "Dense",
        ),
        (
            lambda model: (model / "modules.json").write_text('[{"type": "sentence_transformers.models.Transformer"}]'),
            "no Pooling",
        ),
        (lambda model: (model / "modules.json").write_text("["), "cannot be read"),
    ],
)
def test_what_cannot_be_made_is_said(tmp_path, change, said):
    """A folder that asks for what is not known here is refused by name, and never pooled in another way."""
    model = write_model(tmp_path)
    change(model)
    with pytest.raises(ArtifactError, match=said):
        pooling.load(model)


def test_cosines_between_models():
    """The cosine of the same texts under two models is 1 where they agree, whatever the length, and 0 for nothing."""
    embeddings = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    np.testing.assert_allclose(cosines(embeddings, 3 * embeddings), 1)
    np.testing.assert_allclose(cosines(embeddings, -embeddings), -1)
    assert cosines(np.zeros((1, 3)), np.ones((1, 3))).tolist() == [0.0]


def test_bad_rows_are_said(tmp_path):
    """A missing column, an empty sentence, and a missing score name column and row."""
    model = write_model(tmp_path / "model")
    for index, (columns, said) in enumerate(
        [
            ({"sentence1": ["good"], "score": [1.0]}, "column `sentence2`"),
            (
                {"sentence1": ["good", "bad"], "sentence2": ["film", ""], "score": [1.0, 2.0]},
                r'"" in row 1 of `sentence2`.*data_keys\.secondary',
            ),
            (
                {"sentence1": ["good", "bad"], "sentence2": ["film", "film"], "score": [1.0, None]},
                "null in row 1 of `score`",
            ),
        ]
    ):
        data = tiny_text.write_data(tmp_path / f"data-{index}", columns)
        with pytest.raises(SpecError, match=said):
            tiny_text.prepare("sentence-similarity", model, data, tmp_path / f"prepared-{index}")
