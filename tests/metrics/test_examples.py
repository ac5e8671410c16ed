"""Metrics as functions of examples: for any choice of examples they agree with the metric itself."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, mean_squared_error, precision_score

from benchcard.metrics import MetricInputs, compute_metric
from benchcard.metrics.examples import examples_of

DRAW = np.random.default_rng(0)
LABELS = [DRAW.integers(0, 4, 60).tolist(), DRAW.integers(0, 4, 60).tolist()]
TWO = [DRAW.integers(0, 2, 60).tolist(), DRAW.integers(0, 2, 60).tolist()]
SEVERAL = [DRAW.integers(0, 2, (60, 3)).tolist(), DRAW.integers(0, 2, (60, 3)).tolist()]
NUMBERS = [DRAW.normal(size=60).tolist(), DRAW.normal(size=60).tolist()]
TAGS = [
    [list(DRAW.choice(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], DRAW.integers(1, 9))) for _ in range(60)],
]
TAGS.append([[str(DRAW.choice(["O", tag])) for tag in sentence] for sentence in TAGS[0]])
BARE = [[[tag[2:] or tag for tag in sentence] for sentence in side] for side in TAGS]
LAST = [[[tag.replace("I-", "L-") for tag in sentence] for sentence in side] for side in TAGS]
APART = [[2 * value for value in side] for side in TWO]
WORDS = ["a red fox", "the red fox", "fox", "red", ""]
ANSWERS = [
    [
        {"id": str(n), "prediction_text": WORDS[DRAW.integers(0, 5)], "no_answer_probability": float(DRAW.uniform())}
        for n in range(60)
    ],
    [
        {
            "id": str(n),
            "answers": {"text": [WORDS[DRAW.integers(0, 3)]] * int(n % 3 > 0), "answer_start": [0] * int(n % 3 > 0)},
        }
        for n in range(60)
    ],
]
ANSWERED = [[each for n, each in enumerate(side) if n % 3 > 0] for side in ANSWERS]
SCORES = [DRAW.normal(size=(60, 4)).round(1).tolist(), DRAW.integers(0, 4, 60).tolist()]

CASES = [
    *[
        (name, LABELS, {})
        for name in ("accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro", "recall_weighted")
    ],
    *[(name, TWO, {}) for name in ("precision", "recall", "f1", "matthews_correlation", "accuracy")],
    *[(name, SEVERAL, {}) for name in ("accuracy", "f1_micro", "f1_macro", "f1_weighted")],
    *[(name, NUMBERS, {}) for name in ("pearson", "spearman", "mse")],
    ("matthews_correlation", LABELS, {}),
    ("seqeval", TAGS, {}),
    ("seqeval", TAGS, {"scheme": "IOB2", "mode": "strict"}),
    ("seqeval", BARE, {"entity_tags": {"O": "O", "PER": "I-PER", "LOC": "I-LOC"}}),
    ("seqeval", BARE, {}),
    ("seqeval", LAST, {}),
    ("f1", TWO, {"pos_label": 0}),
    ("precision", APART, {"pos_label": 2}),
    ("squad", ANSWERED, {}),
    ("squad_v2", ANSWERS, {"no_answer_threshold": 0.6}),
    ("exact_match", [["a", "B", "c"] * 20, ["a", "b", "d"] * 20], {"ignore_case": True}),
    ("top_k_accuracy", SCORES, {"k": 2}),
    ("f1", LABELS, {"average": "macro", "labels": [0, 1]}),
]


def given(pair, name, indices=None, arguments=MappingProxyType({})):
    """The inputs of a metric: a pair of predictions and references, or some examples of them."""
    predictions, references = ([side[i] for i in indices] if indices is not None else side for side in pair)
    scores = predictions if name == "top_k_accuracy" else None
    return MetricInputs(predictions, references, scores, arguments={name: arguments})


@pytest.mark.parametrize(
    ("name", "pair", "arguments"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_sums_over_examples_are_the_metric(name, pair, arguments):
    """For all examples, and for choices of them with repetition, the figure of the sum is the metric's."""
    found = examples_of(name, given(pair, name, arguments=arguments))
    everything = np.arange(len(pair[0]))
    whole = compute_metric(name, given(pair, name, arguments=arguments))
    assert found
    assert {figure for figure in whole if "best" not in figure and "total" not in figure} == set(found)
    for figure, each in found.items():
        assert each.score(np.arange(each.count)) == pytest.approx(whole[figure].value, rel=1e-12), figure
    if name.startswith("squad"):
        # a question that is drawn twice has one id, which the metric itself would count once
        return
    for seed in range(3):
        indices = np.random.default_rng(seed).integers(0, len(everything), len(everything))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            drawn = compute_metric(name, given(pair, name, indices, arguments))
        for figure, each in found.items():
            assert each.score(indices) == pytest.approx(drawn[figure].value, rel=1e-9), figure


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_choice_without_spread_has_no_correlation(name):
    """A correlation is NaN where all chosen numbers of one side are equal, or one is NaN."""
    pair = [[0.5, 0.5, 1.5, math.nan], [1.0, 2.0, 3.0, 4.0]]
    each = examples_of(name, given(pair, name))[name]
    assert math.isnan(each.score(np.array([0, 1])))
    assert math.isnan(each.score(np.array([2, 2])))
    assert math.isnan(each.score(np.array([0, 2, 3])))
    assert each.score(np.array([0, 2, 2])) == pytest.approx(1)


def test_figures_are_those_of_scikit_learn():
    """Figures equal those of scikit-learn to the last digit."""
    found, right = LABELS
    everything = np.arange(60)
    expected = {
        "accuracy": accuracy_score(right, found),
        "f1_macro": f1_score(right, found, average="macro"),
        "precision_weighted": precision_score(right, found, average="weighted"),
        "matthews_correlation": matthews_corrcoef(right, found),
    }
    for name, value in expected.items():
        assert compute_metric(name, given(LABELS, name))[name].value == value
        assert examples_of(name, given(LABELS, name))[name].score(everything) == pytest.approx(value, rel=1e-14)
    assert compute_metric("mse", given(NUMBERS, "mse"))["mse"].value == mean_squared_error(*NUMBERS[::-1])


def test_shares_know_their_right_ones():
    """Accuracy, exact match in percent and top k have correct examples; F1 and means do not."""
    assert examples_of("accuracy", given(LABELS, "accuracy"))["accuracy"].correct.sum() == sum(
        one == other for one, other in zip(*LABELS)
    )
    squad = examples_of("squad", given(ANSWERED, "squad"))
    assert squad["exact_match"].maximum == 100.0
    assert squad["f1"].correct is None
    assert examples_of("f1_macro", given(LABELS, "f1_macro"))["f1_macro"].correct is None


def test_a_figure_that_a_task_means_goes_by_its_name():
    """`f1` that stands for a figure of seqeval is one figure of that name; an undefined one is NaN."""
    found = examples_of("f1", replace(given(TAGS, "f1"), meanings={"f1": "seqeval.overall_f1"}))
    assert list(found) == ["f1"]
    flat = examples_of("pearson", given([[1.0, 1.0, 2.0], [1.0, 2.0, 3.0]], "pearson"))["pearson"]
    assert math.isnan(flat.score(np.array([0, 0, 1])))
