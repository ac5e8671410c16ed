"""Which outputs are compared, by the kind that the task names; written and read as in a run."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special
import scipy.stats

from benchcard import registry
from benchcard.evaluation.fidelity import compare_outputs
from benchcard.evaluation.rows import Rows, write_predictions, write_rows
from benchcard.metrics.info import FIDELITY
from benchcard.tasks import ComparedOutput, Prepared, Row
from benchcard.utils.values import Interval


def compared(folder, output, models, *, references=None, predictions=None, items=1, positions=None):
    """Return the fidelity of the second of two models to the first.

    `models` has what is kept of each item of each model; `predictions` those of each row.
    """
    count = len(models[0]) // items
    inputs = [{"x": np.zeros(1, dtype=np.float32)} for _ in models[0]]
    for item, places in zip(inputs, positions or ()):
        item["places"] = np.asarray(places)
    given = references or [None] * count
    rows = [Row(inputs[index * items : (index + 1) * items], given[index]) for index in range(count)]
    (folder / "rows").mkdir(parents=True)
    write_rows(Prepared(iter(rows), beside=frozenset({"places"}) if positions else frozenset()), folder / "rows", print)
    folders = [folder / "baseline", folder / "model"]
    for target, kept, made in zip(folders, models, predictions or [[0] * count] * 2):
        target.mkdir()
        write_predictions(target, [{"kept": array} for array in kept], made)
    task = SimpleNamespace(compared_output=lambda context: output)
    return compare_outputs(task, Rows(folder / "rows"), *folders, 0)


def logits(count, noise, labels=3):
    """Return the logits of a model and of another one that differs from it by noise."""
    draw = np.random.default_rng(0)
    first = draw.normal(size=(count, labels)).astype(np.float32)
    return first, first + draw.normal(0, noise, first.shape).astype(np.float32)


def test_labels(tmp_path):
    """One label an example: divergences of the softmax, agreement, and what was lost, gained and swapped."""
    models = logits(40, 1.0)
    predictions = [array.argmax(-1).tolist() for array in models]
    references = [0] * 40
    found = compared(tmp_path, ComparedOutput("label", "kept"), models, references=references, predictions=predictions)
    softmaxes = [scipy.special.softmax(array.astype(np.float64), -1) for array in models]
    divergences = scipy.stats.entropy(*softmaxes, axis=-1)
    assert found["kl_mean"].value == pytest.approx(divergences.mean())
    assert found["kl_max"].value == pytest.approx(divergences.max())
    assert found["kl_mean"].low < found["kl_mean"].value < found["kl_mean"].high
    changed = sum(a != b for a, b in zip(*predictions))
    assert changed
    assert found["agreement"].value == pytest.approx(1 - changed / 40)
    assert sum(found[name].value for name in ("lost", "gained", "swapped")) == changed
    assert set(found) <= set(FIDELITY)


def test_without_references_nothing_is_lost(tmp_path):
    """Data without references give divergences and agreement alone."""
    found = compared(tmp_path, ComparedOutput("label", "kept"), logits(12, 0.1))
    assert set(found) == {"kl_mean", "kl_median", "kl_p99", "kl_max", "agreement"}


def test_several_labels(tmp_path):
    """Independent labels have a divergence each; an example agrees where all its labels do."""
    models = logits(12, 0.5)
    predictions = [(array > 0).astype(int).tolist() for array in models]
    found = compared(
        tmp_path, ComparedOutput("labels", "kept"), models, references=predictions[0], predictions=predictions
    )
    first, second = (scipy.special.expit(array.astype(np.float64)) for array in models)
    both = scipy.special.rel_entr(first, second) + scipy.special.rel_entr(1 - first, 1 - second)
    assert found["kl_mean"].value == pytest.approx(both.sum(-1).mean())
    changed = sum(a != b for a, b in zip(*predictions))
    assert found["lost"].value == changed == round(12 * (1 - found["agreement"].value))


def test_words_of_sentences(tmp_path):
    """Only the positions that the item names are compared, word by word; a sentence may have none."""
    draw = np.random.default_rng(1)
    tokens = [draw.normal(size=(length, 4)).astype(np.float32) for length in (5, 3, 6, 4)]
    moved = [array + draw.normal(0, 1, array.shape).astype(np.float32) for array in tokens]
    positions = [[1, 3], [0], [2, 4, 5], []]
    words = [np.concatenate([array[places] for array, places in zip(model, positions)]) for model in (tokens, moved)]
    predictions = [
        [
            [f"L{label}" for label in array[places].argmax(-1)] if places else []
            for array, places in zip(model, positions)
        ]
        for model in (tokens, moved)
    ]
    found = compared(
        tmp_path,
        ComparedOutput("label", "kept", "places"),
        [tokens, moved],
        references=predictions[0],
        predictions=predictions,
        positions=[np.asarray(places, dtype=np.int64) for places in positions],
    )
    softmaxes = [scipy.special.softmax(array.astype(np.float64), -1) for array in words]
    assert found["kl_mean"].value == pytest.approx(scipy.stats.entropy(*softmaxes, axis=-1).mean())
    changed = int((words[0].argmax(-1) != words[1].argmax(-1)).sum())
    assert found["lost"].value == changed
    assert found["agreement"].value == pytest.approx(1 - changed / 6)


def test_embeddings(tmp_path):
    """Embeddings of all items are compared: their cosines, and their neighbours where there are enough texts."""
    draw = np.random.default_rng(2)
    first = draw.normal(size=(40, 6)).astype(np.float32)
    second = first + draw.normal(0, 0.1, first.shape).astype(np.float32)
    found = compared(tmp_path / "many", ComparedOutput("embedding", "kept"), [first, second], items=2)
    cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    assert found["cosine_mean"].value == pytest.approx(cosines.mean(), abs=1e-6)
    assert found["cosine_p1"].value == pytest.approx(np.quantile(cosines, 0.01), abs=1e-6)
    assert 0.5 < found["neighbor_overlap"].value < 1
    found = compared(tmp_path / "few", ComparedOutput("embedding", "kept"), [first[:20], second[:20]], items=2)
    assert set(found) == {"cosine_mean", "cosine_p1"}


def test_numbers_and_one_output(tmp_path):
    """Numbers are compared as they are predicted; the one output of a classifier is a number, too."""
    numbers = [[0.0, 1.0, 2.0], [0.5, 1.0, 1.5]]
    found = compared(tmp_path / "a", ComparedOutput("number"), logits(3, 0.1), predictions=numbers)
    assert found == {"rms_difference": Interval(pytest.approx((0.5 / 3) ** 0.5))}
    models = logits(3, 0.1, labels=1)
    found = compared(tmp_path / "b", ComparedOutput("label", "kept"), models)
    assert found["rms_difference"].value == pytest.approx(np.sqrt(np.mean((models[0] - models[1]) ** 2)), rel=1e-5)


def test_answers_agree_by_their_text(tmp_path):
    """Answers are compared without the probability of no answer; other predictions as they are."""
    answers = [
        [{"id": "a", "prediction_text": "yes", "no_answer_probability": p}, {"id": "b", "prediction_text": text}]
        for p, text in ((0.1, "no"), (0.2, ""))
    ]
    found = compared(tmp_path / "a", ComparedOutput("prediction"), logits(2, 0.1), predictions=answers)
    assert set(found) == {"agreement"}
    assert found["agreement"].value == 0.5
    words = [["a", "b", "c", "d"], ["a", "b", "c", "x"]]
    found = compared(tmp_path / "b", ComparedOutput("prediction"), logits(4, 0.1), predictions=words)
    assert found["agreement"].value == 0.75


def test_a_task_that_does_not_say_how(tmp_path):
    """A task without `compared_output`, or one that returns None, has no fidelity; nor do models of other shapes."""
    models = logits(4, 0.1)
    assert compared(tmp_path / "none", None, models) == {}
    rows, folders = Rows(tmp_path / "none" / "rows"), [tmp_path / "none" / "baseline", tmp_path / "none" / "model"]
    assert compare_outputs(SimpleNamespace(), rows, *folders, 0) == {}
    assert compared(tmp_path / "other", ComparedOutput("label", "kept"), [models[0], models[1][:, :2]]) == {}


@pytest.mark.parametrize("name", [name for name in registry.tasks() if name != "lm-eval"])
def test_every_task_says_how(name):
    """Each task of benchcard says how the outputs of its models are compared, except tasks of lm-eval, which have only
    their own scores.
    """
    problems = ("", "is_multi_label", "is_regression") if name == "text-classification" else ("",)
    kinds = [registry.task(name).compared_output({"problem": problem}).kind for problem in problems]
    assert kinds == {
        "image-classification": ["label"],
        "text-classification": ["label", "labels", "number"],
        "token-classification": ["label"],
        "question-answering": ["prediction"],
        "feature-extraction": ["embedding"],
        "sentence-similarity": ["embedding"],
    }.get(name, kinds)
