"""Figures of metrics: the values, their unit and direction, and the columns of results that belong to them.

Imports nothing heavy. Leaves the computation to `compute` and `uncertainty`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from benchcard import registry

if TYPE_CHECKING:
    import evaluate

    from benchcard.utils.values import Interval


@dataclass(frozen=True)
class MetricInfo:
    """Direction and unit of a figure.

    Attributes:
        higher_is_better: None where it is not known.
        unit: `share` (0 to 1), `%` (0 to 100), `coefficient` (-1 to 1), `count`, `error` or `squared error` (of the
            reference's own unit), or a word of the metric's own; None where it is not known.
    """

    higher_is_better: bool | None
    unit: str | None


@dataclass(frozen=True)
class Figure:
    """One number that a metric returned.

    Attributes:
        value: None where it is not defined for these predictions, as a correlation with a constant is not.
        info: Its direction and unit.
        positive_label: The label id that it scores, where it scores a single label.
    """

    value: float | None
    info: MetricInfo
    positive_label: int | None = None


@dataclass(frozen=True)
class FigureUncertainty:
    """The 95 % interval of a figure and, where there is a baseline, its paired test against the baseline.

    Attributes:
        low, high: The bounds; None where no interval can be computed.
        difference: The figure minus the baseline's, on the same examples.
        difference_low, difference_high, p_value: The bounds and the p-value of the difference.
        detectable_difference: The smallest true difference that a test on these examples detects with a power of 80 %.
        draws: The number of bootstrap resamples behind the p-value; None where the test is exact.
    """

    low: float | None
    high: float | None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    detectable_difference: float | None = None
    draws: int | None = None


FIGURE_SUFFIXES = tuple(field.name for field in fields(FigureUncertainty) if field.name != "draws")
"""The columns of results beside each figure: its name, an underscore, and one of these."""

_AVERAGED = ("precision", "recall", "f1")
_SHARE, _PERCENT, _COEFFICIENT = MetricInfo(True, "share"), MetricInfo(True, "%"), MetricInfo(True, "coefficient")

METRICS: Mapping[str, MetricInfo] = MappingProxyType(
    {
        **dict.fromkeys(("accuracy", "top_k_accuracy", "exact_match", "ndcg_at_10", "mrr_at_10", "map"), _SHARE),
        **dict.fromkeys(("recall_at_10", "recall_at_100", "float_top_10_recall"), _SHARE),
        **dict.fromkeys(("float_index_ndcg_at_10", "float_index_recall_at_10"), _SHARE),
        **{f"{name}{average}": _SHARE for name in _AVERAGED for average in ("", "_micro", "_macro", "_weighted")},
        **dict.fromkeys(("matthews_correlation", "pearson", "spearman", "pearsonr", "spearmanr"), _COEFFICIENT),
        # Some of these are not benchcard's own metrics, but are often loaded with `evaluate.load`.
        **dict.fromkeys(("mse", "brier_score"), MetricInfo(False, "squared error")),
        "mae": MetricInfo(False, "error"),
        **dict.fromkeys(("mape", "smape", "wer", "cer"), MetricInfo(False, "share")),
        "perplexity": MetricInfo(False, "per token"),
        "roc_auc": _SHARE,
        **{f"lm_eval.acc{name}": _SHARE for name in ("", "_norm", "_bytes", "_mutual_info")},
        **{f"lm_eval.{name}": _SHARE for name in ("exact_match", "f1", "likelihood")},
        "lm_eval.mcc": _COEFFICIENT,
        "lm_eval.brier_score": MetricInfo(False, "squared error"),
        "lm_eval.perplexity": MetricInfo(False, "per continuation"),
        **{f"seqeval.overall_{name}": _SHARE for name in (*_AVERAGED, "accuracy")},
        **dict.fromkeys(("squad.exact_match", "squad.f1"), _PERCENT),
        **{f"squad_v2.{part}exact": _PERCENT for part in ("", "HasAns_", "NoAns_", "best_")},
        **{f"squad_v2.{part}f1": _PERCENT for part in ("", "HasAns_", "NoAns_", "best_")},
        **{f"squad_v2.{part}total": MetricInfo(None, "count") for part in ("", "HasAns_", "NoAns_")},
        **dict.fromkeys(("squad_v2.best_exact_thresh", "squad_v2.best_f1_thresh"), MetricInfo(None, "share")),
    }
)
"""Direction and unit by the id of a metric, or by `metric.figure` where a metric returns several figures."""

NEEDING_PACKAGES = frozenset({"map"})
"""Metrics of benchcard that need a package of an extra: they are loaded before anything slow is done."""

FIDELITY: Mapping[str, MetricInfo] = MappingProxyType(
    {
        "kl_mean": MetricInfo(False, "nats"),
        "rms_difference": MetricInfo(False, "error"),
        "cosine_mean": MetricInfo(True, "coefficient"),
        "agreement": _SHARE,
        "neighbor_overlap": _SHARE,
        "iou_mean": _SHARE,
        "cosine_p1": MetricInfo(True, "coefficient"),
        **dict.fromkeys(("kl_median", "kl_p99", "kl_max"), MetricInfo(False, "nats")),
        "lost": MetricInfo(False, "count"),
        **dict.fromkeys(("gained", "swapped"), MetricInfo(None, "count")),
    }
)
"""Direction and unit of the figures that compare a model's outputs with the baseline's, in the order of their columns.
The first one that a task has is its leading figure, by which rows are ranked."""

DEGRADED_NATS = 0.05
"""The mean KL divergence from the float model above which a model is degraded, in nats; see `analysis.verdict`."""

RECOVERY = "recovery"
"""The first metric in % of the baseline's."""

COMPARISONS: Mapping[str, MetricInfo] = MappingProxyType({**FIDELITY, RECOVERY: MetricInfo(True, "%")})
"""Direction and unit of all figures of quality that compare a row with its baseline."""

# The units that the header of a figure shows; others are plain numbers.
_UNITS_SHOWN = frozenset({"nats", "%", "error"})

FidelityLimit: TypeAlias = float | Mapping[str, float] | None
"""Limits of figures of `FIDELITY` by name, or one for the leading figure; None for no limit."""

RESERVED_COLUMNS = frozenset(
    {"row", "samples", "failure", "not_compared", "same_model_as", "saturation_risk", "positive_class"}
    | {"total_time_in_seconds", "samples_per_second", "latency_in_seconds", "predictions_changed"}
    | {"similarity_fn_name", "activation_fn"}
    | {name + bound for name in COMPARISONS for bound in ("", "_low", "_high")}
)
"""The columns of `Results.quality` that are neither parameters nor metrics."""


def metric_info(name: str, figure: str | None = None) -> MetricInfo:
    """Return direction and unit of a metric, given as `metric` or `metric.figure`, or of one of its figures.

    The attributes `higher_is_better` and `unit` of a registered metric come first, then those in `METRICS`. A
    metric that is not registered is not loaded.
    """
    metric, _ = split_column(name)
    known = METRICS.get(f"{name}.{figure}" if figure else name) or METRICS.get(metric) or MetricInfo(None, None)
    if metric not in registry.metrics() or registry.is_built_in_metric(metric):
        return known
    return with_own_attributes(registry.metric(metric), known)


def with_own_attributes(metric: evaluate.EvaluationModule, known: MetricInfo) -> MetricInfo:
    """Return the direction and unit that a metric has as attributes, and those of `known` where it has none."""
    higher, unit = getattr(metric, "higher_is_better", None), getattr(metric, "unit", None)
    return MetricInfo(known.higher_is_better if higher is None else higher, known.unit if unit is None else unit)


def shown_unit(info: MetricInfo) -> str:
    """Return the unit that the header of a figure shows; empty for a plain number."""
    return info.unit if info.unit in _UNITS_SHOWN else ""


def leading_figure(fidelity: Mapping[str, Interval]) -> tuple[str, Interval | None]:
    """Return the figure of fidelity by which rows are ranked, and its name; an empty name where there is none."""
    name = next((name for name in FIDELITY if name in fidelity), "")
    return name, fidelity.get(name)


def write_limits(limit: FidelityLimit) -> list[str]:
    """Return limits of fidelity as the command line takes them: `0.01`, or `kl_mean=0.01` each."""
    if isinstance(limit, Mapping):
        return [f"{name}={value:g}" for name, value in limit.items()]
    return [] if limit is None else [f"{limit:g}"]


def default_max_drop(unit: str | None) -> float:
    """Return the drop of a figure that is accepted where the user names none: one percentage point of a share, or as
    many nats as a file that is not degraded may have in an audit.
    """
    return {"%": 1.0, "nats": DEGRADED_NATS}.get(unit or "", 0.01)


def split_column(name: str, script: str | None = None) -> tuple[str, str]:
    """Return metric and figure of `metric.figure`; the figure is empty for a metric's id alone.

    A dot in a path or in an id on the Hub is not a separator.
    """
    if script or name in registry.metrics() or "/" in name or "\\" in name:
        return name, ""
    metric, _, figure = name.partition(".")
    return metric, figure
