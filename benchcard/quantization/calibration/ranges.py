"""Ranges of activations from the statistics of one calibration pass, for every method, in onnxruntime's own form.

Owns what a calibration method means. `collect` gathers the statistics, `statistics` stores them; the quantizer turns
ranges into scales and zero points. How the ranges agree with those of onnxruntime's own calibrators:

- `minmax`, also symmetric and as a moving average: bit for bit. The extremes of every sample are stored, and the
  arithmetic on them is onnxruntime's, in the same precision and order.
- `entropy` with onnxruntime's default of 128 bins: bit for bit, since these leave one candidate threshold, the largest
  magnitude. With more bins, counts may differ by the values of one bin of `histogram`, so another of two candidates
  that are nearly as good may be chosen.
- `distribution`: the lowest and highest edge bit for bit; mean and standard deviation, which only float8 uses, to a
  fraction of a bin.
- `percentile`: bit for bit where the range ends among the 2048 values that are largest in magnitude (the tail): so for
  the default, 99.999 %, of up to 200 million values. Elsewhere bit for bit (about 97 of 100 tensors) or one bin of
  onnxruntime's histogram off, less than 0.05 % of the range. There are two exceptions:
  - Where the share of values to keep is a whole number of values, any place between two values is the percentile.
    Rounding in onnxruntime's cumulative sum decides which end of the empty bins it takes, maybe otherwise than here.
  - Where absolute values lie in a narrow band far from zero on both sides of it (as +-5.000 to +-5.001), the bins of
    `histogram` are the wider ones, and the range may be off by one of them: at most 1/16384 of the range.

The counts go through onnxruntime's own `HistogramCollector`, so a later version's thresholds follow without a change.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxruntime.quantization.calibrate import CalibrationMethod, HistogramCollector, TensorData, TensorsData

from benchcard.quantization.calibration.histogram import Array, Counts, Histogram, counts_below, rebin
from benchcard.quantization.calibration.statistics import ActivationStatistics

# onnxruntime's names of the methods.
NAMES = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy", "distribution": "Distribution"}
# Source: onnxruntime.quantization.calibrate.create_calibrator, the defaults of each method.
_DEFAULT_BINS = {"percentile": 2048, "entropy": 128, "distribution": 2048}
# Source: onnxruntime.quantization.calibrate.create_calibrator, `num_quantized_bins` of the entropy method.
_QUANTIZED_BINS = 128
# Twice the rounding error of a cumulative sum of 2048 shares is below it.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Method:
    """How a range is chosen from the values that a tensor took.

    Attributes:
        method: `minmax`, `percentile`, `entropy` or `distribution`.
        percentile: Share of the values to keep, 0 to 100, for `percentile`. The default is onnxruntime's.
        moving_average: For `minmax`: average the extremes of the samples instead of taking the extremes of all.
        moving_average_constant: Weight of each further sample in an exponential average, 0 to 1, as in onnxruntime when
            it is fed sample by sample. None averages all alike, as in onnxruntime when it is fed all samples at once.
        symmetric: Take one threshold for both ends, from absolute values. None is onnxruntime's default for the method:
            true for `percentile`, false otherwise. As in onnxruntime, `percentile` then cuts each end at the least and
            greatest value, and `entropy` and `distribution` ignore it.
        num_bins: Bins of the histogram; None for onnxruntime's default for the method. Up to 4096, the bins of
            `histogram` are narrower.
    """

    method: str = "minmax"
    percentile: float = 99.999
    moving_average: bool = False
    moving_average_constant: float | None = None
    symmetric: bool | None = None
    num_bins: int | None = None

    @property
    def averages_in_turn(self) -> bool:
        """Whether the samples count one after the other, in an exponential average."""
        return self.method == "minmax" and self.moving_average and self.moving_average_constant is not None

    @property
    def is_symmetric(self) -> bool:
        """Whether one threshold, from absolute values, gives both ends."""
        return self.method == "percentile" if self.symmetric is None else self.symmetric

    @property
    def counts_absolute(self) -> bool:
        """Whether onnxruntime's histogram is one of absolute values."""
        return self.method == "percentile" and self.is_symmetric

    @property
    def bins(self) -> int:
        """The bins of the histogram."""
        return self.num_bins or _DEFAULT_BINS[self.method]


def compute_ranges(
    statistics: ActivationStatistics | Path, method: Method, operators: Sequence[str] | None = None
) -> TensorsData:
    """Return the ranges by tensor in onnxruntime's form; NaN for a tensor with a NaN or infinite value.

    `statistics` may be the file that `collect_statistics` wrote. The tensors are those that onnxruntime would calibrate
    for `operators`; all of them for None.
    """
    if not isinstance(statistics, ActivationStatistics):
        statistics = ActivationStatistics.load(statistics)
    tensors = statistics.select(operators)
    indices = sorted(set(tensors.values()))
    finite = [index for index in indices if np.isfinite(statistics.sample_extremes[:, :, index]).all()]
    compute = _minmax_ranges if method.method == "minmax" else _histogram_ranges
    no_range = TensorData(lowest=np.float32(np.nan), highest=np.float32(np.nan))
    ranges = dict.fromkeys(indices, no_range) | compute(statistics, method, finite)
    data = {tensor: ranges[index] for tensor, index in tensors.items()}
    return TensorsData(CalibrationMethod[NAMES[method.method]], data)


