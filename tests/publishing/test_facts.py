"""Facts: what they accept, what they refuse, and the order of the cards."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from card.test_facts import facts_of

from benchcard.card.facts import (
    Facts,
    Figure,
    Interval,
    Row,
    figure,
    in_card_order,
    plain,
)
from benchcard.errors import CardError
from benchcard.utils.values import Failure


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -float("inf"), np.float64("nan")])
def test_no_number_is_no_figure(value):
    """A number that is missing, NaN or infinite gives no figure."""
    assert figure(value) is None


def test_a_numpy_number_becomes_a_plain_one():
    """A NumPy scalar becomes a Python float, with its bounds."""
    made = figure(np.float32(0.5), np.float64(0.25), 0.75)
    assert made == Figure(0.5, Interval(0.25, 0.75))
    assert type(made.value) is float


def test_a_figure_with_half_an_interval_has_none():
    """Bounds that are missing or not finite leave the figure without an interval."""
    assert figure(1.0, 0.5) == figure(1.0, 0.5, float("nan")) == Figure(1.0)


@pytest.mark.parametrize(
    "make", [lambda: Figure(float("nan")), lambda: Interval(2, 1), lambda: Interval(0, float("inf"))]
)
def test_nothing_that_is_not_finite_gets_in(make):
    """Figures and intervals refuse what is not finite, and bounds in the wrong order."""
    with pytest.raises(CardError, match="finite"):
        make()


def test_plain_turns_tuples_and_numpy_scalars_into_pythons_own():
    """Tuples become lists and NumPy scalars Python's, at any depth."""
    given = {"a": (1, np.int64(2)), "b": {"c": (np.bool_(True), "x", None)}}
    assert repr(plain(given)) == "{'a': [1, 2], 'b': {'c': [True, 'x', None]}}"


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [object()]}, r"fixed\.x\.a\[0\]"),
        (float("nan"), r"fixed\.x "),
        (np.zeros(2), r"fixed\.x "),
        ({1}, r"fixed\.x "),
    ],
)
def test_what_is_no_plain_data_is_refused_with_its_place(value, place):
    """A value that no card can show is refused, and the message says where it is."""
    with pytest.raises(CardError, match=place):
        Facts(task="t", backend="b", fixed={"x": value})


def test_a_row_must_say_every_benchmarked_parameter():
    """A row without the value of a column is refused by name."""
    with pytest.raises(CardError, match="row 1 does not say the value of b"):
        Facts(
            task="t",
            backend="b",
            benchmarked={"a": [1], "b": [2]},
            rows=(Row(parameters={"a": 1, "b": 2}), Row(parameters={"a": 1})),
        )


@pytest.mark.parametrize("name", ["baseline", "chosen"])
def test_rows_that_do_not_exist_cannot_be_named(name):
    """The baseline and the recommended row must be rows."""
    with pytest.raises(CardError, match=f"{name} is row 2, and there is no such row"):
        Facts(task="t", backend="b", rows=(Row(parameters={}),), **{name: 2})


@pytest.mark.parametrize("card", ["vit-beans", "sst2-distilbert", "conll2003-distilbert"])
def test_card_order_is_the_order_of_the_published_rows(card):
    """Shuffled rows come back in the order in which they were published."""
    facts = facts_of(card)
    rows = list(facts.rows)
    random.Random(3).shuffle(rows)
    assert tuple(rows) != facts.rows
    assert replace(facts, rows=in_card_order(rows, facts.benchmarked)).rows == facts.rows


def test_card_order_puts_numbers_by_their_value():
    """None comes before numbers, numbers stand by value and before texts."""
    rows = [Row(parameters={"n": value}) for value in ("a", 128, 64, None)]
    assert [row.parameters["n"] for row in in_card_order(rows, ["n"])] == [None, 64, 128, "a"]


def test_a_failure_tells_what_it_knows():
    """The text of a failure holds the parts that are known."""
    assert str(Failure("time", "Killed", "out of memory")) == "time: Killed: out of memory"
    assert str(Failure()) == "failed"
