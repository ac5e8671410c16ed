"""Labels of a data set as labels of the model: what counts as the same name, when numbers decide, and which of two is
the positive one.
"""

from __future__ import annotations

import datasets
import numpy as np
import pandas as pd
import pytest
import tiny_text
from sklearn.metrics import accuracy_score, f1_score, precision_score

from benchcard.errors import SpecError
from benchcard.tasks.labels import align

STARS = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]


def matched(model, declared=None, values=(), mapping=None):
    """The name or number of each label of the data set, and the model's id for it."""
    found = align(dict(enumerate(model)), declared, values, mapping)
    names = dict(enumerate(declared)) if declared is not None else {value: value for value in values}
    return {names[key]: index for key, index in found.ids.items()}


@pytest.mark.parametrize(
    ("model", "data", "expected"),
    [
        (["1", "-1"], ["-1", "1"], {"-1": 1, "1": 0}),
        (["C", "c++", "C#"], ["C++", "C"], {"C++": 1, "C": 0}),
        (["NEG", "neg", "pos"], ["neg", "pos"], {"neg": 1, "pos": 2}),
        (["entailment", "not_entailment"], ["Not entailment", "Entailment"], {"Not entailment": 1, "Entailment": 0}),
        (["cafe\u0301", "bar"], ["bar", "CAF\u00c9"], {"bar": 1, "CAF\u00c9": 0}),
        (["pos", "neg"], [" neg ", "pos"], {" neg ": 1, "pos": 0}),
        (["Sci / Tech", "other"], ["other", "sci_tech"], {"other": 1, "sci_tech": 0}),
        (["COVID-19", "flu"], ["flu", "covid19"], {"flu": 1, "covid19": 0}),
        (["", "x"], ["x", ""], {"x": 1, "": 0}),
        (["score 1", "score -1"], ["score -1", "score 1"], {"score -1": 1, "score 1": 0}),
    ],
)
@pytest.mark.parametrize("is_declared", [True, False])
def test_names_are_taken_as_they_are_first(model, data, expected, is_declared):
    """A name is matched as it is, and only without such a match whatever its case and separators are; what is left of
    a sign or a punctuation mark tells labels apart.
    """
    assert matched(model, data if is_declared else None, data) == expected


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (["1", "2"], ["-1"]),
        (["1", "2"], ["+1"]),
        (["C", "D"], ["C++"]),
        (["15", "2"], ["1.5"]),
        (["12", "3"], ["1-2"]),
        (["score 1", "x"], ["score -1"]),
        (["", "x"], ["  "]),
        (["-", "x"], [""]),
    ],
)
def test_what_tells_names_apart_is_not_dropped(model, data):
    """A sign, a decimal point, a range or an empty name makes another label, also where nothing collides with it."""
    with pytest.raises(SpecError, match="labels that agree by name"):
        matched(model, data)


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        (["Neg", "NEG", "pos"], ["neg", "pos"], r"`neg`.*`Neg` \(id 0\) and `NEG` \(id 1\).*label_mapping: \{neg: 0\}"),
        (["neg", "pos"], ["neg", "Neg"], r"`neg` and `Neg` of the data set, all `neg` of the model"),
        (["bad", "meh", "meh"], ["bad", "meh"], r"`meh`.*`meh` \(id 1\) and `meh` \(id 2\).*label_mapping: \{meh: 1\}"),
    ],
)
@pytest.mark.parametrize("is_declared", [True, False])
def test_names_that_collide_are_refused(model, data, said, is_declared):
    """Where several labels of one side may be meant by one of the other, the message names them and what to write."""
    with pytest.raises(SpecError, match=said):
        matched(model, data if is_declared else None, data)


def test_a_mapping_names_ids():
    """`label_mapping` takes a name, else an id as a number or as text, on both sides; a name comes first."""
    model, data = ["bad", "meh", "meh", "good"], ["bad", "meh", "good"]
    for value in (2, "2"):
        assert matched(model, data, (), {"meh": value}) == {"bad": 0, "meh": 2, "good": 3}
    assert matched(model, ["bad", "good"]) == {"bad": 0, "good": 3}
    assert matched(["a", "b"], ["x", "y"], (), {"0": "b", "1": "a"}) == {"x": 1, "y": 0}
    assert matched(["2", "1", "0"], ["low", "high"], (), {"low": 1, "high": "2"}) == {"low": 1, "high": 0}
    assert matched(["no", "yes"], None, [-1, 1], {"-1": "no", "1": "yes"}) == {-1: 0, 1: 1}
    # labels that are not declared have no ids: of 0, 1 and 2 the 0 does not occur here
    assert matched(["c", "b", "a"], None, [1, 2], {"0": "a", "1": "b", "2": "c"}) == {1: 1, 2: 0}
    notes = align({0: "a", 1: "b"}, ["a", "b"], (), {"c": "b"}).notes
    assert notes == ("label_mapping: the data set has no label `c`",)


