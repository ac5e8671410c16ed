"""Measurement of models: raw latencies, the statistics of latency and quality, and the machine.

Which models are timed and where raw data is kept is left to `run`, and tables of figures to `analysis`.
"""
