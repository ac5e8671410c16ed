"""The pandas frames of a run, one module a frame."""
