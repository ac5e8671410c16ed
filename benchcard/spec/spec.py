"""Reading a spec: what to benchmark, with all mistakes reported at once, each with its place.

This module owns the form of a spec: a task, parameters with one value (at the top level or under `fixed`), and
benchmarked parameters (lists of values under `grid`). The names and types of parameters are left to `parameters`, the
configurations of a spec to `plan`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchcard import registry
from benchcard.errors import Mistake, SpecError
from benchcard.spec.parameters import (
    ALIASES,
    BACKEND_ARGUMENTS,
    CARD_NAMES,
    PARAMETERS,
    PRICES,
    FrameworkArguments,
    parameter_names,
    split_name,
    type_of,
)
from benchcard.spec.presets import expand, presets
from benchcard.spec.schema import Anything, ListOf, MappingOf, Text, ValueType
from benchcard.utils.harness import is_task_path
from benchcard.utils.parsing import UnreadableError, load_yaml
from benchcard.utils.plain import checked, digest, plain
from benchcard.utils.text import did_you_mean, format_value, join_names, machine_name

# At a second a row this is more than a week of timing; to plan more rows takes minutes.
MOST_COMBINATIONS = 1_000_000
# Nobody reads more of them at once.
MOST_MISTAKES = 100


@dataclass(frozen=True)
class Spec:
    """A checked spec.

    Attributes:
        fixed: The parameters with one value, by name (`calibration.method` for a field of one).
        grid: The benchmarked parameters with their lists of values; for `framework_args` also by framework.
        folder: Where relative paths start.
        card_folders: For each name that comes from a card, the only folder in which a model, a data set or a script of
            that name is looked for; None where the card may not name a file of this machine.
        trusted: Whether code that the spec names may run: not where it comes from a card or a run directory, which may
            be somebody else's.
        notes: What its preset has and it has not, a sentence each.
    """

    task: str
    fixed: Mapping[str, Any]
    grid: Mapping[str, Any]
    folder: Path = field(default_factory=Path.cwd, compare=False)
    card_folders: Mapping[str, Path | None] = field(default_factory=dict, compare=False)
    places: Mapping[str, Path] = field(default_factory=dict, compare=False)
    trusted: bool = field(default=True, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the spec as plain data, from which `read_spec` makes an equal one."""
        return {"task": self.task, "fixed": plain(self.fixed), "grid": plain(self.grid)}

    @property
    def digest(self) -> str:
        """SHA-256 of the plain data without what changes nothing that is measured: names on the card, and prices."""
        return measured_digest(self.as_dict())

    def get(self, name: str) -> Any:
        """Return the value of a fixed parameter, or its default."""
        return self.fixed.get(name, PARAMETERS[name].default)

    def values(self, name: str) -> list[Any]:
        """Return every value that the spec gives to a parameter, benchmarked or fixed."""
        if name in self.grid:
            return list(self.grid[name])
        return [self.fixed[name]] if name in self.fixed else []

    def shown_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return `backend_args` without those that are of the user's account only, as far as the backend says."""
        shown = _shown_names(self.get("backend"))
        return {name: value for name, value in arguments.items() if shown is None or name in shown}

    def local_path(self, name: str) -> Path | None:
        """Return the path of a name in `search_folders`, from a card not one that leads out of its folder by a link."""
        if name in self.places:
            return self.places[name].resolve()
        return _existing_path(name, self.search_folders(name), inside=name in self.card_folders)

    def search_folders(self, name: str) -> tuple[Path, ...]:
        """Return the folders in which a name is looked for, in that order."""
        if name in self.card_folders:
            folder = self.card_folders[name]
            return () if folder is None else (folder,)
        return tuple(dict.fromkeys((self.folder, Path.cwd())))

    def missing_path_message(self, name: str) -> str:
        """Return why `local_path` finds nothing, and where it looked."""
        folders = " or ".join(sorted(map(str, self.search_folders(name))))
        is_inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        if is_inside and any(os.path.lexists(folder / name) for folder in self.search_folders(name)):
            return f"the one in {folders} leads out of that folder, which a card may not"
        return f"there is no such path in {folders}" if folders else "a remote card cannot name a path of this machine"

    @property
    def trusts_model_code(self) -> bool:
        """Whether some row may run code that comes with its model."""
        return True in self.values("trust_remote_code")


