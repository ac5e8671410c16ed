"""ONNX graphs: look-ups, files with external weights, digests, sessions."""
