"""One pass over the calibration samples, and the ranges of activations from it. Leaves their use to `quantize`."""
