"""Everything that a card shows, as plain data.

Owns the dataclasses between results and card: whoever has figures fills a `Facts`, every layout renders one, and
reading a card gives one back. Leaves to others where the figures come from (results), how they are laid out
(`classic` and its siblings), and what the Hub accepts in front matter (`frontmatter`).

Quantities carry their unit in their name (`latency_mean_ms`, `duration_s`); whoever fills `Facts` has converted them.
A figure that does not exist is `None`, never NaN: `figure` turns the one into the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsFloat, TypeAlias

from benchcard.errors import CardError
from benchcard.utils.values import Failure, Shape

Plain: TypeAlias = Any
"""None, bool, int, finite float, str, or a list or dict of them: what `plain` gives back."""

LATENCY_MEAN = "latency_mean_ms"
THROUGHPUT = "throughput_per_s"


@dataclass(frozen=True)
class Interval:
    """Bounds of a figure, in the figure's unit.

    Attributes:
        low: lower bound.
        high: upper bound.
        level: confidence level, between 0 and 1.
    """

    low: float
    high: float
    level: float = 0.95

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise CardError(f"an interval needs two finite bounds in order, found {self.low} and {self.high}")


@dataclass(frozen=True)
class Figure:
    """One finite number, with its interval where one is known."""

    value: float
    interval: Interval | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise CardError(f"a figure is a finite number, found {self.value}: use figure(), which gives None for it")


Figures: TypeAlias = Mapping[str, Figure | None]
"""Figures by name, the unit in the name: `{"latency_mean_ms": Figure(12.3), "ratio": None}`."""


@dataclass(frozen=True)
class Metric:
    """One quality metric: what its column is called, and how it is to be read.

    Attributes:
        name: id of the metric, and its column.
        unit: unit of its values; empty for a plain number.
        higher_is_better: its direction; None where it is not known.
        definition: one sentence for the reader of the card.
        positive_class: the label that a metric of one label is of; empty for every other metric.
    """

    name: str
    unit: str = ""
    higher_is_better: bool | None = None
    definition: str = ""
    positive_class: str = ""


@dataclass(frozen=True)
class Measured:
    """Figures of one model: quality by metric, and time by shape.

    Attributes:
        metrics: by name of the metric.
        times: by shape; each has at least `latency_mean_ms` and `throughput_per_s` (samples in a second), and may have
            others, as `latency_p99_ms`, `ratio`, `memory_mb`.
    """

    metrics: Figures = field(default_factory=dict)
    times: Mapping[Shape, Figures] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration: its parameters and what was measured of it.

    Attributes:
        parameters: value of every benchmarked parameter; None where it means nothing to this row.
        metrics: quality figures by name; a missing name or None is a figure that does not exist.
        times: time figures by shape; see `Measured`.
        figures: other figures of the row, the unit in their name, as `size_mb` or `load_time_s`.
        failure: why there are no figures; None where nothing failed.
        original: figures of the unquantized model, where a card shows them in the same row.
        same_model_as: index of the earlier row that has the same model, byte for byte; None where there is none.
        reasons: sentences about the row, as why it is the same model as another one.
        saturation_risk: whether products of its 8-bit weights can saturate on the machine of the run.
        baseline: index of the row that it is compared with; None where that is the `baseline` of all.
    """

    parameters: Mapping[str, Plain]
    metrics: Figures = field(default_factory=dict)
    times: Mapping[Shape, Figures] = field(default_factory=dict)
    figures: Figures = field(default_factory=dict)
    failure: Failure | None = None
    original: Measured | None = None
    same_model_as: int | None = None
    reasons: tuple[str, ...] = ()
    saturation_risk: bool = False
    baseline: int | None = None

    def __post_init__(self) -> None:
        _settle(self, parameters=plain_mapping(self.parameters, "parameters"))


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise certificate of models that were timed together: what the baseline differs from itself by.

    Attributes:
        shape: the inputs.
        ratio: the baseline's second process against its first.
        models: how many models were timed together.
        rounds: in how many rounds.
        warnings: what disturbed the machine meanwhile, a sentence each.
        baseline: index of the baseline; None where there is one for all.
    """

    shape: Shape
    ratio: Figure
    models: int = 0
    rounds: int = 0
    warnings: tuple[str, ...] = ()
    baseline: int | None = None


@dataclass(frozen=True, kw_only=True)
class Data:
    """The evaluation data as they were really used.

    Attributes:
        dataset: Hub id or name.
        config: name of the data set's configuration.
        split: split that was evaluated on.
        revision: commit or digest.
        samples: number of samples evaluated.
        on_hub: whether `dataset` is an id on the Hub.
    """

    dataset: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    samples: int | None = None
    on_hub: bool = False


@dataclass(frozen=True, kw_only=True)
class FrontMatter:
    """What the card's front matter is to say; `frontmatter.fields` leaves out what the Hub would refuse.

    Attributes:
        license: Hub licence id, only where the user gave or inherited one.
        library_name: library that loads the model.
        pipeline_tag: task, as the Hub names it.
        base_model: Hub id of the measured model; None for a local folder, even one whose path looks like an id.
        base_model_relation: `quantized` where quantized weights are in the repository.
        datasets: Hub ids of the evaluation data; never a local path.
        metrics: ids of the metrics.
        tags: further tags.
        model_index: the Hub's evaluation results, see `frontmatter.model_index`.
        extra: any other key.
    """

    license: str | None = None
    library_name: str | None = None
    pipeline_tag: str | None = None
    base_model: str | None = None
    base_model_relation: str | None = None
    datasets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    model_index: tuple[Mapping[str, Plain], ...] = ()
    extra: Mapping[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _settle(
            self,
            datasets=tuple(self.datasets),
            metrics=tuple(self.metrics),
            tags=tuple(self.tags),
            model_index=tuple(plain_mapping(entry, "model_index") for entry in self.model_index),
            extra=plain_mapping(self.extra, "extra"),
        )


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a card shows.

    Attributes:
        task: task id.
        backend: where the grid ran.
        backend_args: its arguments.
        max_eval_samples: samples evaluated at most; None for all of them.
        fixed: parameters that have one value, in the order of the card. A mapping is shown as nested bullets, a list of
            mappings on one line.
        benchmarked: parameters that vary and their values; their order is the order of the columns.
        metrics: quality metrics, in the order of the columns.
        shapes: inputs that were timed, in the order of the tables; empty where nothing was timed.
        duration_s: time spent on each configuration and shape.
        rows: configurations, in the order of the tables.
        front_matter: what the front matter says.
        title: what the section is called; empty for a title made from task and data.
        data: the evaluation data.
        baseline: index of the row that ratios and paired tests compare with; of several the first.
        chosen: index of the recommended row of those that are compared with it.
        further: indices of the recommended rows of further baselines.
        reasons: why these, in sentences.
        pareto: indices of the rows that no other one of the same examples beats in both quality and latency.
        settings: how it was measured, as the spec gave it: `duration`, `warmup_runs`, `batch_sizes`, `metrics`.
        noise: the noise certificates, one for each group of models that were timed together.
        environment: machine, versions, threads.
        run: facts about the run, as its id, its date, the call and the command that repeat it.
        notes: further sentences for the reader, as limitations.
        done: how many rows have been measured, where the run is not finished; None where it is.
    """

    task: str
    backend: str
    backend_args: Mapping[str, Plain] = field(default_factory=dict)
    max_eval_samples: int | None = None
    fixed: Mapping[str, Plain] = field(default_factory=dict)
    benchmarked: Mapping[str, Sequence[Plain]] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    shapes: tuple[Shape, ...] = ()
    duration_s: float | None = None
    rows: tuple[Row, ...] = ()
    front_matter: FrontMatter = field(default_factory=FrontMatter)
    title: str = ""
    data: Data | None = None
    baseline: int | None = None
    chosen: int | None = None
    further: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
    pareto: tuple[int, ...] = ()
    settings: Mapping[str, Plain] = field(default_factory=dict)
    noise: tuple[Noise, ...] = ()
    environment: Mapping[str, Plain] = field(default_factory=dict)
    run: Mapping[str, Plain] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    done: int | None = None

    def __post_init__(self) -> None:
        benchmarked = {
            str(name): [plain(value, f"benchmarked.{name}[{index}]") for index, value in enumerate(values)]
            for name, values in self.benchmarked.items()
        }
        _settle(
            self,
            backend_args=plain_mapping(self.backend_args, "backend_args"),
            fixed=plain_mapping(self.fixed, "fixed"),
            benchmarked=benchmarked,
            settings=plain_mapping(self.settings, "settings"),
            environment=plain_mapping(self.environment, "environment"),
            run=plain_mapping(self.run, "run"),
            rows=tuple(self.rows),
            metrics=tuple(self.metrics),
            shapes=tuple(self.shapes),
        )
        for index, row in enumerate(self.rows):
            missing = [name for name in benchmarked if name not in row.parameters]
            if missing:
                raise CardError(f"row {index} does not say the value of {', '.join(missing)}")
        named = {"baseline": [self.baseline, *(row.baseline for row in self.rows)], "chosen": [self.chosen]}
        for name, places in {**named, "further": self.further, "pareto": self.pareto}.items():
            for place in places:
                if place is not None and not 0 <= place < len(self.rows):
                    raise CardError(f"{name} is row {place}, and there is no such row")


