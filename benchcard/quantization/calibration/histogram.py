"""Counts of a stream of floats: equal bins whose width is a power of two, over a range that grows with the values.

Owns the arithmetic of one tensor's values: bins, extremes, and the counts in the bins of another histogram. Which
values are kept as they are, is `tail`'s. It knows nothing of graphs, files or calibration methods; `calibrate` feeds it
and `ranges` reads it.

A histogram over all samples at once needs the range of all samples, which a single pass does not know. Here the width
of the bins is `2**exponent`, and bin `j` holds the values whose quotient by the width is `j` when cut toward zero:

    j < 0: ((j - 1) * width, j * width]        j = 0: (-width, width)        j > 0: [j * width, (j + 1) * width)

A quotient by a power of two is exact, and so is halving `j` when the width doubles. So however the values came, in
which order and in how many pieces, the outcome is the histogram that all of them at once would have given. The
width is the least one for which the values span at most `BINS` bins: the bins in use are more than half of `BINS`,
unless the values have fewer distinct magnitudes than that or differ by less than the precision of float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

AnyArray = npt.NDArray[Any]
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

    def add(self, values: AnyArray, peaks: AnyArray) -> None:
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


BINS = 1 << 15
"""Bins at most for one tensor. At least half of them are in use: 4 to 16 for one of the 2048 of onnxruntime's."""

_FINEST_EXPONENT = -126
"""Of the least normal float32: below it the scale 1 / width would overflow."""

_MANTISSA_BITS = 24
"""Significant bits of a float32; bins finer than the spacing of the largest value would tell nothing more."""

_CHUNK = 1 << 20
"""Values that are counted at once: 8 MB of scratch, and few calls for a large tensor."""

_FEW = 1 << 12
"""Values up to which counting one by one is faster than passing over all bins."""

_SIGN_AND_MAGNITUDE = {np.dtype(np.float16): (np.int16, np.uint16), np.dtype(np.float32): (np.int32, np.uint32)}

Array = npt.NDArray[np.generic]
Counts = npt.NDArray[np.int64]
Edges = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Extremes:
    """The values that bound an array of floats.

    Attributes:
        lowest: least value.
        highest: greatest value.
        nearest: least absolute value.
    """

    lowest: float
    highest: float
    nearest: float

    @property
    def finite(self) -> bool:
        """True where none of the values is NaN or infinite."""
        return math.isfinite(self.lowest) and math.isfinite(self.highest)

    def union(self, other: Extremes) -> Extremes:
        """The extremes of both arrays together."""
        return Extremes(
            min(self.lowest, other.lowest), max(self.highest, other.highest), min(self.nearest, other.nearest)
        )


def extremes(values: Array) -> tuple[Extremes, Array]:
    """Extremes of one or more floats, exact, and the largest magnitude of each `ROW` of them, of the rest at last.

    A NaN stands as NaN or as an infinity in `lowest` or `highest`.

    Args:
        values: contiguous array of any shape, float16 or float32, not empty.
    """
    # Without their sign bit floats order as integers do. Read as signed, negative floats come first and the one
    # nearest to zero is the least; read as unsigned they come last and the lowest float is the greatest. So four
    # integer reductions give the extremes and the least magnitude, with no array of absolute values in between.
    signed, unsigned = (values.reshape(-1).view(kind) for kind in _SIGN_AND_MAGNITUDE[values.dtype])
    rows = np.arange(0, values.size, ROW)
    lasts, greatests = np.maximum.reduceat(signed, rows), np.maximum.reduceat(unsigned, rows)
    # The greater of the two has the greatest magnitude, be there positive floats in the row, negative ones, or both.
    peaks = np.maximum(np.abs(lasts.view(values.dtype)), np.abs(greatests.view(values.dtype)))
    first, last, least, greatest = (
        float(bits.view(values.dtype)) for bits in (signed.min(), lasts.max(), unsigned.min(), greatests.max())
    )
    all_positive, all_negative = math.copysign(1, first) > 0, math.copysign(1, last) < 0
    if all_positive:
        return Extremes(first, last, first), peaks
    if all_negative:
        return Extremes(greatest, first, -first), peaks
    return Extremes(greatest, last, min(-first, least)), peaks


def bin_width_exponent(lowest: float, highest: float) -> int:
    """Exponent of the bin width for values in this range: the least for which they span at most `BINS` bins.

    It never falls when the range grows, which is what makes a growing histogram equal to one made at once.
    """
    largest = max(-lowest, highest)
    exponent = max(math.frexp(largest)[1] - _MANTISSA_BITS, _FINEST_EXPONENT) if largest else _FINEST_EXPONENT
    if highest > lowest:
        exponent = max(exponent, math.frexp((highest - lowest) / BINS)[1] - 1)
    while _bin(highest, exponent) - _bin(lowest, exponent) >= BINS:
        exponent += 1
    return exponent


def _bin(value: float, exponent: int) -> int:
    return int(math.ldexp(value, -exponent))


class Scratch:
    """Memory for counting that the histograms of one thread share, so that a tensor costs no allocation of its size.

    Attributes:
        column: sparse `(BINS, 1) int32` with a 1 for each value of a chunk, in the row of the value's bin.
        index: `(_CHUNK,) int32`, these rows: to be written before `count`.
    """

    def __init__(self) -> None:
        ones, rows, stops = np.ones(_CHUNK), np.zeros(_CHUNK), np.array([0, _CHUNK])
        triple = tuple(array.astype(np.int32) for array in (ones, rows, stops))
        self.column = sparse.csc_array(triple, shape=(BINS, 1))
        self.index: npt.NDArray[np.int32] = self.column.indices

    def count(self, size: int) -> npt.NDArray[np.int32]:
        """How often each number below `BINS` stands in `index[:size]`: `(BINS,) int32`."""
        # A product with the vector [1] adds the ones of each row up, and that is counting. It takes 0.8 ns a value;
        # np.bincount takes more than twice that, since it casts to int64 and looks for the extremes first.
        self.column.indptr[1] = size
        counts: npt.NDArray[np.int32] = self.column @ self.column.data[:1]
        return counts


