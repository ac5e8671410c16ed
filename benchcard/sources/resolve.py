"""Sources: the folder, or the commit on the Hub, that each name of a model, data set or metric script stands for.

Models are downloaded here, so that child processes need no network. Loading data sets is left to `tasks.data`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.errors import Mistake, SpecError
from benchcard.metrics.info import split_column
from benchcard.spec.parameters import split_name
from benchcard.spec.spec import Spec, task_files
from benchcard.tasks.data import data_digest, is_configured
from benchcard.tasks.hub_cache import cached_commit
from benchcard.utils.files import content_digest, pointer_hint
from benchcard.utils.harness import is_task_path
from benchcard.utils.parsing import front_matter
from benchcard.utils.plain import canonical_json, digest, plain
from benchcard.utils.progress import download_progress
from benchcard.utils.values import MEMORY_PREFIX

# A data set as a spec describes it.
DatasetArguments = Mapping[str, Any]

_MODEL = "$.model"
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")
# Data sets whose old ids, without an owner, stand in early cards. The Hub answers with the current id for any other.
_CURRENT_IDS = """
    fancyzhx/ag_news fancyzhx/amazon_polarity PolyAI/banking77 AI-Lab-Makerere/beans microsoft/cats_vs_dogs
    uoft-cs/cifar10 uoft-cs/cifar100 clinc/clinc_oos eriktks/conll2003 fancyzhx/dbpedia_14 dair-ai/emotion
    zalando-datasets/fashion_mnist ethz/food101 nyu-mll/glue google-research-datasets/go_emotions ILSVRC/imagenet-1k
    stanfordnlp/imdb ylecun/mnist nyu-mll/multi_nli cornell-movie-review-data/rotten_tomatoes stanfordnlp/snli
    rajpurkar/squad rajpurkar/squad_v2 stanfordnlp/sst2 aps/super_glue ufldl-stanford/svhn cardiffnlp/tweet_eval
    unimelb-nlp/wikiann leondz/wnut_17 facebook/xnli fancyzhx/yelp_polarity Yelp/yelp_review_full
