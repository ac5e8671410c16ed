"""Frameworks, tasks, metrics and backends by name: built in, from other packages, or registered by a call.

Leaves what each kind must do to its protocol (`frameworks.Framework`, `tasks.Task`). A package registers an object with
an entry point of the group `benchcard.frameworks` (`.tasks`, `.metrics`, `.backends`), a program with a call such as
`register_framework`. An object is imported when its name is first used. Objects that were registered by a call, except
backends, are pickled (`registered_by_call`) and registered again in child processes (`register_again`).
"""

from __future__ import annotations

import base64
import functools
import hashlib
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

    from benchcard.utils.events import Listener

_BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "frameworks": {
        "onnxruntime": "benchcard.frameworks.onnxruntime:OnnxRuntime",
        "pytorch": "benchcard.frameworks.pytorch:PyTorch",
        "openvino": "benchcard.frameworks.openvino:OpenVino",
    },
    "tasks": {
        "image-classification": "benchcard.tasks.image_classification:ImageClassification",
        "object-detection": "benchcard.tasks.object_detection:ObjectDetection",
        "text-classification": "benchcard.tasks.text_classification:TextClassification",
        "token-classification": "benchcard.tasks.token_classification:TokenClassification",
        "question-answering": "benchcard.tasks.question_answering:QuestionAnswering",
        "feature-extraction": "benchcard.tasks.feature_extraction:FeatureExtraction",
        "sentence-similarity": "benchcard.tasks.feature_extraction:FeatureExtraction",
        "fill-mask": "benchcard.tasks.fill_mask:FillMask",
        "zero-shot-classification": "benchcard.tasks.zero_shot_classification:ZeroShotClassification",
        "text-ranking": "benchcard.tasks.text_ranking:TextRanking",
        "text-retrieval": "benchcard.tasks.retrieval:TextRetrieval",
        "audio-classification": "benchcard.tasks.audio_classification:AudioClassification",
        "automatic-speech-recognition": "benchcard.tasks.speech_recognition:SpeechRecognition",
        "text-generation": "benchcard.tasks.text_generation:TextGeneration",
        "lm-eval": "benchcard.tasks.lm_eval:LmEval",
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
        "ndcg_at_10": "benchcard.metrics.ranking:Ndcg",
        "mrr_at_10": "benchcard.metrics.ranking:MeanReciprocalRank",
        "recall_at_10": "benchcard.metrics.ranking:Recall",
        "recall_at_100": "benchcard.metrics.ranking:Recall100",
        "float_index_ndcg_at_10": "benchcard.metrics.ranking:FloatIndexNdcg",
        "float_index_recall_at_10": "benchcard.metrics.ranking:FloatIndexRecall",
        "float_top_10_recall": "benchcard.metrics.ranking:FloatTopRecall",
        "wer": "benchcard.metrics.transcripts:WordErrorRate",
        "cer": "benchcard.metrics.transcripts:CharacterErrorRate",
        "map": "benchcard.metrics.detection:MeanAveragePrecision",
        "perplexity": "benchcard.metrics.perplexity:Perplexity",
        "lm_eval": "benchcard.metrics.lm_eval:LmEval",
    },
    "backends": {
        "local": "benchcard.backends.local:Local",
        "sagemaker-training": "benchcard.backends.sagemaker:SageMakerTraining",
        "hf-jobs": "benchcard.backends.hf_jobs:HuggingFaceJobs",
        "ray": "benchcard.backends.ray:RayCluster",
    },
}

