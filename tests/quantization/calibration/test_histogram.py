"""Counting is exact and independent of the order of the values, and so are the counts in other bins."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchcard.quantization.calibration import histogram
from benchcard.quantization.calibration import histogram as histograms
from benchcard.quantization.calibration.histogram import Extremes, Histogram, Scratch, extremes, rebin

FLOATS = st.one_of(
    st.floats(-4, 4, width=32, allow_subnormal=False),
    st.floats(-(2.0**60), 2.0**60, width=32, allow_subnormal=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 1.0 + 2.0**-23, 2.0**-126, float(np.finfo(np.float32).max)]),
)
STREAMS = st.lists(arrays(np.float32, st.integers(1, 40), elements=FLOATS), min_size=1, max_size=6)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bins, short chunks and rows, and a short tail, so that a few values make bins merge and cross all of them."""
    monkeypatch.setattr(histograms, "BINS", 32)
    monkeypatch.setattr(histograms, "_CHUNK", 16)
    monkeypatch.setattr(histograms, "_FEW", 4)
    monkeypatch.setattr(histograms, "ROW", 3)
    monkeypatch.setattr(histogram, "ROW", 3)
    monkeypatch.setattr(histogram, "TAIL_SIZE", 6)


def counted(stream: list[np.ndarray]) -> Histogram:
    made, scratch = Histogram(), Scratch()
    for part in stream:
        made.add(part, scratch)
    return made


def state(made: Histogram) -> tuple[Any, ...]:
    made.tail.trim()
    kept = np.sort(made.tail.values).tolist()
    return made.extremes, made.exponent, made.first, made.counts.tolist(), made.tail.floor, kept


# The fixture only sets constants, the same for every example.
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stream=STREAMS, random=st.randoms(use_true_random=False))
def test_a_histogram_does_not_depend_on_the_order(small, stream, random):
    """Whatever the order and the split of the values, the histogram is that of all of them at once."""
    whole = np.concatenate(stream)
    made = counted(stream)
    shuffled = whole.tolist()
    random.shuffle(shuffled)
    assert state(made) == state(counted([whole])) == state(counted([np.array(shuffled, dtype=np.float32)]))
    numbers, counts = np.unique(np.trunc(np.ldexp(whole.astype(np.float64), -made.exponent)), return_counts=True)
    assert {int(n): int(c) for n, c in zip(numbers, counts)} == {
        made.first + place: count for place, count in enumerate(made.counts.tolist()) if count
    }
    larger = [int(np.count_nonzero(np.abs(whole) > floor)) for floor in (0, *np.abs(whole))]
    floors = [float(floor) for floor, count in zip((0, *np.abs(whole)), larger) if count <= 6]
    assert made.tail.floor == min(floors)
    assert np.sort(made.tail.values).tolist() == np.sort(whole[np.abs(whole) > made.tail.floor]).tolist()
    assert made.counts.size <= 32
    assert made.counts[0]
    assert made.counts[-1]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stream=STREAMS, absolute=st.booleans(), number=st.integers(1, 20))
def test_counts_in_other_bins_are_exact_to_one_bin(small, stream, absolute, number):
    """The count below every edge is that of the values below it, give or take the one bin that the edge cuts."""
    values = np.concatenate(stream).astype(np.float64)
    made = counted(stream)
    made.tail.trim()
    values = np.abs(values) if absolute else values
    edges = np.linspace(values.min(), values.max(), number + 1)
    got = np.concatenate([[0], np.cumsum(rebin(made, edges, absolute=absolute))])
    assert got[-1] == values.size
    assert np.all(np.diff(got) >= 0)
    width = math.ldexp(1, made.exponent)
    for edge, below in zip(edges[1:-1], got[1:-1]):
        # The middle bin is twice as wide: its values may be on either side of zero.
        assert np.count_nonzero(values < edge - 2 * width) <= below <= np.count_nonzero(values <= edge + 2 * width)
        if edge > made.tail.floor or (edge <= -made.tail.floor and not absolute):
            assert below == np.count_nonzero(values < edge)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@given(data=st.data())