"""
RENAMED: Mapping[str, str] = {name.partition("/")[2]: name for name in _CURRENT_IDS.split()}
# Files of a model repository that no framework here reads.
_IGNORED_FILES = "*.h5 *.msgpack *.ot *.tflite *.mlmodel *.mlpackage/* *.gguf *.pb flax_model* tf_model* coreml/*"
# Configurations and vocabularies, all of which are read, unlike weights and graphs.
_ALWAYS_READ = frozenset({".json", ".txt", ".model", ".tiktoken"})
# Keys of a model card that also hold for quantized variants of the model. The name and the link identify the licence
# where `license` is `other`. Source: https://huggingface.co/docs/hub/model-cards
_INHERITED = ("license", "license_name", "license_link", "library_name")


@dataclass(frozen=True)
class Source:
    """What a name stands for.

    Attributes:
        location: The local folder or file, or the current id on the Hub.
        revision: The commit on the Hub; None for local files.
        digest: The digest of all local files, or of id and commit on the Hub.
        inherited: The metadata in the model's README that also hold for its quantized variants.
        freely_named: Whether `name` of a data set is only its name on the card: it is local and has no configurations.
        offline: Whether it was taken from the cache, without asking the Hub for a newer commit.
    """

    name: str
    location: str
    local: bool
    revision: str | None
    digest: str
    inherited: Mapping[str, str | list[str]] = field(default_factory=dict)
    offline: bool = False
    freely_named: bool = False

    @property
    def folder(self) -> Path:
        """The folder of a model."""
        return Path(self.location)

    @property
    def content(self) -> str | None:
        """The digest that the files of a local data set must have when they are read; None for other data sets."""
        return self.digest if self.local and not self.name.startswith(MEMORY_PREFIX) else None

    @property
    def identity(self) -> dict[str, str]:
        """What represents the source in the keys of steps."""
        return {"digest": self.digest}


@dataclass(frozen=True)
class Sources:
    """What all names of a plan stand for; data sets by path and revision, the others by name."""

    models: Mapping[str, Source] = field(default_factory=dict)
    datasets: Mapping[str, Source] = field(default_factory=dict)
    metrics: Mapping[str, Source] = field(default_factory=dict)

    @property
    def scripts(self) -> dict[str, str]:
        """The paths of local metric scripts, by name."""
        return {name: source.location for name, source in self.metrics.items()}

    @property
    def freely_named(self) -> frozenset[str]:
        """The paths of data sets, as given, whose `name` is only their name on the card."""
        return frozenset(source.name for source in self.datasets.values() if source.freely_named)

    def dataset(self, dataset: DatasetArguments) -> Source:
        """Return the source of the data set that a spec describes."""
        return self.datasets[_dataset_key(dataset)]

    @property
    def notes(self) -> list[str]:
        """Sentences on old ids of data sets, and on what was taken from the cache."""
        renamed = [source for source in self.datasets.values() if not source.local and source.name != source.location]
        cached = [source for source in self.by_name().values() if source.offline]
        not_asked = "HF_HUB_OFFLINE was set, and the Hub was not asked for a newer one"
        return [
            *(f"`{source.name}` is an old id: the rows are those of `{source.location}`" for source in renamed),
            *(f"`{source.name}` is from the cache, at commit {source.revision}: {not_asked}" for source in cached),
        ]

    def by_name(self) -> dict[tuple[str, str], Source]:
        """Return all sources by kind and name."""
        return {(kind, name): source for kind, sources in vars(self).items() for name, source in sources.items()}


def unresolved_sources(spec: Spec) -> Sources:
    """Return sources by name alone, for a plan: nothing is read or downloaded."""
    models = {name: Source(name, name, False, None, digest(name)) for name in _model_names(spec)}
    paths = {_dataset_key(dataset): dataset["path"] for dataset in _datasets(spec)}
    return Sources(models, {key: Source(path, path, False, None, digest(key)) for key, path in paths.items()})


def resolve_sources(spec: Spec, kept: Sources | None = None, memory_folder: Path | None = None) -> Sources:
    """Return what every name of a spec stands for now. Models on the Hub are downloaded.

    The commits of `kept`, the sources when the run began, are used again. Data sets that were passed in memory are in
    `memory_folder`.

    Raises:
        SpecError: Folders or repositories do not exist; the message names each, and where it was looked for.
        HubError: The Hub could not be reached.
    """
    kept = kept or Sources()
    mistakes: list[Mistake] = []

    def resolve_each(resolver: Callable[..., Source | None], arguments: Mapping[str, Any]) -> dict[str, Source]:
        sources = {}
        for name, values in arguments.items():
            try:
                sources[name] = resolver(spec, *values)
            except SpecError as error:
                mistakes.extend(error.mistakes)
        return {name: source for name, source in sources.items() if source is not None}

    datasets = {_dataset_key(dataset): dataset for dataset in _datasets(spec)}
    models = {name: (name, kept.models.get(name)) for name in _model_names(spec)}
    data = {key: (dataset, kept.datasets.get(key), memory_folder) for key, dataset in datasets.items()}
    scripts = {name: (name,) for name in script_metrics(spec)}
    sources = Sources(resolve_each(_model, models), resolve_each(_dataset, data), resolve_each(_script, scripts))
    if mistakes:
        raise SpecError(mistakes)
    return sources


def freely_named(spec: Spec) -> frozenset[str]:
    """Return the paths of the data sets in a spec whose `name` is only their name on the card."""
    return frozenset(path for path in (dataset["path"] for dataset in _datasets(spec)) if _is_freely_named(spec, path))


def _is_freely_named(spec: Spec, path: str) -> bool:
    local = spec.local_path(path)
    return path.startswith(MEMORY_PREFIX) or (local is not None and not is_configured(local))


def uninstalled_code(spec: Spec, trusted: Collection[str] = ()) -> list[str]:
    """Return descriptions of the code that a spec runs beside installed packages, without what `trusted` names."""
    models = _model_names(spec) if spec.trusts_model_code else []
    code = [f"code that comes with the model `{name}` (`trust_remote_code: true`)" for name in models]
    for name in script_metrics(spec):
        if name not in trusted:
            path = spec.local_path(name)
            code.append(f"the metric `{name}`, " + (f"which is the script {path}" if path else "a script on the Hub"))
    for place, value in task_code(spec):
        if value not in trusted:
            path = spec.local_path(value)
            code.append(f"the task file `{value}` @ {place}, " + (f"which is {path}" if path else "which is not here"))
    return code


def untrusted_code_message(descriptions: Collection[str]) -> str:
    """Return the error message for code that may not run, given its descriptions."""
    code = "\n".join(f"- {description}" for description in descriptions)
    return (
        f"this spec comes from somebody else and would run code on this machine:\n{code}\n"
        "Read that code first. If you trust it, use `benchcard verify --trust-remote-code`, or "
        "`trust_remote_code=True` for `Benchmark.from_card` and `Benchmark.from_spec`."
    )


def changed_names(kept: Sources, current: Sources) -> list[str]:
    """Return the names that stood for something else when the run began."""
    earlier, now = kept.by_name(), current.by_name()
    return [now[key].name for key in now if key in earlier and earlier[key].digest != now[key].digest]


def script_metrics(spec: Spec) -> list[str]:
    """Return the ids of metrics that are not installed: scripts, local or on the Hub, that would run."""
    lists = spec.grid["metrics"] if "metrics" in spec.grid else [spec.fixed.get("metrics") or []]
    names = dict.fromkeys(name for metrics in lists for name in metrics)
    return [name for name in names if split_column(name)[0] not in registry.metrics()]


def task_code(spec: Spec) -> list[tuple[str, str]]:
    """Return the place and the text of each of `task_args` that is a file, as a task of lm-eval, whose code would run.

    The path of a task of lm-eval counts wherever it leads.
    """
    given = [(f"$.{name}", name, value) for name, value in spec.fixed.items()]
    given += [(f"$.grid.{name}[{at}]", name, value) for name in spec.grid for at, value in enumerate(spec.values(name))]
    values: list[tuple[str, object]] = []
    for place, name, value in given:
        if split_name(name)[0] == "task_args":
            is_mapping = isinstance(value, Mapping)
            values += [(f"{place}.{key}", part) for key, part in value.items()] if is_mapping else [(place, value)]
    return [
        (place, value)
        for place, value in values
        if isinstance(value, str) and (is_task_path(value) or task_files({place: value}, spec.local_path))
    ]


def _model_names(spec: Spec) -> list[str]:
    names: list[str] = spec.grid["name_or_path"] if "name_or_path" in spec.grid else [spec.fixed["name_or_path"]]
    return names


def _datasets(spec: Spec) -> list[DatasetArguments]:
    """Return every combination of path and revision of data sets in a spec."""
    datasets: list[DatasetArguments] = list(spec.grid.get("dataset") or [spec.fixed.get("dataset", {})])
    for field_name in ("path", "revision"):
        name = f"dataset.{field_name}"
        if name in spec.grid or name in spec.fixed:
            values = [spec.fixed[name]] if name in spec.fixed else spec.grid[name]
            datasets = [{**dataset, field_name: value} for dataset in datasets for value in values]
    return datasets


def _dataset_key(dataset: DatasetArguments) -> str:
    return canonical_json([dataset["path"], dataset.get("revision")])


def _model(spec: Spec, name: str, kept: Source | None) -> Source:
    folder = spec.local_path(name)
    if folder is not None:
        if not folder.is_dir():
            expected, hint = "the folder that holds the model", "give the folder of the file"
            raise SpecError(Mistake(_MODEL, f"the file `{name}`", expected, hint))
        for file in folder.iterdir():
            if file.suffix in _ALWAYS_READ and (hint := pointer_hint(file)):
                raise SpecError(Mistake(_MODEL, f"`{name}`", "a folder with all files of the model", hint))
        return Source(name, str(folder), True, None, content_digest(folder), _inherited_metadata(folder))
    from huggingface_hub import constants

    # A run directory may be somebody else's, so it does not choose the commit of code that runs.
    folder = _download(spec, name, kept.revision if kept and not spec.trusts_model_code else None)
    # The client stores a snapshot in …/snapshots/<commit>.
    commit = folder.name
    inherited, content = _inherited_metadata(folder), digest([name, commit])
    return Source(name, str(folder), False, commit, content, inherited, constants.HF_HUB_OFFLINE)


def _download(spec: Spec, name: str, revision: str | None = None, *patterns: str) -> Path:
    """Return the folder of a model on the Hub, with all files that are read, or with those that match a pattern."""
    _expect_hub_id(name, _MODEL, "model", spec)
    from huggingface_hub import snapshot_download

    from benchcard.hub.faults import reporting_hub_errors

    with reporting_hub_errors("model", name, _MODEL), download_progress():
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns=list(patterns) or None, ignore_patterns=_IGNORED_FILES.split()
            )
        )


def described_model(name: str) -> Path:
    """Return the folder with the README, the configurations and the vocabulary of a model, without its weights.

    Raises:
        SpecError: There is no such folder or model.
        HubError: The Hub refused, or could not be reached.
    """
    spec = Spec("", {}, {})
    return spec.local_path(name) or _download(
        spec, name, None, "README.md", *(f"*{ending}" for ending in sorted(_ALWAYS_READ))
    )


def downloaded_model(name: str) -> Path:
    """Return the folder of a model, with all files that are read.

    Raises:
        SpecError: There is no such folder or model.
        HubError: The Hub refused, or could not be reached.
    """
    spec = Spec("", {}, {})
    return spec.local_path(name) or _download(spec, name)


def named_dataset(dataset: DatasetArguments, *, on_hub: bool = False) -> Source:
    """Return the source of a data set; with `on_hub`, of one that a card names, which is no local path.

    Raises:
        SpecError: There is no such data set.
        HubError: The Hub refused, or could not be reached.
    """
    spec = Spec("", {}, {}, card_folders={dataset["path"]: None} if on_hub else {})
    return _dataset(spec, dataset, None, None)


def _inherited_metadata(folder: Path) -> dict[str, str | list[str]]:
    """Return the metadata in a model's README that also hold for its variants; empty where it cannot be read."""
    values = {name: plain(value) for name, value in front_matter(folder).items() if name in _INHERITED}
    # A model that combines works of others has several licences.
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, str)
        or (name == "license" and isinstance(value, list) and value and all(isinstance(item, str) for item in value))
    }


