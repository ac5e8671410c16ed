"""What a published card allows: its figures as frames, its spec, and verdicts on whether its figures are reproduced.

Running the spec is left to `run`, the grammar of cards to `card`.
"""
