"""Results of a run directory: records, frames, choices, reasons and comparisons.

Nothing here writes to the run directory or runs a step. Publishing is left to `publishing`, and cards to `card`.
"""