def _dataset(spec: Spec, dataset: DatasetArguments, kept: Source | None, memory_folder: Path | None) -> Source:
    name, place = dataset["path"], "$.dataset.path"
    # The keys of the steps of a run depend on it, so it stays as it was.
    is_free = kept.freely_named if kept else _is_freely_named(spec, name)
    if name.startswith(MEMORY_PREFIX):
        return _dataset_in_memory(name, place, memory_folder, is_free)
    path = spec.local_path(name)
    if path is not None:
        return Source(name, str(path), True, None, data_digest(path), freely_named=is_free)
    if "://" in name:
        return Source(name, name, False, dataset.get("revision"), digest([name, dataset.get("revision")]))
    if kept is not None and not kept.local:
        _expect_no_local_path(Path(kept.location), place, name)
        return kept
    _expect_hub_id(name, place, "data set", spec)
    from huggingface_hub import HfApi, constants

    from benchcard.hub.faults import reporting_hub_errors

    current_id, revision = RENAMED.get(name, name), dataset.get("revision")
    if constants.HF_HUB_OFFLINE:
        commit = cached_commit(current_id, revision)
        return Source(name, current_id, False, commit, digest([current_id, commit]), offline=True)
    with reporting_hub_errors("data set", current_id, place):
        info = HfApi().dataset_info(current_id, revision=revision)
        if not isinstance(info.sha, str):
            raise ValueError("the answer has no commit")
    location = info.id or current_id
    _expect_no_local_path(Path(location), place, name)
    return Source(name, location, False, info.sha, digest([location, info.sha]))


