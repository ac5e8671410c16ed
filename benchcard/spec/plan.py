"""The plan of a spec: its configurations, which are the distinct points of the grid.

This module owns the rows of the published tables, their order and their baselines. The steps that make and measure a
row are left to `run`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from benchcard import registry
from benchcard.quantization.settings import STATIC_ONLY, Quantization
from benchcard.spec.parameters import BACKEND_ARGUMENTS, CALIBRATION_DEFAULTS, PARAMETERS, SCOPES, split_name
from benchcard.spec.spec import Spec
from benchcard.utils.plain import canonical_json
from benchcard.utils.text import pluralize

Point: TypeAlias = tuple[dict[str, Any], dict[str, Any]]
"""Every parameter of a row, and the benchmarked ones."""

# Why a parameter of static rows has no effect on dynamic ones.
_DYNAMIC = {name: STATIC_ONLY[name] for name in ("activations_dtype", "activations_symmetric")}
_DYNAMIC_SETTINGS = Quantization("dynamic").resolved


@dataclass(frozen=True)
class FrameworkTraits:
    """The attributes of a `frameworks.Framework` that decide which rows and steps there are.

    A run keeps them, so that its plan can be made again where the framework is not installed.
    """

    format: str
    running: tuple[str, ...]
    parameters: tuple[str, ...]
    arguments: tuple[str, ...]
    precisions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def from_registry(cls, name: str) -> FrameworkTraits:
        """Return the attributes of a registered framework."""
        framework = registry.framework(name)
        names = (framework.running, framework.parameters, framework.arguments)
        running, parameters, arguments = (tuple(sorted(group)) for group in names)
        precisions = {name: dict(values) for name, values in getattr(framework, "precisions", {}).items()}
        return cls(framework.format, running, parameters, arguments, precisions)

    def precision(self, parameters: Mapping[str, Any]) -> str | None:
        """Return the `frameworks.protocol.Precision` of a row that benchcard does not quantize; None for float32."""
        precisions = (values.get(_axis_value(parameters, name)) for name, values in self.precisions.items())
        return next(filter(None, precisions), None)

    def calibrates(self, parameters: Mapping[str, Any]) -> bool:
        """Return whether the model of a row that has `calibration` depends on the calibration samples."""
        can_differ = any("calibrated" in values.values() for values in self.precisions.values())
        return not can_differ or self.precision(parameters) == "calibrated"


@dataclass(frozen=True)
class Configuration:
    """One point of the grid; one row of the published tables.

    Attributes:
        row: The index of its row, from 0.
        parameters: Every parameter; None where it does not apply to this row.
        axes: The benchmarked parameters and their values here, in the grid's order.
        threads: Intra-op threads, for every framework alike; None for the machine's default.
        baseline: The row that ratios and paired tests compare this one with, if any.
    """

    row: int
    parameters: Mapping[str, Any]
    axes: Mapping[str, Any]
    threads: int | None
    baseline: int | None

    def __getitem__(self, name: str) -> Any:
        return self.parameters[name]

    @property
    def quantized(self) -> bool:
        """Whether benchcard quantizes this row's model; whether its framework does is in `run.record.Record`."""
        return bool(self.parameters["apply_quantization"])

    @property
    def evaluation_key(self) -> str:
        """A key that is equal for rows that are evaluated on the same examples."""
        changes = {"calibration_split": None, "max_eval_samples": self["max_eval_samples"]}
        return canonical_json({**self["dataset"], **changes})

    @property
    def label(self) -> str:
        """The row in one line: the benchmarked parameters that apply to it."""
        values = [f"{name}={value}" for name, value in self.axes.items() if value is not None]
        return ", ".join(values) or f"{self.parameters['framework']}"


