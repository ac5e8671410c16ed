"""Names of the files that are published beside a card."""

from __future__ import annotations

FOLDER = "benchcard"
RESULTS, RUN, LATENCIES, PLOT = "results.csv", "run.json", "latencies.parquet", "plot.png"
