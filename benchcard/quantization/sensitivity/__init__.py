"""What quantization costs the outputs, and which layers cost most."""
