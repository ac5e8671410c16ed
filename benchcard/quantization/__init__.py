"""Quantization of ONNX graphs: what to calibrate, what to leave out, the quantizer itself, and what it cost each layer.

The modules are imported by whoever needs them; this package imports none, for all of them load onnx or onnxruntime.
"""
