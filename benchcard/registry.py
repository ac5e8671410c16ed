"""Frameworks, tasks, metrics and backends by name: built in, from other packages, or registered by a call.

Leaves what each kind must do to its protocol (`frameworks.Framework`, `tasks.Task`). A package registers an object with
an entry point of the group `benchcard.frameworks` (`.tasks`, `.metrics`, `.backends`), a program with a call such as
`register_framework`. An object is imported when its name is first used.

Child processes find built-in objects and entry points by themselves. Objects that were registered by a call, except
backends, are pickled in the parent (`registered_by_call`) and registered again in the child (`register_again`).
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
from typing import TYPE_CHECKING, Any, Protocol, cast

from benchcard.errors import BenchcardError
from benchcard.utils.text import did_you_mean, format_value, join_names

if TYPE_CHECKING:
    import evaluate

_BUILT_IN: Mapping[str, Mapping[str, str]] = {
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


EVALUATE_METRICS: frozenset[str] = frozenset(
    {"code_eval", "cuad", "mae", "mase", "pearsonr", "poseval", "r_squared", "spearmanr", "trec_eval"}
)
"""Metrics of `evaluate` on the Hub whose ids look like misspelled ids of built-in metrics.

Source: https://huggingface.co/evaluate-metric
"""

_REQUIRED_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "frameworks": ("parameters", "arguments", "running", "engine", "format", "import_runtime", "open"),
    "tasks": ("metrics", "has_length", "arguments", "prepare", "kept", "prediction", "inputs"),
    "metrics": ("compute", "features"),
    "backends": ("run",),
}
# Backends run in the parent process only.
_USED_IN_CHILDREN = ("frameworks", "tasks", "metrics")


class Backend(Protocol):
    """Where a grid runs."""

    def run(self, plan: object, path: Path, *, timeout_s: float | None, show_progress: bool) -> None:
        """Run a `Plan`, or what is left of it, in the run directory `path`."""


class _Registry:
    """The objects of one group, by name."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._kind = group.removesuffix("s")
        self._registered: dict[str, object] = {}
        self._loaded: dict[str, object] = {}

    @functools.cached_property
    def _entry_points(self) -> Mapping[str, list[metadata.EntryPoint]]:
        points: dict[str, list[metadata.EntryPoint]] = {}
        for point in metadata.entry_points(group=f"benchcard.{self._group}"):
            points.setdefault(point.name, []).append(point)
        return points

    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*_BUILT_IN[self._group], *self._entry_points, *self._registered]))

    def register(self, name: object, thing: object) -> None:
        if not isinstance(name, str) or not name.strip():
            raise BenchcardError(f"a {self._kind} needs a name that is a non-empty text, found {format_value(name)}")
        if self._group in _USED_IN_CHILDREN:
            self._pickle(name, thing)
        self._registered[name] = thing
        self._loaded.pop(name, None)

    def get(self, name: str) -> object:
        if name not in self._loaded:
            self._loaded[name] = self._instance(name, self._find(name))
        return self._loaded[name]

    def _find(self, name: str) -> object:
        """Return the object or class of a name."""
        if name in self._registered:
            return self._registered[name]
        if name in self._entry_points:
            return self._load_entry_point(name)
        if name in _BUILT_IN[self._group]:
            module, _, attribute = _BUILT_IN[self._group][name].partition(":")
            return getattr(importlib.import_module(module), attribute)
        hint = did_you_mean(name, self.names())
        raise BenchcardError(
            f"no {self._kind} is called `{name}`; known: {join_names(self.names())}" + (f" ({hint})" if hint else "")
        )

    def _instance(self, name: str, thing: object) -> object:
        """Return an object as it is, and an instance of a class; check its attributes."""
        try:
            instance = thing() if isinstance(thing, type) else thing
            missing = [name for name in _REQUIRED_ATTRIBUTES[self._group] if not hasattr(instance, name)]
            is_mapping = isinstance(getattr(instance, "arguments", {}), Mapping)
        except Exception as error:
            package = self.version(name)
            origin = f" of {package[0]}" if package else ""
            raise BenchcardError(
                f"the {self._kind} `{name}` ({_qualified_name(thing)}{origin}) cannot be created: {_describe(error)}"
            ) from error
        if missing or not is_mapping:
            problem = f"it lacks {join_names(missing)}" if missing else "its `arguments` are not a mapping"
            raise BenchcardError(
                f"{_qualified_name(instance)}, registered as `{name}`, is not a {self._kind}: {problem}"
            )
        return instance

    def _load_entry_point(self, name: str) -> object:
        point, *others = self._entry_points[name]
        if others:
            packages = ", ".join(f"{_package(point)} ({point.value})" for point in [point, *others])
            raise BenchcardError(
                f"several packages have a {self._kind} `{name}`: {packages}; uninstall all but one, or call "
                f"`register_{self._kind}` with the one to use"
            )
        try:
            thing: object = point.load()
            return thing
        except Exception as error:
            raise BenchcardError(
                f"{_package(point)} has the {self._kind} `{point.name}` as {point.value}, which cannot be loaded: "
                f"{_describe(error)}"
            ) from error

    def is_built_in(self, name: str) -> bool:
        return name in _BUILT_IN[self._group] and name not in self._registered and name not in self._entry_points

    def version(self, name: str) -> tuple[str, str] | None:
        """Return the package of an object and its version; None for an object of benchcard or of Python itself, and for
        an unknown name.
        """
        if name in self._registered:
            return _version_of(_class_of(self._registered[name]).__module__)
        dist = self._entry_points[name][0].dist if name in self._entry_points else None
        return (dist.name, dist.version) if dist else None

    def registered_by_call(self) -> list[tuple[str, str, str]]:
        return [(self._group, name, self._pickle(name, thing)) for name, thing in self._registered.items()]

    def _pickle(self, name: str, thing: object) -> str:
        """Return an object as text, from which `register_again` makes it again.

        Raises:
            BenchcardError: A child process could not import it.
        """
        problem = "it is defined in the program itself, which a child process cannot import"
        try:
            content = pickle.dumps(thing)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            content, problem = b"", str(error)
        if not content or "__main__" in (getattr(thing, "__module__", None), type(thing).__module__):
            raise BenchcardError(
                f"child processes need the {self._kind} `{name}` ({_qualified_name(thing)}) too, and {problem}: "
                "define it at the top of a module of its own, and import it from there"
            )
        return base64.b64encode(content).decode("ascii")


