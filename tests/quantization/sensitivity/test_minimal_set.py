"""The search for the fewest nodes: what it finds, and how many trials it takes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchcard.quantization.sensitivity.minimal_set import MinimalSet, minimal_set

RANKED = [f"n{number}" for number in range(100)]


def search(needed, bound=100, ranked=RANKED):
    """A search in which a set is enough where it holds all that are needed, and the sets that it tried."""
    tried = []

    def is_enough(nodes):
        tried.append(nodes)
        return set(needed) <= set(nodes)

    return minimal_set(ranked, is_enough, bound), tried


@pytest.mark.parametrize(
    ("needed", "trials"),
    [([], 1), (["n0"], 2), (["n0", "n1"], 4), (["n2"], 7), (["n0", "n1", "n2", "n3"], 9)],
    ids=lambda value: str(value),
)
def test_a_few_nodes_are_found_in_a_few_trials(needed, trials):
    """Where the worst nodes are those that are needed, no other is excluded, and it takes a handful of trials."""
    found, tried = search(needed)
    assert found == MinimalSet(tuple(needed), True, True, len(tried))
    assert len(tried) <= trials


def test_what_lies_deep_in_the_ranking_is_found_alone():
    """A needed node far down is found by doubling and halving, and the costlier ones before it are taken out again."""
    found, tried = search(["n70"])
    assert found.nodes == ("n70",)
    assert found.is_minimal
    assert len(tried) < 30


def test_the_bound_is_kept_and_what_was_found_until_then_counts():
    """When the trials are used up, the smallest set that was enough is given, and it is said that fewer may do."""
    found, tried = search(["n3", "n70"], bound=12)
    assert len(tried) == found.trials == 12
    assert found.is_enough
    assert not found.is_minimal
    assert {"n3", "n70"} <= set(found.nodes)
    found, tried = search(["n70"], bound=3)
    assert found == MinimalSet(("n0", "n1"), False, False, 3)


def test_nothing_that_is_enough_ends_with_all_nodes():
    """Where even all nodes are not enough, that is what is said."""
    found, _ = search(["absent"], ranked=RANKED[:5])
    assert found.nodes == tuple(RANKED[:5])
    assert not found.is_enough
    assert not found.is_minimal
    assert minimal_set([], lambda nodes: False, 5) == MinimalSet((), False, False, 1)


@settings(max_examples=60, deadline=None)
@given(needed=st.sets(st.integers(0, 39), max_size=6), bound=st.integers(1, 40))
def test_what_is_found_is_enough_no_set_is_tried_twice_and_the_bound_holds(needed, bound):
    """Whatever is needed: every claim of the outcome is true, and a minimal set is the needed one."""
    names = {f"n{number}" for number in needed}
    found, tried = search(names, bound, RANKED[:40])
    assert len(tried) == len(set(tried)) == found.trials <= bound
    assert found.is_enough == (names <= set(found.nodes))
    if found.is_minimal:
        assert set(found.nodes) == names


def test_what_is_needless_only_where_another_is_gone_is_taken_out_too():
    """A set is the fewest where each of its nodes was tried to be left out, the last one as well."""
    enough = [set("abcd"), set("acd"), set("ac")]
    assert minimal_set("abcd", lambda nodes: set(nodes) in enough, 100).nodes == ("a", "c")
    found = minimal_set("abcd", lambda nodes: set(nodes) in [*enough, set("a")], 100)
    assert (found.nodes, found.is_minimal) == (("a",), True)
    assert not minimal_set("abcd", lambda nodes: set(nodes) in enough, 7).is_minimal
