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


def settle(model, **settings):
    """The model, whose folder has these settings of sentence-transformers."""
    (model / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return model


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
    assert found.scored.metrics == {"spearman": spearmanr(found.predictions, PAIRS["score"]).statistic}
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
    pooled = pooling.load_pooling(write_model(tmp_path, modes, normalize=False))
    tokens = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    np.testing.assert_allclose(pooling.embedding(tokens, pooled.modes, pooled.normalize), expected(tokens), rtol=1e-5)


SIMILARITIES = {
    "cosine": lambda one, other: one @ other / np.linalg.norm(one) / np.linalg.norm(other),
    "dot": lambda one, other: one @ other,
    "euclidean": lambda one, other: -np.linalg.norm(one - other),
    "manhattan": lambda one, other: -np.abs(one - other).sum(),
}


@pytest.mark.parametrize("name", [None, *SIMILARITIES])
def test_the_folder_names_the_similarity(tmp_path, name):
    """Pairs are scored by the similarity that the folder names, a distance being negative; by the cosine where it names
    none. The row and its notes say which.
    """
    from scipy.stats import spearmanr

    model = settle(write_model(tmp_path / "model", ("max_tokens",), normalize=False), similarity_fn_name=name)
    data = tiny_text.write_data(tmp_path / "data", PAIRS)
    found = tiny_text.passed("sentence-similarity", model, data, tmp_path, ("spearman",))
    pairs = [[directly(model, PAIRS[column][row]).max(axis=0) for column in list(PAIRS)[:2]] for row in range(4)]
    expected = [SIMILARITIES[name or "cosine"](*pair) for pair in pairs]
    assert found.predictions == pytest.approx(expected, abs=1e-4)
    assert found.scored.metrics == {"spearman": spearmanr(expected, PAIRS["score"]).statistic}
    assert found.facts == {"similarity_fn_name": name or "cosine"}
    assert any(note.startswith("the score of two texts is the ") for note in found.notes)


def test_task_args_name_the_similarity_before_the_folder(tmp_path):
    """The user's choice wins, even over one that is not known here, which is refused without it."""
    model = settle(write_model(tmp_path / "model", normalize=False), similarity_fn_name="maxsim")
    data = tiny_text.write_data(tmp_path / "data", PAIRS)
    with pytest.raises(ArtifactError, match="similarity `maxsim`; expected `cosine`, `dot`"):
        tiny_text.prepare("sentence-similarity", model, data, tmp_path / "refused")
    given = {"task_args": {"similarity_fn_name": "dot"}}
    assert tiny_text.passed("sentence-similarity", model, data, tmp_path, **given).facts == {
        "similarity_fn_name": "dot"
    }
    with pytest.raises(SpecError, match=r"did you mean `cosine`.*similarity_fn_name"):
        tiny_text.prepare("sentence-similarity", model, data, tmp_path, task_args={"similarity_fn_name": "cosin"})


def test_truncated_embeddings(tmp_path):
    """`truncate_dim` keeps the first numbers of the normalized embedding, as sentence-transformers does."""
    model = settle(write_model(tmp_path / "model"), truncate_dim=5)
    data = tiny_text.write_data(tmp_path / "data", PAIRS)
    found = tiny_text.passed("feature-extraction", model, data, tmp_path)
    mean = directly(model, PAIRS["sentence1"][0]).mean(axis=0)
    np.testing.assert_allclose(found.kept["embedding"][0], (mean / np.linalg.norm(mean))[:5], atol=1e-5)


def test_prompts_are_read_as_the_folder_says(tmp_path):
    """A prompt is lower-cased with its text; where no prompt is the default, none is read, and the note says so."""
    lower = {"do_lower_case": True}
    model = settle(write_model(tmp_path / "one", transformer=lower), prompts={"q": "Film: "}, default_prompt_name="q")
    assert pooling.load_pooling(model).read("GOOD") == "film: good"
    settle(model, prompts={"query": "query: ", "document": ""}, default_prompt_name=None)
    pooled = pooling.load_pooling(model)
    assert pooled.read("Good") == "good"
    assert any("has prompts (query) and no default one" in note for note in pooled.notes)


def test_what_the_folder_says_of_reading(tmp_path):
    """Its maximum, lower case, and prompt are obeyed and said."""
    model = write_model(tmp_path / "model", transformer={"max_seq_length": 6, "do_lower_case": True})
    (model / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "film: "}, "default_prompt_name": "query"})
    )
    data = tiny_text.write_data(tmp_path / "data", {**PAIRS, "sentence1": ["good " * 9, *PAIRS["sentence1"][1:]]})
    told = tiny_text.prepare("feature-extraction", model, data, tmp_path / "prepared")
    assert "every text has the model's prompt before it: 'film: '" in told.notes
    assert any(note.endswith("of 8 texts were cut to 6 tokens") for note in told.notes)


