"""What predictions are worth, and how certain that is; one file per family of metrics.

Leaves predictions to `benchcard.evaluation`, and the statistical tests to `benchcard.measure.significance`.
"""

from __future__ import annotations

from benchcard.metrics.compute import MetricInputs, compute_metric, load_metric, merge_figures
from benchcard.metrics.info import Figure, FigureUncertainty, MetricInfo, metric_info

__all__ = [
    "Figure",
    "FigureUncertainty",
    "MetricInfo",
    "MetricInputs",
    "compute_metric",
    "load_metric",
    "merge_figures",
    "metric_info",
]