def task_files(arguments: Mapping[str, Any], local_path: Callable[[str], Path | None]) -> dict[str, Path]:
    """Return the paths of those `task_args` that are files, as a task of lm-eval in YAML, by their names."""
    named = {name: value for name, value in arguments.items() if isinstance(value, str) and Path(value).suffix}
    paths = {name: local_path(value) for name, value in named.items()}
    return {name: path for name, path in paths.items() if path is not None and path.is_file()}


def _existing_path(name: str, folders: Collection[Path], *, inside: bool = False) -> Path | None:
    """Return the path of a name in the first of the folders that has it; with `inside`, none that leads out of it."""
    for folder in folders:
        try:
            path = folder / Path(name).expanduser()
            if path.exists() and (not inside or _lies_within(folder, path)):
                return path.resolve()
        except (OSError, RuntimeError, ValueError):
            # The name is no path: it is too long, has a zero byte, or names the home of an unknown user.
            continue
    return None


def measured_digest(spec: Mapping[str, Any], freely_named: Collection[str] = ()) -> str:
    """Return the SHA-256 of a spec as plain data, without prices and names that only the card shows.

    `freely_named` are the paths of the data sets whose `name` is such a name.
    """
    fixed, grid = ({**spec[part]} for part in ("fixed", "grid"))

    def without_name(dataset: Mapping[str, Any]) -> dict[str, Any]:
        is_free = dataset.get("path") in freely_named
        return {name: value for name, value in dataset.items() if not (is_free and name == "name")}

    def without_price(arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in arguments.items() if name not in PRICES}

    for name in (*CARD_NAMES, *PRICES, *(f"{BACKEND_ARGUMENTS}.{price}" for price in PRICES)):
        fixed.pop(name, None)
    if BACKEND_ARGUMENTS in fixed:
        fixed[BACKEND_ARGUMENTS] = without_price(fixed[BACKEND_ARGUMENTS])
    if BACKEND_ARGUMENTS in grid:
        grid[BACKEND_ARGUMENTS] = [without_price(arguments) for arguments in grid[BACKEND_ARGUMENTS]]
    if fixed.get("dataset", {}).get("path") in freely_named:
        fixed.pop("dataset.name", None)
    if "dataset" in fixed:
        fixed["dataset"] = without_name(fixed["dataset"])
    if "dataset" in grid:
        grid["dataset"] = [without_name(dataset) for dataset in grid["dataset"]]
    return digest({**spec, "fixed": fixed, "grid": grid})


# The folder of one commit in the cache of the Hub.
_SNAPSHOT = re.compile(r"/(models|datasets|spaces)--[^/]+/snapshots/[0-9a-f]{40}\Z")


def _lies_within(folder: Path, path: Path) -> bool:
    """Return whether a file, or a folder with all its files, is in a folder, with all links resolved."""
    folder = folder.resolve()
    # The files of a snapshot in the Hub's cache are links to a folder beside all snapshots.
    folder = folder.parents[1] if _SNAPSHOT.search(folder.as_posix()) else folder
    return all(file.resolve().is_relative_to(folder) for file in (path, *path.rglob("*")))


def read_spec(data: Mapping[str, object], folder: Path | None = None, foreign: Collection[str] = frozenset()) -> Spec:
    """Return the spec of data in the form of a YAML spec or of `Benchmark`'s arguments.

    Relative paths start at `folder`; None for the working directory. `foreign` are the texts that come from a card: the
    files of a task that they name are not opened here. A `SpecError` has up to a hundred mistakes.
    """
    return _read(data, folder, foreign, stored=False)


def read_stored_spec(data: Mapping[str, object]) -> Spec:
    """Return the spec of a run directory, untrusted; the plugins that it names need not be installed."""
    return replace(_read(data, None, frozenset(), stored=True), trusted=False)


def _read(data: Mapping[str, object], folder: Path | None, foreign: Collection[str], *, stored: bool) -> Spec:
    if not isinstance(data, Mapping):
        raise SpecError(Mistake("$", _found(data), "a mapping with `task`, `model`, `dataset` and `grid`"))
    copy, mistakes = checked(data)
    if copy is None:
        raise SpecError(mistakes)
    notes: tuple[str, ...] = ()
    if not stored:
        copy, notes = _expand_preset(copy)
    reader = _SpecReader(copy, stored, folder or Path.cwd(), foreign)
    places = {mistake.place for mistake in mistakes}
    mistakes += islice((mistake for mistake in reader.mistakes() if mistake.place not in places), MOST_MISTAKES)
    if mistakes:
        raise SpecError(mistakes[:MOST_MISTAKES])
    return Spec(reader.data["task"], reader.fixed, reader.grid, reader.folder, notes=notes)