@dataclass(frozen=True)
class Plan:
    """All configurations of a spec, in the order of the tables."""

    spec: Spec
    configurations: tuple[Configuration, ...]
    frameworks: Mapping[str, FrameworkTraits]

    def compared_with(self, baseline: int) -> int:
        """Return the number of rows that are compared with a baseline."""
        return sum(row.baseline == baseline != row.row for row in self.configurations)

    def only(self, rows: Collection[int]) -> Plan:
        """Return the plan of some rows, which include their baselines, numbered from 0."""
        numbers: dict[int | None, int] = {row: number for number, row in enumerate(sorted(rows))}
        kept = [row for row in self if row.row in numbers]
        kept = [replace(row, row=numbers[row.row], baseline=numbers.get(row.baseline)) for row in kept]
        return replace(self, configurations=tuple(kept))

    def __len__(self) -> int:
        return len(self.configurations)

    def __iter__(self) -> Iterator[Configuration]:
        return iter(self.configurations)

    def __getitem__(self, row: int) -> Configuration:
        return self.configurations[row]

    def __repr__(self) -> str:
        return f"Plan of {pluralize(len(self), 'configuration')}: {', '.join(self.spec.grid) or 'no grid'}"

    def _repr_html_(self) -> str:
        """Return the rows as an HTML table for notebooks; what each row costs is left to `Benchmark.plan()`."""
        import html

        names = ["row", *self.spec.grid, "threads", "baseline"]
        rows = [[row.row, *row.axes.values(), row.threads, row.baseline] for row in self]

        def line(tag: str, values: Sequence[object]) -> str:
            cells = ("" if value is None else html.escape(str(value)) for value in values)
            return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"

        table = line("th", names) + "".join(line("td", values) for values in rows)
        return f"<p>{html.escape(repr(self))}</p><table>{table}</table>"


def make_plan(spec: Spec, frameworks: Mapping[str, FrameworkTraits] | None = None) -> Plan:
    """Return the plan of a spec. Nothing is loaded, downloaded or measured for it.

    Rows are ordered by their benchmarked parameters from left to right, as in the cards published since 2022. The
    traits in `frameworks`, kept by a run, replace those of registered frameworks.
    """
    names, kept = spec.values("framework") or [spec.get("framework")], frameworks or {}
    traits = {name: kept.get(name) or FrameworkTraits.from_registry(name) for name in names}
    points = [point for name in names for point in _FrameworkGrid(spec, name, traits[name]).points()]
    points.sort(key=lambda point: [_rank(value) for value in point[1].values()])
    points = _first_rows(spec, points, traits)
    parameters, axes = zip(*points)
    rows = zip(itertools.count(), parameters, axes, _threads(parameters), _baselines(spec, parameters, traits))
    return Plan(spec, tuple(itertools.starmap(Configuration, rows)), traits)


def _first_rows(spec: Spec, points: list[Point], traits: Mapping[str, FrameworkTraits]) -> list[Point]:
    """Return the baselines and the first other points, as many on each machine as `max_rows` allows."""
    most = spec.get("max_rows")
    if most is None or most >= len(points):
        return points
    machines = [canonical_json(point[0]["backend_args"]) for point in points]
    kept = {place for place in _baselines(spec, [point[0] for point in points], traits) if place is not None}
    numbers = Counter(machines[place] for place in kept)
    for place, machine in enumerate(machines):
        if place not in kept and numbers[machine] < most:
            numbers[machine] += 1
            kept.add(place)
    return [points[place] for place in sorted(kept)]


def unused_settings(plan: Plan) -> tuple[str, ...]:
    """Return a sentence for each setting without effect on any row or on those of a framework, after the spec's notes.

    A parameter that applies to some rows only, as `calibration` in a grid with dynamic rows, is not reported, but for
    fixed settings of activations.
    """
    spec, sentences = plan.spec, [*plan.spec.notes]
    is_any_dynamic = any(row["quantization_approach"] == "dynamic" for row in plan)

    given = {**spec.fixed, **spec.grid}
    if any(row["calibration"] is not None for row in plan):
        given |= {f"calibration.{part}": value for part, value in (spec.fixed.get("calibration") or {}).items()}
    for name, value in given.items():
        parameter = split_name(name)[0]
        if parameter == "framework_args" or value is None:
            continue
        reason = _DYNAMIC.get(parameter) if is_any_dynamic else None
        if all(_axis_value(row.parameters, name) is None for row in plan):
            sentences.append(f"{name} changes nothing: {reason or 'it applies to no row'}")
        elif reason and name in spec.fixed and value != getattr(_DYNAMIC_SETTINGS, name):
            sentences.append(f"{name} ({value}) applies to the static rows alone: {reason}")
    baselines = [plan[row.baseline] for row in plan if row.baseline is not None]
    if (named := spec.get("baseline")) and not any(_has_values(row.parameters, named) for row in baselines):
        sentences.append("baseline changes nothing: no row that benchcard leaves unquantized has these values")
    arguments = dict(spec.fixed.get("framework_args") or {})
    arguments |= {
        split_name(name)[1]: value for name, value in spec.fixed.items() if name.startswith("framework_args.")
    }
    sentences += [
        f"framework_args.{argument} ({value}) changes nothing for {framework}, which has no such argument"
        for framework, traits in plan.frameworks.items()
        for argument, value in arguments.items()
        if argument not in traits.arguments
    ]
    return tuple(sentences)


