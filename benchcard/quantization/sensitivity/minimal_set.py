"""The search for the fewest nodes whose exclusion is enough, in a bounded number of trials.

This module owns the order of the trials; what a trial is, its caller decides. The nodes come ranked by what their
quantization costs (`losses.rank_layers`). The search tries 1, 2, 4, 8, … of the worst until they are enough, then
bisects. A node may be needless where others are excluded, so parts are then removed from that set, large ones first.

Source of the last part: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE Transactions
on Software Engineering 28 (2002).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class MinimalSet:
    """The set that a search of so many trials found; where none was enough, the largest that was tried.

    `is_minimal` tells whether it was tried that no node of it can be left out.
    """

    nodes: tuple[str, ...]
    is_enough: bool
    is_minimal: bool
    trials: int


class _NoTrialsLeft(Exception):
    """The bound is reached."""


def minimal_set(ranked: Sequence[str], is_enough: Callable[[tuple[str, ...]], bool], bound: int) -> MinimalSet:
    """Return the smallest set of nodes that is found to be enough; `ranked` holds nodes, the worst first.

    All nodes together should be enough. `is_enough` is one trial; it is called at most `bound` times (1 or more),
    never twice with the same nodes.
    """
    tried: dict[tuple[str, ...], bool] = {}

    def attempt(nodes: tuple[str, ...]) -> bool:
        if nodes not in tried:
            if len(tried) >= bound:
                raise _NoTrialsLeft
            tried[nodes] = is_enough(nodes)
        return tried[nodes]

    try:
        start = _shortest_start(tuple(ranked), attempt)
        is_minimal = start is not None
        if start is not None:
            _shrink(start, attempt)
    except _NoTrialsLeft:
        is_minimal = False
    enough = [nodes for nodes, holds in tried.items() if holds]
    nodes = min(enough, key=len) if enough else max(tried, key=len)
    return MinimalSet(nodes, bool(enough), is_minimal, len(tried))


def _shortest_start(ranked: tuple[str, ...], attempt: Callable[[tuple[str, ...]], bool]) -> tuple[str, ...] | None:
    """Return the shortest start of the ranking that is enough; None where all of it is not."""
    fails, size = -1, 0
    while not attempt(ranked[:size]):
        if size == len(ranked):
            return None
        fails, size = size, min(len(ranked), max(1, 2 * size))
    while size - fails > 1:
        middle = (fails + size) // 2
        if attempt(ranked[:middle]):
            size = middle
        else:
            fails = middle
    return ranked[:size]


def _shrink(nodes: tuple[str, ...], attempt: Callable[[tuple[str, ...]], bool]) -> None:
    """Try to remove nodes, halves first, then ever smaller parts, the least costly first."""
    # The set without its last node was tried and was not enough.
    needed = nodes[-1:]
    length = len(nodes) // 2
    while length:
        for end in range(len(nodes) - len(needed), 0, -length):
            rest = nodes[: max(0, end - length)] + nodes[end:]
            if attempt(rest):
                nodes = rest
        length //= 2
    # What was needed beside a node that is removed now may be needless.
    before: tuple[str, ...] = ()
    while nodes != before:
        before = nodes
        for node in reversed(before):
            rest = tuple(other for other in nodes if other != node)
            if attempt(rest):
                nodes = rest
