"""A task, a metric, a framework and a backend for benchcard, one file each."""
