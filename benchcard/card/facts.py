"""The contents of a card as data: publishing fills a `Facts`, each layout renders one, and reading a card returns one.

A figure that does not exist is None, never NaN: `figure` converts it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pprint import saferepr
from typing import Any, SupportsFloat, TypeAlias

from benchcard.errors import CardError
from benchcard.utils.plain import checked
from benchcard.utils.text import machine_name
from benchcard.utils.values import Disturbance, Failure, Interval, Shape

Plain: TypeAlias = Any
"""None, bool, int, finite float, str, or a list or dict of them; which of these, only the reader of a value knows."""

MACHINE = "backend_args"
"""The benchmarked parameter that names machines."""
# The benchmarked parameter that names machines.
MACHINE = "backend_args"
LATENCY_MEAN = "latency_mean_ms"
THROUGHPUT = "throughput_per_s"
OTHERS = "others"
"""The kind of a disturbance by other processes that used the processors."""
DISTURBED = "disturbed"
"""The kind of a disturbance for which ratios of latencies may be wrong."""

# The part of a data set that no quality figure depends on.
_CALIBRATION = "calibration_split"

Figures: TypeAlias = Mapping[str, Interval | None]
"""Figures by name, with the unit in the name: `{"latency_mean_ms": Interval(12.3), "ratio": None}`."""


@dataclass(frozen=True)
class Metric:
    """A quality metric, or another figure with a direction.

    Attributes:
        unit: Unit of its values; empty for a plain number.
        higher_is_better: Direction of the metric; None where it is not known.
        positive_class: The label that a metric of a single label evaluates; empty for other metrics.
    """

    name: str
    unit: str = ""
    higher_is_better: bool | None = None
    definition: str = ""
    positive_class: str = ""


@dataclass(frozen=True)
class Measured:
    """Figures of one model: quality by metric, and times by shape, such as `latency_mean_ms` or `throughput_per_s`."""

    metrics: Figures = field(default_factory=dict)
    times: Mapping[Shape, Figures] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _expect_figures(self.metrics, *self.times.values())

    def time(self, shape: Shape, name: str) -> Interval | None:
        """Return a figure of time."""
        return self.times.get(shape, {}).get(name)


@dataclass(frozen=True, kw_only=True)
class Row(Measured):
    """One configuration: its parameters, figures, and sentences about it. A figure may be missing or None.

    Attributes:
        parameters: Value of each benchmarked parameter; None where it does not apply to this row.
        figures: Other figures, such as `size_mb` or `load_time_s`.
        original: Figures of the unquantized model, where a card shows them in the same row.
        same_model_as: Index of the earlier row with the same model, byte for byte; None where there is none.
        saturation_risk: Whether products of its 8-bit weights can saturate on the machine of the run.
        baseline: Index of the row that it is compared with; None for the `baseline` of all rows.
    """

    parameters: Mapping[str, Plain]
    figures: Figures = field(default_factory=dict)
    failure: Failure | None = None
    original: Measured | None = None
    same_model_as: int | None = None
    reasons: tuple[str, ...] = ()
    saturation_risk: bool = False
    baseline: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _expect_figures(self.figures)
        _make_plain(self, "parameters")

    @property
    def examples(self) -> str:
        """A key of the examples that the row was evaluated on: the benchmarked parameters that select them."""
        selection: dict[str, Plain] = {}
        for name, value in self.parameters.items():
            parameter, _, part = name.partition(".")
            if parameter in ("dataset", "max_eval_samples") and part != _CALIBRATION:
                is_mapping = isinstance(value, dict)
                selection[name] = {key: value[key] for key in value if key != _CALIBRATION} if is_mapping else value
        return saferepr(selection)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise certificate of models that were timed together: how far the baseline differs from itself.

    `ratio` compares the baseline's second process with its first one, `cpu_ratio` their processor times; `baseline`
    is its row, None where all rows have the same one.
    """

    shape: Shape
    ratio: Interval
    models: int = 0
    rounds: int = 0
    disturbances: tuple[Disturbance, ...] = ()
    baseline: int | None = None
    cpu_ratio: Interval | None = None

    def __post_init__(self) -> None:
        _expect_figures({"noise": self.ratio, "noise of processor time": self.cpu_ratio})


@dataclass(frozen=True, kw_only=True)
class Data:
    """The evaluation data: the Hub id, path or kind of the data set, and its commit or digest (`revision`).

    `name` is how the card calls data that are not on the Hub; None for the name of their path.
    """

    dataset: str
    name: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    samples: int | None = None
    on_hub: bool = False