def _dataset_in_memory(name: str, place: str, memory_folder: Path | None, is_free: bool) -> Source:
    identifier = name.removeprefix(MEMORY_PREFIX)
    folder = (memory_folder or Path()) / identifier
    # The name may come from somebody else's spec: it must not lead out of the folder.
    if memory_folder is None or not folder.name.isalnum() or folder.parent != memory_folder or not folder.is_dir():
        hint = "its files are in the run directory: run it there, or pass the data again"
        raise SpecError(Mistake(place, f"`{name}`", "a data set in memory that is available", hint))
    return Source(name, str(folder.resolve()), True, None, identifier, freely_named=is_free)


def _script(spec: Spec, name: str) -> Source | None:
    """Return a local metric script; None for a script on the Hub."""
    path = spec.local_path(name)
    if path is not None and (path.suffix == ".py" or (path / f"{path.name}.py").is_file()):
        return Source(name, str(path), True, None, content_digest(path))
    if name.endswith(".py") or name.startswith((".", "/", "~")):
        expected = "a metric script, or a folder with one"
        raise SpecError(Mistake("$.metrics", f"`{name}`", expected, spec.missing_path_message(name)))
    _expect_no_local_path(Path(name, f"{Path(name).name}.py"), "$.metrics", name)
    return None


def _expect_no_local_path(path: Path, place: str, name: str) -> None:
    """Raise where a library would read a path of the working directory in place of the repository of that name."""
    if path.exists():
        hint = f"{path.absolute()} has its name and would be read instead: run this from another folder"
        raise SpecError(Mistake(place, f"`{name}`", "a repository on the Hub", hint))


def _expect_hub_id(name: str, place: str, kind: str, spec: Spec) -> None:
    """Raise where a name cannot be an id on the Hub, and so was meant as a path."""
    if not _HUB_ID.match(name):
        expected = f"a {kind} on the Hub or a local path"
        raise SpecError(Mistake(place, f"`{name}`", expected, spec.missing_path_message(name)))
