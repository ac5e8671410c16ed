"""Ranges of activations from the statistics of one calibration pass, for every method, in onnxruntime's own form.

Owns what a calibration method means, and the step from statistics to onnxruntime's `TensorsData`. `calibrate` collects
the statistics, `activations` stores them; onnxruntime's quantizer turns ranges into scales and zero points.

How the ranges agree with those that onnxruntime's own calibrators give for the same samples at once:

- `minmax`, also symmetric and as a moving average: to the bit. The extremes of every sample are kept as they are, and
  the arithmetic on them is onnxruntime's, in the same precision and order.
- `entropy` with onnxruntime's own 128 bins: to the bit. They leave one candidate threshold, the largest magnitude. With
  more bins the candidates' divergences are computed from counts that differ by those values that lie in a bin of
  `histogram` across an edge; where two candidates are nearly as good, the other one may win.
- `distribution`: the lowest and highest edge to the bit; mean and standard deviation, which only float8 uses, to a
  fraction of a bin.
- `percentile`: to the bit where the range ends among the values that `tail` keeps as they are, which are at most the
  2048 that are largest in magnitude: so the default, 99.999 %, of up to 200 million values, but for the first of the
  exceptions below. Elsewhere to the bit, or one bin of onnxruntime's histogram off. The edges are onnxruntime's to the
  bit, and so is the one chosen (in about 97 of 100 tensors) unless an edge falls inside the very bin of `histogram`
  that holds the percentile: then its neighbour may be chosen. That is one bin of 2048: less than 0.05 % of the range.

The bound of one bin has two exceptions. Where the share of values to keep is a whole number of values, any place
between two values is the percentile; rounding in onnxruntime's cumulative sum decides which end of the empty bins
between them it takes, and may decide otherwise for counts that differ in one bin. And where absolute values lie in a
narrow band far from zero on both sides of it (as +-5.000 to +-5.001), onnxruntime's bins are narrower than those of
`histogram`, of which one is the bound: at most 1/16384 of the range.

The counts go through onnxruntime's own `HistogramCollector`, so a later version's thresholds follow by themselves.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchcard.errors import Mistake, SpecError
from benchcard.quantization.calibration.histogram import Array, Histogram, rebin
from benchcard.quantization.calibration.statistics import ActivationStatistics

METHODS = ("minmax", "percentile", "entropy", "distribution")

_BINS = {"percentile": 2048, "entropy": 128, "distribution": 2048}
"""Source: onnxruntime.quantization.calibrate.create_calibrator, the defaults of each method."""

_QUANTIZED_BINS = 128
"""Source: onnxruntime.quantization.calibrate.create_calibrator, `num_quantized_bins` of the entropy method."""

_FEWEST_BINS = {"percentile": 2, "entropy": _QUANTIZED_BINS, "distribution": 512}
"""Source: onnxruntime.quantization.calibrate, what its calibrators check or divide by."""

_MOST_BINS = 4096
"""Half as many as `histogram` has at least over a range of values or absolute values: its bins are narrower then."""


@dataclass(frozen=True)
class Method:
    """How a range is chosen from the values that a tensor took.

    Attributes:
        method: `minmax`, `percentile`, `entropy` or `distribution`.
        percentile: of the values to keep, 0 to 100; for `percentile`. Default: onnxruntime's.
        moving_average: for `minmax`, average the extremes of the samples instead of taking the extremes of all.
        moving_average_constant: weight of each further sample in an exponential average, 0 to 1, in the order of the
            samples: what onnxruntime gives when it is fed sample by sample. None averages all samples alike, which is
            what onnxruntime gives when it is fed all samples at once, whatever its constant.
        symmetric: take one threshold for both ends, from absolute values. None leaves it to onnxruntime's default for
            the method: true for `percentile`, false otherwise. As in onnxruntime, `percentile` then cuts each end at
            the least and greatest value, and it means nothing to `entropy` and `distribution`.
        num_bins: of the histogram; None for onnxruntime's default for the method.

    Raises:
        SpecError: a value that no calibrator would take, all of them at once.
    """

    method: str = "minmax"
    percentile: float = 99.999
    moving_average: bool = False
    moving_average_constant: float | None = None
    symmetric: bool | None = None
    num_bins: int | None = None

    def __post_init__(self) -> None:
        constant = self.moving_average_constant
        fewest = _FEWEST_BINS.get(self.method, 2)
        checks = (
            (self.method in METHODS, "method", self.method, f"one of {', '.join(METHODS)}"),
            (0 <= self.percentile <= 100, "calibration_histogram_percentile", self.percentile, "0 to 100"),
            (constant is None or 0 <= constant <= 1, "calibration_moving_average_constant", constant, "0 to 1"),
            (
                self.num_bins is None or fewest <= self.num_bins <= _MOST_BINS,
                "num_bins",
                self.num_bins,
                f"{fewest} to {_MOST_BINS}",
            ),
        )
        mistakes = [
            Mistake(f"$.calibration.{name}", repr(found), what) for good, name, found, what in checks if not good
        ]
        if mistakes:
            raise SpecError(mistakes)

    @property
    def is_symmetric(self) -> bool:
        """True where one threshold, of absolute values, makes both ends."""
        return self.method == "percentile" if self.symmetric is None else self.symmetric


def compute_ranges(
    statistics: ActivationStatistics | Path, method: Method, operators: Sequence[str] | None = None
) -> Any:
    """Ranges by tensor, as an `onnxruntime.quantization.calibrate.TensorsData`; NaN where a value was NaN or infinite.

    Args:
        statistics: what `calibrate.collect` wrote, or the same already read.
        method: how a range is chosen.
        operators: give the tensors that onnxruntime would calibrate for these operators; None gives all.

    Raises:
        ArtifactError: the file is not one of statistics, or holds none for these operators.
    """
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    known = statistics if isinstance(statistics, ActivationStatistics) else ActivationStatistics.load(statistics)
    tensors = known.select(operators)
    choose = _extreme_ranges if method.method == "minmax" else _histogram_ranges
    places = set(tensors.values())
    endless = {place for place in places if not np.isfinite(known.sample_extremes[:, :, place]).all()}
    chosen = choose(known, method, sorted(places - endless)) | dict.fromkeys(endless, _non_finite())
    names = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy", "distribution": "Distribution"}
    return TensorsData(
        CalibrationMethod[names[method.method]], {tensor: chosen[place] for tensor, place in tensors.items()}
    )


def write_cache(
    statistics: ActivationStatistics | Path, method: Method, target: Path, operators: Sequence[str] | None = None
) -> None:
    """Write the ranges as a calibration cache, for `quantize_static(..., calibration_cache_path=target)`.

    Args:
        statistics: as for `ranges`.
        method: as for `ranges`.
        target: JSON file to write.
        operators: as for `ranges`: give the `op_types_to_quantize` of the same call, so that the quantizer sees the
            tensors that its own calibration would have given it, and no other.

    Raises:
        ArtifactError: as for `ranges`.
    """
    from onnxruntime.quantization.calibrate import save_tensors_data

    save_tensors_data(compute_ranges(statistics, method, operators), target)


def _non_finite() -> Any:
    from onnxruntime.quantization.calibrate import TensorData

    return TensorData(lowest=np.float32(np.nan), highest=np.float32(np.nan))


def _extreme_ranges(known: ActivationStatistics, method: Method, places: Sequence[int]) -> dict[int, Any]:
    """Ranges `(1,)` by histogram, with the arithmetic of onnxruntime's MinMaxCalibrater."""
    from onnxruntime.quantization.calibrate import TensorData

    chosen = {}
    for place in places:
        lows, highs = (
            np.ascontiguousarray(known.sample_extremes[:, side, place]).astype(known.dtypes[place]).reshape(-1, 1)
            for side in (0, 1)
        )
        one_by_one = method.moving_average and method.moving_average_constant is not None
        if not one_by_one:
            average = method.moving_average
            lows = np.nanmean(lows, axis=0, keepdims=True) if average else lows.min(axis=0, keepdims=True)
            highs = np.nanmean(highs, axis=0, keepdims=True) if average else highs.max(axis=0, keepdims=True)
        if method.is_symmetric:
            highs = np.maximum(np.abs(lows), np.abs(highs))
            lows = -highs
        low, high = lows[0], highs[0]
        for next_low, next_high in zip(lows[1:], highs[1:]):
            low = low + method.moving_average_constant * (next_low - low)
            high = high + method.moving_average_constant * (next_high - high)
        chosen[place] = TensorData(lowest=low, highest=high)
    return chosen


