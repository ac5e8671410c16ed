"""What the user asks, read and checked: all mistakes at once, each with its place.

This module owns the form of a spec: a task, parameters that are fixed (at the top level or under `fixed`) and
parameters that are benchmarked (lists of values under `grid`). Names and kinds of parameters are told in `parameters`;
the configurations that a spec comes to, in `plan`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.errors import Mistake, SpecError
from benchcard.spec.parameters import ALIASES, PARAMETERS, FrameworkArguments, names, split_name, type_of
from benchcard.spec.schema import ListOf, MappingOf
from benchcard.utils.parsing import UnreadableError, load_yaml
from benchcard.utils.plain import checked, digest, plain
from benchcard.utils.text import did_you_mean, format_value, join_names

# More than a month of timing at a second a row; planning that many takes minutes.
MOST_COMBINATIONS = 1_000_000
# Nobody reads more of them at once.
MOST_MISTAKES = 100


@dataclass(frozen=True)
class Spec:
    """A checked spec.

    Attributes:
        task: The task's name.
        fixed: Every parameter that was given one value, by name (`calibration.method` for a field of one).
        grid: Every benchmarked parameter with its list of values, in the order given. `framework_args` may be a mapping
            of framework to list.
        folder: Where relative paths start: the folder of the spec's file, or the working directory.
        homes: By name, the one folder in which a model, a data set or a script of that name may lie, for names that a
            card gives; None where no file of this machine may be meant.
        trusted: Whether code that it names may run: not where a card or a run directory says it, which may be somebody
            else's.
    """

    task: str
    fixed: Mapping[str, Any]
    grid: Mapping[str, Any]
    folder: Path = field(default_factory=Path.cwd, compare=False)
    homes: Mapping[str, Path | None] = field(default_factory=dict, compare=False)
    trusted: bool = field(default=True, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The spec as plain data, from which `read` makes an equal one."""
        return {"task": self.task, "fixed": plain(self.fixed), "grid": plain(self.grid)}

    @property
    def digest(self) -> str:
        """SHA-256 of what is asked; equal for specs that ask the same, wherever their files lie."""
        return digest(self.as_dict())

    def get(self, name: str) -> Any:
        """The value of a fixed parameter, or its default."""
        return self.fixed.get(name, PARAMETERS[name].default)

    def local(self, name: str) -> Path | None:
        """The file or folder that a name stands for, if there is one: from the spec's folder first, then from the
        working directory; of a name with a home, there alone, links out of it apart.
        """
        for start in self.starts(name):
            try:
                path = start / Path(name).expanduser()
                if path.exists() and (name not in self.homes or _lies_within(start, path)):
                    return path.resolve()
            except (OSError, RuntimeError, ValueError):
                # Too long for a path, the home of a user whom there is not, a zero byte: it is no path.
                continue
        return None

    def starts(self, name: str) -> tuple[Path, ...]:
        """The folders in which a name is looked for, the first one first."""
        if name in self.homes:
            home = self.homes[name]
            return () if home is None else (home,)
        return tuple(dict.fromkeys((self.folder, Path.cwd())))

    def no_path(self, name: str) -> str:
        """That there is no such file or folder, and where it was looked for."""
        looked = " or ".join(sorted(map(str, self.starts(name))))
        is_inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        if is_inside and any(os.path.lexists(start / name) for start in self.starts(name)):
            return f"the one in {looked} leads out of that folder, which a card may not"
        return f"there is no such path in {looked}" if looked else "a card from elsewhere names no path of this machine"

    @property
    def trusts_models(self) -> bool:
        """Whether code that comes with a model may run in some row."""
        return bool(self.get("trust_remote_code")) or True in self.grid.get("trust_remote_code", ())


# The folder of one commit in the cache of the Hub.
_SNAPSHOT = re.compile(r"/(models|datasets|spaces)--[^/]+/snapshots/[0-9a-f]{40}\Z")


def _lies_within(folder: Path, path: Path) -> bool:
    """Whether a file, or a folder with all files in it, lies in a folder, also where it is a link."""
    home = folder.resolve()
    # The files of a snapshot in the Hub's cache are links to a folder beside all snapshots.
    home = home.parents[1] if _SNAPSHOT.search(home.as_posix()) else home
    return all(each.resolve().is_relative_to(home) for each in (path, *path.rglob("*")))


def read_spec(data: Mapping[str, Any], folder: Path | None = None) -> Spec:
    """The spec that `data` holds, in the form of a YAML spec or of `Benchmark`'s arguments.

    Raises:
        SpecError: With every mistake that was found, a hundred at most: of values that are not plain, of the task and
            names, then of fixed values, of the grid's, and of the whole.
    """
    if not isinstance(data, Mapping):
        raise SpecError(Mistake("$", format_value(data), "a mapping with `task`, `model`, `dataset` and `grid`"))
    copy, mistakes = checked(data)
    if copy is None:
        raise SpecError(mistakes)
    reading, known = _SpecReader(copy), {mistake.place for mistake in mistakes}
    mistakes += islice((each for each in reading.mistakes() if each.place not in known), MOST_MISTAKES)
    if mistakes:
        raise SpecError(mistakes[:MOST_MISTAKES])
    return Spec(reading.data["task"], reading.fixed, reading.grid, folder or Path.cwd())


