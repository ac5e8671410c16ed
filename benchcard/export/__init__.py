"""The export of a transformers model to an ONNX graph, compared with PyTorch.

Quantizing the graph is left to `quantization`, and running it to `frameworks`.
"""
