"""Helpers without knowledge of models or runs: text for messages, plain data and its parsing, files, child processes,
progress, and the values that all layers share.
"""
