"""The facts of a card as plain data, for JSON and YAML, and back: `from_data(to_data(facts)) == facts`.

The data have the fields of the dataclasses by name, without defaults. A figure is a number, or a mapping if it has an
interval; times are a list, each with its `batch_size` and `input_length`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from benchcard.card.facts import (
    Data,
    Facts,
    Figures,
    FrontMatter,
    Measured,
    Metric,
    Noise,
    Plain,
    Row,
)
from benchcard.errors import CardError
from benchcard.utils.values import Disturbance, Failure, Interval, Shape

_T = TypeVar("_T")


def to_data(facts: Facts) -> dict[str, Plain]:
    """Return `facts` as dicts, lists and scalars."""
    data = _fields(facts)
    data["front_matter"] = _fields(facts.front_matter)
    data["metrics"] = [_fields(metric) for metric in facts.metrics]
    data["comparisons"] = [_fields(metric) for metric in facts.comparisons]
    data["shapes"] = [_fields(shape) for shape in facts.shapes]
    data["rows"] = [_row_to_data(row) for row in facts.rows]
    if facts.data is not None:
        data["data"] = _fields(facts.data)
    if facts.noise:
        data["noise"] = [_noise_to_data(noise) for noise in facts.noise]
    return {key: value for key, value in data.items() if value not in ([], {})}


def from_data(data: Mapping[str, Plain]) -> Facts:
    """Return the facts in data; a metric may be its name, a shape a list of batch size and input length.

    Raises:
        CardError: A field is missing, unknown, or has another form.
    """
    return _make(
        Facts,
        data,
        "facts",
        front_matter=lambda value: _make(FrontMatter, value, "front_matter"),
        metrics=lambda values: tuple(
            Metric(value) if isinstance(value, str) else _make(Metric, value, "metrics") for value in values
        ),
        comparisons=lambda values: tuple(_make(Metric, value, "comparisons") for value in values),
        shapes=lambda values: tuple(
            Shape(*value) if isinstance(value, list) else _make(Shape, value, "shapes") for value in values
        ),
        rows=lambda values: tuple(_row_from_data(value, f"rows[{index}]") for index, value in enumerate(values)),
        data=lambda value: _make(Data, value, "data"),
        noise=lambda values: tuple(
            _make(
                Noise,
                value,
                f"noise[{index}]",
                shape=lambda shape: _make(Shape, shape, "shape"),
                ratio=_figure_from_data,
                cpu_ratio=_figure_from_data,
                disturbances=lambda values: tuple(_make(Disturbance, value, "disturbances") for value in values),
            )
            for index, value in enumerate(values)
        ),
    )


def _noise_to_data(noise: Noise) -> dict[str, Plain]:
    data = {**_fields(noise), "shape": _shape_to_data(noise.shape), "ratio": _figure_to_data(noise.ratio)}
    if noise.cpu_ratio is not None:
        data["cpu_ratio"] = _figure_to_data(noise.cpu_ratio)
    if noise.disturbances:
        data["disturbances"] = list(map(dataclasses.asdict, noise.disturbances))
    return data


def _row_to_data(row: Row) -> dict[str, Plain]:
    data = _fields(row)
    data["parameters"] = dict(row.parameters)
    data.update(_measured_to_data(Measured(row.metrics, row.times)))
    if row.figures:
        data["figures"] = _figures_to_data(row.figures)
    if row.failure is not None:
        data["failure"] = _fields(row.failure)
    if row.original is not None:
        data["original"] = _measured_to_data(row.original)
    return data


def _row_from_data(data: Mapping[str, Plain], place: str) -> Row:
    return _make(
        Row,
        data,
        place,
        metrics=_figures_from_data,
        times=_times_from_data,
        figures=_figures_from_data,
        failure=lambda value: _make(Failure, value, f"{place}.failure"),
        original=lambda value: _make(
            Measured, value, f"{place}.original", metrics=_figures_from_data, times=_times_from_data
        ),
    )


def _measured_to_data(measured: Measured) -> dict[str, Plain]:
    data: dict[str, Plain] = {}
    if measured.metrics:
        data["metrics"] = _figures_to_data(measured.metrics)
    if measured.times:
        data["times"] = [
            {**_shape_to_data(shape), **_figures_to_data(figures)} for shape, figures in measured.times.items()
        ]
    return data


def _shape_to_data(shape: Shape) -> dict[str, Plain]:
    return {name: value for name, value in dataclasses.asdict(shape).items() if name != "phase" or value is not None}


def _times_from_data(data: list[Mapping[str, Plain]]) -> dict[Shape, Figures]:
    times: dict[Shape, Figures] = {}
    for entry in data:
        figures = dict(entry)
        shape = Shape(figures.pop("batch_size"), figures.pop("input_length", None), figures.pop("phase", None))
        times[shape] = _figures_from_data(figures)
    return times


def _figures_to_data(figures: Figures) -> dict[str, Plain]:
    return {name: _figure_to_data(figure) for name, figure in figures.items()}


def _figure_to_data(figure: Interval | None) -> Plain:
    if figure is None or figure.low is None:
        return None if figure is None else figure.value
    return dataclasses.asdict(figure)


def _figures_from_data(data: Mapping[str, Plain]) -> dict[str, Interval | None]:
    return {name: _figure_from_data(value) for name, value in data.items()}


def _figure_from_data(value: Plain) -> Interval | None:
    if isinstance(value, Mapping):
        return Interval(**value)
    return None if value is None else Interval(value)


def _fields(instance: Any) -> dict[str, Plain]:
    """Return the fields of a dataclass that differ from their defaults, tuples as lists."""
    data: dict[str, Plain] = {}
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if value != default:
            data[field.name] = list(value) if isinstance(value, tuple) else value
    return data


def _make(kind: Callable[..., _T], data: Mapping[str, Plain], place: str, /, **forms: Callable[[Any], Any]) -> _T:
    """Return an instance of a dataclass; each field is made by its form, or, without one, a list becomes a tuple."""
    if not isinstance(data, Mapping):
        raise CardError(f"{place} must be a mapping, found {data!r}")
    try:
        return kind(**{key: forms[key](value) if key in forms else _field(value) for key, value in data.items()})
    except (TypeError, KeyError, ValueError) as error:
        raise CardError(f"{place} is not of the form of facts: {error}") from error


def _field(value: Plain) -> Plain:
    return tuple(value) if isinstance(value, list) else value
