"""ONNX graphs: look-ups, model files with external weights, digests, and ONNX Runtime sessions.

How a graph is quantized is left to `quantization`, how it is exported to `export`.
"""
