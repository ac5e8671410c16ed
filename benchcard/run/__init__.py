"""The steps of a run: which ones there are, in which order they are done, and their outcomes on disk.

What a step does is left to `steps`, the child processes that do it to `workers`, and reading results to `analysis`.
"""
