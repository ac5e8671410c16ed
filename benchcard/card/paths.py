"""Names of the files beside a card."""

from __future__ import annotations

FOLDER = "benchcard"
RESULTS, RUN, LATENCIES = "results.csv", "run.json", "latencies.parquet"
