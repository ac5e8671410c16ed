"""Prepared rows on disk, and the evaluation of a model on them.

Leaves the preparation of rows and their predictions to `benchcard.tasks`, and figures to `benchcard.metrics`.
"""
