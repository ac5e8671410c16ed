"""Token classification: first sub-words, words that have no prediction, and names of labels."""

from __future__ import annotations

from itertools import groupby

import datasets
import numpy as np
import pytest
import tiny_text

from benchcard import registry
from benchcard.errors import ArtifactError, SpecError
from benchcard.metrics.info import MetricInfo
from benchcard.steps import data as data_steps
from benchcard.steps.data import SampleRequest
from benchcard.tasks.token_classification import read_tags

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TASK = "token-classification"
SENTENCES = [["Anna", "lives", "in", "Paris"], ["Bob", "works"], ["the", "films", "good", "in", "Rome", "films", "bad"]]
TAGS = [[1, 0, 0, 3], [1, 0], [0, 0, 0, 0, 3, 4, 0]]


def data_of(folder, tokens=SENTENCES, tags=TAGS, names=LABELS):
    """A data set of words and tags."""
    features = {
        "tokens": datasets.List(datasets.Value("string")),
        "ner_tags": datasets.List(datasets.ClassLabel(names=names) if names else datasets.Value("string")),
    }
    return tiny_text.write_data(folder, {"tokens": tokens, "ner_tags": tags}, features)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny tagger of five labels."""
    folder = tmp_path_factory.mktemp("model")
    tiny_text.write_tokenizer(folder)
    return tiny_text.write_model(folder, "ForTokenClassification", LABELS)


def directly(model, words):
    """The label of the first sub-word of each word that has one, as the reference script finds it."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    encoding = AutoTokenizer.from_pretrained(model)(
        [words], is_split_into_words=True, truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        logits = AutoModelForTokenClassification.from_pretrained(model).eval()(**encoding).logits[0].numpy()
    places = encoding.word_ids(0)
    return [
        LABELS[logits[place].argmax()]
        for place, word in enumerate(places)
        if word is not None and word not in places[:place]
    ]


@pytest.mark.parametrize("batch_size", [1, 32])
def test_predictions_are_those_of_first_sub_words(model, tmp_path, batch_size):
    """In batches of any size a word has the label that its first sub-word has when the sentence goes in alone; figures
    are seqeval's.
    """
    from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score

    found = tiny_text.passed(
        TASK,
        model,
        data_of(tmp_path / "data"),
        tmp_path,
        ("precision", "recall", "f1", "accuracy"),
        batch_size=batch_size,
    )
    assert found.predictions == [directly(model, words) for words in SENTENCES]
    assert found.references == [[LABELS[tag] for tag in tags] for tags in TAGS]
    assert found.scored.metrics == {
        "precision": precision_score(found.references, found.predictions, zero_division=0),
        "recall": recall_score(found.references, found.predictions, zero_division=0),
        "f1": f1_score(found.references, found.predictions, zero_division=0),
        "accuracy": accuracy_score(found.references, found.predictions),
    }
    assert found.scored.readings["f1"] == MetricInfo(True, "share")


def test_one_figure_of_a_metric(model, tmp_path):
    """`metric.figure` is that figure by this name, with its interval, and needs no network."""
    from benchcard.steps import evaluate

    name = "seqeval.overall_f1"
    request = evaluate.MetricRequest(name=name, scripts={})
    assert evaluate.metric(request, tmp_path, lambda done, total: None) == evaluate.MetricOutcome()
    found = tiny_text.passed(TASK, model, data_of(tmp_path / "data"), tmp_path, ("f1", name))
    assert found.scored.metrics[name] == found.scored.metrics["f1"]
    assert found.scored.readings[name] == MetricInfo(True, "share")


def test_words_without_a_prediction_are_counted(model, tmp_path):
    """Words beyond the model's maximum, and words that give no token, are left out of predictions and references alike,
    and are counted.
    """
    tokens = [["film"] * 40, ["Anna", "\u200b", "lives"]]
    found = tiny_text.passed(TASK, model, data_of(tmp_path / "data", tokens, [[0] * 40, [1, 2, 0]]), tmp_path)
    assert [len(tags) for tags in found.predictions] == [len(tags) for tags in found.references] == [30, 2]
    assert found.references[1] == ["B-PER", "O"]
    assert (
        "10 of 43 words, in 1 row, lie beyond the model's 32 tokens: they have no prediction and are not scored"
        in found.notes
    )
    assert any(note.startswith("1 of 43 words gives no token") for note in found.notes)


