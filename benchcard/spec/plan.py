"""The configurations that a spec comes to: the grid multiplied out, what means nothing set to None, equal rows made
one.

This module owns the rows of the published tables, their order and their baselines. What making and measuring a row
takes is told in `steps`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchcard import registry
from benchcard.quantization.settings import STATIC_ONLY
from benchcard.spec.parameters import CALIBRATION_DEFAULTS, PARAMETERS, split_name
from benchcard.spec.spec import Spec
from benchcard.utils.plain import canonical_json
from benchcard.utils.text import pluralize

_UNQUANTIZED_SCOPES = ("quantized", "static")
# What dynamic quantization does where a parameter of static rows says otherwise.
_DYNAMIC = {name: STATIC_ONLY[name] for name in ("activations_dtype", "activations_symmetric")}


@dataclass(frozen=True)
class Configuration:
    """One point of the grid; one row of the published tables.

    Attributes:
        row: Its place in the table, from 0.
        parameters: Every parameter; None where it means nothing for this row.
        axes: The benchmarked parameters and their values here, in the grid's order.
        threads: Intra-op threads, for every framework alike; None for as many as the machine has physical cores.
        baseline: The row that ratios and paired tests compare this one with; None where the plan has no unquantized row
            to compare with.
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
        """Whether this row's model is quantized."""
        return bool(self.parameters["apply_quantization"])

    @property
    def evaluated_on(self) -> str:
        """What this row's quality is of, as a key: figures of rows of another one are of other examples."""
        return canonical_json(
            {**self["dataset"], "calibration_split": None, "max_eval_samples": self["max_eval_samples"]}
        )

    @property
    def label(self) -> str:
        """The row in one line: its benchmarked parameters that mean something."""
        said = [f"{name}={value}" for name, value in self.axes.items() if value is not None]
        return ", ".join(said) or f"{self.parameters['framework']}"


@dataclass(frozen=True)
class Plan:
    """All configurations of a spec, in the order of the tables."""

    spec: Spec
    configurations: tuple[Configuration, ...]

    def compared_with(self, baseline: int) -> int:
        """How many rows are compared with a baseline."""
        return sum(row.baseline == baseline != row.row for row in self.configurations)

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
        lines = [("th", names), *(("td", ["" if value is None else value for value in values]) for values in rows)]
        table = "".join(
            f"<tr>{''.join(f'<{tag}>{html.escape(str(value))}</{tag}>' for value in values)}</tr>"
            for tag, values in lines
        )
        return f"<p>{html.escape(repr(self))}</p><table>{table}</table>"


def make_plan(spec: Spec) -> Plan:
    """The plan of a spec. Nothing is loaded, downloaded or measured for it.

    Rows are ordered by their benchmarked parameters from left to right, None first, then truth values, numbers, and
    everything else by its text: the order of the cards published since 2022.
    """
    rows = [row for framework in _frameworks(spec) for row in _rows(spec, framework)]
    rows.sort(key=lambda row: row[0])
    parameters = [row[1] for row in rows]
    threads, baselines = _threads(parameters), _baselines(spec, parameters)
    return Plan(
        spec,
        tuple(Configuration(index, row[1], row[2], threads[index], baselines[index]) for index, row in enumerate(rows)),
    )


def unused_settings(plan: Plan) -> tuple[str, ...]:
    """What was asked for in vain, in sentences: values that mean nothing to any row, or not to one framework's rows;
    and those of activations, which a reader would take for those of the dynamic rows, too.

    Parameters that mean something to some rows and nothing to others, as `calibration` in a grid with dynamic rows,
    are no such thing.
    """
    spec, said = plan.spec, []
    for name, value in spec.fixed.items():
        parameter = split_name(name)[0]
        if parameter == "framework_args":
            continue
        if value is None:
            continue
        dynamic = any(row["quantization_approach"] == "dynamic" for row in plan)
        why = _DYNAMIC[parameter] if dynamic and parameter in _DYNAMIC else ""
        if all(row[parameter] is None for row in plan):
            said.append(f"{name} changes nothing: {why or 'it means nothing to any row'}")
        elif why:
            said.append(f"{name} ({value}) is of the static rows alone: {why}")
    for name in (name for name in spec.grid if split_name(name)[0] not in ("framework", "framework_args")):
        if all(row[split_name(name)[0]] is None for row in plan):
            said.append(f"{name} changes nothing: {_DYNAMIC.get(split_name(name)[0], 'it means nothing to any row')}")
    fixed = dict(spec.fixed.get("framework_args") or {})
    fixed |= {split_name(name)[1]: value for name, value in spec.fixed.items() if name.startswith("framework_args.")}
    for framework in _frameworks(spec):
        known = registry.framework(framework).arguments
        said += [
            f"framework_args.{key} ({value}) changes nothing for {framework}, which does not know it"
            for key, value in fixed.items()
            if key not in known
        ]
    return tuple(said)


