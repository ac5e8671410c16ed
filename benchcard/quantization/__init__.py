"""Quantization of a float graph to 8-bit integers, and the measurement of what that costs.

`calibration` measures the ranges of activations, `sensitivity` finds the layers whose quantization costs most. Graph
look-ups and files are left to `graphs`, the steps of a run that call this package to `steps`.
"""

from benchcard.quantization.settings import Quantization

__all__ = ["Quantization"]