def test_a_word_whose_end_is_cut_has_a_prediction(model, tmp_path):
    """A word counts where its first sub-word lies within the maximum, even if its others do not."""
    tokens = [[*["film"] * 29, "films"]]
    found = tiny_text.passed(TASK, model, data_of(tmp_path / "data", tokens, [[0] * 30]), tmp_path)
    assert len(found.predictions[0]) == 30
    assert found.notes == ["entities are read from the letters that labels begin with (scheme IOB)"]


def test_labels_are_aligned_by_name(model, tmp_path):
    """A data set that numbers its tags otherwise, or has them as text, comes to the model's names."""
    order = ["I-LOC", "B-LOC", "O", "I-PER", "B-PER"]
    tags = [[order.index(LABELS[tag]) for tag in row] for row in TAGS]
    found = tiny_text.passed(TASK, model, data_of(tmp_path / "data", tags=tags, names=order), tmp_path / "a")
    assert found.references == [[LABELS[tag] for tag in row] for row in TAGS]
    texts = [[LABELS[tag].lower() for tag in row] for row in TAGS]
    found = tiny_text.passed(TASK, model, data_of(tmp_path / "texts", tags=texts, names=None), tmp_path / "b")
    assert found.references == [[LABELS[tag] for tag in row] for row in TAGS]


def test_a_model_without_names_takes_those_of_the_data(tmp_path):
    """Names like `LABEL_0` are replaced by those of the data set, and a note says so."""
    tiny_text.write_tokenizer(tmp_path / "model")
    model = tiny_text.write_model(
        tmp_path / "model", "ForTokenClassification", [f"LABEL_{index}" for index in range(5)]
    )
    found = tiny_text.passed(TASK, model, data_of(tmp_path / "data"), tmp_path, ("seqeval",))
    assert found.references[0] == ["B-PER", "O", "O", "B-LOC"]
    assert set(found.scored.metrics) == {"overall_precision", "overall_recall", "overall_f1", "overall_accuracy"}
    assert any("matched by number" in note for note in found.notes)


@pytest.mark.parametrize(
    ("names", "scheme", "expected"),
    [
        (["O", "B-PER", "I-PER"], "scheme IOB", ["O", "B-PER", "I-PER"]),
        (["O", "B-PER", "I-LOC"], "scheme IOB", ["O", "B-PER", "I-LOC"]),
        (["o", "b-per", "i-per"], "scheme IOB", ["O", "B-per", "I-per"]),
        (["O", "I-PER", "I-LOC"], "scheme IO", ["O", "I-PER", "I-LOC"]),
        (["O", "B_PER", "I_PER"], "scheme IOB", ["O", "B-PER", "I-PER"]),
        (["O", "PER-B", "PER-I", "LOC-B"], "labels end with (scheme IOB)", ["O", "B-PER", "I-PER", "B-LOC"]),
        (["O", "I-PER", "E-PER"], "scheme IOE", ["O", "I-PER", "E-PER"]),
        (["O", "B-P", "I-P", "E-P", "S-P", "S-L"], "scheme IOBES", ["O", "B-P", "I-P", "E-P", "S-P", "S-L"]),
        (["O", "B-P", "I-P", "L-P", "U-P"], "scheme BILOU", ["O", "B-P", "I-P", "E-P", "S-P"]),
        (["O", "B-P", "M-P", "E-P", "S-P"], "scheme BMES", ["O", "B-P", "I-P", "E-P", "S-P"]),
        (["O", "B", "I"], "scheme IOB", ["O", "B", "I"]),
        (["B-event-sport", "I-event-sport"], "scheme IOB", ["B-event-sport", "I-event-sport"]),
        (["O", "ORG", "PER"], "scheme IO", ["O", "I-ORG", "I-PER"]),
        (["O", "E-mail", "S-Bahn"], "scheme IO", ["O", "I-E-mail", "I-S-Bahn"]),
        (["O", "P", "L"], "scheme IO", ["O", "I-P", "I-L"]),
        (["O", "B-PER", "I-PER", "X"], "each run of `X` is an entity", ["O", "B-PER", "I-PER", "I-X"]),
        (["OTHER", "B-PER", "I-PER"], "scheme IOB", ["O", "B-PER", "I-PER"]),
    ],
)
def test_names_are_read_in_their_scheme(names, scheme, expected):
    """Each notation of tags is converted to IOBES, and the note names the scheme."""
    tags, note = read_tags(names)
    assert [tags[name] for name in names] == expected
    assert scheme in note


@pytest.mark.parametrize("names", [["NOUN", "VERB", "ADJ"], ["0", "1", "2"], ["LABEL_0", "LABEL_1"], ["PER", "LOC"]])
def test_names_that_mark_no_entities(names):
    """Labels without letters of a scheme and without an `O` mark no entities."""
    tags, note = read_tags(names)
    assert tags is None
    assert "accuracy" in note


