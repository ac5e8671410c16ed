"""A float graph becomes an int8 graph, and what that costs is measured.

`calibration` measures the ranges of activations, `sensitivity` finds the layers whose quantization costs most. Graph
look-ups and files are left to `graphs`, the steps of a run that call this package to `steps`.
"""

from benchcard.quantization.settings import Quantization

__all__ = ["Quantization"]