def _histogram_ranges(known: ActivationStatistics, method: Method, places: Sequence[int]) -> dict[int, Any]:
    """Ranges by histogram, as onnxruntime's HistogramCollector computes them from its own histograms."""
    from onnxruntime.quantization.calibrate import HistogramCollector, TensorData

    bins = method.num_bins or _BINS[method.method]
    collector = HistogramCollector(
        method=method.method,
        symmetric=method.is_symmetric,
        num_bins=bins,
        num_quantized_bins=_QUANTIZED_BINS,
        percentile=method.percentile,
        scenario="same",
    )
    chosen = {}
    for place in places:
        histogram, dtype = known.histograms[place], np.dtype(known.dtypes[place])
        if histogram.extremes is None:
            # No sample had a value here (an axis of length zero): onnxruntime's calibrators take 0 for its extremes.
            chosen[place] = TensorData(lowest=dtype.type(0), highest=dtype.type(0))
        else:
            absolute = method.method == "percentile" and method.is_symmetric
            collector.histogram_dict[place] = _as_onnxruntime(histogram, dtype, bins, absolute=absolute)
    if collector.histogram_dict:
        # The collector prints, and the mean and deviation that it takes for `distribution` may over- or underflow.
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            chosen |= collector.compute_collection_result()
    return chosen


def _as_onnxruntime(histogram: Histogram, dtype: np.dtype[Any], bins: int, *, absolute: bool) -> tuple[Any, ...]:
    """Counts, edges, least and greatest value as `HistogramCollector` holds them, with its edges to the bit."""
    bounds = histogram.extremes
    if bounds is None:
        raise ValueError("a histogram without values has no edges")
    largest = max(-bounds.lowest, bounds.highest)
    outer = np.array([bounds.nearest if absolute else -largest, largest], dtype=dtype)
    edges = _edges(outer, bins)
    return rebin(histogram, edges, absolute=absolute), edges, dtype.type(bounds.lowest), dtype.type(bounds.highest)


def _edges(outer: Array, bins: int) -> Array:
    """Edges `(bins + 1,)` of equal bins from the first to the second of `outer`, in its type."""
    # In another type the edges would not be onnxruntime's.
    with np.errstate(over="ignore", invalid="ignore"), contextlib.suppress(ValueError):
        edges = np.histogram_bin_edges(outer, bins, range=(outer[0], outer[1]))
        if np.isfinite(edges).all():
            return edges
    # The outer edges are so far apart (a mask with the least float) or so close that the type has not got the edges
    # between them. Here onnxruntime's calibrators fail.
    return np.linspace(float(outer[0]), float(outer[1]), bins + 1).astype(outer.dtype)
