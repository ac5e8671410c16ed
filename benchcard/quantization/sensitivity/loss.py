"""How much tensors differ from those in float32, summed over batches: no tensor outlives its batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchcard.errors import ArtifactError
from benchcard.quantization.outcomes import Loss


class LossSum:
    """Powers of signal and noise, and the largest difference, over batches."""

    def __init__(self) -> None:
        self.signal = self.noise = self.largest = 0.0
        self.is_finite = True

    def add(self, expected: npt.NDArray[np.generic], actual: npt.NDArray[np.generic], name: str) -> None:
        """Add one tensor of one batch; integers and truth values are ignored.

        Raises:
            ArtifactError: A number of the float model is not finite.
        """
        if expected.dtype.kind != "f" or not expected.size:
            return
        if not np.isfinite(expected).all():
            raise ArtifactError(f"The float model gives NaN or infinite numbers in `{name}`. Check the model first.")
        if not np.isfinite(actual).all():
            self.is_finite = False
            return
        exact = expected.astype(np.float64)
        difference = exact - actual.astype(np.float64)
        self.signal += float(np.vdot(exact, exact))
        self.noise += float(np.vdot(difference, difference))
        self.largest = max(self.largest, float(np.abs(difference).max()))

    def loss(self) -> Loss:
        """Return the loss over all batches."""
        if not self.is_finite:
            return Loss(None, None, False)
        return Loss(self.largest, decibels(self.signal, self.noise), True)


def decibels(signal: float, noise: float) -> float | None:
    """Return ten times the logarithm of a ratio of powers; None where there is no noise.

    Source: ITU-T G.100.1, decibel of power; the same as `compute_signal_to_quantization_noice_ratio` of ONNX Runtime.
    """
    if noise == 0.0:
        return None
    return 10.0 * float(np.log10(max(signal, np.finfo(np.float64).tiny) / noise))
