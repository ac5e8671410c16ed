"""How much tensors differ from those in float32, summed over batches: no tensor outlives its batch."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from benchcard.errors import ArtifactError
from benchcard.graphs.cache import PRESENT
from benchcard.quantization.outcomes import Loss

Array: TypeAlias = npt.NDArray[np.generic]


class LossSum:
    """Powers of signal and noise, and the largest difference, over batches; the noise is infinite for NaN, too."""

    def __init__(self) -> None:
        self.signal = self.noise = self.largest = 0.0

    def add(self, expected: Array, actual: Array, name: str) -> None:
        """Add one tensor of one batch; integers, truth values, and the keys and values of a cache are ignored.

        Raises:
            ArtifactError: A number of the float model is not finite.
        """
        if expected.dtype.kind != "f" or name.startswith(PRESENT):
            return
        if not np.isfinite(expected).all():
            raise ArtifactError(f"The float model gives NaN or infinite numbers in `{name}`. Check the model first.")
        exact = expected.astype(np.float64)
        difference = exact - actual.astype(np.float64) if np.isfinite(actual).all() else np.full(1, np.inf)
        self.signal += float(np.vdot(exact, exact))
        self.noise += float(np.vdot(difference, difference))
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))

    def loss(self) -> Loss:
        """Return the loss over all batches."""
        if np.isinf(self.noise):
            return Loss(None, None, False)
        return Loss(self.largest, decibels(self.signal, self.noise), True)


def decibels(signal: float, noise: float) -> float | None:
    """Return ten times the logarithm of a ratio of powers; None where there is no noise.

    Source: ITU-T G.100.1, decibel of power; the same as `compute_signal_to_quantization_noice_ratio` of ONNX Runtime.
    """
    if noise == 0.0:
        return None
    return 10.0 * float(np.log10(max(signal, np.finfo(np.float64).tiny) / noise))