def _frameworks(spec: Spec) -> list[str]:
    return list(spec.grid["framework"]) if "framework" in spec.grid else [spec.get("framework")]


def _rows(spec: Spec, framework: str) -> Iterator[tuple[list[Any], dict[str, Any], dict[str, Any]]]:
    """The distinct points of the grid for one framework: sort key, every parameter, benchmarked parameters."""
    choices = {name: _choices(spec, framework, name) for name in spec.grid}
    ranks = {name: [_rank(value) for value in values] for name, values in choices.items()}
    names, templates, seen = list(choices), dict[Any, _Template](), set[tuple[int, ...]]()
    for point in itertools.product(*(range(len(values)) for values in choices.values())):
        axes = {name: choices[name][index] for name, index in zip(names, point)}
        scope = _scope(spec, framework, axes)
        if scope not in templates:
            templates[scope] = _template(spec, framework, scope)
        template = templates[scope]
        key = tuple(index if name in template.active else -1 for name, index in zip(names, point))
        if key in seen:
            continue
        seen.add(key)
        parameters = dict(template.parameters)
        for name, value in axes.items():
            if name in template.active:
                parameter, part = split_name(name)
                parameters[parameter] = value if part is None else {**parameters[parameter], part: value}
        shown = {name: _value(parameters, name) for name in names}
        yield (
            [
                ranks[name][index] if name in template.active else _rank(shown[name])
                for name, index in zip(names, point)
            ],
            parameters,
            shown,
        )


def _choices(spec: Spec, framework: str, name: str) -> list[Any]:
    """The distinct values of one benchmarked parameter that a framework can tell apart."""
    given, (parameter, part) = spec.grid[name], split_name(name)
    if name == "framework":
        return [framework]
    if name == "framework_args":
        return _entries(given, framework, _frameworks(spec))
    if parameter == "framework_args" and part not in registry.framework(framework).arguments:
        return [None]
    if name == "calibration":
        filled = [{**CALIBRATION_DEFAULTS, **value} for value in given]
        return list({canonical_json(value): value for value in filled}.values())
    return list(given)


@dataclass(frozen=True)
class _Template:
    """What the rows of one framework have in common, once it is known whether and how they are quantized.

    Attributes:
        parameters: Every parameter, the benchmarked ones with what is fixed beneath them.
        active: The benchmarked parameters that mean something.
    """

    parameters: Mapping[str, Any]
    active: frozenset[str]


def _scope(spec: Spec, framework: str, axes: Mapping[str, Any]) -> str | None:
    """How a point is quantized: "dynamic", "static", or None for not at all."""
    if not _means(registry.framework(framework), "apply_quantization"):
        return None

    def value(name: str) -> Any:
        return axes[name] if name in axes else spec.fixed.get(name)

    # Where nobody says `apply_quantization`, quantization is meant as soon as an approach is given.
    apply = value("apply_quantization")
    if apply is None:
        apply = value("quantization_approach") is not None
    return (value("quantization_approach") or "dynamic") if apply else None