def runs(sentences):
    """The entities of sentences in which each run of one name other than `O` is one: sentence, name, first and last."""
    found = set()
    for number, names in enumerate(sentences):
        for name, places in groupby(range(len(names)), key=lambda place: names[place]):
            each = list(places)
            found |= {(number, name, each[0], each[-1])} if name != "O" else set()
    return found


def tagged(folder, names):
    """A tagger of these labels, twenty sentences, and the label ids that the model gives for their words."""
    tiny_text.write_tokenizer(folder)
    model = tiny_text.write_model(folder, "ForTokenClassification", names)
    draw, words = np.random.default_rng(1), tiny_text.WORDS.split()[5:-2]
    sentences = [list(map(str, draw.choice(words, draw.integers(3, 9)))) for _ in range(20)]
    return model, sentences, [[LABELS.index(name) for name in directly(model, words)] for words in sentences]


def test_labels_without_letters_are_entities_run_by_run(tmp_path):
    """`O, ORG, PER`: precision, recall and F1 are those of runs of one label, and so are their intervals."""
    names = ["O", "ORG", "PER", "LOC", "MISC"]
    model, sentences, ids = tagged(tmp_path / "model", names)
    found = [[names[index] for index in row] for row in ids]
    # the first word of each entity is missing: no entity is right, though most words are
    right = [["O" if place == 0 or row[place - 1] != name else name for place, name in enumerate(row)] for row in found]
    right[:7] = found[:7]
    data = data_of(tmp_path / "data", sentences, [[names.index(name) for name in row] for row in right], names)
    result = tiny_text.passed(TASK, model, data, tmp_path, ("precision", "recall", "f1", "accuracy"))
    one, other = runs(found), runs(right)
    precision, recall = len(one & other) / len(one), len(one & other) / len(other)
    assert 0 < precision < recall < 1
    assert result.predictions == found
    assert result.scored.metrics == {
        "precision": pytest.approx(precision),
        "recall": pytest.approx(recall),
        "f1": pytest.approx(2 * precision * recall / (precision + recall)),
        "accuracy": pytest.approx(np.mean([a == b for p, r in zip(found, right) for a, b in zip(p, r)])),
    }
    assert any("each run of one label other than `O` is an entity" in note for note in result.notes)
    interval = tiny_text.compared(TASK, result.prepared, tmp_path / "predicted", tmp_path, "precision")
    assert interval.low < precision < interval.high


def test_labels_that_mark_no_entities_have_an_accuracy_alone(tmp_path):
    """For parts of speech F1 is refused with what to ask for instead, also where the model has no names; accuracy is
    that of the words.
    """
    names = ["NOUN", "VERB", "ADJ", "ADV", "DET"]
    model, sentences, ids = tagged(tmp_path / "model", names)
    right = [[*row[:-1], 0] for row in ids]
    data = data_of(tmp_path / "data", sentences, right, names)
    with pytest.raises(SpecError, match=r"overall_accuracy.*mark no entities.*metrics: \[accuracy\]"):
        tiny_text.passed(TASK, model, data, tmp_path / "a", ("f1",))
    result = tiny_text.passed(TASK, model, data, tmp_path / "b", ("accuracy",))
    same = [index == tag for row, tags in zip(ids, right) for index, tag in zip(row, tags)]
    assert result.scored.metrics == {"accuracy": pytest.approx(np.mean(same))}
    assert any("only the accuracy of words" in note for note in result.notes)
    unnamed, sentences, _ = tagged(tmp_path / "unnamed", [f"LABEL_{index}" for index in range(5)])
    features = {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(datasets.Value("int64"))}
    data = tiny_text.write_data(tmp_path / "ids", {"tokens": sentences, "ner_tags": right}, features)
    with pytest.raises(SpecError, match="mark no entities"):
        tiny_text.passed(TASK, unnamed, data, tmp_path / "c", ("f1",))