@pytest.mark.parametrize(
    ("model", "data", "mapping", "said"),
    [
        (
            ["bad", "meh", "meh"],
            ["x"],
            {"x": "meh"},
            r"one label, found `meh` \(id 1\) and `meh` \(id 2\) \(give its id",
        ),
        (["bad", "good"], ["x"], {"x": 2}, r"an id or a label of the model, `bad` or `good`, found 2"),
        (["bad", "good"], ["x"], {"x": True}, r"found true"),
        (["bad", "good"], ["x"], {"x": "godo"}, r"did you mean `good`"),
        (["bad", "good"], ["Neg", "NEG"], {"neg": "bad"}, r"one label of the data set.*`Neg` and `NEG`"),
        (["bad", "good"], ["NEG", "good"], {"Neg": "bad", "neg": "good"}, r"`NEG` once"),
        (["bad", "good"], ["x", "good"], {"x": "good"}, r"`x` and `good` of the data set, all `good` of the model"),
    ],
)
def test_a_mapping_that_is_not_one_to_one(model, data, mapping, said):
    """Keys and values that may mean several labels, or none, are refused with the place and what may stand there."""
    with pytest.raises(SpecError, match=said):
        matched(model, data, (), mapping)


def test_numbers_that_are_names_go_by_name():
    """Whole numbers that are all names of the model are matched as names, with a note where its ids say otherwise."""
    found = align(dict(enumerate("12345")), None, [1, 2, 3, 4, 5], None)
    assert found.ids == {1: 0, 2: 1, 3: 2, 4: 3, 5: 4}
    assert "aligned by name" in found.notes[0]
    assert matched(["2", "0", "1"], None, [0, 1, 2]) == {0: 1, 1: 2, 2: 0}
    assert align({0: "0", 1: "1"}, None, [0, 1], None).notes == ()
    assert matched(["-1", "0", "1"], None, [-1, 1]) == {-1: 0, 1: 2}
    assert matched(["LABEL_1", "LABEL_0"], ["LABEL_0", "LABEL_1"]) == {"LABEL_0": 1, "LABEL_1": 0}


def test_numbers_decide_where_no_name_does():
    """Where one side has no names, numbers decide; the note says which label is which, and that 0 does not occur."""
    found = align({0: "bad", 1: "meh", 2: "good"}, None, [1, 2], None)
    assert found.ids == {1: 1, 2: 2}
    assert found.notes == (
        "the data set does not name its labels: they were matched by number (1 is meh, 2 is good); no row has the "
        "label 0: if the data set counts from 1, say so in label_mapping",
    )
    assert matched(STARS, None, [0, 1, 2, 3, 4]) == {value: value for value in range(5)}
    assert matched(["LABEL_0", "LABEL_1"], ["no", "yes"]) == {"no": 0, "yes": 1}
    assert matched(["LABEL_0", "LABEL_1"], ["class 1", "class 2"]) == {"class 1": 0, "class 2": 1}


@pytest.mark.parametrize(
    ("model", "declared", "values", "said"),
    [
        (STARS, None, [1, 2, 3, 4], r"`1` is `1 star` by the numbers in the names, and `2 stars` by its id"),
        (STARS, None, [1, 2, 3, 4, 5], "by name or by number"),
        (["LABEL_0", "LABEL_1"], ["1", "0"], (), r"`1` is `LABEL_1` by the numbers in the names, and `LABEL_0` by"),
        (["LABEL_1", "LABEL_2", "LABEL_3"], None, [1, 2], r"`1` is `LABEL_1` by the numbers"),
        (["0", "1", "2 or more"], None, [0, 1, 2], r"say what `2` is in the model"),
        (["LABEL_0", "LABEL_1"], None, [-1, 1], "by name or by number"),
        (["LABEL_0", "LABEL_1"], None, [1, 2], "by name or by number"),
        (["bad", "good"], None, ["0", "1"], "labels that agree by name"),
    ],
)
def test_numbers_that_contradict_names_are_refused(model, declared, values, said):
    """Numbers do not decide where those in the names say otherwise, where a label agrees by name, and out of range."""
    with pytest.raises(SpecError, match=said):
        matched(model, declared, values)