def _template(spec: Spec, framework: str, scope: str | None) -> _Template:
    known = registry.framework(framework)
    parameters: dict[str, Any] = {}
    for name, parameter in PARAMETERS.items():
        silent = (parameter.scope == "quantized" and scope is None) or (
            parameter.scope == "static" and scope != "static"
        )
        parameters[name] = None if silent or not _means(known, name) else spec.fixed.get(name, parameter.default)
    parameters["framework"] = framework
    if _means(known, "apply_quantization"):
        parameters["apply_quantization"] = scope is not None
        parameters["quantization_approach"] = scope
    if parameters["calibration"] is not None:
        parameters["calibration"] = {**CALIBRATION_DEFAULTS, **parameters["calibration"]}
    parameters["framework_args"] = {
        key: value for key, value in parameters["framework_args"].items() if key in known.arguments
    }
    for name, value in spec.fixed.items():
        parameter_name, part = split_name(name)
        if (
            part is not None
            and parameters[parameter_name] is not None
            and (parameter_name != "framework_args" or part in known.arguments)
        ):
            parameters[parameter_name] = {**parameters[parameter_name], part: value}
    active = {name for name in spec.grid if parameters[split_name(name)[0]] is not None or _given(name, scope, known)}
    return _Template(parameters, frozenset(active))


def _given(name: str, scope: str | None, known: Any) -> bool:
    """Whether a benchmarked parameter that has no value beneath it means something."""
    parameter, part = split_name(name)
    wanted = PARAMETERS[parameter].scope
    means = _means(known, parameter) and (
        wanted == "any" or (wanted == "quantized" and scope is not None) or scope == wanted
    )
    return means and (part is None or parameter != "framework_args" or part in known.arguments)


def _entries(given: Any, framework: str, frameworks: Sequence[str]) -> list[Any]:
    """The entries of a grid's `framework_args` that belong to one framework.

    An entry belongs to every framework that knows all its keys, and the empty entry to the frameworks that no other
    entry belongs to.
    """
    if isinstance(given, Mapping):
        return list(given.get(framework, [{}]))
    known = set(registry.framework(framework).arguments)
    own = [entry for entry in given if entry and set(entry) <= known]
    return own or [{}]


def _means(framework: Any, parameter: str) -> bool:
    """Whether a parameter means something to a framework: those of quantization and of ONNX only if it says so."""
    conditional = PARAMETERS[parameter].scope in _UNQUANTIZED_SCOPES or parameter in (
        "apply_quantization",
        "from_transformers",
    )
    return parameter in framework.parameters if conditional else True


def _value(parameters: Mapping[str, Any], name: str) -> Any:
    """The value that a row shows for a benchmarked parameter."""
    parameter, part = split_name(name)
    value = parameters[parameter]
    return value if part is None else (value or {}).get(part)


def _rank(value: Any) -> tuple[Any, ...]:
    """A sort key: None, then truth values, then numbers, then text, then lists of numbers, then everything else by its
    text.
    """
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
    """Threads of each row: as asked; where a row does not ask, what the rows that ask agree on, so that frameworks meet
    on equal terms.
    """
    asked = [(row["framework_args"] or {}).get("intra_op_num_threads") for row in rows]
    said = {threads for threads in asked if threads is not None}
    common = said.pop() if len(said) == 1 else None
    return [threads if threads is not None else common for threads in asked]


def _baselines(spec: Spec, rows: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """For each row the first unquantized row of the same model, data and measurement: of onnxruntime, where it has
    one.
    """
    apart = ("framework", "framework_args", "apply_quantization", "from_transformers")
    shared = {split_name(name)[0] for name in spec.grid}
    shared = {name for name in shared if PARAMETERS[name].scope == "any" and name not in apart}
    groups = [canonical_json([row[name] for name in sorted(shared)]) if shared else "" for row in rows]
    first: dict[str, tuple[int, int]] = {}
    for index, (group, row) in enumerate(zip(groups, rows)):
        if not row["apply_quantization"]:
            mine = (0 if row["framework"] == "onnxruntime" else 1, index)
            first[group] = min(first.get(group, mine), mine)
    return [first[group][1] if group in first else None for group in groups]


def calibration_method(configuration: Configuration) -> dict[str, Any]:
    """How ranges are to be drawn from statistics, for one static row."""
    given = configuration["calibration"]
    method = {name: value for name, value in given.items() if name != "num_calibration_samples" and value is not None}
    if configuration["activations_symmetric"] is not None:
        method["symmetric"] = configuration["activations_symmetric"]
    return method
