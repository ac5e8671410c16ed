"""Helpers without knowledge of models or runs: text, plain data and its parsing, files, processes, progress, values."""