@dataclass(frozen=True, kw_only=True)
class FrontMatter:
    """The front matter of a card; `frontmatter.fields` leaves out what the Hub would refuse.

    Attributes:
        license: Hub id of the licence, only where the user gave or inherited one.
        base_model: Hub id of the measured model; None for a local folder, even if its path looks like an id.
        base_model_relation: `quantized` where the repository holds quantized weights.
        metrics: The ids of metrics.
        pass_metrics: Figures of the evaluation pass that are no metrics. Only the classic layout lists them.
        model_index: Evaluation results in the Hub's format; see `frontmatter.fields.model_index`.
    """

    license: str | None = None
    library_name: str | None = None
    pipeline_tag: str | None = None
    base_model: str | None = None
    base_model_relation: str | None = None
    datasets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    pass_metrics: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    model_index: Sequence[Mapping[str, Plain]] = ()
    extra: Mapping[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _make_plain(self, "model_index", "extra")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All contents of a card.

    Attributes:
        fixed: Parameters with one value, in the order of the card.
        benchmarked: Parameters that vary, with their values, in the order of the columns.
        comparisons: The `Row.figures` that compare a row with its baseline, in the order of their table. The first two
            are also in the summary.
        shapes: Inputs that were timed, in the order of the tables.
        duration_s: Time spent on each configuration and shape.
        title: Heading of the section; empty for one made from task and data.
        baseline: Index of the row that ratios and paired tests compare with; the first of several baselines.
        chosen: Index of the recommended row among those compared with `baseline`.
        further: Indices of the recommended rows of the other baselines.
        cheapest: Index of the row that costs least for a million samples, among those that keep the quality.
        pareto: Indices of the rows that no other row evaluated on the same examples beats in both quality and latency.
        settings: Settings of the measurement as given in the spec: `duration`, `warmup_runs`, `batch_sizes`, `metrics`.
        noise: The noise certificates, one for each group of models that were timed together.
        needed: What somebody who repeats the run has to bring, because it is not published, a phrase each.
        done: Number of measured rows of a run that is not finished; None where it is finished.
    """

    task: str
    backend: str
    backend_args: Mapping[str, Plain] = field(default_factory=dict)
    max_eval_samples: int | None = None
    fixed: Mapping[str, Plain] = field(default_factory=dict)
    benchmarked: Mapping[str, Sequence[Plain]] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    comparisons: tuple[Metric, ...] = ()
    shapes: tuple[Shape, ...] = ()
    duration_s: float | None = None
    rows: tuple[Row, ...] = ()
    front_matter: FrontMatter = field(default_factory=FrontMatter)
    title: str = ""
    data: Data | None = None
    baseline: int | None = None
    chosen: int | None = None
    further: tuple[int, ...] = ()
    cheapest: int | None = None
    reasons: tuple[str, ...] = ()
    pareto: tuple[int, ...] = ()
    settings: Mapping[str, Plain] = field(default_factory=dict)
    noise: tuple[Noise, ...] = ()
    environment: Mapping[str, Plain] = field(default_factory=dict)
    run: Mapping[str, Plain] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    done: int | None = None

    def __post_init__(self) -> None:
        _make_plain(self, "backend_args", "fixed", "benchmarked", "settings", "environment", "run")
        for index, row in enumerate(self.rows):
            missing = [name for name in self.benchmarked if name not in row.parameters]
            if missing:
                raise CardError(f"row {index} has no value of the benchmarked parameter {', '.join(missing)}")
        baselines = (self.baseline, *(row.baseline for row in self.rows))
        indices = {"baseline": baselines, "chosen": (self.chosen,), "further": self.further, "pareto": self.pareto}
        indices["cheapest"] = (self.cheapest,)
        for name, places in indices.items():
            for place in places:
                if place is not None and not 0 <= place < len(self.rows):
                    raise CardError(f"{name} is row {place}, but the rows are 0 to {len(self.rows) - 1}")

    @property
    def baselines(self) -> tuple[int, ...]:
        """The rows that other rows are compared with, in their order."""
        rows = {self.baseline, *(row.baseline for row in self.rows)}
        return tuple(sorted(row for row in rows if row is not None))

    @property
    def processors(self) -> str:
        """The processor, or those of several machines; empty where it is not known."""
        known = self.environment.get("processor") or ""
        names = dict.fromkeys(map(str, known.values() if isinstance(known, dict) else [known]))
        return ", ".join(names)

    @property
    def machines(self) -> tuple[str, ...]:
        """The machine of each row, where several are benchmarked."""
        arguments = [row.parameters.get(MACHINE) for row in self.rows]
        names = tuple(machine_name(each) if isinstance(each, dict) else "" for each in arguments)
        return names if any(names) else ()

    def baseline_of(self, index: int) -> int | None:
        """Return the row that a row is compared with."""
        own = self.rows[index].baseline
        return self.baseline if own is None else own

    @property
    def recommended(self) -> tuple[int, ...]:
        """The recommended rows, in the order of their baselines."""
        rows = [row for row in (self.chosen, *self.further) if row is not None]
        return tuple(sorted(rows, key=lambda row: (self.baseline_of(row) or 0, row)))


def figure(value: SupportsFloat | None, low: float | None = None, high: float | None = None) -> Interval | None:
    """Return a figure with its 95 % interval, or None where the number is missing, NaN or infinite.

    There is no interval where a bound is missing or not finite.
    """
    if value is None or not math.isfinite(value):
        return None
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return Interval(float(value))
    return Interval(float(value), float(low), float(high))


def plain(value: object, place: str = "value") -> Plain:
    """Return `value` as plain data: tuples become lists, NumPy scalars become Python numbers; see `utils.plain`."""
    copy, mistakes = checked(value)
    if mistakes:
        where = place + mistakes[0].place.removeprefix("$")
        raise CardError(f"{where} must be {mistakes[0].expected}, found {mistakes[0].found}")
    return copy


def _expect_figures(*columns: Figures) -> None:
    """Raise a `CardError` for a figure that is not finite, or whose bounds are incomplete or in the wrong order."""
    intervals = [(name, interval) for figures in columns for name, interval in figures.items() if interval is not None]
    for name, interval in intervals:
        bounds = [bound for bound in (interval.low, interval.high) if bound is not None]
        if len(bounds) == 1 or bounds != sorted(bounds) or not all(map(math.isfinite, (interval.value, *bounds))):
            raise CardError(f"{name} must be a finite number with no bounds or two ordered ones, found {interval}")


def _make_plain(instance: object, *names: str) -> None:
    for name in names:
        object.__setattr__(instance, name, plain(getattr(instance, name), name))