@pytest.mark.parametrize(
    ("model", "declared", "values", "mapping", "positive", "source"),
    [
        (["spam", "ham"], ["ham", "spam"], (), None, 0, "second label that the data set declares"),
        (["bad", "meh", "good"], ["good", "bad"], (), None, 0, "second label that the data set declares"),
        (["LABEL_0", "LABEL_1"], None, [0, 1], None, 1, "greater number"),
        (["1", "0"], None, [0, 1], None, 0, "greater number"),
        (["1", "-1"], None, ["-1", "1"], None, 0, "greater number"),
        (["yes", "no"], None, [-1, 1], {"-1": "no", "1": "yes"}, 0, "greater number"),
        (["spam", "ham"], None, ["ham", "spam"], None, 1, "higher id in the model"),
        (["bad", "meh", "good"], None, ["bad", "good"], None, 2, "higher id in the model"),
        (["spam", "ham"], None, ["spam"], None, 1, "higher id in the model"),
        (["no", "yes"], None, [0], None, 1, "higher id in the model"),
        (["1", "0"], None, [1], None, None, ""),
        (["a", "b", "c"], ["a", "b", "c"], (), None, None, ""),
        (["a", "b", "c"], None, ["b"], None, None, ""),
    ],
)
def test_the_positive_class_is_that_of_the_data_set(model, declared, values, mapping, positive, source):
    """Of two labels the data set's order decides; without an order it is the model's, and without two there is none."""
    found = align(dict(enumerate(model)), declared, values, mapping)
    assert found.positive == positive
    assert source in found.positive_source


TASK = "text-classification"


@pytest.fixture(scope="module")
def texts():
    """Sixty texts of a few words."""
    draw, words = np.random.default_rng(0), tiny_text.WORDS.split()[5:-2]
    return [" ".join(draw.choice(words, draw.integers(2, 9))) for _ in range(60)]


