"""What can be plugged in: frameworks, tasks, metrics and backends, by name.

This module owns the four tables and nothing of what stands in them. Something is registered by a call
(`register_framework`), by an entry point of the group `benchcard.frameworks` (`.tasks`, `.metrics`, `.backends`) in an
installed package, or because benchcard brings it. It is imported when it is first asked for by name.

Child processes find entry points by themselves. What was registered by a call, a backend apart, is handed to them:
`called` tells it as plain data, and `recall` in the child does the same calls again.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from benchcard.errors import BenchcardError
from benchcard.utils.text import did_you_mean, format_value, join_names

_BROUGHT: Mapping[str, Mapping[str, str]] = {
    "frameworks": {
        "onnxruntime": "benchcard.frameworks.onnxruntime:OnnxRuntime",
        "pytorch": "benchcard.frameworks.pytorch:PyTorch",
    },
    "tasks": {
        "image-classification": "benchcard.tasks.image_classification:ImageClassification",
        "text-classification": "benchcard.tasks.text_classification:TextClassification",
        "token-classification": "benchcard.tasks.token_classification:TokenClassification",
        "question-answering": "benchcard.tasks.question_answering:QuestionAnswering",
        "feature-extraction": "benchcard.tasks.feature_extraction:FeatureExtraction",
        "sentence-similarity": "benchcard.tasks.feature_extraction:FeatureExtraction",
    },
    "metrics": {
        "accuracy": "benchcard.metrics.classification:Accuracy",
        "top_k_accuracy": "benchcard.metrics.classification:TopKAccuracy",
        "precision": "benchcard.metrics.classification:Precision",
        "precision_micro": "benchcard.metrics.classification:PrecisionMicro",
        "precision_macro": "benchcard.metrics.classification:PrecisionMacro",
        "precision_weighted": "benchcard.metrics.classification:PrecisionWeighted",
        "recall": "benchcard.metrics.classification:Recall",
        "recall_micro": "benchcard.metrics.classification:RecallMicro",
        "recall_macro": "benchcard.metrics.classification:RecallMacro",
        "recall_weighted": "benchcard.metrics.classification:RecallWeighted",
        "f1": "benchcard.metrics.classification:F1",
        "f1_micro": "benchcard.metrics.classification:F1Micro",
        "f1_macro": "benchcard.metrics.classification:F1Macro",
        "f1_weighted": "benchcard.metrics.classification:F1Weighted",
        "matthews_correlation": "benchcard.metrics.classification:MatthewsCorrelation",
        "pearson": "benchcard.metrics.regression:Pearson",
        "spearman": "benchcard.metrics.regression:Spearman",
        "mse": "benchcard.metrics.regression:MeanSquaredError",
        "seqeval": "benchcard.metrics.entities:SeqEval",
        "squad": "benchcard.metrics.answers:Squad",
        "squad_v2": "benchcard.metrics.answers:SquadV2",
        "exact_match": "benchcard.metrics.answers:ExactMatch",
    },
    "backends": {
        "local": "benchcard.backends.local:Local",
    },
}


EVALUATE: frozenset[str] = frozenset(
    {"code_eval", "cuad", "mae", "mase", "pearsonr", "poseval", "r_squared", "spearmanr", "trec_eval"}
)
"""Ids that look like slips of what benchcard brings, and are metrics that `evaluate` keeps on the Hub.

