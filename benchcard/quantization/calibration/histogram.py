"""Histograms of streams of floats: equal bins whose width is a power of two, over a range that grows with the values.

Owns the arithmetic of one tensor's values: bins, extremes, the largest values, and the counts in the bins of another
histogram. It knows nothing of graphs, files or calibration methods; `collect` fills it and `ranges` reads it.

A single pass does not know the range of all samples in advance. So the width of the bins is `2**exponent`, and bin `j`
holds the values whose quotient by the width is `j` when cut toward zero:

    j < 0: ((j - 1) * width, j * width]        j = 0: (-width, width)        j > 0: [j * width, (j + 1) * width)

A quotient by a power of two is exact, and so is halving `j` when the width doubles: the histogram depends neither on
the order of the values nor on how they are split. The width is the least one for which the values span at most `BINS`
bins, so more than half of `BINS` are in use, unless the values have fewer distinct magnitudes than that or differ by
less than the precision of float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import sparse

# float16 or float32.
Array = npt.NDArray[np.generic]
Values = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]
Edges = npt.NDArray[np.float64]

# Bins at most for one tensor. At least half of them are in use: 4 to 16 for one of the 2048 of onnxruntime's.
BINS = 1 << 15
# Values kept at most in the tail: as many as there are beyond 99.999 % of 200 million, or 99.9 % of 2 million.
TAIL_SIZE = 1 << 11
# Values in a row of the tail's look-up: where the largest of a row is not kept, none of the row is looked at.
ROW = 1 << 9
# The exponent of the least normal float32: below it the scale 1 / width would overflow.
_LEAST_EXPONENT = -126
# Significant bits of a float32; bins finer than the spacing of the largest value would tell nothing more.
_MANTISSA_BITS = 24
# Values that are counted at once: 8 MB of scratch memory, and few calls for a large tensor.
_CHUNK = 1 << 20
# Up to this number of values, counting one by one is faster than a pass over all bins.
_FEW = 1 << 12


@dataclass(frozen=True)
class Extremes:
    """The values that bound an array of floats; `nearest` is the least absolute value."""

    lowest: float
    highest: float
    nearest: float

    @property
    def is_finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        return math.isfinite(self.lowest) and math.isfinite(self.highest)

    def union(self, other: Extremes) -> Extremes:
        """Return the extremes of both arrays together."""
        return Extremes(
            min(self.lowest, other.lowest), max(self.highest, other.highest), min(self.nearest, other.nearest)
        )


def extremes(values: Array) -> tuple[Extremes, Array]:
    """Return the exact extremes of the values, and the largest magnitude of each `ROW` of them, `(ceil(size / ROW),)`.

    The values are contiguous and not empty. A NaN shows as NaN or as an infinity in `lowest` or `highest`.
    """
    # Without their sign bit floats order as integers do. Read as signed, negative floats come first and the one nearest
    # to zero is the least; read as unsigned they come last and the lowest float is the greatest. So four integer
    # reductions give the extremes and the least magnitude, with no array of absolute values in between.
    signed, unsigned = (values.reshape(-1).view(f"{kind}{values.itemsize}") for kind in "iu")
    rows = np.arange(0, values.size, ROW)
    lasts, greatests = np.maximum.reduceat(signed, rows), np.maximum.reduceat(unsigned, rows)
    # The greater of the two has the greatest magnitude, whether a row has positive floats, negative ones, or both.
    peaks = np.maximum(np.abs(lasts.view(values.dtype)), np.abs(greatests.view(values.dtype)))
    first, last, least, greatest = (
        float(bits.view(values.dtype)) for bits in (signed.min(), lasts.max(), unsigned.min(), greatests.max())
    )
    if math.copysign(1, first) > 0:  # all are positive
        return Extremes(first, last, first), peaks
    if math.copysign(1, last) < 0:  # all are negative
        return Extremes(greatest, first, -first), peaks
    return Extremes(greatest, last, min(-first, least)), peaks


def bin_width_exponent(lowest: float, highest: float) -> int:
    """Return the exponent of the bin width for this range: the least for which it spans at most `BINS` bins.

    It never falls when the range grows, which is what makes a growing histogram equal to one made at once.
    """
    largest = max(-lowest, highest)
    exponent = max(math.frexp(largest)[1] - _MANTISSA_BITS, _LEAST_EXPONENT) if largest else _LEAST_EXPONENT
    if highest > lowest:
        exponent = max(exponent, math.frexp((highest - lowest) / BINS)[1] - 1)
    while _bin(highest, exponent) - _bin(lowest, exponent) >= BINS:
        exponent += 1
    return exponent


def _bin(value: float, exponent: int) -> int:
    return int(math.ldexp(value, -exponent))


@dataclass
class Tail:
    """Every value whose magnitude is greater than `floor`, and no other: at most `TAIL_SIZE` of them after `trim`.

    The floor is the least one for which that holds, 0 where all values fit. So the tail does not depend on the order of
    the values or on how they are split: of equally large values, all are kept or none. `values` are unordered.
    """

    values: Values = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    floor: float = 0.0

    def add(self, values: Array, peaks: Array) -> None:
        """Keep those of finite `values`, `(number,)`, that belong to the tail.

        `peaks`, `(rows,)`, is the largest magnitude of each `ROW` values; the last row may be shorter.
        """
        above = np.greater(peaks, self.floor)
        if not above.any():
            return
        full_rows = values.size // ROW
        rows = values[: full_rows * ROW].reshape(-1, ROW)[above[:full_rows]]
        candidates = np.concatenate([rows.ravel(), values[full_rows * ROW :]])
        self.values = np.concatenate([self.values, candidates[np.abs(candidates) > self.floor].astype(np.float32)])
        # Not for every few values too many: the cost of finding those does not depend on their number.
        if self.values.size > 2 * TAIL_SIZE:
            self.trim()

    def trim(self) -> None:
        """Drop the smallest values where there are more than `TAIL_SIZE`."""
        if self.values.size > TAIL_SIZE:
            magnitudes = np.abs(self.values)
            self.floor = float(np.partition(magnitudes, -TAIL_SIZE - 1)[-TAIL_SIZE - 1])
            self.values = self.values[magnitudes > self.floor]

    def count_below(self, edges: Edges, total: int, absolute: bool) -> Counts:
        """Return how many of all `total` values, or absolute values, are less than each edge; -1 where not known."""
        ordered = np.sort(np.abs(self.values) if absolute else self.values)
        before = np.searchsorted(ordered, edges)
        # The values that are not kept lie from -floor to floor.
        dropped = total - ordered.size
        counts = np.where(edges > self.floor, dropped + before, -1)
        return counts if absolute else np.where(edges <= -self.floor, before, counts)


class Scratch:
    """Memory for counting that the histograms of one thread share, so that a tensor costs no allocation of its size.

    `column` is sparse `(BINS, 1) int32` with a 1 for each value of a chunk, in the row of the value's bin. `index`,
    `(_CHUNK,) int32`, holds these rows and is written before `count`.
    """

    def __init__(self) -> None:
        ones, rows, stops = np.ones(_CHUNK, np.int32), np.zeros(_CHUNK, np.int32), np.array([0, _CHUNK], np.int32)
        self.column = sparse.csc_array((ones, rows, stops), shape=(BINS, 1))
        self.index: npt.NDArray[np.int32] = self.column.indices

    def count(self, size: int) -> npt.NDArray[np.int32]:
        """Return how often each number below `BINS` occurs in `index[:size]`: `(BINS,) int32`."""
        # A product with the vector [1] adds up the ones of each row, which counts them. It takes 0.8 ns a value;
        # np.bincount takes more than twice that, since it casts to int64 and searches the extremes first.
        self.column.indptr[1] = size
        counts: npt.NDArray[np.int32] = self.column @ self.column.data[:1]
        return counts


@dataclass
class Histogram:
    """Counts of all the values added so far, in at most `BINS` bins, their extremes, and the largest of them.

    The bins are `2**exponent` wide, and `first` is the number of the bin that `counts[0]` counts. The first and the
    last of `counts`, `(bins,) int64`, hold the lowest and the highest value. Before any value the extremes are zeros.
    """

    extremes: Extremes = Extremes(0.0, 0.0, 0.0)
    exponent: int = _LEAST_EXPONENT
    first: int = 0
    counts: Counts = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    tail: Tail = field(default_factory=Tail)

    def add(self, values: Array, scratch: Scratch) -> Extremes | None:
        """Count the values, of any shape, and return their extremes; None where there are none.

        A chunk with a NaN or an infinity is not counted, and the histogram is of no use after it. `scratch` is that of
        the calling thread.
        """
        flat = np.ascontiguousarray(values).reshape(-1)
        total: Extremes | None = None
        for start in range(0, flat.size, _CHUNK):
            chunk = flat[start : start + _CHUNK]
            bounds, peaks = extremes(chunk)
            total = bounds if total is None else total.union(bounds)
            if not bounds.is_finite:
                # Not `total`: no comparison with NaN is true, so union() might drop it.
                return bounds
            self._cover(bounds)
            self._count(chunk, scratch)
            self.tail.add(chunk, peaks)
        return total

    def _cover(self, bounds: Extremes) -> None:
        """Extend the bins over these values without loss: bins are only moved, or merged by powers of two."""
        union = self.extremes.union(bounds) if self.counts.size else bounds
        if not self.counts.size or (union.lowest, union.highest) != (self.extremes.lowest, self.extremes.highest):
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
        # The conversion to int32 cuts toward zero. All indices lie in `counts`, as those of the chunk's extremes do.
        np.multiply(chunk, scale, out=index, dtype=np.float32, casting="unsafe")
        np.subtract(index, np.int32(self.first), out=index)
        if chunk.size <= _FEW:
            np.add.at(self.counts, index, 1)
        else:
            self.counts += scratch.count(chunk.size)[: self.counts.size]


def rebin(histogram: Histogram, edges: Array, *, absolute: bool = False) -> Counts:
    """Return the counts `(len(edges) - 1,) int64` of the values, or of their absolute values, between other edges.

    All values must lie between the outer edges, which ascend; the last one is inclusive, as for `numpy.histogram`. The
    count below an edge is exact where the edge lies among the values of the tail or is that of a bin; where it falls
    inside a bin, the values of this one bin are taken as evenly spread. So a quantile's place among the edges is exact
    unless an edge falls inside the very bin that holds the quantile, and otherwise at most one off, as long as the bins
    here are the narrower ones.
    """
    _, below, _ = counts_below(histogram, edges, absolute=absolute)
    rebinned: Counts = below[1:] - below[:-1]
    return rebinned


def counts_below(histogram: Histogram, edges: Array, *, absolute: bool = False) -> tuple[Counts, Counts, Counts]:
    """Return the least, the likely and the greatest number of values below each of the edges of `rebin`."""
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
    new_edges = edges.astype(np.float64)
    total = int(counts.sum())
    before = np.append(0, np.cumsum(counts))
    below = np.where(new_edges <= lowest, 0, np.rint(np.interp(new_edges, bounds, before)))
    below[-1] = total
    exact = histogram.tail.count_below(new_edges, total, absolute)
    exact[-1] = total
    # A count that assumes an even spread lies between the exact counts before and after it.
    least = np.maximum.accumulate(np.maximum(exact, 0))
    most = np.minimum.accumulate(np.where(exact < 0, total, exact)[::-1])[::-1]
    below = np.clip(below, least, most).astype(np.int64)
    # The bounds next to an edge, on both sides of it, also bound the count.
    inner = before[np.maximum(np.searchsorted(bounds, new_edges) - 1, 0)]
    outer = before[np.minimum(np.searchsorted(bounds, new_edges, side="right"), counts.size)]
    outer[new_edges <= lowest] = 0
    outer[-1] = total
    return np.maximum(least, inner), below, np.minimum(most, outer)
