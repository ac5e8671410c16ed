"""What predictions are worth, and how sure that is, one file per family of metrics."""
