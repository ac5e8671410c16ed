"""A run directory becomes records, frames, choices, reasons and comparisons.

Nothing here writes to the run directory or runs a step. Publishing and cards are left to `publishing` and `card`.
"""
