"""ONNX graphs: look-ups, model files, digests, sessions. Leaves quantizing to `quantization`, exporting to `export`."""
