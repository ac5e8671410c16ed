"""Calibration samples: drawn by seed, in the shares of the labels, and an error where there are too few."""

from __future__ import annotations

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchcard.errors import SpecError
from benchcard.tasks.data import describe_rows, stratified_sample


def rows(labels):
    """A split with these labels."""
    features = datasets.Features({"label": datasets.ClassLabel(names=["a", "b", "c"])})
    return datasets.Dataset.from_dict({"label": labels}, features=features)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, "a calibration split that has rows, found 5 .the split `train` has 0 rows"),
        (1, "a number of at most 1, found 5 .the split `train` has 1 row."),
        (4, "a number of at most 4, found 5 .the split `train` has 4 rows"),
    ],
)
def test_too_few_rows_are_an_error_that_says_how_many_there_are(count, message):
    """Too few rows raise an error with their number."""
    with pytest.raises(SpecError, match=message):
        stratified_sample(rows([0] * count), 5, 0, "label", "train")


@pytest.mark.parametrize("labels", [[True] * 4 + [False] * 8, [1.0] * 4 + [0.0] * 8])
def test_booleans_and_whole_floats_are_classes(labels):
    """A third of six rows has the label of a third of all rows."""
    chosen, _ = stratified_sample(datasets.Dataset.from_dict({"label": labels}), 6, 0, "label", "train")
    assert sum(chosen["label"][:]) == 2


def test_one_row_can_be_all():
    """A split of one row gives one sample."""
    chosen, places = stratified_sample(rows([2]), 1, 0, "label", "train")
    assert (chosen["label"][:], places) == ([2], [0])


@settings(max_examples=25, deadline=None)
@given(counts=st.tuples(*[st.integers(1, 20)] * 3), seed=st.integers(0, 9), data=st.data())
def test_each_label_has_its_share(counts, seed, data):
    """A sample has the asked number of rows, each once, each label within one of its share, and depends on the seed."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    wanted = data.draw(st.integers(1, len(labels)))
    chosen, places = stratified_sample(rows(labels), wanted, seed, "label", "train")
    assert len(set(places)) == len(places) == wanted
    assert places == stratified_sample(rows(labels), wanted, seed, "label", "train")[1]
    for label, count in enumerate(counts):
        assert abs(chosen["label"][:].count(label) - count * wanted / len(labels)) < 1


def test_the_record_has_the_numbers_and_their_digest():
    """`describe_rows` has the rows that were drawn; another draw has another digest."""
    split = rows([0, 1, 2] * 10)
    told = [
        describe_rows(places, 30)
        for _, places in (stratified_sample(split, 6, seed, "label", "train") for seed in (0, 1))
    ]
    assert len(told[0]["rows"]) == 6
    assert told[0]["split_rows"] == 30
    assert told[0]["rows_digest"] != told[1]["rows_digest"]
