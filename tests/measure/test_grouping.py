"""Which models are held open together."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchcard.errors import MachineError
from benchcard.measure.blocks import Subject
from benchcard.measure.grouping import plan_groups


def subject(name: str) -> Subject:
    """A subject of which only the name counts."""
    return Subject(name, "onnxruntime", Path(), Path())


def test_models_are_held_open_together_while_they_fit() -> None:
    """Groups keep within memory, hold every subject once, and each begins with the baseline, counted twice."""
    subjects = [subject(name) for name in "abcdef"]
    sizes = [10, 40, 30, 30, 20, 10]
    groups = plan_groups(subjects, 0, sizes, 100)
    assert all(group[0] == 0 for group in groups)
    assert sorted(index for group in groups for index in group[1:]) == [1, 2, 3, 4, 5]
    assert all(20 + sum(sizes[index] for index in group[1:]) <= 100 for group in groups)
    assert len(groups) == 2
    assert plan_groups(subjects, 0, sizes, 1000) == [[0, 1, 2, 3, 4, 5]]
    assert plan_groups(subjects[:1], 0, [10], 20) == [[0]]
    assert plan_groups(subjects, None, sizes, 70) == [[0, 3, 4, 5], [1, 2]]


def test_a_model_that_does_not_fit_is_the_last_and_alone() -> None:
    """The others are timed without it, and it is tried when its turn comes."""
    subjects = [subject(name) for name in "abcd"]
    assert plan_groups(subjects, 0, [10, 90, 30, 20], 100) == [[0, 2, 3], [0, 1]]


def test_where_no_model_fits_both_figures_are_told() -> None:
    """The message has what is needed and what there is."""
    subjects = [subject(name) for name in "ab"]
    with pytest.raises(MachineError, match=r"60 MB, beside 50 MB of the baseline.*100 MB are available"):
        plan_groups(subjects, 0, [25_000_000, 60_000_000], 100_000_000)
    with pytest.raises(MachineError, match="the baseline"):
        plan_groups(subjects[:1], 0, [60_000_000], 100_000_000)