def test_a_folder_that_says_nothing(tmp_path):
    """The mean is taken, and the note says that the folder did not ask for it."""
    tiny_text.write_tokenizer(tmp_path)
    tiny_text.write_model(tmp_path, "Model")
    pooled = pooling.load_pooling(tmp_path)
    assert pooled.modes == ("mean",)
    assert "does not say" in pooled.notes[0]


@pytest.mark.parametrize("modes", ["lasttoken", "mean_sqrt_len_tokens", ["mean", "cls"]])
def test_newer_folders_name_their_pooling(tmp_path, modes):
    """A mode may be given by name instead of by flags; several are joined in the order of their names."""
    reading = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
    }
    model = write_model(tmp_path, (), transformer=reading, pooling_mode=modes)
    names = {"Transformer": "base", "Normalize": "base", "Pooling": "sentence_transformer"}
    modules = json.loads((model / "modules.json").read_text())
    for module in modules:
        kind = module["type"].rpartition(".")[2]
        module["type"] = f"sentence_transformers.{names[kind]}.modules.{kind.lower()}.{kind}"
    (model / "modules.json").write_text(json.dumps(modules))
    pooled = pooling.load_pooling(model)
    assert list(pooled.modes) == ([modes] if isinstance(modes, str) else modes)
    assert pooled.normalize


def test_a_maximum_of_an_older_name(tmp_path):
    """`max_seq_length` is read from each name that sentence-transformers gave its configuration."""
    model = write_model(tmp_path)
    (model / "sentence_roberta_config.json").write_text('{"max_seq_length": 9, "do_lower_case": false}')
    assert pooling.load_pooling(model).maximum == 9
    made, length = registry.task("feature-extraction").inputs(model, 1, None, 0)
    assert made["input_ids"].shape == (1, length) == (1, 9)


def change_module(model, index, **changes):
    """Change what `modules.json` says of a module."""
    modules = json.loads((model / "modules.json").read_text())
    modules[index].update(changes)
    (model / "modules.json").write_text(json.dumps(modules))


def normalize_tokens(model):
    """Let the model's Normalize be of its tokens."""
    (model / "2_Normalize").mkdir()
    (model / "2_Normalize" / "config.json").write_text('{"module_input_name": "token_embeddings"}')


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
        (lambda model: (model / "modules.json").write_text("{}"), "expected a JSON array"),
        (lambda model: (model / "modules.json").write_text("[1]"), "1 is no module"),
        (lambda model: change_module(model, 0, type="custom_st.Transformer"), "custom_st.Transformer"),
        (lambda model: change_module(model, 0, path="0_Transformer"), "lists Transformer in `0_Transformer`"),
        (lambda model: change_module(model, 2, type="sentence_transformers.models.Pooling"), "lists"),
        (lambda model: settle(model, model_type="SparseEncoder"), "is a SparseEncoder"),
        (lambda model: settle(model, prompts={"a": "b"}, default_prompt_name="c"), "default prompt `c`.*among.*a"),
        (
            lambda model: (model / "sentence_bert_config.json").write_text('{"tokenizer_args": {"use_fast": false}}'),
            "asks for tokenizer_args",
        ),
        (
            lambda model: (model / "sentence_bert_config.json").write_text(
                '{"modality_config": {"message": {"method": "forward"}}}'
            ),
            "asks for modality_config",
        ),
        (lambda model: normalize_tokens(model), "normalizes token_embeddings"),
    ],
)
def test_what_cannot_be_made_is_said(tmp_path, change, said):
    """A folder that asks for what is not known here is refused by name, and never pooled in another way."""
    model = write_model(tmp_path)
    change(model)
    with pytest.raises(ArtifactError, match=said):
        pooling.load_pooling(model)


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
