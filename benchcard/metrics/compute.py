"""Metrics of predictions: loaded, computed, and merged into one set of figures."""

from __future__ import annotations

import inspect
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.errors import BenchcardError, Mistake, SpecError
from benchcard.metrics.info import BESIDE, COLUMNS, MetricInfo, meant, metric_info, split_column, with_spec_direction
from benchcard.spec.parameters import PARAMETERS, split_name
from benchcard.utils.plain import digest
from benchcard.utils.text import did_you_mean, join_names


@dataclass(frozen=True)
class Figure:
    """One figure of a metric.

    Attributes:
        value: None where it is not defined for these predictions: a correlation with a constant.
        reading: How it is to be read.
        positive: The id of the label that it is of, where it is of one label.
    """

    value: float | None
    reading: MetricInfo
    positive: int | None = None


def compute_metric(
    name: str,
    given: Mapping[str, Any],
    meanings: Mapping[str, str],
    arguments: Mapping[str, Mapping[str, Any]],
    script: str | None = None,
) -> dict[str, Figure]:
    """The figures of a metric, by the name of their column: those that are single numbers.

    Args:
        name: The metric's id.
        given: `predictions`, `references` and `prediction_scores`, of which a metric takes those that its features
            name, and the task's `metric_defaults`.
        meanings: By id of a metric that means something of its own for a task, the metric and the figure that are
            meant.
        arguments: By id of a metric, what its `compute` takes beside these: `{"f1": {"average": "macro"}}`.
        script: Where the metric's script lies, for one that is no id.

    Raises:
        SpecError: There is no such metric, or it is not made for predictions like these, as far as benchcard can say.
        BenchcardError: It failed; the message has its own words.
    """
    identity, figure = meant(name, meanings, script)
    found = load_metric(identity, script)
    features = found.features[0] if isinstance(found.features, list) else found.features
    place = f"$.metrics (`{name}`)"
    lacking = [each for each in features if given.get(each) is None]
    if lacking:
        raise SpecError(
            Mistake(place, f"a task that gives no {join_names(lacking)}", "a metric that this task has the inputs for")
        )
    _refuse_unknown(name, found, features, arguments.get(name, arguments.get(identity, {})))
    extra = extra_arguments(name, identity, found, given, arguments)
    try:
        told = found.compute(**{each: given[each] for each in features}, **extra)
    except SpecError:
        raise
    except Exception as error:
        # What benchcard brings says in these what it is not made for; what others raise may be anything.
        if registry.is_built_in_metric(identity) and isinstance(error, (ValueError, TypeError, KeyError)):
            wanted = "a metric that fits the task"
            raise SpecError(
                Mistake(place, "predictions and references that it cannot compare", wanted, str(error))
            ) from error
        raise BenchcardError(f"the metric `{name}` failed: {type(error).__name__}: {error}") from error
    if not isinstance(told, Mapping):
        # A bare number, be it 0; or nothing, where not all processes of a metric tell.
        told = {} if told is None else {name: told}
    if figure and figure not in told:
        # A metric that leaves figures out says why in a text beside the others.
        known = [key for key, value in told.items() if not isinstance(value, str)]
        why = "; ".join(value for value in told.values() if isinstance(value, str))
        raise SpecError(Mistake(place, f"no figure `{figure}`", join_names(known), why or did_you_mean(figure, known)))
    if figure:
        told = {name: told[figure]}
    numbers = {
        key: float(value)
        for key, value in told.items()
        if isinstance(value, (int, float)) or getattr(value, "shape", None) == ()
    }
    readings = {
        key: with_spec_direction(found, metric_info(identity, figure or (key if key != identity else None)))
        for key in numbers
    }
    positive = extra.get("pos_label")
    label = positive if isinstance(positive, int) and _is_binary(found, extra) else None
    return {
        key: Figure(value if math.isfinite(value) else None, readings[key], label) for key, value in numbers.items()
    }


