"""Metrics computed from predictions: how a metric is loaded and called, and which figures it returns.

Leaves the meaning of figures to `info`, and their intervals to `examples` and `uncertainty`.
"""

from __future__ import annotations

import inspect
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from benchcard import registry
from benchcard.errors import BenchcardError, Mistake, SpecError
from benchcard.metrics import info
from benchcard.metrics.info import Figure, metric_info, split_column
from benchcard.spec.parameters import PARAMETERS, split_name
from benchcard.utils.files import content_digest
from benchcard.utils.plain import digest
from benchcard.utils.text import did_you_mean, join_names

if TYPE_CHECKING:
    import evaluate
    import numpy as np


@dataclass(frozen=True)
class MetricInputs:
    """What metrics are computed from.

    Attributes:
        predictions: The prediction of each row.
        references: The reference of each row; None for all where the data have none.
        prediction_scores: `(rows, labels) float32`, for metrics of rankings; None where the task has none.
        defaults: Arguments for each metric whose `compute` has the parameter, unless `arguments` sets it.
        meanings: The metric and figure that an id stands for in the task, as `{"f1": "seqeval.overall_f1"}`.
        arguments: By the id of a metric, further arguments of its `compute`: `{"f1": {"average": "macro"}}`.
    """

    predictions: Sequence[object]
    references: Sequence[object]
    prediction_scores: np.ndarray | None = None
    defaults: Mapping[str, object] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True)
class MetricCall:
    """A loaded metric, the inputs and arguments of its `compute`, and the figure to return (empty: all figures).

    `identity` is the metric's own id; the id in the spec may be another name for it.
    """

    identity: str
    figure: str
    metric: evaluate.EvaluationModule
    inputs: Mapping[str, Sequence[object] | np.ndarray]
    arguments: Mapping[str, object]


def prepare_call(name: str, inputs: MetricInputs, script: str | None = None) -> MetricCall:
    """Load a metric and select what its `compute` is called with. See `compute_metric`."""
    identity, figure = split_column(inputs.meanings.get(name, name), script)
    # Meanings come from a file of the run, so a metric that they name is never loaded from the network.
    if name in inputs.meanings and identity not in registry.metrics():
        means = f"the task says that `{name}` means `{identity}`"
        raise BenchcardError(f"{means}, which is no installed metric: install its package")
    metric = load_metric(identity, script)
    features = metric.features[0] if isinstance(metric.features, list) else metric.features
    known = ("predictions", "references", "prediction_scores")
    values = {feature: getattr(inputs, feature) for feature in features if feature in known}
    if len(inputs.references) and all(reference is None for reference in inputs.references):
        values.pop("references", None)
    if missing := [feature for feature in features if values.get(feature) is None]:
        actual, expected = f"a task that gives no {join_names(missing)}", "a metric that this task has the inputs for"
        hint = "with `ref_keys: []` there are none" if "references" in missing else ""
        raise SpecError(Mistake(f"$.metrics (`{name}`)", actual, expected, hint))
    arguments = dict(inputs.arguments.get(name, inputs.arguments.get(identity, {})))
    parameters = _parameters(metric)
    free = [key for key in parameters if key not in features]
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if unknown := [key for key in arguments if not takes_any and key not in free]:
        place, expected = f"$.task_args.metric_args.{name}", join_names(free)
        raise SpecError([Mistake(f"{place}.{key}", f"`{key}`", expected, did_you_mean(key, free)) for key in unknown])
    for key, value in inputs.defaults.items():
        # Only benchcard's own metrics accept None, which says that the positive class is not known.
        is_accepted = key in parameters and (value is not None or registry.is_built_in_metric(identity))
        if is_accepted and (key != "pos_label" or _is_binary(metric, arguments)):
            arguments.setdefault(key, value)
    return MetricCall(identity, figure, metric, values, arguments)


def compute_metric(
    name: str,
    inputs: MetricInputs,
    script: str | None = None,
    directions: Mapping[str, bool] = MappingProxyType({}),
) -> dict[str, Figure]:
    """Return the figures of a metric that are single numbers, by the name of their column.

    Args:
        name: The metric's id in the spec.
        inputs: What metrics are computed from.
        script: The path of the metric's script, where the id names one.
        directions: The `higher_is_better` of the spec, by the metric's id or the figure's.

    Raises:
        SpecError: There is no such metric, it does not fit the task or its predictions, or it has unknown arguments.
        BenchcardError: A metric of another package failed; the message has its own text.
    """
    call = prepare_call(name, inputs, script)
    place = f"$.metrics (`{name}`)"
    try:
        result = call.metric.compute(**call.inputs, **call.arguments)
    except SpecError:
        raise
    except Exception as error:
        # benchcard's own metrics raise these for inputs that do not fit them; other metrics may raise anything.
        if registry.is_built_in_metric(call.identity) and isinstance(error, (ValueError, TypeError, KeyError)):
            actual = "predictions and references that it cannot compare"
            raise SpecError(Mistake(place, actual, "a metric that fits the task", str(error))) from error
        raise BenchcardError(f"the metric `{name}` failed: {type(error).__name__}: {error}") from error
    # A metric may return a bare number. It returns nothing in all but one process of a distributed computation.
    values = result if isinstance(result, Mapping) else {} if result is None else {name: result}
    if call.figure:
        if call.figure not in values:
            # A metric that leaves figures out gives the reason as a text beside the others.
            names = [key for key, value in values.items() if not isinstance(value, str)]
            reason = "; ".join(value for value in values.values() if isinstance(value, str))
            hint = reason or did_you_mean(call.figure, names)
            raise SpecError(Mistake(place, f"no figure `{call.figure}`", join_names(names), hint))
        values = {name: values[call.figure]}
    label = call.arguments.get("pos_label")
    label = label if isinstance(label, int) and _is_binary(call.metric, call.arguments) else None
    figures = {}
    for key, value in values.items():
        if isinstance(value, (int, float)) or getattr(value, "shape", None) == ():
            known = metric_info(call.identity, call.figure or (key if key != call.identity else None))
            own = info.with_own_attributes(call.metric, known)
            higher = directions.get(key, directions.get(name, own.higher_is_better))
            number = float(value) if math.isfinite(value) else None
            figures[key] = Figure(number, info.MetricInfo(higher, own.unit), label)
    return figures