def load_spec(path: Path) -> Spec:
    """The spec in a YAML file.

    Raises:
        SpecError: The file is missing, is no YAML, has a key twice, or has mistakes in it.
    """
    try:
        data = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(Mistake("$", f"{path}: {error.strerror}", "a file that can be read")) from error
    except UnicodeDecodeError as error:
        raise SpecError(Mistake("$", f"{path}: byte {error.start} is no UTF-8", "a text file in UTF-8")) from error
    except UnreadableError as error:
        where = f", line {error.line}" if error.line else ""
        where += f", column {error.column}" if error.column else ""
        raise SpecError(Mistake("$", f"{path}{where}: {error.problem}", "YAML of plain values")) from error
    except ValueError as error:
        raise SpecError(Mistake("$", f"{format_value(str(path))}: {error}", "the path of a file")) from error
    return read_spec(data, path.resolve().parent)


class _SpecReader:
    """The reading of one spec: sorts what was given into fixed and grid, and collects mistakes on the way."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.fixed: dict[str, Any] = {}
        self.grid: dict[str, Any] = {}
        self._places: dict[str, str] = {}

    def mistakes(self) -> Iterator[Mistake]:
        yield from self._task()
        yield from self._sort()
        for framework in self._values("framework"):
            if framework in registry.frameworks():
                # One that cannot be loaded says so itself, before all its arguments are called unknown.
                registry.framework(framework)
        for name, value in self.fixed.items():
            kind = type_of(name)
            if kind is not None:
                yield from kind.mistakes(value, self._places[name])
        for name, values in self.grid.items():
            yield from self._axis(name, values)
        yield from self._whole()

    def _task(self) -> Iterator[Mistake]:
        task = self.data.get("task")
        if task is None:
            yield Mistake("$.task", "nothing", join_names(registry.tasks()), "it cannot be left out")
        elif task not in registry.tasks():
            yield Mistake(
                "$.task", format_value(task), join_names(registry.tasks()), did_you_mean(task, registry.tasks())
            )

    def _sort(self) -> Iterator[Mistake]:
        top = {name: value for name, value in self.data.items() if name not in ("task", "fixed", "grid")}
        for where, given, into in (
            ("$", top, self.fixed),
            ("$.fixed", self.data.get("fixed"), self.fixed),
            ("$.grid", self.data.get("grid"), self.grid),
        ):
            if given is None:
                continue
            if not isinstance(given, dict):
                yield Mistake(where, format_value(given), "a mapping of parameters")
                continue
            for key, value in given.items():
                name, place = ALIASES.get(str(key), str(key)), f"{where}.{key}"
                if type_of(name) is None:
                    yield Mistake(place, format_value(key), "the name of a parameter", self._meant(key))
                elif name in self._places:
                    yield Mistake(
                        place, format_value(value), "each parameter once", f"it stands at {self._places[name]} too"
                    )
                else:
                    self._places[name] = place
                    into[name] = value

    @staticmethod
    def _meant(key: Any) -> str:
        inside = [name for name in names() if name.endswith(f".{key}")]
        return (
            f"did you mean `{inside[0]}`?"
            if inside
            else did_you_mean(key, [*names(), *ALIASES, "task", "grid", "fixed"])
        )

    def _axis(self, name: str, values: Any) -> Iterator[Mistake]:
        kind, place = type_of(name), self._places[name]
        if kind is None:
            return
        if isinstance(kind, FrameworkArguments) and isinstance(values, dict):
            for framework, entries in values.items():
                if framework not in registry.frameworks():
                    yield Mistake(
                        f"{place}.{framework}",
                        format_value(framework),
                        join_names(registry.frameworks()),
                        did_you_mean(framework, registry.frameworks()),
                    )
                else:
                    yield from ListOf(kind, least=1).mistakes(entries, f"{place}.{framework}")
            return
        yield from ListOf(kind, least=1).mistakes(values, place)

    def _values(self, name: str) -> list[Any]:
        """Return every value that a parameter takes somewhere and that its kind takes."""
        values = self.grid[name] if name in self.grid else [self.fixed[name]] if name in self.fixed else []
        kind = type_of(name)
        right = (value for value in values if kind is None or not any(kind.mistakes(value, "")))
        return list(right) if isinstance(values, list) else []

    def _whole(self) -> Iterator[Mistake]:
        """What only shows when parameters are seen together."""
        for name, word in (("name_or_path", "model"), ("dataset", "dataset")):
            if name not in self._places:
                expected = "a Hub id or a local folder" if word == "model" else PARAMETERS["dataset"].kind.words
                yield Mistake(f"$.{word}", "nothing", expected, "it cannot be left out")
        if "static" in self._values("quantization_approach") and "dataset.calibration_split" not in self._places:
            for index, dataset in enumerate(self._values("dataset")):
                if isinstance(dataset, dict) and not dataset.get("calibration_split"):
                    place = self._places["dataset"] + (f"[{index}]" if "dataset" in self.grid else "")
                    yield Mistake(
                        f"{place}.calibration_split",
                        "nothing",
                        "the name of a split",
                        "static quantization calibrates on it",
                    )
        if "backend" in self.grid:
            values, hint = self.grid["backend"], "write `backend` outside of `grid`"
            yield Mistake(self._places["backend"], format_value(values), "one backend for the whole run", hint)
        if "precision" in self.grid and any(
            isinstance(each, list) and "precision" in each for each in self._values("metrics")
        ):
            place, expected = self._places["precision"], "one precision, where `precision` is a metric too"
            yield Mistake(place, format_value(self.grid["precision"]), expected, "both would be columns of this name")
        yield from self._size()
        yield from self._arguments()
        yield from self._task_arguments()
        yield from self._metrics()
        for name, place in self._places.items():
            parameter, part = split_name(name)
            if part is not None and parameter in self.grid:
                yield Mistake(
                    place,
                    f"`{name}`",
                    f"`{parameter}` as a whole, or its fields, but not both",
                    f"`{parameter}` stands at {self._places[parameter]}",
                )

    def _size(self) -> Iterator[Mistake]:
        """A grid that nobody could run, or wait for the plan of."""
        counts = [len(values) for values in self.grid.values() if isinstance(values, list)]
        if math.prod(counts) > MOST_COMBINATIONS:
            yield Mistake("$.grid", f"{math.prod(counts)} combinations of values", f"at most {MOST_COMBINATIONS}")

    def _task_arguments(self) -> Iterator[Mistake]:
        """Arguments that the task does not know."""
        task = self.data.get("task")
        if not isinstance(task, str) or task not in registry.tasks() or "task_args" not in self._places:
            return
        kind = MappingOf({**registry.task(task).arguments, "metric_args": MappingOf(open=True)})
        for index, value in enumerate(self._values("task_args")):
            if isinstance(value, dict):
                place = self._places["task_args"] + (f"[{index}]" if "task_args" in self.grid else "")
                yield from kind.mistakes(value, place)
                yield from self._metric_arguments(registry.task(task), value, f"{place}.metric_args")

    def _metric_arguments(self, task: Any, arguments: Mapping[str, Any], place: str) -> Iterator[Mistake]:
        """Arguments of metrics that no row measures: slips, and those that were left over."""
        asked = [values for values in self._values("metrics") if isinstance(values, list) and values]
        if not asked:
            asked = [list(task.metrics_for(arguments) if hasattr(task, "metrics_for") else task.metrics)]
        measured = [name for values in asked for name in values]
        known = dict.fromkeys([*measured, *(str(name).partition(".")[0] for name in measured)])
        given = arguments.get("metric_args")
        for name in given if isinstance(given, dict) else ():
            if name not in known and name not in getattr(task, "scorers", ()):
                hint = did_you_mean(name, known) or "what is said of it would reach nothing"
                yield Mistake(
                    f"{place}.{name}", format_value(name), f"a metric that is measured, {join_names(known)}", hint
                )

    def _metrics(self) -> Iterator[Mistake]:
        """Ids that look like a slip of a known one; any other unknown id may be one that `evaluate.load` knows."""
        for given, values in enumerate(self._values("metrics")):
            axis = f"[{given}]" if "metrics" in self.grid else ""
            for index, name in enumerate(values if isinstance(values, list) else []):
                known = {*registry.metrics(), *registry.EVALUATE_METRICS}
                # `squad_v2.f1` is one figure of a metric that gives several
                unknown = isinstance(name, str) and "/" not in name and not {name, name.partition(".")[0]} & known
                hint = did_you_mean(name, registry.metrics()) if unknown else ""
                if hint:
                    place = f"{self._places['metrics']}{axis}[{index}]"
                    yield Mistake(place, format_value(name), "the id of a metric", hint)

    def _arguments(self) -> Iterator[Mistake]:
        """Entries of `framework_args` that belong to none of the frameworks asked for."""
        entries, place = self.grid.get("framework_args"), self._places.get("framework_args", "")
        frameworks = [name for name in self._values("framework") if name in registry.frameworks()] or [
            PARAMETERS["framework"].default
        ]
        if isinstance(entries, dict):
            for framework in set(entries) & set(registry.frameworks()) - set(frameworks):
                yield Mistake(
                    f"{place}.{framework}",
                    format_value(framework),
                    join_names(frameworks),
                    "the grid has no such framework",
                )
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            if (
                isinstance(entry, dict)
                and entry
                and not any(set(entry) <= set(registry.framework(name).arguments) for name in frameworks)
            ):
                yield Mistake(
                    f"{place}[{index}]", format_value(entry), f"arguments that {join_names(frameworks)} knows all of"
                )
