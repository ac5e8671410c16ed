"""What a metric's figure means: its unit, its direction, and the columns beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from benchcard import registry
from benchcard.errors import BenchcardError


@dataclass(frozen=True)
class MetricInfo:
    """How a figure is to be read.

    Attributes:
        higher_is_better: None where nobody knows.
        unit: `share` (0 to 1), `%` (0 to 100), `coefficient` (-1 to 1), `count`, `error` or `squared error` (of the
            reference's own unit), or None where nobody knows.
    """

    higher_is_better: bool | None
    unit: str | None


_UNKNOWN = MetricInfo(None, None)
_SHARE, _PERCENT, _COEFFICIENT = MetricInfo(True, "share"), MetricInfo(True, "%"), MetricInfo(True, "coefficient")

METRICS: Mapping[str, MetricInfo] = MappingProxyType(
    {
        **dict.fromkeys(("accuracy", "top_k_accuracy", "exact_match"), _SHARE),
        **{
            f"{name}{average}": _SHARE
            for name in ("precision", "recall", "f1")
            for average in ("", "_micro", "_macro", "_weighted")
        },
        **dict.fromkeys(("matthews_correlation", "pearson", "spearman"), _COEFFICIENT),
        "mse": MetricInfo(False, "squared error"),
        # Not brought along, but often loaded with `evaluate.load`.
        "mae": MetricInfo(False, "error"),
        **dict.fromkeys(("mape", "smape"), MetricInfo(False, "share")),
        "brier_score": MetricInfo(False, "squared error"),
        "roc_auc": _SHARE,
        **dict.fromkeys(("pearsonr", "spearmanr"), _COEFFICIENT),
        **{f"seqeval.overall_{name}": _SHARE for name in ("precision", "recall", "f1", "accuracy")},
        **dict.fromkeys(("squad.exact_match", "squad.f1"), _PERCENT),
        **{
            f"squad_v2.{part}{name}": _PERCENT
            for part in ("", "HasAns_", "NoAns_", "best_")
            for name in ("exact", "f1")
        },
        **{f"squad_v2.{part}total": MetricInfo(None, "count") for part in ("", "HasAns_", "NoAns_")},
        **dict.fromkeys(("squad_v2.best_exact_thresh", "squad_v2.best_f1_thresh"), MetricInfo(None, "share")),
    }
)
"""How each figure is to be read, by the id of its metric, and `metric.figure` where a metric gives several."""


def metric_info(name: str, figure: str | None = None) -> MetricInfo:
    """How a figure of a metric is to be read: of a metric that is not brought along, what its attributes
    `higher_is_better` and `unit` say, and for the rest what is known of its name.

    Nothing heavy is imported for what benchcard brings, nor for an id that nobody knows, for which the answer is that
    nobody knows.

    Args:
        name: The metric's id, or `metric.figure`.
        figure: The figure, where the metric gives several.
    """
    full = f"{name}.{figure}" if figure else name
    metric, _ = split_column(name)
    known = METRICS.get(full) or METRICS.get(metric) or _UNKNOWN
    if metric not in registry.metrics() or registry.is_built_in_metric(metric):
        return known
    return with_spec_direction(registry.metric(metric), known)


def with_spec_direction(found: Any, known: MetricInfo) -> MetricInfo:
    """How the figures of a metric are to be read: as its author says, and for the rest as is known of its name."""
    higher, unit = getattr(found, "higher_is_better", None), getattr(found, "unit", None)
    return MetricInfo(known.higher_is_better if higher is None else higher, known.unit if unit is None else unit)


def point(unit: str | None) -> float:
    """A point of a metric of this unit, which is what may be lost of it where nobody says: 0.01, or 1 of one in %."""
    return 1.0 if unit == "%" else 0.01


# What stands beside each figure in a column of its own, after its name and an underscore.
BESIDE = ("low", "high", "difference", "difference_low", "difference_high", "p_value", "detectable_difference")
COLUMNS = frozenset(
    {
        "row",
        "predictions_changed",
        "total_time_in_seconds",
        "samples_per_second",
        "latency_in_seconds",
        "samples",
        "not_compared",
        "saturation_risk",
        "same_model_as",
        "failure",
        "embedding_cosine",
        "positive_class",
        "similarity_fn_name",
        "activation_fn",
    }
)
"""The columns beside parameters and metrics that a frame of quality may have."""


def split_column(name: str, script: str | None = None) -> tuple[str, str]:
    """The id of a metric and, for `seqeval.overall_f1`, the figure of it; nothing else of a path or an id on the Hub
    that holds a dot.
    """
    if script or name in registry.metrics() or "/" in name or "\\" in name:
        return name, ""
    metric, _, figure = name.partition(".")
    return metric, figure


def meant(name: str, meanings: Mapping[str, str], script: str | None = None) -> tuple[str, str]:
    """The id of the metric, and the figure of it, that an id means for a task: what only the outcome of a step names is
    loaded from nowhere.

    Raises:
        BenchcardError: The id means a metric that is not installed.
    """
    identity, figure = split_column(meanings.get(name, name), script)
    if name in meanings and identity not in registry.metrics():
        raise BenchcardError(f"the task says that `{name}` means `{identity}`, which is no installed metric")
    return identity, figure
