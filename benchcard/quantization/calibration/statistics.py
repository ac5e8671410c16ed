"""What one calibration pass stores: the values of every tensor, counted, in one file.

Owns that file, and which tensors belong to which operators. How values are counted is left to `histogram`, where they
come from to `collect`, and what they mean for a range to `ranges`.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchcard.errors import ArtifactError
from benchcard.quantization.calibration.histogram import Extremes, Histogram, Tail

# What NumPy and zipfile raise for a file that is missing, damaged or in another format.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class WatchedTensors:
    """The tensors of a graph, in its order, whose values are counted.

    Attributes:
        histogram_of: Index of the histogram of each tensor; those with the same values in another order share one.
        dtypes: `float32` or `float16`, of each histogram.
        touches: `(tensors, operator types) bool`, which of these types read or write a tensor.
    """

    tensors: tuple[str, ...]
    histogram_of: tuple[int, ...]
    dtypes: tuple[str, ...]
    operator_types: tuple[str, ...]
    touches: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ActivationStatistics:
    """The values that every watched tensor took in one pass over the samples.

    Attributes:
        operators: Operator types that were asked for; empty where all were.
        histograms: Counts and extremes of all values, one of each distinct set of values.
        sample_extremes: `(samples, 2, histograms) float32`, least and greatest value of each sample.
    """

    watched: WatchedTensors
    operators: tuple[str, ...]
    histograms: tuple[Histogram, ...]
    sample_extremes: npt.NDArray[np.float32]

    def save(self, target: Path) -> None:
        """Write the statistics to a file, a NumPy archive; equal statistics give equal bytes."""
        watched, histograms = self.watched, self.histograms
        bounds = [histogram.extremes for histogram in histograms]
        tails = [histogram.tail for histogram in histograms]
        for tail in tails:
            tail.trim()
        counts = np.concatenate([histogram.counts for histogram in histograms])
        arrays = {
            "tensors": np.array(watched.tensors, dtype=np.str_),
            "histogram_of": np.array(watched.histogram_of, dtype=np.int64),
            "operators": np.array(self.operators, dtype=np.str_),
            "operator_types": np.array(watched.operator_types, dtype=np.str_),
            "touches": watched.touches,
            "exponent": np.array([histogram.exponent for histogram in histograms], dtype=np.int64),
            "first": np.array([histogram.first for histogram in histograms], dtype=np.int64),
            "bins": np.array([histogram.counts.size for histogram in histograms], dtype=np.int64),
            "counts": counts.astype(np.min_scalar_type(counts.max(initial=0))),
            "tail": np.concatenate([np.sort(tail.values) for tail in tails]),
            "kept": np.array([tail.values.size for tail in tails], dtype=np.int64),
            "floor": np.array([tail.floor for tail in tails], dtype=np.float32),
            "extremes": np.array([(b.lowest, b.highest, b.nearest) for b in bounds], dtype=np.float32),
            "dtypes": np.array(watched.dtypes, dtype=np.str_),
            "sample_extremes": self.sample_extremes,
        }
        # As numpy.savez_compressed, but for the level: five times as fast, and a tenth larger.
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)

    @classmethod
    def load(cls, source: Path) -> ActivationStatistics:
        """Return the statistics that `save` wrote, or raise an `ArtifactError` for a file without such statistics."""
        try:
            # Opened here, because NumPy leaves a file open that is not an archive.
            with source.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                counts = np.split(file["counts"].astype(np.int64), np.cumsum(file["bins"])[:-1])
                kept = np.split(file["tail"], np.cumsum(file["kept"])[:-1])
                tails = map(Tail, kept, file["floor"].tolist())
                bounds = (Extremes(*values) for values in file["extremes"].tolist())
                histograms = map(Histogram, bounds, file["exponent"].tolist(), file["first"].tolist(), counts, tails)
                names = ("tensors", "histogram_of", "dtypes", "operator_types")
                columns: dict[str, Any] = {name: tuple(file[name].tolist()) for name in names}
                watched = WatchedTensors(**columns, touches=file["touches"])
                return cls(watched, tuple(file["operators"].tolist()), tuple(histograms), file["sample_extremes"])
        except _UNREADABLE as error:
            raise ArtifactError(
                f"{source} cannot be read as activation statistics: {error}. Calibrate the model again."
            ) from error

    def select(self, operators: Sequence[str] | None) -> dict[str, int]:
        """Return the index in `histograms` of each tensor that onnxruntime calibrates for `operators`; None for all."""
        missing = sorted(set(operators or ()) - set(self.operators)) if self.operators else []
        if missing:
            raise ArtifactError(
                f"There are no statistics for {', '.join(missing)}: they were collected for "
                f"{', '.join(self.operators)}. Calibrate for all operators that are to be quantized."
            )
        watched = self.watched
        selected = np.isin(np.array(watched.operator_types, dtype=np.str_), list(operators or watched.operator_types))
        indices = np.flatnonzero(watched.touches[:, selected].any(axis=1))
        return {watched.tensors[index]: watched.histogram_of[index] for index in indices}
