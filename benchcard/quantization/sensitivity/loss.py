"""How far numbers are from those in float32, summed over batches: no tensor outlives its batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError

# Below this signal-to-noise ratio of its outputs a classifier's decisions begin to change; see docs/reasons.md for
# where it comes from.
FAR_DB = 20.0


@dataclass(frozen=True)
class Loss:
    """How far numbers are from those in float32.

    Attributes:
        max_abs_difference: The largest absolute difference; None where a number is not finite.
        snr_db: Power of the float numbers over power of the differences, in decibels; None where there is no
            difference, or where a number is not finite.
        is_finite: False where a quantized number is infinite or none.
    """

    max_abs_difference: float | None
    snr_db: float | None
    is_finite: bool

    @property
    def is_far(self) -> bool:
        """Whether the numbers are far from those in float32."""
        return not self.is_finite or (self.snr_db is not None and self.snr_db < FAR_DB)


class Sum:
    """Powers and the largest difference, summed over batches."""

    def __init__(self) -> None:
        self.signal = self.noise = self.largest = 0.0
        self.is_finite = True

    def add(self, expected: NDArray[Any], found: NDArray[Any], name: str) -> None:
        """Add one tensor of one batch; integers and truth values are passed over."""
        if expected.dtype.kind != "f" or not expected.size:
            return
        if not np.isfinite(expected).all():
            raise ArtifactError(
                f"The float model gives a number that is not finite in `{name}`. Check the model first."
            )
        if not np.isfinite(found).all():
            self.is_finite = False
            return
        exact = expected.astype(np.float64)
        difference = exact - found
        self.signal += float(np.vdot(exact, exact))
        self.noise += float(np.vdot(difference, difference))
        self.largest = max(self.largest, float(np.abs(difference).max()))

    def loss(self) -> Loss:
        """The sums as a loss."""
        if not self.is_finite:
            return Loss(None, None, False)
        return Loss(self.largest, decibels(self.signal, self.noise), True)


def decibels(signal: float, noise: float) -> float | None:
    """Ten times the logarithm of a ratio of powers; None where there is no noise.

    Source: ITU-T G.100.1, decibel of power; the same as `compute_signal_to_quantization_noice_ratio` of ONNX Runtime.
    """
    if noise == 0.0:
        return None
    return 10.0 * float(np.log10(max(signal, np.finfo(np.float64).tiny) / noise))