@dataclass
class Histogram:
    """Counts of all the values added so far, at most `BINS` of them, their extremes, and the largest of them.

    Attributes:
        extremes: of all values added; None before the first.
        exponent: the bins are `2**exponent` wide.
        first: number of the bin that `counts[0]` counts.
        counts: `(bins,) int64`; the first and the last hold the lowest and the highest value.
        tail: the values that are largest in magnitude.
    """

    extremes: Extremes | None = None
    exponent: int = _FINEST_EXPONENT
    first: int = 0
    counts: Counts = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    tail: Tail = field(default_factory=Tail)

    def add(self, values: Array, scratch: Scratch) -> Extremes | None:
        """Extremes of these values, which are counted where all of them are finite; None where there are no values.

        Nothing of a chunk of values with a NaN or an infinity is counted; the histogram is of no use then.

        Args:
            values: array of any shape, float16 or float32.
            scratch: of the calling thread.
        """
        flat = np.ascontiguousarray(values).reshape(-1)
        whole: Extremes | None = None
        for start in range(0, flat.size, _CHUNK):
            chunk = flat[start : start + _CHUNK]
            bounds, peaks = extremes(chunk)
            whole = bounds if whole is None else whole.union(bounds)
            if not bounds.finite:
                # NaN compares as nothing does: union() might drop it, so it is handed back as it was found.
                return bounds
            self._cover(bounds)
            self._count(chunk, scratch)
            self.tail.add(chunk, peaks)
        return whole

    def _cover(self, bounds: Extremes) -> None:
        """Make the bins reach over these values too, without loss: bins are only moved, or merged by powers of two."""
        union = bounds if self.extremes is None else self.extremes.union(bounds)
        if self.extremes is None or (union.lowest, union.highest) != (self.extremes.lowest, self.extremes.highest):
            exponent = bin_width_exponent(union.lowest, union.highest)
            first = _bin(union.lowest, exponent)
            counts = np.zeros(_bin(union.highest, exponent) - first + 1, dtype=np.int64)
            if exponent == self.exponent:
                counts[self.first - first :][: self.counts.size] = self.counts
            else:
                numbers = np.arange(self.first, self.first + self.counts.size)
                halvings = min(exponent - self.exponent, 63)
                np.add.at(counts, np.sign(numbers) * (np.abs(numbers) >> halvings) - first, self.counts)
            self.exponent, self.first, self.counts = exponent, first, counts
        self.extremes = union

    def _count(self, chunk: Array, scratch: Scratch) -> None:
        index = scratch.index[: chunk.size]
        scale = np.float32(math.ldexp(1.0, -self.exponent))
        # The conversion to int32 cuts toward zero. Every index lies in `counts`: scaling is monotone, and the extremes
        # of the chunk lie there.
        np.multiply(chunk, scale, out=index, dtype=np.float32, casting="unsafe")
        np.subtract(index, np.int32(self.first), out=index)
        if chunk.size <= _FEW:
            np.add.at(self.counts, index, 1)
        else:
            self.counts += scratch.count(chunk.size)[: self.counts.size]


def rebin(histogram: Histogram, edges: Array, *, absolute: bool = False) -> Counts:
    """Counts `(len(edges) - 1,) int64` of the values, or of their absolute values, between the edges of other bins.

    All values must lie between the outer edges. The count below an edge is exact where the edge lies among the values
    of the tail or is that of a bin; where it falls inside a bin, the values of this one bin are taken as evenly spread.
    So a quantile's place among the edges is exact unless an edge falls inside the very bin that holds the quantile,
    and otherwise at most one off, as long as the bins here are the narrower ones.

    Args:
        histogram: with at least one value.
        edges: `(number + 1,)` in ascending order; the last is inclusive, as for `numpy.histogram`.
        absolute: count absolute values.
    """
    if histogram.extremes is None:
        raise ValueError("a histogram without values has no counts")
    numbers = np.arange(histogram.first, histogram.first + histogram.counts.size)
    counts = histogram.counts
    lowest, highest = histogram.extremes.lowest, histogram.extremes.highest
    if absolute:
        lowest, highest = histogram.extremes.nearest, max(-lowest, highest)
        folded = np.zeros(int(np.abs(numbers[[0, -1]]).max()) + 1, dtype=np.int64)
        np.add.at(folded, np.abs(numbers), counts)
        start = _bin(lowest, histogram.exponent)
        numbers, counts = np.arange(start, folded.size), folded[start:]
    lower = np.ldexp((numbers - (numbers <= 0)).astype(np.float64), histogram.exponent)
    bounds: Edges = np.append(lower, highest)
    bounds[0] = lowest
    wanted = edges.astype(np.float64)
    total = int(counts.sum())
    below = np.where(wanted <= lowest, 0, np.rint(np.interp(wanted, bounds, np.append(0, np.cumsum(counts)))))
    below[-1] = total
    known = histogram.tail.below(wanted, total, absolute)
    known[-1] = total
    # What is taken as spread may be no less than what is known below it, and no more than what is known above it.
    least = np.maximum.accumulate(np.maximum(known, 0))
    most = np.minimum.accumulate(np.where(known < 0, total, known)[::-1])[::-1]
    whole: Counts = np.clip(below, least, most).astype(np.int64)
    return whole[1:] - whole[:-1]