def test_extremes_are_those_of_numpy(dtype, data):
    """Least, greatest and nearest value, found in the bits, are the ones found by comparing."""
    width = 8 * np.dtype(dtype).itemsize
    finite = st.floats(width=width, allow_nan=False, allow_infinity=False)
    values = data.draw(arrays(dtype, st.tuples(st.integers(1, 3), st.integers(1, 5)), elements=finite))
    bounds, peaks = extremes(values)
    assert bounds == Extremes(float(values.min()), float(values.max()), float(np.abs(values).min()))
    assert peaks.tolist() == [np.abs(values).max()]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("size", [1, 511, 512, 513, 2048, 3000])
def test_each_row_has_its_largest_magnitude(dtype, size):
    """Rows of negative, positive and mixed values, and a shorter last row."""
    values = np.random.default_rng(size).standard_normal(size).astype(dtype)
    values[512:1024] = -np.abs(values[512:1024])
    values[1024:1536] = np.abs(values[1024:1536])
    assert extremes(values)[1].tolist() == [np.abs(values[at : at + 512]).max() for at in range(0, size, 512)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("others", [[], [1.0], [-1.0], [1.0, -1.0], [0.0], [-0.0]])
def test_extremes_show_what_is_not_finite(dtype, bad, others):
    """No sign of the other values hides a NaN or an infinity."""
    assert not extremes(np.array([*others, bad, *others], dtype=dtype))[0].is_finite
    assert Extremes(-1.0, 1.0, 0.5).is_finite


def test_a_large_tensor_is_counted_in_chunks():
    """More values than fit into the scratch memory at once are all counted."""
    values = np.random.default_rng(0).standard_normal((3, 500_001)).astype(np.float32)
    made = counted([values])
    assert made.counts.sum() == values.size
    exact = np.trunc(np.ldexp(values.astype(np.float64), -made.exponent)).astype(np.int64).ravel() - made.first
    assert np.array_equal(made.counts, np.bincount(exact, minlength=made.counts.size))
    assert histograms.BINS / 2 < made.counts.size <= histograms.BINS


def test_the_largest_values_are_kept_as_they_are():
    """Of more values than fit, exactly those above the floor are kept."""
    values = np.random.default_rng(1).standard_normal((5, 700_001)).astype(np.float32)
    made = counted(list(values))
    made.tail.trim()
    ordered = np.sort(np.abs(values), axis=None)
    assert made.tail.floor == ordered[-histogram.TAIL_SIZE - 1]
    assert np.array_equal(np.sort(np.abs(made.tail.values)), ordered[-histogram.TAIL_SIZE :])


def test_of_equal_values_all_are_kept_or_none():
    """Of a tensor that is cut at a bound, as by Relu6, the many largest are not kept; greater ones that follow are."""
    bound = np.minimum(np.abs(np.random.default_rng(2).standard_normal(50_000)), 1).astype(np.float32)
    made = counted([bound, np.array([3.0, -7.0], dtype=np.float32), bound])
    made.tail.trim()
    assert made.tail.floor == 1
    assert sorted(made.tail.values.tolist()) == [-7.0, 3.0]


def test_exact_counts_bound_interpolated_ones():
    """Several edges in one bin of the histogram, of which some lie among the values that are kept."""
    made = Histogram()
    values = np.array([-5.0, 5.0002, *[5.00046] * 2047, 5.1], dtype=np.float32)
    made.add(values, Scratch())
    made.tail.trim()
    edges = np.linspace(5.0, 5.1, 2049)
    below = np.append(0, np.cumsum(rebin(made, edges, absolute=True)))
    known = edges > made.tail.floor
    assert np.count_nonzero(known) > 2000
    assert np.array_equal(below[known][:-1], [np.count_nonzero(np.abs(values) < edge) for edge in edges[known][:-1]])
    assert np.all(np.diff(below) >= 0)