def are_certain(statistics: ActivationStatistics, method: Method, operators: Sequence[str] | None = None) -> bool:
    """Return whether onnxruntime's own calibrators surely give the ranges of `compute_ranges`, to the bit.

    Its histograms fail for NaN and infinite values, and for some that are very far apart or close.
    """
    indices = set(statistics.select(operators).values())
    return method.method == "minmax" or all(_is_certain(statistics, method, index) for index in indices)


def _is_certain(statistics: ActivationStatistics, method: Method, index: int) -> bool:
    """Return whether onnxruntime's histogram of a tensor surely gives the same range.

    A percentile is certain if it lies between the same two edges wherever the values lie in the bins of `histogram`.
    """
    histogram, dtype = statistics.histograms[index], np.dtype(statistics.watched.dtypes[index])
    if not histogram.counts.size or not np.isfinite(statistics.sample_extremes[:, :, index]).all():
        return False
    edges = _edges(_outer_edges(histogram, dtype, method.counts_absolute), method.bins)
    if edges is None or method.method != "percentile":
        return edges is not None
    least, _, most = counts_below(histogram, edges, absolute=method.counts_absolute)
    share = method.percentile / 100
    shares = np.array([share] if method.is_symmetric else [(1 - share) / 2, (1 + share) / 2])
    # onnxruntime takes the first bin at whose end the share of values below, a sum with rounding errors, reaches this.
    first = np.searchsorted(most[1:] / most[-1], shares - _ROUNDING)
    last = np.searchsorted(least[1:] / least[-1], shares + _ROUNDING)
    return bool((first == last).all())


def _minmax_ranges(statistics: ActivationStatistics, method: Method, indices: Sequence[int]) -> dict[int, TensorData]:
    """Return ranges `(1,)` by histogram, with the arithmetic of onnxruntime's MinMaxCalibrater."""
    constant = method.moving_average_constant if method.averages_in_turn else None
    ranges = {}
    for index in indices:
        extremes = statistics.sample_extremes[:, :, index].astype(statistics.watched.dtypes[index])
        lows, highs = (np.ascontiguousarray(extremes[:, side]).reshape(-1, 1) for side in (0, 1))
        if constant is None:
            average = method.moving_average
            lows = np.nanmean(lows, axis=0, keepdims=True) if average else lows.min(axis=0, keepdims=True)
            highs = np.nanmean(highs, axis=0, keepdims=True) if average else highs.max(axis=0, keepdims=True)
        if method.is_symmetric:
            highs = np.maximum(np.abs(lows), np.abs(highs))
            lows = -highs
        low, high = lows[0], highs[0]
        if constant is not None:
            for next_low, next_high in zip(lows[1:], highs[1:]):
                low = low + constant * (next_low - low)
                high = high + constant * (next_high - high)
        ranges[index] = TensorData(lowest=low, highest=high)
    return ranges


def _histogram_ranges(
    statistics: ActivationStatistics, method: Method, indices: Iterable[int]
) -> dict[int, TensorData]:
    """Return ranges by histogram, as onnxruntime's HistogramCollector computes them from its own histograms."""
    collector = HistogramCollector(
        method=method.method,
        symmetric=method.is_symmetric,
        num_bins=method.bins,
        num_quantized_bins=_QUANTIZED_BINS,
        percentile=method.percentile,
        scenario="same",
    )
    ranges = {}
    for index in indices:
        histogram, dtype = statistics.histograms[index], np.dtype(statistics.watched.dtypes[index])
        if not histogram.counts.size:
            # No sample had a value here (an axis of length zero): onnxruntime's calibrators take 0 for its extremes.
            ranges[index] = TensorData(lowest=dtype.type(0), highest=dtype.type(0))
        else:
            own = _onnxruntime_histogram(histogram, dtype, method.bins, method.counts_absolute)
            collector.histogram_dict[index] = own
    if collector.histogram_dict:
        # The collector prints, and the mean and deviation that it takes for `distribution` may over- or underflow.
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            ranges |= collector.compute_collection_result()
    return ranges


def _onnxruntime_histogram(
    histogram: Histogram, dtype: np.dtype[np.generic], bins: int, absolute: bool
) -> tuple[Counts, Array, np.generic, np.generic]:
    """Return counts, edges, least and greatest value as `HistogramCollector` holds them, with its edges to the bit."""
    outer = _outer_edges(histogram, dtype, absolute)
    edges = _edges(outer, bins)
    if edges is None:
        edges = np.linspace(float(outer[0]), float(outer[1]), bins + 1).astype(dtype)
    lowest, highest = np.array([histogram.extremes.lowest, histogram.extremes.highest], dtype=dtype)
    return rebin(histogram, edges, absolute=absolute), edges, lowest, highest


def _outer_edges(histogram: Histogram, dtype: np.dtype[np.generic], absolute: bool) -> Array:
    bounds = histogram.extremes
    largest = max(-bounds.lowest, bounds.highest)
    return np.array([bounds.nearest if absolute else -largest, largest], dtype=dtype)


def _edges(outer: Array, bins: int) -> Array | None:
    """Return the edges `(bins + 1,)` of equal bins from the first to the second of `outer`, in its type.

    None where the type cannot hold the edges between outer ones so far apart or so close: onnxruntime's calibrators
    fail there.
    """
    # In another type the edges would not be onnxruntime's.
    with np.errstate(over="ignore", invalid="ignore"), contextlib.suppress(ValueError):
        edges = np.histogram_bin_edges(outer, bins, range=(outer[0], outer[1]))
        return edges if np.isfinite(edges).all() else None
    return None