def extra_arguments(
    name: str, identity: str, found: Any, given: Mapping[str, Any], arguments: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what a metric's `compute` gets beside predictions and references: what the spec gives, else what the task
    knows and the metric takes.

    Args:
        name: The metric's id, as the spec has it.
        identity: The id of the metric that is meant.
        found: The metric.
        given: As for `measured`.
        arguments: As for `measured`.
    """
    extra = dict(arguments.get(name, arguments.get(identity, {})))
    known, is_own = _parameters(found), registry.is_built_in_metric(identity)
    for key, value in given.get("metric_defaults", {}).items():
        # Only benchcard's own metrics know what it means that there is no positive class.
        if key in known and (key != "pos_label" or _is_binary(found, extra)) and (value is not None or is_own):
            extra.setdefault(key, value)
    return extra


def _parameters(found: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(getattr(found, "_compute", found.compute)).parameters


def _is_binary(found: Any, extra: Mapping[str, Any]) -> bool:
    """Return whether a metric that takes a positive class is of it alone, and no average over classes."""
    parameter = _parameters(found).get("average")
    default = parameter.default if parameter and parameter.default is not parameter.empty else None
    return (getattr(found, "average", None) or extra.get("average", default) or "binary") == "binary"


def _refuse_unknown(name: str, found: Any, features: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """Raise where a metric is given arguments that it does not take."""
    known = _parameters(found)
    if any(each.kind is each.VAR_KEYWORD for each in known.values()):
        return
    free = [each for each in known if each not in features]
    mistakes = [
        Mistake(f"$.task_args.metric_args.{name}.{each}", f"`{each}`", join_names(free), did_you_mean(each, free))
        for each in extra
        if each not in free
    ]
    if mistakes:
        raise SpecError(mistakes)


def with_directions(figures: Mapping[str, Figure], name: str, said: Mapping[str, bool]) -> dict[str, Figure]:
    """The figures of a metric with the directions that a spec gives, by the metric's id or the figure's name."""
    return {
        key: replace(figure, reading=replace(figure.reading, higher_is_better=said.get(key, said.get(name))))
        if key in said or name in said
        else figure
        for key, figure in figures.items()
    }


def merge_figures(told: Mapping[str, Mapping[str, Figure]], meanings: Mapping[str, str]) -> dict[str, Figure]:
    """The figures of several metrics, each of which has columns of its own.

    Args:
        told: By id of the metric, its figures.
        meanings: As for `measured`: a figure may come twice where both ids mean the same metric.

    Raises:
        BenchcardError: Two figures would have one column, or one the column of something else.
    """
    holders: dict[str, tuple[str, str]] = {}
    for name, figures in told.items():
        for figure in figures:
            parameter = split_name(figure)[0]
            # The setting `precision` is no column unless it is benchmarked, which `spec` refuses beside the metric.
            if figure in COLUMNS or (parameter in PARAMETERS and parameter != "precision"):
                raise BenchcardError(
                    f"the metric `{name}` gives a figure `{figure}`, which is the column of something else in the "
                    "results: another name is needed"
                )
            for column in (figure, *(f"{figure}_{part}" for part in BESIDE)):
                holder, other = holders.setdefault(column, (name, figure))
                alike = split_column(meanings.get(holder, holder))[0] == split_column(meanings.get(name, name))[0]
                if other != figure or (holder != name and not (alike and figures[figure] == told[holder][figure])):
                    who = f"the metric `{name}` has" if holder == name else f"the metrics `{holder}` and `{name}` have"
                    raise BenchcardError(
                        f"{who} two figures for the column `{column}` of the results: give one of them another name, "
                        "or leave a metric out"
                    )
    return {figure: value for figures in told.values() for figure, value in figures.items()}


def load_metric(name: str, script: str | None = None) -> Any:
    """The `evaluate.EvaluationModule` of a metric, or of the metric that a figure is asked of; of a script, where it is
    given.

    Raises:
        SpecError: benchcard does not bring it, and it is not there, or lacks a package.
        BenchcardError: It cannot be loaded for another reason, which the message has.
    """
    name, _ = split_column(name, script)
    if name in registry.metrics():
        return registry.metric(name)
    try:
        return _load(script or name)
    except ImportError as error:
        raise SpecError(
            Mistake("$.metrics", f"`{name}`", "a metric whose packages are installed", str(error))
        ) from error
    except OSError as error:  # no such file, no connection
        hint = (
            did_you_mean(name, registry.metrics())
            or "any other metric is loaded with `evaluate.load`, which needs the network"
        )
        raise SpecError(
            Mistake(
                "$.metrics",
                f"`{name}`",
                f"{join_names(registry.metrics())}, or an id that `evaluate.load` can load",
                hint,
            )
        ) from error
    except Exception as error:
        raise BenchcardError(f"the metric `{name}` cannot be loaded: {type(error).__name__}: {error}") from error


def _load(name: str) -> Any:
    """Return the metric of an id, or of a script, which is loaded from a copy that has the digest of its content.

    `evaluate` has a cache of scripts, in which two are the same that differ only behind a `#`, be it in a text.
    """
    import evaluate

    from benchcard.utils.files import content_digest

    path = Path(name)
    script = path / f"{path.name}.py" if path.is_dir() else path
    if not script.is_file():
        return evaluate.load(name)
    with tempfile.TemporaryDirectory(prefix="benchcard-") as folder:
        copy = Path(folder) / script.name
        for beside in script.parent.iterdir():
            if beside.name != script.name:
                copy.with_name(beside.name).symlink_to(beside.absolute())
        content = digest([content_digest(file) for file in sorted(script.parent.glob("*.py"))])
        copy.write_bytes(script.read_bytes() + f"\nCONTENT = {content!r}\n".encode())
        return evaluate.load(str(copy))