def test_a_name_that_a_tagger_has_twice(tmp_path):
    """Of two ids of one name that one counts which `label_mapping` gives; what the other one marks is wrong."""
    names = ["O", "PER", "PER", "LOC", "ORG"]
    model, sentences, ids = tagged(tmp_path / "model", names)
    found = [[names[index] for index in row] for row in ids]
    assert {1, 2} <= {index for row in ids for index in row}
    order = ["O", "PER", "LOC", "ORG"]
    data = data_of(tmp_path / "data", sentences, [[order.index(name) for name in row] for row in found], order)
    with pytest.raises(SpecError, match=r"`PER` \(id 1\) and `PER` \(id 2\)"):
        tiny_text.prepare(TASK, model, data, tmp_path / "refused")
    asked = {"task_args": {"label_mapping": {"PER": 2}}}
    result = tiny_text.passed(TASK, model, data, tmp_path, ("f1", "accuracy"), **asked)
    given = [["PER (id 1)" if index == 1 else names[index] for index in row] for row in ids]
    one, other = runs(given), runs(found)
    assert result.scored.metrics["f1"] == pytest.approx(2 * len(one & other) / (len(one) + len(other)))
    assert result.scored.metrics["accuracy"] == pytest.approx(np.mean([index != 1 for row in ids for index in row]))


def test_padding_on_the_left_moves_no_label(tmp_path):
    """With padding on the left the kept logits still begin at the first token."""
    tiny_text.write_tokenizer(tmp_path / "left", padding_side="left")
    model = tiny_text.write_model(tmp_path / "left", "ForTokenClassification", LABELS)
    found = tiny_text.passed(TASK, model, data_of(tmp_path / "data"), tmp_path / "a", batch_size=1)
    together = tiny_text.passed(TASK, model, data_of(tmp_path / "data"), tmp_path / "b", batch_size=3)
    assert found.kept["scores.shapes"].tolist() == together.kept["scores.shapes"].tolist() == [[6, 5], [4, 5], [11, 5]]
    assert [len(tags) for tags in together.predictions] == [4, 2, 7]


def test_a_byte_level_tokenizer_sees_words(tmp_path):
    """A tokenizer that recognizes words by the space before them adds this space to single words."""
    import json

    from transformers import RobertaConfig, RobertaTokenizer

    from benchcard.tasks import text

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "\u0120", *"abnf", "\u0120a", "an", "\u0120an"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n\u0120 a\na n\n\u0120a n\n")
    RobertaTokenizer(vocab=str(tmp_path / "vocab.json"), merges=str(tmp_path / "merges.txt")).save_pretrained(tmp_path)
    RobertaConfig(vocab_size=len(pieces)).save_pretrained(tmp_path)
    texts = text.load_texts(tmp_path, split=True)
    assert texts.tokenizer.convert_ids_to_tokens(
        texts.tokenizer(["an", "an"], is_split_into_words=True)["input_ids"]
    ) == ["<s>", "\u0120an", "\u0120an", "</s>"]


@pytest.mark.parametrize(
    ("tokens", "tags", "said"),
    [
        ([["good"], []], [[0], [1]], r"1 labels for 0 words in row 1 of `ner_tags`"),
        ([["good"], ["bad"]], [[0], None], r"no labels for 1 words in row 1 of `ner_tags`"),
        (
            [["good"], ["bad", "film"]],
            [[0], [1, None]],
            r"a label for each word, or -100 for .*no label for word 1 \(`film`\) of row 1",
        ),
        ([["good"], ["bad", None]], [[0], [0, 0]], r"a list of words.*null.*row 1 of `tokens`"),
        ([["good"], ["bad", "film"]], [[0], [0]], r"1 labels for 2 words in row 1 of `ner_tags`"),
        ([["good"], ["bad"]], [[0], [-1]], r"label -1 in row 1"),
    ],
)
def test_what_does_not_fit_is_said(model, tmp_path, tokens, tags, said):
    """Words and tags that are missing, and tags that do not fit, name their column and row."""
    with pytest.raises(SpecError, match=said):
        tiny_text.prepare(TASK, model, data_of(tmp_path / "data", tokens, tags), tmp_path / "prepared")


NUMBERS = {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(datasets.Value("int64"))}


def test_words_without_a_label_are_not_scored(model, tmp_path):
    """A word with the label -100 is left out of predictions and references alike, and is counted."""
    tags = [[1, -100, 0, 3], [-100, -100], TAGS[2]]
    data = tiny_text.write_data(tmp_path / "data", {"tokens": SENTENCES, "ner_tags": tags}, NUMBERS)
    found = tiny_text.passed(TASK, model, data, tmp_path, ("f1", "accuracy"))
    whole = tiny_text.passed(TASK, model, data_of(tmp_path / "whole"), tmp_path / "b", ("accuracy",))
    kept = [[place for place, tag in enumerate(row) if tag != -100] for row in tags]
    assert found.predictions == [[row[place] for place in places] for row, places in zip(whole.predictions, kept)]
    assert found.references == [[LABELS[row[place]] for place in places] for row, places in zip(tags, kept)]
    assert "3 of 13 words have the label -100: they are not scored" in found.notes
    tags = [[-100] * len(words) for words in SENTENCES]
    hidden = tiny_text.write_data(tmp_path / "hidden", {"tokens": SENTENCES, "ner_tags": tags}, NUMBERS)
    with pytest.raises(SpecError, match="found a split in which no word is scored"):
        tiny_text.prepare(TASK, model, hidden, tmp_path / "none")


