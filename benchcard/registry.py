"""What can be plugged in: frameworks, tasks, metrics and backends, by name.

This module owns the four tables and nothing of what stands in them. Something is registered by a call
(`register_framework`), by an entry point of the group `benchcard.frameworks` (`.tasks`, `.metrics`, `.backends`) in an
installed package, or because benchcard brings it. It is imported when it is first asked for by name.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from benchcard.errors import BenchcardError
from benchcard.kinds import listed, near

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


class _Table:
    """The things of one group, by name."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._called: dict[str, Any] = {}
        self._loaded: dict[str, Any] = {}

    @functools.cached_property
    def _points(self) -> Mapping[str, metadata.EntryPoint]:
        return {point.name: point for point in metadata.entry_points(group=f"benchcard.{self._group}")}

    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*_BROUGHT[self._group], *self._points, *self._called]))

    def register(self, name: str, thing: Any) -> None:
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
            thing = self._points[name].load()
        elif name in _BROUGHT[self._group]:
            module, _, attribute = _BROUGHT[self._group][name].partition(":")
            thing = getattr(importlib.import_module(module), attribute)
        else:
            hint = near(name, self.names())
            raise BenchcardError(
                f"no {self._group[:-1]} is called `{name}`; known: {listed(self.names())}"
                + (f" ({hint})" if hint else "")
            )
        return thing() if isinstance(thing, type) else thing

    def modules(self) -> tuple[str, ...]:
        """The modules that a child process imports to have what was registered by a call here."""
        homes = (thing if isinstance(thing, type) else type(thing) for thing in self._called.values())
        return tuple(dict.fromkeys(home.__module__ for home in homes))


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


def backends() -> tuple[str, ...]:
    """The names of all backends."""
    return _table("backends").names()


def backend(name: str) -> Any:
    """The backend of that name."""
    return _table("backends").get(name)


def called_modules() -> tuple[str, ...]:
    """The modules whose import repeats, in a child process, what was registered by a call in this one."""
    every = [module for group in _BROUGHT for module in _table(group).modules()]
    return tuple(dict.fromkeys(every))


def _registrar(group: str) -> Callable[[str, Any], None]:
    def register(name: str, thing: Any) -> None:
        """Make `thing` (an object, or a class that takes no arguments) known by `name`."""
        _table(group).register(name, thing)

    register.__name__ = f"register_{group[:-1]}"
    return register


register_framework = _registrar("frameworks")
register_task = _registrar("tasks")
register_metric = _registrar("metrics")
register_backend = _registrar("backends")