@dataclass(frozen=True)
class _FrameworkGrid:
    spec: Spec
    framework: str
    traits: FrameworkTraits

    def points(self) -> Iterator[Point]:
        """Yield each distinct point."""
        choices = {name: self._choices(name) for name in self.spec.grid}
        templates: dict[str | None, tuple[dict[str, Any], set[str]]] = {}
        seen = set[tuple[int, ...]]()
        for point in itertools.product(*(range(len(values)) for values in choices.values())):
            indices = dict(zip(choices, point))
            values = {name: choices[name][index] for name, index in indices.items()}
            approach = self._approach(values)
            if approach not in templates:
                templates[approach] = self._template(approach)
            template, active = templates[approach]
            parameters = dict(template)
            for name, value in values.items():
                if name in active:
                    parameter, part = split_name(name)
                    # Arguments of a backend that are equal for all machines stand beside those of each.
                    is_whole = part is None and parameter != BACKEND_ARGUMENTS
                    fields = value if part is None else {part: value}
                    parameters[parameter] = value if is_whole else {**parameters[parameter], **fields}
            if approach is None and not self.traits.calibrates(parameters):
                # The first samples of the grid stay in the parameters: they are in the keys of steps.
                active = {name for name in active if split_name(name)[0] != "calibration"}
            key = tuple(index if name in active else -1 for name, index in indices.items())
            if key in seen:
                continue
            seen.add(key)
            axes = {name: _axis_value(parameters, name) if name in active else None for name in indices}
            if BACKEND_ARGUMENTS in axes:
                axes[BACKEND_ARGUMENTS] = self.spec.shown_arguments(values[BACKEND_ARGUMENTS])
            yield parameters, axes

    def _choices(self, name: str) -> list[Any]:
        values, (parameter, part) = self.spec.grid[name], split_name(name)
        if name == "framework":
            return [self.framework]
        if name == "framework_args":
            return self._argument_entries(values)
        if parameter == "framework_args" and part not in self.traits.arguments:
            return [None]
        if name == "calibration":
            complete = [self._calibration(value) for value in values]
            return list({canonical_json(value): value for value in complete}.values())
        return list(values)

    def _argument_entries(self, entries: Mapping[str, Any] | Sequence[Any]) -> list[Any]:
        """Return the entries of `framework_args` that belong to this framework: those with arguments that it accepts.

        The empty entry belongs to the frameworks without another one.
        """
        if isinstance(entries, Mapping):
            return list(entries.get(self.framework, [{}]))
        return [entry for entry in entries if entry and entry.keys() <= {*self.traits.arguments}] or [{}]

    def _approach(self, axes: Mapping[str, object]) -> str | None:
        """Return how a point is quantized; None for not at all."""
        if not self._is_supported("apply_quantization"):
            return None
        values = {**self.spec.fixed, **axes}
        approach: str | None = values.get("quantization_approach")
        # Where the spec does not set `apply_quantization`, an approach implies it.
        is_quantized = values.get("apply_quantization", approach is not None)
        return (approach or "dynamic") if is_quantized else None

    def _template(self, approach: str | None) -> tuple[dict[str, Any], set[str]]:
        """Return the fixed parameters of rows with this approach, and which benchmarked ones apply to them."""
        fixed = self.spec.fixed
        parameters: dict[str, Any] = {
            name: fixed.get(name, parameter.default) if self._applies(name, approach) else None
            for name, parameter in PARAMETERS.items()
        }
        parameters["framework"] = self.framework
        if self._is_supported("apply_quantization"):
            parameters["apply_quantization"] = approach is not None
            parameters["quantization_approach"] = approach
        if parameters["calibration"] is not None:
            parameters["calibration"] = self._calibration(parameters["calibration"])
        parameters["framework_args"] = {
            name: value for name, value in parameters["framework_args"].items() if name in self.traits.arguments
        }
        for name, value in fixed.items():
            parameter, part = split_name(name)
            if part is None or parameters[parameter] is None or not self._reads(name):
                continue
            if parameter != "framework_args" or part in self.traits.arguments:
                parameters[parameter] = {**parameters[parameter], part: value}
        applying = {name for name in PARAMETERS if parameters[name] is not None or self._applies(name, approach)}
        return parameters, {name for name in self.spec.grid if split_name(name)[0] in applying and self._reads(name)}

    def _applies(self, parameter: str, approach: str | None) -> bool:
        # A framework that benchcard does not quantize for may calibrate while it converts a graph.
        calibrates = parameter == "calibration" and not self._is_supported("apply_quantization")
        return (calibrates or approach in SCOPES[PARAMETERS[parameter].scope]) and self._is_supported(parameter)

    def _calibration(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return `calibration` with its defaults, as far as the framework reads it."""
        complete = {**CALIBRATION_DEFAULTS, **given}
        return {part: value for part, value in complete.items() if self._reads(f"calibration.{part}")}

    def _reads(self, name: str) -> bool:
        """Return whether a field of a parameter has an effect: of `calibration`, `convert` gets the samples alone."""
        parameter, part = split_name(name)
        is_method = parameter == "calibration" and part not in (None, "num_calibration_samples")
        return not is_method or self._is_supported("apply_quantization")

    def _is_supported(self, parameter: str) -> bool:
        """Return whether the framework supports a parameter; it lists those of quantization and of ONNX."""
        is_optional = PARAMETERS[parameter].scope != "any" or parameter in ("apply_quantization", "from_transformers")
        return not is_optional or parameter in self.traits.parameters


def _axis_value(parameters: Mapping[str, Any], name: str) -> Any:
    parameter, part = split_name(name)
    value = parameters[parameter]
    return value if part is None else (value or {}).get(part)


def _rank(value: object) -> tuple[object, ...]:
    """Return a sort key: None, then truth values, numbers, text, lists of numbers, and everything else by its text."""
    if value is None:
        return (0,)
    if isinstance(value, bool):
        return (1, value)
    if isinstance(value, (int, float)):
        return (2, value)
    if isinstance(value, str):
        return (3, value)
    if isinstance(value, list) and all(isinstance(element, (int, float)) for element in value):
        return (4, value)
    return (5, repr(value))


def _threads(rows: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Return the threads of each row; a row that sets none gets the number that all others share, to be comparable."""
    requested = [(row["framework_args"] or {}).get("intra_op_num_threads") for row in rows]
    distinct = {threads for threads in requested if threads is not None}
    common = distinct.pop() if len(distinct) == 1 else None
    return [threads if threads is not None else common for threads in requested]


def _baselines(
    spec: Spec, rows: Sequence[Mapping[str, Any]], traits: Mapping[str, FrameworkTraits]
) -> list[int | None]:
    """Return each row's baseline: a row of its model, data and settings that benchcard did not quantize.

    It is the first one with the values of `baseline`, if that is given, else the first one that its framework did not
    quantize either, in float32, of onnxruntime, as far as there are such rows.
    """
    model_settings = ("framework", "framework_args", "apply_quantization", "from_transformers")
    shared = sorted({split_name(name)[0] for name in spec.grid}.difference(model_settings))
    shared = [name for name in shared if PARAMETERS[name].scope == "any"]
    groups = [canonical_json([row[name] for name in shared]) for row in rows]
    baselines: dict[str, int] = {}
    named = spec.get("baseline")

    def rank(index: int) -> tuple[bool, bool, bool, bool]:
        row = rows[index]
        is_named = _has_values(row, named)
        precision = traits[row["framework"]].precision(row)
        is_quantized = precision in ("quantized", "calibrated")
        is_in_16_bits = precision == "16 bits" or row["dtype"] == "float16"
        return not is_named, is_quantized, is_in_16_bits, row["framework"] != "onnxruntime"

    # The sort is stable: of rows with equal ranks, the first one of the table counts.
    for index in sorted(range(len(rows)), key=rank):
        if not rows[index]["apply_quantization"]:
            baselines.setdefault(groups[index], index)
    return [baselines.get(group) for group in groups]


def _has_values(row: Mapping[str, Any], named: Mapping[str, Any]) -> bool:
    """Return whether a row has these values of benchmarked parameters."""
    return all(_axis_value(row, name) == value for name, value in named.items())


def calibration_method(configuration: Configuration) -> dict[str, Any]:
    """Return the settings of a static row that turn statistics of activations into ranges."""
    settings = {**configuration["calibration"], "symmetric": configuration["activations_symmetric"]}
    del settings["num_calibration_samples"]
    return {name: value for name, value in settings.items() if value is not None}
