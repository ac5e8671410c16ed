"""What quantization costs the outputs, and which layers cost most. Leaves it to the caller which to exclude."""
