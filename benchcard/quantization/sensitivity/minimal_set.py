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
    """The outcome of a search.

    Attributes:
        nodes: The set; where none was enough, the largest that was tried.
        is_minimal: Whether it was tried that no node of it can be left out.
        trials: Number of sets that were tried, the empty one among them.
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
    search = _Search(tuple(ranked), is_enough, bound)
    try:
        search.grow()
        search.shrink()
        is_minimal = search.best is not None
    except _NoTrialsLeft:
        is_minimal = False
    nodes = search.largest if search.best is None else search.best
    return MinimalSet(nodes, search.best is not None, is_minimal, len(search.tried))


class _Search:
    """What was tried, the smallest set that was enough, and the largest set."""

    def __init__(self, ranked: tuple[str, ...], is_enough: Callable[[tuple[str, ...]], bool], bound: int) -> None:
        self.ranked, self._is_enough, self._bound = ranked, is_enough, bound
        self.tried: dict[tuple[str, ...], bool] = {}
        self.best: tuple[str, ...] | None = None
        self.largest: tuple[str, ...] = ()

    def grow(self) -> None:
        """Find the shortest start of the ranking that is enough."""
        fails, size = -1, 0
        while not self._try(self.ranked[:size]):
            if size == len(self.ranked):
                return
            fails, size = size, min(len(self.ranked), max(1, 2 * size))
        while size - fails > 1:
            middle = (fails + size) // 2
            if self._try(self.ranked[:middle]):
                size = middle
            else:
                fails = middle

    def shrink(self) -> None:
        """Remove what is not needed, halves first, then ever smaller parts, the least costly first."""
        if self.best is None:
            return
        nodes = self.best
        # The set without its last node was tried and was not enough.
        needed = nodes[-1:]
        length = len(nodes) // 2
        while length:
            for end in range(len(nodes) - len(needed), 0, -length):
                rest = nodes[: max(0, end - length)] + nodes[end:]
                if self._try(rest):
                    nodes = rest
            length //= 2
        # What was needed beside a node that is removed now may be needless.
        before: tuple[str, ...] = ()
        while nodes != before:
            before = nodes
            for node in reversed(before):
                rest = tuple(other for other in nodes if other != node)
                if self._try(rest):
                    nodes = rest

    def _try(self, nodes: tuple[str, ...]) -> bool:
        if nodes not in self.tried:
            if len(self.tried) >= self._bound:
                raise _NoTrialsLeft
            self.tried[nodes] = self._is_enough(nodes)
            if self.tried[nodes] and (self.best is None or len(nodes) < len(self.best)):
                self.best = nodes
            if len(nodes) > len(self.largest):
                self.largest = nodes
        return self.tried[nodes]