def figure(value: SupportsFloat | None, low: float | None = None, high: float | None = None) -> Figure | None:
    """A figure, or None where the number is missing, NaN or infinite.

    Args:
        value: the number; any type that `float` takes, NumPy scalars included.
        low: lower bound of its 95 % interval; both bounds or none.
        high: upper bound of its 95 % interval.
    """
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        return None
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return Figure(number)
    return Figure(number, Interval(float(low), float(high)))


def in_card_order(rows: Iterable[Row], names: Iterable[str]) -> tuple[Row, ...]:
    """The rows in the order of the cards: column by column, None first, then numbers, then everything else as text."""
    columns = tuple(names)

    def key(row: Row) -> list[tuple[int, float, str]]:
        return [_order(row.parameters[name]) for name in columns]

    return tuple(sorted(rows, key=key))


def plain(value: object, place: str = "value") -> Plain:
    """`value` as plain data: tuples become lists, NumPy scalars become Python's.

    Raises:
        CardError: the value, or one inside it, has no plain form; `place` says which.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CardError(f"{place} is {value}, which no card can show: give None or a finite number")
        return float(value)
    if isinstance(value, Mapping):
        return {plain(key, place): plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    unboxed = getattr(value, "item", None)
    if callable(unboxed) and getattr(value, "shape", None) == ():
        return plain(unboxed(), place)
    raise CardError(
        f"{place} is a {type(value).__name__}: give None, a bool, a number, a text, or a list or dict of them"
    )


def plain_mapping(mapping: Mapping[str, object], place: str) -> dict[str, Plain]:
    """`mapping` as a dict of plain data, its order kept.

    Raises:
        CardError: a value has no plain form.
    """
    return {str(key): plain(item, f"{place}.{key}") for key, item in mapping.items()}


def _order(value: Plain) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, (bool, int, float)):
        return (1, float(value), "")
    return (2, 0.0, str(value))


def _settle(instance: object, **fields: object) -> None:
    """Put the normalised fields into a frozen instance that is being made."""
    for name, value in fields.items():
        object.__setattr__(instance, name, value)