Source: https://huggingface.co/evaluate-metric
"""

# What each thing must have; how it must behave is told by the protocols `frameworks.Framework` and `tasks.Task`.
_ASKED_FOR: Mapping[str, tuple[str, ...]] = {
    "frameworks": ("parameters", "arguments", "running", "engine", "format", "import_runtime", "open"),
    "tasks": ("metrics", "has_length", "arguments", "prepare", "kept", "prediction", "inputs"),
    "metrics": ("compute", "features"),
    "backends": ("run",),
}
# Backends work in the process that asks for them; everything else is also needed in its children.
_IN_CHILDREN = ("frameworks", "tasks", "metrics")


class _Table:
    """The things of one group, by name."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._called: dict[str, Any] = {}
        self._loaded: dict[str, Any] = {}

    @functools.cached_property
    def _points(self) -> Mapping[str, list[metadata.EntryPoint]]:
        found: dict[str, list[metadata.EntryPoint]] = {}
        for point in metadata.entry_points(group=f"benchcard.{self._group}"):
            found.setdefault(point.name, []).append(point)
        return found

    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*_BROUGHT[self._group], *self._points, *self._called]))

    def register(self, name: Any, thing: Any) -> None:
        if not isinstance(name, str) or not name.strip():
            raise BenchcardError(f"a {self._group[:-1]} needs a name, and {format_value(name)} is none")
        if self._group in _IN_CHILDREN:
            _pickled(self._group, name, thing)
        self._called[name] = thing
        self._loaded.pop(name, None)

    def get(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> Any:
        if name in self._called:
            thing = self._called[name]
        elif name in self._points:
            thing = self._entered(name)
        elif name in _BROUGHT[self._group]:
            module, _, attribute = _BROUGHT[self._group][name].partition(":")
            thing = getattr(importlib.import_module(module), attribute)
        else:
            hint = did_you_mean(name, self.names())
            raise BenchcardError(
                f"no {self._group[:-1]} is called `{name}`; known: {join_names(self.names())}"
                + (f" ({hint})" if hint else "")
            )
        return self._made(name, thing)

    def _made(self, name: str, given: Any) -> Any:
        """The thing, made where a class was given for it, with all that its kind must have."""
        try:
            thing = given() if isinstance(given, type) else given
            lacking = [each for each in _ASKED_FOR[self._group] if not hasattr(thing, each)]
            odd = "arguments" in _ASKED_FOR[self._group] and not isinstance(getattr(thing, "arguments", {}), Mapping)
        except Exception as error:
            package = self.version(name)
            raise BenchcardError(
                f"the {self._group[:-1]} `{name}` ({_named(given)}{f' of {package[0]}' if package else ''}) cannot be "
                f"made: {_said(error)}"
            ) from error
        if lacking or odd:
            raise BenchcardError(
                f"{_named(thing)} is no {self._group[:-1]}, as which it was registered by the name `{name}`: "
                + (f"it lacks {join_names(lacking)}" if lacking else "its `arguments` are no mapping")
            )
        return thing

    def _entered(self, name: str) -> Any:
        """What an entry point stands for."""
        point, *others = self._points[name]
        if others:
            raise BenchcardError(
                f"the {self._group[:-1]} `{name}` is brought by several packages: {_packages([point, *others])}; "
                f"uninstall all but one, or call `register_{self._group[:-1]}` with the one that is meant"
            )
        try:
            return point.load()
        except Exception as error:
            package = point.dist.name if point.dist else "a package"
            raise BenchcardError(
                f"{package} says that it brings the {self._group[:-1]} `{point.name}` as {point.value}, "
                f"which cannot be loaded: {_said(error)}"
            ) from error

    def is_own(self, name: str) -> bool:
        """Whether benchcard brings what stands by this name."""
        return name in _BROUGHT[self._group] and name not in self._called and name not in self._points

    def version(self, name: str) -> tuple[str, str] | None:
        """The package that brings a thing, and its version; None for what benchcard or Python itself brings, and for
        what is not there.
        """
        if name in self._called:
            thing = self._called[name]
            return _version_of((thing if isinstance(thing, type) else type(thing)).__module__)
        dist = self._points[name][0].dist if name in self._points else None
        return (dist.name, dist.version) if dist else None

    def called(self) -> list[tuple[str, str, str]]:
        """What was registered by a call here: group, name, and the thing as text."""
        return [(self._group, name, _pickled(self._group, name, thing)) for name, thing in self._called.items()]


def _packages(points: Iterable[metadata.EntryPoint]) -> str:
    return ", ".join(f"{point.dist.name if point.dist else 'a package'} ({point.value})" for point in points)


def _version_of(module: str) -> tuple[str, str] | None:
    """The package that a module belongs to, and its version; of a module that no package brings, the digest of its
    source.
    """
    top = module.partition(".")[0]
    if top == "benchcard" or top in sys.stdlib_module_names:
        return None
    packages = metadata.packages_distributions().get(top)
    if packages:
        return packages[0], metadata.version(packages[0])
    file = getattr(sys.modules.get(module), "__file__", None)
    source = Path(file) if file else None
    if source is None or not source.is_file():
        return None
    return module, f"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"


def _said(error: Exception) -> str:
    """What went wrong in somebody else's code, which may raise anything."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _named(thing: Any) -> str:
    home = thing if isinstance(thing, type) else type(thing)
    return f"{home.__module__}.{home.__qualname__}"


def _pickled(group: str, name: str, thing: Any) -> str:
    """The thing as text, from which `recall` makes it again.

    Raises:
        BenchcardError: A child process could not import it.
    """
    problem = "it is defined in the program itself, which a child process cannot import"
    try:
        told = pickle.dumps(thing)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        told, problem = b"", str(error)
    if not told or "__main__" in (getattr(thing, "__module__", None), type(thing).__module__):
        raise BenchcardError(
            f"the {group[:-1]} `{name}` ({_named(thing)}) is needed in child processes too, and {problem}: "
            "put it at the top of a module of its own, and import it from there"
        )
    return base64.b64encode(told).decode("ascii")


@functools.cache
def _table(group: str) -> _Table:
    return _Table(group)


def frameworks() -> tuple[str, ...]:
    """The names of all frameworks."""
    return _table("frameworks").names()


def framework(name: str) -> Any:
    """The framework of that name.

    Raises:
        BenchcardError: There is none; the message has the known ones and a near miss.
    """
    return _table("frameworks").get(name)


def tasks() -> tuple[str, ...]:
    """The names of all tasks."""
    return _table("tasks").names()


def task(name: str) -> Any:
    """The task of that name."""
    return _table("tasks").get(name)


def metrics() -> tuple[str, ...]:
    """The ids of all metrics that need no download."""
    return _table("metrics").names()


def metric(name: str) -> Any:
    """The metric of that id."""
    return _table("metrics").get(name)


def is_own_metric(name: str) -> bool:
    """Whether benchcard brings the metric of that id itself, and nobody has put another in its place."""
    return _table("metrics").is_own(name)


def backends() -> tuple[str, ...]:
    """The names of all backends."""
    return _table("backends").names()


def backend(name: str) -> Any:
    """The backend of that name."""
    return _table("backends").get(name)


def versions(used: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """The versions of the packages, benchcard apart, that bring what is used.

    Args:
        used: Names, by group (`tasks`, `metrics`, `frameworks`, `backends`).
    """
    found = [_table(group).version(name) for group, names in used.items() for name in names]
    return dict(sorted(each for each in found if each is not None))


def registered_by_call() -> list[tuple[str, str, str]]:
    """What was registered by calls in this process and is needed in its children, for `recall` there: group, name, and
    the thing as text.
    """
    return [entry for group in _IN_CHILDREN for entry in _table(group).called()]


def register_again(entries: Iterable[tuple[str, str, str]]) -> None:
    """Register what `called` told in the parent process."""
    for group, name, told in entries:
        thing = pickle.loads(base64.b64decode(told))
        _table(group).register(name, thing)


def _registrar(group: str) -> Callable[[str, Any], None]:
    def register(name: str, thing: Any) -> None:
        """Make `thing` (an object, or a class that takes no arguments) known by `name`: here and, a backend apart, in
        child processes.

        Raises:
            BenchcardError: The name is empty; or it is no backend, and a child process could not have it: it is defined
                in the program itself or in a function.
        """
        _table(group).register(name, thing)

    register.__name__ = f"register_{group[:-1]}"
    return register


register_framework = _registrar("frameworks")
register_task = _registrar("tasks")
register_metric = _registrar("metrics")
register_backend = _registrar("backends")