def _expand_preset(data: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the data with the parameters of its preset, if `grid` names one, and what was left out of the preset."""
    name, fixed = data.get("grid"), data.get("fixed")
    if not isinstance(name, str) or name not in presets():
        return data, ()
    expansion = expand(name, {**data, **fixed} if isinstance(fixed, dict) else data)
    return {**expansion.fixed, **data, "grid": dict(expansion.grid)}, expansion.notes


def _found(data: object) -> str:
    return "nothing" if data is None else format_value(data)


def changed(data: Mapping[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    """Return the data of a spec with other values of some parameters."""
    parts = {
        part: {name: value for name, value in data[part].items() if name not in changes}
        for part in ("fixed", "grid")
        if isinstance(data.get(part), Mapping)
    }
    return {**data, **parts, **changes}


def load_spec(path: Path, changes: Mapping[str, object] = MappingProxyType({})) -> Spec:
    """Return the spec in a YAML file; a `SpecError` if it cannot be read, is not YAML, or has mistakes in it.

    `changes` are other values of its parameters.
    """
    try:
        data = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "`benchcard init` drafts the spec of a model" if path.is_dir() else ""
        raise SpecError(Mistake("$", f"{path}: {error.strerror}", "a file that can be read", hint)) from error
    except UnicodeDecodeError as error:
        raise SpecError(Mistake("$", f"{path}: byte {error.start} is no UTF-8", "a text file in UTF-8")) from error
    except UnreadableError as error:
        where = f", line {error.line}, column {error.column}" if error.line else ""
        raise SpecError(Mistake("$", f"{path}{where}: {error.problem}", "YAML of plain values")) from error
    except ValueError as error:
        raise SpecError(Mistake("$", f"{format_value(str(path))}: {error}", "the path of a file")) from error
    return read_spec(changed(data, changes) if isinstance(data, Mapping) else data, path.resolve().parent)


class _SpecReader:
    """A reader of one spec, which does not check what only registered plugins know if the spec is a `stored` one."""

    def __init__(self, data: dict[str, Any], stored: bool, folder: Path, foreign: Collection[str]) -> None:
        self.data = data
        self.stored = stored
        self.folder = folder
        self.foreign = foreign
        self.fixed: dict[str, Any] = {}
        self.grid: dict[str, Any] = {}
        self._places: dict[str, str] = {}
        self._types: dict[str, ValueType] = {}

    def mistakes(self) -> Iterator[Mistake]:
        task_type = Text() if self.stored else Text(registry.tasks)
        yield from MappingOf({"task": task_type}, required=("task",)).mistakes({"task": self.data.get("task")}, "$")
        yield from self._sort_parameters()
        if not self.stored:
            for _, framework in self._values("framework"):
                # A framework that cannot be loaded raises its own error, before its arguments are reported as unknown.
                registry.framework(framework)
        for name, value in self.fixed.items():
            yield from self._types[name].mistakes(value, self._places[name])
        for name, values in self.grid.items():
            yield from self._axis_mistakes(name, values)
        yield from self._combination_mistakes()
        if not self.stored:
            yield from self._framework_argument_mistakes()
            yield from self._task_argument_mistakes()
            yield from self._metric_mistakes()

    def _type_of(self, name: str) -> ValueType | None:
        """Return the type of a parameter; in a stored spec, plugins and their arguments may have any name."""
        if self.stored and name in ("framework", "backend"):
            return Text()
        if self.stored and name == "framework_args":
            return FrameworkArguments(open=True)
        if self.stored and name.startswith("framework_args."):
            return type_of(name) or Anything()
        return type_of(name)

    def _sort_parameters(self) -> Iterator[Mistake]:
        top = {name: value for name, value in self.data.items() if name not in ("task", "fixed", "grid")}
        for where, given, parameters in (
            ("$", top, self.fixed),
            ("$.fixed", self.data.get("fixed"), self.fixed),
            ("$.grid", self.data.get("grid"), self.grid),
        ):
            if given is None:
                continue
            if not isinstance(given, dict):
                names = presets() if where == "$.grid" else ()
                expected = f"a mapping of parameters{f', or {join_names(names)}' if names else ''}"
                yield Mistake(where, format_value(given), expected, did_you_mean(given, names))
                continue
            for key, value in given.items():
                name, place = ALIASES.get(key, key), f"{where}.{key}"
                value_type = self._type_of(name)
                if value_type is None:
                    yield Mistake(place, format_value(key), "the name of a parameter", _suggestion(key))
                elif name in self._places and (name != BACKEND_ARGUMENTS or name in parameters):
                    hint = f"it is at {self._places[name]} too"
                    yield Mistake(place, format_value(value), "each parameter once", hint)
                else:
                    self._places[name], self._types[name] = place, value_type
                    parameters[name] = value

    def _axis_mistakes(self, name: str, values: object) -> Iterator[Mistake]:
        value_type, place = self._types[name], self._places[name]
        if name != "framework_args" or not isinstance(values, dict):
            yield from ListOf(value_type, least=1).mistakes(values, place)
            return
        for framework, entries in values.items():
            if self.stored or framework in registry.frameworks():
                yield from ListOf(value_type, least=1).mistakes(entries, f"{place}.{framework}")
            else:
                yield from Text(registry.frameworks).mistakes(framework, f"{place}.{framework}")

    def _values(self, name: str) -> list[tuple[str, Any]]:
        """Return each valid value of a parameter with its place."""
        place, values = self._places.get(name, ""), self.grid.get(name)
        candidates = [(place, self.fixed[name])] if name in self.fixed else []
        if isinstance(values, list):
            candidates = [(f"{place}[{index}]", value) for index, value in enumerate(values)]
        return [(at, value) for at, value in candidates if not any(self._types[name].mistakes(value, ""))]

    def _combination_mistakes(self) -> Iterator[Mistake]:
        for name, key, expected in (
            ("name_or_path", "model", "a Hub id or a local folder"),
            ("dataset", "dataset", PARAMETERS["dataset"].type.expected),
        ):
            if name not in self._places:
                yield Mistake(f"$.{key}", "nothing", expected, "it is required")
        approaches = [value for _, value in self._values("quantization_approach")]
        if "static" in approaches and "dataset.calibration_split" not in self._places:
            for place, dataset in self._values("dataset"):
                if not dataset.get("calibration_split"):
                    hint = "static quantization calibrates on it"
                    yield Mistake(f"{place}.calibration_split", "nothing", "the name of a split", hint)
        for _, baseline in self._values("baseline"):
            for name, value in baseline.items():
                values = self.grid.get(name)
                place = f"$.baseline.{name}"
                if split_name(name)[0] == BACKEND_ARGUMENTS:
                    yield Mistake(place, f"`{name}`", "another parameter", "each machine has a baseline of its own")
                elif values is None:
                    yield Mistake(place, f"`{name}`", "a benchmarked parameter", did_you_mean(name, self.grid))
                elif not isinstance(values, list) or value not in values:
                    yield Mistake(place, format_value(value), f"a value of it in `grid`: {format_value(values)}")
        yield from self._machine_mistakes()
        for name in {"backend", "baseline", "budget", "max_rows", *PRICES} & self.grid.keys():
            found, hint = format_value(self.grid[name]), f"write `{name}` outside of `grid`"
            yield Mistake(self._places[name], found, "one value for the whole run", hint)
        for name in CARD_NAMES:
            if name in self.grid:
                found, hint = format_value(self.grid[name]), f"write `{name}` outside of `grid`"
                yield Mistake(self._places[name], found, "one name for the whole card", hint)
        if all(self.fixed.get(name) is not None for name in PRICES):
            found = f"{format_value(self.fixed[PRICES[0]])}, beside a `{PRICES[1]}`"
            yield Mistake(self._places[PRICES[0]], found, "one price", "remove one: the cost has one value")
        if "precision" in self.grid and any("precision" in metrics for _, metrics in self._values("metrics")):
            found, expected = format_value(self.grid["precision"]), "one precision, where `precision` is a metric too"
            yield Mistake(self._places["precision"], found, expected, "both would be columns of this name")
        combinations = math.prod(len(values) for values in self.grid.values() if isinstance(values, list))
        if combinations > MOST_COMBINATIONS:
            yield Mistake("$.grid", f"{combinations} combinations of values", f"at most {MOST_COMBINATIONS}")
        for name, place in self._places.items():
            parameter, part = split_name(name)
            if part is not None and parameter in self.grid and parameter != BACKEND_ARGUMENTS:
                expected = f"`{parameter}` or its fields, but not both"
                yield Mistake(place, f"`{name}`", expected, f"`{parameter}` is at {self._places[parameter]}")

    def _machine_mistakes(self) -> Iterator[Mistake]:
        """Yield a mistake for each value of benchmarked `backend_args` that is no machine of its own."""
        for name in self.grid:
            if name.startswith(f"{BACKEND_ARGUMENTS}."):
                expected = f"`{BACKEND_ARGUMENTS}` with a mapping for each machine"
                yield Mistake(self._places[name], f"`{name}`", expected)
        named: dict[str, str] = {}
        for place, arguments in self._values(BACKEND_ARGUMENTS) if BACKEND_ARGUMENTS in self.grid else ():
            shown = _shown_names(self.fixed.get("backend"))
            name = machine_name({key: value for key, value in arguments.items() if shown is None or key in shown})
            if shown and (not name or name in named):
                found = f"the machine of {named[name]} again" if name else "no name of a machine"
                yield Mistake(place, found, f"another {join_names(shown)} for each machine")
            if PRICES[0] in self.fixed and PRICES[1] in arguments:
                hint = f"costs by `{PRICES[0]}` and `{PRICES[1]}` cannot be compared"
                yield Mistake(f"{place}.{PRICES[1]}", format_value(arguments[PRICES[1]]), "one kind of price", hint)
            named.setdefault(name, place)

    def _framework_argument_mistakes(self) -> Iterator[Mistake]:
        entries, place = self.grid.get("framework_args"), self._places.get("framework_args", "")
        frameworks = [name for _, name in self._values("framework")] or [PARAMETERS["framework"].default]
        if isinstance(entries, dict):
            for name in entries.keys() & {*registry.frameworks()} - {*frameworks}:
                hint = "the grid has no such framework"
                yield Mistake(f"{place}.{name}", format_value(name), join_names(frameworks), hint)
            return
        for at, entry in self._values("framework_args") if entries else []:
            if entry and not any(entry.keys() <= registry.framework(name).arguments.keys() for name in frameworks):
                yield Mistake(at, format_value(entry), f"arguments that {join_names(frameworks)} accepts")

    def _task_argument_mistakes(self) -> Iterator[Mistake]:
        if "task_args" not in self._places or self.data.get("task") not in registry.tasks():
            return
        task = registry.task(self.data["task"])
        accepted = MappingOf({**task.arguments, "metric_args": MappingOf(open=True)})
        benchmarked = [name for _, metrics in self._values("metrics") for name in metrics]
        scorers = getattr(task, "scorers", ())
        for place, arguments in self._values("task_args"):
            files = task_files(arguments, self._own_path)
            yield from accepted.mistakes({**self._without_foreign_files(arguments), **files}, place)
            default_metrics = task.metrics_for(arguments) if hasattr(task, "metrics_for") else task.metrics
            measured = [str(name) for name in benchmarked or default_metrics]
            known = dict.fromkeys([*measured, *(name.partition(".")[0] for name in measured)])
            metric_arguments = arguments.get("metric_args")
            for name in metric_arguments if isinstance(metric_arguments, dict) else ():
                if name not in known and name not in scorers:
                    hint = did_you_mean(name, known) or "its arguments would be ignored"
                    expected = f"a metric that is measured, {join_names(known)}"
                    yield Mistake(f"{place}.metric_args.{name}", format_value(name), expected, hint)

    def _own_path(self, name: str) -> Path | None:
        return None if name in self.foreign else _existing_path(name, (self.folder, Path.cwd()))

    def _without_foreign_files(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return `task_args` without the files of tasks that a card names, which the step checks that reads them."""
        return {name: value for name, value in arguments.items() if not (is_task_path(value) and value in self.foreign)}

    def _metric_mistakes(self) -> Iterator[Mistake]:
        """Yield the ids that look like a typo of a known metric. Other unknown ids may be known to `evaluate.load`."""
        for place, metrics in self._values("metrics"):
            for index, name in enumerate(metrics):
                # `squad_v2.f1` is one figure of a metric that has several.
                names = {name, name.partition(".")[0]}
                is_known = "/" in name or names & {*registry.metrics(), *registry.EVALUATE_METRICS}
                if not is_known and (hint := did_you_mean(name, registry.metrics())):
                    yield Mistake(f"{place}[{index}]", format_value(name), "the id of a metric", hint)


def _shown_names(backend: str | None) -> Collection[str] | None:
    """Return the `backend_args` that are not of the user's account only; None where the backend does not say."""
    return getattr(registry.backend(backend), "shown", None) if backend in registry.backends() else None


def _suggestion(key: str) -> str:
    """Return a hint at the parameter that an unknown name may stand for; empty where none is close."""
    names = parameter_names()
    field_name = next((name for name in names if name.endswith(f".{key}")), None)
    if field_name is not None:
        return f"did you mean `{field_name}`?"
    return did_you_mean(key, [*names, *ALIASES, "task", "grid", "fixed"])