def written(folder, labels, texts):
    """A tiny classifier of these labels that gives each of them to some of the texts, and the ids of these labels, as
    transformers finds them.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    tokenizer = tiny_text.write_tokenizer(folder)
    tiny_text.write_model(folder, "ForSequenceClassification", labels)
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = torch.cat([network(**tokenizer(text, return_tensors="pt")).logits for text in texts])
        middle = logits.median(dim=0).values
        network.classifier.bias -= middle
    network.save_pretrained(folder)
    found = (logits - middle).argmax(dim=1).tolist()
    assert set(found) == set(range(len(labels)))
    return folder, found


def data_of(folder, texts, labels, names=None):
    """A data set of texts and labels, which it declares where `names` are given."""
    columns = {"text": texts, "label": labels}
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)} if names else None
    return tiny_text.write_data(folder, columns, features)


@pytest.mark.parametrize(
    ("names", "values", "expected", "note"),
    [
        (["bad", "good"], [1.0, 0.0, 1.0], [1, 0, 1], "matched by number (0 is bad, 1 is good)"),
        (["5", "1"], [1.0, 5.0, 1.0], [1, 0, 1], "aligned by name"),
        (["bad", "good"], [True, False, True], [1, 0, 1], "matched by number (False is bad, True is good)"),
        (["True", "False"], [True, False, True], [0, 1, 0], "aligned by name"),
        (["LABEL_0", "LABEL_1"], [False, True, True], [0, 1, 1], "matched by number"),
    ],
)
def test_booleans_and_whole_floats_are_labels(names, values, expected, note, tmp_path):
    """Booleans and floats such as 1.0 are labels like whole numbers: names of the model, else ids."""
    tiny_text.write_tokenizer(tmp_path / "model")
    model = tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", names)
    data = data_of(tmp_path / "data", ["good film", "bad film", "dull film"], values)
    result = tiny_text.passed(TASK, model, data, tmp_path, ("accuracy",))
    assert result.references == expected
    assert any(note in said for said in result.notes)


@pytest.mark.parametrize(
    ("names", "values", "said"),
    [
        (["bad", "good"], [1.0, 0.5, 0.0], r"expected `0` or `1`, found the label 0\.5 in row 1 @"),
        (["bad", "good"], [1.0, None, 0.0], r"the label null in row 1 \(take rows without a label out"),
        (["bad", "good"], [1, 0, -100], r"the label -100 in row 2 \(take rows without a label out"),
        (["bad", "good"], [0.5, 0.25, 0.1], r"a column of labels"),
        (["bad", "good"], ["good", "None", "bad"], r"say what `None` is in the model.*or take such rows out"),
        (["bad", "meh", "good"], [True, False, True], r"labels that agree by name, found.*'False', 'True'"),
    ],
)
def test_what_is_no_label_is_refused(names, values, said, tmp_path):
    """A number that is no label, and a missing one, are named with their row; false and true are no ids of three."""
    tiny_text.write_tokenizer(tmp_path / "model")
    model = tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", names)
    data = data_of(tmp_path / "data", ["good film", "bad film", "dull film"], values)
    with pytest.raises(SpecError, match=said):
        tiny_text.prepare(TASK, model, data, tmp_path / "prepared")


@pytest.mark.parametrize("make", [list, pd.Categorical, lambda values: pd.Series(values, dtype="string")])
def test_frames_with_categories_are_read(make, tmp_path):
    """Labels of a pandas frame may be categories: they are matched by name, wherever the frame is."""
    from benchcard.sources.in_memory import extract_datasets, write_splits

    tiny_text.write_tokenizer(tmp_path / "model")
    model = tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", ["good", "bad"])
    frame = pd.DataFrame({"text": ["good film", "bad film"], "label": make(["bad", "good"])})
    _, extracted = extract_datasets({"dataset": frame})
    (splits,) = extracted.values()
    for name in ("memory", "parquet"):
        (tmp_path / name).mkdir()
    write_splits(splits, tmp_path / "memory")
    frame.to_parquet(tmp_path / "parquet" / "validation.parquet")
    for name in ("memory", "parquet"):
        assert tiny_text.passed(TASK, model, tmp_path / name, tmp_path / f"{name}-passed").references == [1, 0]


def test_integers_that_are_names_have_the_right_accuracy(texts, tmp_path):
    """A data set of 1 to 5 and a model whose names these are: accuracy is that of scikit-learn on the names."""
    names = ["1", "2", "3", "4", "5"]
    model, ids = written(tmp_path / "model", names, texts)
    found = [int(names[index]) for index in ids]
    right = [value if place % 10 else value % 5 + 1 for place, value in enumerate(found)]
    result = tiny_text.passed(TASK, model, data_of(tmp_path / "data", texts, right), tmp_path, ("accuracy",))
    assert result.scored.metrics["accuracy"] == accuracy_score(right, found) == 0.9


def test_signs_have_the_right_accuracy(texts, tmp_path):
    """`-1` and `1` are different labels, in either order."""
    names = ["1", "-1"]
    model, ids = written(tmp_path / "model", names, texts)
    found = [names[index] for index in ids]
    data = data_of(tmp_path / "data", texts, [["-1", "1"].index(name) for name in found], ["-1", "1"])
    assert tiny_text.passed(TASK, model, data, tmp_path, ("accuracy",)).scored.metrics["accuracy"] == 1.0


def test_a_name_that_a_model_has_twice_is_one_id(texts, tmp_path):
    """Of two ids of one name that one counts which `label_mapping` gives, and the other one is wrong."""
    model, found = written(tmp_path / "model", ["bad", "meh", "meh"], texts)
    right = [0 if index == 0 else 1 for index in found]
    data = data_of(tmp_path / "data", texts, right, ["bad", "meh"])
    with pytest.raises(SpecError, match=r"label_mapping: \{meh: 1\}"):
        tiny_text.prepare(TASK, model, data, tmp_path / "refused")
    asked = {"task_args": {"label_mapping": {"meh": 2}}}
    result = tiny_text.passed(TASK, model, data, tmp_path, ("accuracy",), **asked)
    expected = accuracy_score([0 if index == 0 else 2 for index in found], found)
    assert result.scored.metrics["accuracy"] == expected < 1


@pytest.fixture(scope="module")
def mail(texts, tmp_path_factory):
    """A model that names `spam` first and a data set that names it second, with the right names and those found."""
    folder = tmp_path_factory.mktemp("mail")
    model, ids = written(folder / "model", ["spam", "ham"], texts)
    found = [["spam", "ham"][index] for index in ids]
    right = [name if place % 4 else {"spam": "ham", "ham": "spam"}[name] for place, name in enumerate(found)]
    right[:12] = ["ham"] * 12
    data = data_of(folder / "data", texts, [["ham", "spam"].index(name) for name in right], ["ham", "spam"])
    return model, data, right, found


def test_f1_is_of_the_data_sets_positive_class(mail, tmp_path):
    """F1 and precision are those of scikit-learn for the second name that the data set declares, and the step says
    which that is; `metric_args` chooses another one, and averages have none.
    """
    model, data, right, found = mail
    result = tiny_text.passed(TASK, model, data, tmp_path / "a", ("f1", "precision", "f1_macro", "accuracy"))
    figures = result.scored.metrics
    of_spam = f1_score(right, found, pos_label="spam")
    of_ham = f1_score(right, found, pos_label="ham")
    assert abs(of_spam - of_ham) > 0.01
    assert figures["f1"] == pytest.approx(of_spam, abs=1e-15)
    assert figures["precision"] == pytest.approx(precision_score(right, found, pos_label="spam"), abs=1e-15)
    assert figures["f1_macro"] == pytest.approx(f1_score(right, found, average="macro"), abs=1e-15)
    assert result.scored.positive_classes == {"f1": "spam", "precision": "spam"}
    assert "f1, precision: the positive class is `spam`, the second label that the data set declares" in (
        result.scored.notes
    )
    asked = {"task_args": {"metric_args": {"f1": {"pos_label": 1}}}}
    result = tiny_text.passed(TASK, model, data, tmp_path / "b", ("f1", "recall"), **asked)
    assert result.scored.metrics["f1"] == pytest.approx(of_ham, abs=1e-15)
    assert result.scored.positive_classes == {"f1": "ham", "recall": "spam"}
    assert "f1: the positive class is `ham`, as metric_args says" in result.scored.notes


def test_f1_of_three_labels_needs_one_of_them(texts, tmp_path):
    """Where only two of three labels happen to occur, F1 of one label is refused as it is where all occur."""
    model, found = written(tmp_path / "model", ["bad", "meh", "good"], texts)
    pairs = [(text, index) for text, index in zip(texts, found) if index < 2]
    data = data_of(tmp_path / "data", *map(list, zip(*pairs)), ["bad", "meh", "good"])
    with pytest.raises(SpecError, match=r"not known which label is the positive one.*f1_macro.*pos_label"):
        tiny_text.passed(TASK, model, data, tmp_path / "a", ("f1",))
    asked = {"task_args": {"metric_args": {"f1": {"pos_label": 0}}}}
    result = tiny_text.passed(TASK, model, data, tmp_path / "b", ("f1",), **asked)
    assert result.scored.metrics["f1"] == 1.0
    assert result.scored.positive_classes == {"f1": "bad"}


def test_the_interval_is_of_the_same_class(mail, tmp_path):
    """The interval of F1 and its paired difference are the bootstrap of scikit-learn's F1 for the positive class."""
    from benchcard.measure.significance import bootstrap_metric

    model, data, right, found = mail
    result = tiny_text.passed(TASK, model, data, tmp_path, ("f1",))
    interval = tiny_text.compared(TASK, result.prepared, tmp_path / "predicted", tmp_path, "f1", seed=3)
    sides = np.asarray(right), np.asarray(found)

    def score(indices):
        return f1_score(*(side[indices] for side in sides), pos_label="spam", zero_division=0)

    expected = bootstrap_metric(score, len(right), seed=3)
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert interval.low < f1_score(right, found, pos_label="spam") < interval.high


def test_frame_and_cards_name_the_positive_class(mail, tmp_path):
    """A run with F1 names its class in a column of the frame, in the notes, and on cards of both layouts."""
    from benchcard import Benchmark

    model, data, _, _ = mail
    dataset = {"path": str(data), "eval_split": "validation", "ref_keys": ["label"]}
    results = Benchmark(
        task=TASK, model=str(model), dataset=dataset, metrics=["accuracy", "f1"], framework="pytorch", duration=0
    ).run(tmp_path / "run", progress=False)
    assert results.quality["positive_class"].tolist() == ["spam"]
    full = results.card()
    assert "**f1**: a share, from 0 to 1, the positive class is spam; higher is better" in full.text
    assert "The positive class of f1 is `spam`." in results.card(layout="classic").text