EVALUATE_METRICS: frozenset[str] = frozenset(
    {"code_eval", "cuad", "mae", "mase", "pearsonr", "poseval", "r_squared", "spearmanr", "ter", "trec_eval"}
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
# Backends run in the parent only.
_USED_IN_CHILDREN = ("frameworks", "tasks", "metrics")


class Backend(Protocol):
    """Where a grid runs."""

    def run(self, plan: object, path: Path, *, timeout_s: float | None, progress: Listener | bool) -> None:
        """Run a `Plan`, or what is left of it, in the run directory `path`. `progress` is that of `Benchmark.run`."""


class _Registry:
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
        if name in self._registered:
            return self._registered[name]
        if name in self._entry_points:
            return self._load_entry_point(name)
        if name in _BUILT_IN[self._group]:
            return metadata.EntryPoint(name, _BUILT_IN[self._group][name], self._group).load()
        hint = did_you_mean(name, self.names())
        message = f"no {self._kind} is called `{name}`; known: {join_names(self.names())}"
        raise BenchcardError(f"{message} ({hint})" if hint else message)

    def _instance(self, name: str, thing: object) -> object:
        """Return an object as it is, and an instance of a class, with all attributes of its kind."""
        try:
            instance = thing() if isinstance(thing, type) else thing
            missing = [name for name in _REQUIRED_ATTRIBUTES[self._group] if not hasattr(instance, name)]
            is_mapping = isinstance(getattr(instance, "arguments", {}), Mapping)
        except Exception as error:
            package = self.version(name)
            origin = _qualified_name(thing) + (f" of {package[0]}" if package else "")
            message = f"the {self._kind} `{name}` ({origin}) cannot be created: {_describe(error)}"
            raise BenchcardError(message) from error
        if missing or not is_mapping:
            problem = f"it lacks {join_names(missing)}" if missing else "its `arguments` are not a mapping"
            origin = f"{_qualified_name(instance)}, registered as `{name}`,"
            raise BenchcardError(f"{origin} is not a {self._kind}: {problem}")
        return instance

    def _load_entry_point(self, name: str) -> object:
        point, *others = self._entry_points[name]
        if others:
            packages = ", ".join(f"{_package(point)} ({point.value})" for point in [point, *others])
            advice = f"uninstall all but one, or call `register_{self._kind}` with the one to use"
            raise BenchcardError(f"several packages have a {self._kind} `{name}`: {packages}; {advice}")
        try:
            return point.load()
        except Exception as error:
            origin = f"{_package(point)} has the {self._kind} `{point.name}` as {point.value}"
            raise BenchcardError(f"{origin}, which cannot be loaded: {_describe(error)}") from error

    def is_built_in(self, name: str) -> bool:
        return name in _BUILT_IN[self._group] and name not in self._registered and name not in self._entry_points

    def version(self, name: str) -> tuple[str, str] | None:
        """Return the package of an object and its version; None for one of benchcard or Python, or an unknown name."""
        if name in self._registered:
            return _version_of(_class_of(self._registered[name]).__module__)
        dist = self._entry_points[name][0].dist if name in self._entry_points else None
        return (dist.name, dist.version) if dist else None

    def registered_by_call(self) -> list[tuple[str, str, str]]:
        return [(self._group, name, self._pickle(name, thing)) for name, thing in self._registered.items()]

    def _pickle(self, name: str, thing: object) -> str:
        """Return an object as text for `register_again`; raise if a child process could not import it."""
        problem = "it is defined in the program itself, which a child process cannot import"
        try:
            content = pickle.dumps(thing)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            content, problem = b"", str(error)
        if not content or "__main__" in (getattr(thing, "__module__", None), type(thing).__module__):
            need = f"child processes need the {self._kind} `{name}` ({_qualified_name(thing)}) too, and {problem}"
            raise BenchcardError(f"{need}: define it at the top of a module of its own, and import it from there")
        return base64.b64encode(content).decode("ascii")


def _package(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist else "a package"


def _version_of(module: str) -> tuple[str, str] | None:
    """Return the package of a module and its version; for a module of no package, its name and digest."""
    top = module.partition(".")[0]
    if top == "benchcard" or top in sys.stdlib_module_names:
        return None
    if packages := metadata.packages_distributions().get(top):
        return packages[0], metadata.version(packages[0])
    source = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    return (module, f"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}") if source.is_file() else None


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _class_of(thing: object) -> type:
    return thing if isinstance(thing, type) else type(thing)


def _qualified_name(thing: object) -> str:
    return f"{_class_of(thing).__module__}.{_class_of(thing).__qualname__}"


_registry = functools.cache(_Registry)


def frameworks() -> tuple[str, ...]:
    """Return the names of all frameworks."""
    return _registry("frameworks").names()


def framework(name: str) -> Any:
    """Return a `frameworks.Framework`, whose type is in a higher layer; `BenchcardError` for an unknown name."""
    return _registry("frameworks").get(name)


def tasks() -> tuple[str, ...]:
    """Return the names of all tasks."""
    return _registry("tasks").names()


def task(name: str) -> Any:
    """Return a `tasks.Task`, whose type is in a higher layer."""
    return _registry("tasks").get(name)


def metrics() -> tuple[str, ...]:
    """Return the ids of all metrics that need no download."""
    return _registry("metrics").names()


def metric(name: str) -> evaluate.Metric:
    """Return the metric of an id."""
    return _registry("metrics").get(name)


def is_built_in_metric(name: str) -> bool:
    """Return whether the metric of an id is benchcard's own, and nobody registered another under it."""
    return _registry("metrics").is_built_in(name)


def backends() -> tuple[str, ...]:
    """Return the names of all backends."""
    return _registry("backends").names()


def backend(name: str) -> Backend:
    """Return the backend of a name."""
    return cast(Backend, _registry("backends").get(name))


def versions(used: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the versions of the packages, except benchcard, that the names of each group in `used` come from."""
    packages = [_registry(group).version(name) for group, names in used.items() for name in names]
    return dict(sorted(filter(None, packages)))


def libraries(frameworks: Iterable[str], used_task: str) -> list[str]:
    """Return the packages, beside those that benchcard needs anyway, that these frameworks and this task need."""
    users: list[object] = [*map(framework, frameworks), task(used_task)]
    return sorted({name for user in users for name in getattr(user, "libraries", ())})


def registered_by_call() -> list[tuple[str, str, str]]:
    """Return what calls registered for child processes, for `register_again`: group, name, and pickled object."""
    return [entry for group in _USED_IN_CHILDREN for entry in _registry(group).registered_by_call()]


def register_again(entries: Iterable[tuple[str, str, str]]) -> None:
    """Register what `registered_by_call` returned in the parent process."""
    for group, name, content in entries:
        _registry(group).register(name, pickle.loads(base64.b64decode(content)))


def _registrar(group: str) -> Callable[[str, object], None]:
    def register(name: str, thing: object) -> None:
        """Register an object, or a class that takes no arguments, in this process and (not a backend) in its children.

        Raises:
            BenchcardError: The name is empty, or the object is defined in the program itself or in a function, from
                where child processes cannot import it.
        """
        _registry(group).register(name, thing)

    register.__name__ = f"register_{group.removesuffix('s')}"
    return register


register_framework = _registrar("frameworks")
register_task = _registrar("tasks")
register_metric = _registrar("metrics")
register_backend = _registrar("backends")
