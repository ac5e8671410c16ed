"""Facts: what they accept and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from benchcard.card.facts import (
    Facts,
    Measured,
    Noise,
    Row,
    figure,
    plain,
)
from benchcard.errors import CardError
from benchcard.utils.values import Failure, Interval, Shape


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -float("inf"), np.float64("nan")])
def test_no_number_is_no_figure(value):
    """A number that is missing, NaN or infinite gives no figure."""
    assert figure(value) is None


def test_a_numpy_number_becomes_a_plain_one():
    """A NumPy scalar becomes a Python float, with its bounds."""
    made = figure(np.float32(0.5), np.float64(0.25), 0.75)
    assert made == Interval(0.5, 0.25, 0.75)
    assert type(made.value) is float


def test_a_figure_with_half_an_interval_has_none():
    """Bounds that are missing or not finite leave the figure without an interval."""
    assert figure(1.0, 0.5) == figure(1.0, 0.5, float("nan")) == Interval(1.0)


@pytest.mark.parametrize(
    "found",
    [Interval(float("nan")), Interval(1, 2, 1), Interval(0, 0, float("inf")), Interval(0, 0, None)],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda found: Row(parameters={}, metrics={"x": found}),
        lambda found: Row(parameters={}, times={Shape(1): {"x": found}}),
        lambda found: Row(parameters={}, figures={"x": found}),
        lambda found: Measured({"x": found}),
        lambda found: Noise(shape=Shape(1), ratio=found),
    ],
)
def test_facts_refuse_figures_that_no_card_can_show(make, found):
    """A figure must be finite, with two finite bounds in order or none."""
    with pytest.raises(CardError, match="must be a finite number"):
        make(found)


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
        (b"1", r"fixed\.x "),
    ],
)
def test_what_is_no_plain_data_is_refused_with_its_place(value, place):
    """A value that no card can show is refused, and the message says where it is."""
    with pytest.raises(CardError, match=place):
        Facts(task="t", backend="b", fixed={"x": value})


def test_a_row_must_say_every_benchmarked_parameter():
    """A row without the value of a column is refused by name."""
    with pytest.raises(CardError, match="row 1 has no value of the benchmarked parameter b"):
        Facts(
            task="t",
            backend="b",
            benchmarked={"a": [1], "b": [2]},
            rows=(Row(parameters={"a": 1, "b": 2}), Row(parameters={"a": 1})),
        )


@pytest.mark.parametrize("name", ["baseline", "chosen"])
def test_rows_that_do_not_exist_cannot_be_named(name):
    """The baseline and the recommended row must be rows."""
    with pytest.raises(CardError, match=f"{name} is row 2, but the rows are 0 to 0"):
        Facts(task="t", backend="b", rows=(Row(parameters={}),), **{name: 2})


def test_a_failure_tells_what_it_knows():
    """The text of a failure holds the parts that are known."""
    assert str(Failure("time", "Killed", "out of memory")) == "time: Killed: out of memory"
    assert str(Failure()) == "failed"
