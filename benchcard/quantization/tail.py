"""The values of a stream of floats that are largest in magnitude, each as it is.

Owns which values are kept, and how many of all values lie below an edge among them. `histogram` counts the rest, and
says which share of a bin lies below an edge inside it; a percentile near 100 lies among the values kept here, of which
nothing need be said in shares.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Values = npt.NDArray[np.float32]

SIZE = 1 << 11
"""Values kept at most: as many as there are beyond 99.999 % of 200 million, or 99.9 % of 2 million."""

ROW = 1 << 9
"""Values in a row: of those whose largest is not to be kept, none is looked at."""


@dataclass
class Tail:
    """Every value whose magnitude is greater than `floor`, and no other: `SIZE` of them at the most, once settled.

    The floor is the least one for which that holds, 0 where all values fit. So however the values came, in which order
    and in how many pieces, the outcome is the same: of values that are equally large, all are kept or none.

    Attributes:
        values: `(at most SIZE,) float32`, in no order, once settled.
        floor: A magnitude.
    """

    values: Values = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    floor: float = 0.0

    def add(self, values: Array, peaks: Array) -> None:
        """Keep what belongs to it.

        Args:
            values: `(number,)`, float16 or float32, all of them finite.
            peaks: `(rows,)`, the largest magnitude of each `ROW` values, of the rest at last where it is no whole row.
        """
        above = peaks > self.floor
        if not above.any():
            return
        whole = values.size // ROW
        rows = values[: whole * ROW].reshape(-1, ROW)[above[:whole]]
        found = np.concatenate([rows.ravel(), values[whole * ROW :]])
        self.values = np.concatenate([self.values, found[np.abs(found) > self.floor].astype(np.float32)])
        # Not each time that there are a few too many: to find those takes as long as many of them cost.
        if self.values.size > 2 * SIZE:
            self.settle()

    def settle(self) -> None:
        """Let those go that are too many."""
        if self.values.size > SIZE:
            magnitudes = np.abs(self.values)
            self.floor = float(np.partition(magnitudes, -SIZE - 1)[-SIZE - 1])
            self.values = self.values[magnitudes > self.floor]

    def below(self, edges: npt.NDArray[np.float64], total: int, absolute: bool) -> npt.NDArray[np.int64]:
        """How many of all values, or of their absolute values, are less than each edge; -1 where it cannot tell.

        Args:
            edges: `(number,)`.
            total: Number of all values.
            absolute: Whether to take absolute values.
        """
        ordered = np.sort(np.abs(self.values) if absolute else self.values)
        before = np.searchsorted(ordered, edges, side="left")
        # What is not kept lies from -floor to floor.
        dropped = total - ordered.size
        known = np.where(edges > self.floor, dropped + before, -1)
        if not absolute:
            known = np.where(edges <= -self.floor, before, known)
        return known