def _parameters(metric: evaluate.EvaluationModule) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(getattr(metric, "_compute", metric.compute)).parameters


def _is_binary(metric: evaluate.EvaluationModule, arguments: Mapping[str, object]) -> bool:
    """Return whether a metric with a positive class scores that class, and not an average over classes."""
    parameter = _parameters(metric).get("average")
    default = parameter.default if parameter and parameter.default is not parameter.empty else None
    return (getattr(metric, "average", None) or arguments.get("average", default) or "binary") == "binary"


def merge_figures(figures: Mapping[str, Mapping[str, Figure]], meanings: Mapping[str, str]) -> dict[str, Figure]:
    """Return the figures of several metrics, given by the id of each, as one mapping of columns.

    A figure may come twice where both ids stand for the same metric by `meanings`.

    Raises:
        BenchcardError: Two figures would have the same column, or a figure that of another result.
    """
    owners: dict[str, tuple[str, str]] = {}
    metrics = {name: split_column(meanings.get(name, name))[0] for name in figures}
    for name, of_metric in figures.items():
        for figure in of_metric:
            parameter = split_name(figure)[0]
            # The parameter `precision` is a column only where it is benchmarked; `spec` refuses both together.
            if figure in info.RESERVED_COLUMNS or (parameter in PARAMETERS and parameter != "precision"):
                other = "the results have another column of this name: give the figure another name"
                raise BenchcardError(f"the metric `{name}` gives a figure `{figure}`, and {other}")
            for column in (figure, *(f"{figure}_{suffix}" for suffix in info.FIGURE_SUFFIXES)):
                owner, other = owners.setdefault(column, (name, figure))
                same = metrics[owner] == metrics[name] and figures[owner].get(figure) == of_metric[figure]
                if other != figure or not same:
                    who = f"the metric `{name}` has" if owner == name else f"the metrics `{owner}` and `{name}` have"
                    advice = "give one of them another name, or leave a metric out"
                    raise BenchcardError(f"{who} two figures for the column `{column}` of the results: {advice}")
    return {figure: value for of_metric in figures.values() for figure, value in of_metric.items()}


def load_metric(name: str, script: str | None = None) -> evaluate.EvaluationModule:
    """Return a metric by its id, by `metric.figure`, or from a script.

    Raises:
        SpecError: It is neither registered nor loadable by `evaluate`, or lacks a package.
        BenchcardError: Loading failed for another reason, which the message states.
    """
    name, _ = split_column(name, script)
    if name in registry.metrics():
        return registry.metric(name)
    try:
        return _load_with_evaluate(script or name)
    except ImportError as error:
        expected = "a metric whose packages are installed"
        raise SpecError(Mistake("$.metrics", f"`{name}`", expected, str(error))) from error
    except OSError as error:  # no such file, or no connection
        others = "any other metric is loaded with `evaluate.load`, which needs the network"
        hint = did_you_mean(name, registry.metrics()) or others
        expected = f"{join_names(registry.metrics())}, or an id that `evaluate.load` can load"
        raise SpecError(Mistake("$.metrics", f"`{name}`", expected, hint)) from error
    except Exception as error:
        raise BenchcardError(f"the metric `{name}` cannot be loaded: {type(error).__name__}: {error}") from error


def _load_with_evaluate(name: str) -> evaluate.EvaluationModule:
    """Return a metric of the Hub or of a script.

    A script is loaded from a copy that ends with the digest of all scripts in its folder: `evaluate` caches scripts by
    their content without comments, and takes all text after a `#` for a comment, even inside a string.
    """
    import evaluate

    path = Path(name)
    script = path / f"{path.name}.py" if path.is_dir() else path
    if not script.is_file():
        return evaluate.load(name)
    with tempfile.TemporaryDirectory(prefix="benchcard-") as folder:
        copy = Path(folder) / script.name
        for neighbor in script.parent.iterdir():
            if neighbor.name != script.name:
                copy.with_name(neighbor.name).symlink_to(neighbor.absolute())
        content = digest([content_digest(file) for file in sorted(script.parent.glob("*.py"))])
        copy.write_bytes(script.read_bytes() + f"\nCONTENT = {content!r}\n".encode())
        return evaluate.load(str(copy))
