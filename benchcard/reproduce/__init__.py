"""What a published card allows: its figures as frames, its spec, and verdicts on whether its figures are reproduced."""
