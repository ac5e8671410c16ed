"""One pass over the calibration samples, and the ranges of activations for every method from it.

What the ranges are used for is left to `quantization.quantize`.
"""
