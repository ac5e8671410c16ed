"""What quantization costs the outputs of a model, and which layers cost most.

The graphs are quantized in `quantization.quantize`; which nodes to exclude for it is left to the caller.
"""