def test_data_without_labels_have_predictions(model, tmp_path):
    """With `ref_keys: []` words have the same predictions, and no references."""
    data = tiny_text.write_data(tmp_path / "data", {"tokens": SENTENCES})
    found = tiny_text.passed(TASK, model, data, tmp_path, ref_keys=[])
    assert found.predictions == [directly(model, words) for words in SENTENCES]
    assert found.references == [None, None, None]


def test_sentences_without_words_change_nothing(model, tmp_path):
    """An empty and a missing sentence have no labels to predict: the figures are those of the others."""
    sentences, tags = SENTENCES * 9, TAGS * 9
    data = data_of(tmp_path / "data", [[], *sentences, None], [[], *tags, None])
    found = tiny_text.passed(TASK, model, data, tmp_path / "a", ("f1", "accuracy"))
    without = data_of(tmp_path / "others", sentences, tags)
    others = tiny_text.passed(TASK, model, without, tmp_path / "b", ("f1", "accuracy"))
    assert found.predictions == [[], *others.predictions, []]
    assert found.references == [[], *others.references, []]
    assert found.scored.metrics == others.scored.metrics
    assert "2 rows have no words" in found.notes
    interval = tiny_text.compared(TASK, found.prepared, tmp_path / "a" / "predicted", tmp_path, "accuracy")
    assert interval.low < found.scored.metrics["accuracy"] < interval.high
    sample = tiny_text.rows_request(TASK, model, data, SampleRequest, num_samples=29, seed=0)
    (tmp_path / "sample").mkdir()
    assert data_steps.sample(sample, tmp_path / "sample", lambda done, total: None).items == 27


def test_columns_of_another_kind(model, tmp_path):
    """Plain texts are no lists of words; labels that the model lacks show both lists."""
    data = tiny_text.write_data(tmp_path / "plain", {"tokens": ["good film"], "ner_tags": [[0]]})
    with pytest.raises(SpecError, match="column of lists of words"):
        tiny_text.prepare(TASK, model, data, tmp_path / "a")
    with pytest.raises(SpecError, match=r"B-MISC.*'B-PER'"):
        tiny_text.prepare(
            TASK, model, data_of(tmp_path / "data", names=["O", "B-PER", "I-PER", "B-LOC", "B-MISC"]), tmp_path / "b"
        )


def test_a_slow_tokenizer(tmp_path):
    """A tokenizer without places of tokens is refused, and the error says why they are needed."""
    from transformers import CanineConfig, CanineTokenizer

    CanineTokenizer().save_pretrained(tmp_path / "slow")
    CanineConfig().save_pretrained(tmp_path / "slow")
    with pytest.raises(ArtifactError, match=r"slow one.*first token of each word.*fast"):
        tiny_text.prepare(TASK, tmp_path / "slow", data_of(tmp_path / "data"), tmp_path / "prepared")


def test_inputs_to_time_with(model):
    """They are single sequences of the asked length."""
    arrays, length = registry.task(TASK).inputs(model, 2, 16, 0)
    assert (length, arrays["input_ids"].shape) == (16, (2, 16))
    assert (arrays["token_type_ids"] == 0).all()
    assert np.unique(arrays["input_ids"][:, 1:-1]).size > 5


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (["O", "B-PER", "B-LOC", "PAD"], {"B-PER": "B-PER", "B-LOC": "B-LOC", "PAD": "I-PAD"}),
        (["O", "I-PER", "B-LOC", "MISC"], {"I-PER": "I-PER", "B-LOC": "B-LOC", "MISC": "I-MISC"}),
        (["O", "S-PER", "S-LOC"], {"S-PER": "S-PER", "S-LOC": "S-LOC"}),
        (["O", "B-PER", "I-PER", "U-LOC"], {"B-PER": "B-PER", "I-PER": "I-PER", "U-LOC": "S-LOC"}),
    ],
)
def test_a_prefix_counts_whatever_stands_beside_it(names, read):
    """One label without a letter counts as the outside label, and the note names the scheme of the others."""
    tags, note = read_tags(names)
    assert {name: tags[name] for name in read} == read
    assert "no label begins with" not in note
