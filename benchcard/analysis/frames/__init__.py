"""The pandas frames of a run, one module a frame. Choices and explanations are left to the modules above."""
