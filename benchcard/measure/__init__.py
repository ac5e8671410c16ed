"""Time, memory, noise and the statistics of what was measured.

`timing` conducts the timing of a group of models, `process` is its end of a child process and `timed` that process
itself, `blocks` is what a run keeps of it, `noise` says how quiet the machine was, `statistics` turns raw latencies
into figures with intervals, and `significance` does so for quality. What is measured, and on which machine, is decided
above; how figures are shown is decided elsewhere.
"""
