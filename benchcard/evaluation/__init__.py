"""Prepared rows on disk, and the pass of a model over them. What a prediction is worth is left to `metrics`."""