def _package(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist else "a package"


def _version_of(module: str) -> tuple[str, str] | None:
    """Return the package of a module and its version; for a module of no package, its name and digest."""
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


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _class_of(thing: object) -> type:
    return thing if isinstance(thing, type) else type(thing)


def _qualified_name(thing: object) -> str:
    return f"{_class_of(thing).__module__}.{_class_of(thing).__qualname__}"


@functools.cache
def _registry(group: str) -> _Registry:
    return _Registry(group)


def frameworks() -> tuple[str, ...]:
    """Return the names of all frameworks."""
    return _registry("frameworks").names()


def framework(name: str) -> Any:
    """Return a `frameworks.Framework`. Its protocol is in a higher layer, so the type is not named here.

    Raises:
        BenchcardError: The name is unknown; the message lists the known ones and the closest one.
    """
    return _registry("frameworks").get(name)


def tasks() -> tuple[str, ...]:
    """Return the names of all tasks."""
    return _registry("tasks").names()


def task(name: str) -> Any:
    """Return a `tasks.Task`. Its protocol is in a higher layer, so the type is not named here."""
    return _registry("tasks").get(name)


def metrics() -> tuple[str, ...]:
    """Return the ids of all metrics that need no download."""
    return _registry("metrics").names()


def metric(name: str) -> evaluate.Metric:
    """Return the metric of an id."""
    return _registry("metrics").get(name)


def is_built_in_metric(name: str) -> bool:
    """Return whether the metric of an id is benchcard's own, and no one else registered another under it."""
    return _registry("metrics").is_built_in(name)


def backends() -> tuple[str, ...]:
    """Return the names of all backends."""
    return _registry("backends").names()


def backend(name: str) -> Backend:
    """Return the backend of a name."""
    return cast(Backend, _registry("backends").get(name))


def versions(used: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the versions of the packages, except benchcard, whose objects are used.

    Args:
        used: The used names, by group (`tasks`, `metrics`, `frameworks`, `backends`).
    """
    packages = [_registry(group).version(name) for group, names in used.items() for name in names]
    return dict(sorted(package for package in packages if package is not None))


def registered_by_call() -> list[tuple[str, str, str]]:
    """Return what was registered by calls in this process and is needed in child processes, for `register_again`: the
    group, the name, and the pickled object as text.
    """
    return [entry for group in _USED_IN_CHILDREN for entry in _registry(group).registered_by_call()]


def register_again(entries: Iterable[tuple[str, str, str]]) -> None:
    """Register what `registered_by_call` returned in the parent process."""
    for group, name, content in entries:
        _registry(group).register(name, pickle.loads(base64.b64decode(content)))


def _registrar(group: str) -> Callable[[str, object], None]:
    def register(name: str, thing: object) -> None:
        """Register an object, or a class that takes no arguments, under a name: in this process and, except for a
        backend, in child processes.

        Raises:
            BenchcardError: The name is empty, or a child process could not import the object because it is defined in
                the program itself or in a function.
        """
        _registry(group).register(name, thing)

    register.__name__ = f"register_{group.removesuffix('s')}"
    return register


register_framework = _registrar("frameworks")
register_task = _registrar("tasks")
register_metric = _registrar("metrics")
register_backend = _registrar("backends")
