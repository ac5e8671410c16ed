"""A transformers model as an ONNX graph, checked against PyTorch."""
