"""Which model, data and metric script the names in a spec stand for: a folder with its digest, or a commit on the Hub.

Models are downloaded here, so that child processes need no network; data sets are loaded by `tasks.data`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.errors import Mistake, SpecError
from benchcard.metrics.info import split_column
from benchcard.sources import renamed
from benchcard.sources.faults import asking_the_hub
from benchcard.spec.spec import Spec
from benchcard.tasks.data import data_digest
from benchcard.utils.files import content_digest, pointer_hint
from benchcard.utils.plain import canonical_json, digest
from benchcard.utils.plaindata import front_matter, plain
from benchcard.utils.progress import downloads

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")
# What a model repository may hold that no framework here reads.
_UNREAD = (
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.tflite",
    "*.mlmodel",
    "*.mlpackage/*",
    "*.gguf",
    "*.pb",
    "flax_model*",
    "tf_model*",
    "coreml/*",
)
# Configurations and vocabularies. Of several files with weights only one is read; a graph, only where it is asked for.
_READ_AT_ONCE = frozenset({".json", ".txt", ".model", ".tiktoken"})

INHERITED = ("license", "license_name", "license_link", "library_name")
"""Keys of a model card that hold for the model's quantized variants, too. The name and the link say which licence it is
where `license` is `other`.

Source: https://huggingface.co/docs/hub/model-cards
"""
MEMORY = "memory:"
"""What the name of a data set begins with that was handed over in memory; it lies in the run directory."""


@dataclass(frozen=True)
class Source:
    """What one name stands for.

    Attributes:
        name: As it was given.
        location: The local folder or file, or the id on the Hub today, where the given one is an old one.
        local: Whether it is one of ours, and not on the Hub.
        revision: The commit on the Hub; None for a local one.
        digest: Of the content: of all files for a local one, of id and commit for one on the Hub.
        inherited: What a model's own README says in its front matter that holds for what is made of it, too (see
            `INHERITED`).
    """

    name: str
    location: str
    local: bool
    revision: str | None
    digest: str
    inherited: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where it lies, for a model."""
        return Path(self.location)

    @property
    def content(self) -> str | None:
        """The digest of the files of a local data set, for a check when they are read; None where there is none."""
        return self.digest if self.local and not self.name.startswith(MEMORY) else None

    @property
    def moved(self) -> str:
        """That the given id is an old one, in a sentence; empty where it is not."""
        if self.local or self.name == self.location or "://" in self.name:
            return ""
        return f"`{self.name}` is an old id: the rows are those of `{self.location}`"

    @property
    def identity(self) -> dict[str, Any]:
        """What stands for it in the keys of steps."""
        return {"digest": self.digest}


@dataclass(frozen=True)
class Sources:
    """What all names of a plan stand for."""

    models: Mapping[str, Source] = field(default_factory=dict)
    datasets: Mapping[str, Source] = field(default_factory=dict)
    metrics: Mapping[str, Source] = field(default_factory=dict)

    @property
    def scripts(self) -> dict[str, str]:
        """The files of metrics that are local scripts, by name."""
        return {name: source.location for name, source in self.metrics.items()}

    def model(self, name: str) -> Source:
        """The model of that name."""
        return self.models[name]

    def dataset(self, dataset: Mapping[str, Any]) -> Source:
        """The data set that a spec's `dataset` means."""
        return self.datasets[_dataset_key(dataset)]


def unresolved(spec: Spec) -> Sources:
    """Sources by name alone, for a plan: nothing is read or asked."""
    models = {name: Source(name, name, False, None, digest(name)) for name in model_names(spec)}
    datasets = {
        _dataset_key(each): Source(each["path"], each["path"], False, None, digest(_dataset_key(each)))
        for each in _datasets(spec)
    }
    return Sources(models, datasets)


def resolve_sources(spec: Spec, kept: Sources | None = None, handed: Path | None = None) -> Sources:
    """What every name of a spec stands for, now. Models on the Hub are downloaded.

    Args:
        spec: The spec.
        kept: What the names stood for when the run was begun: what lies on the Hub is taken at the same commit.
        handed: The folder of data sets that were handed over in memory.

    Raises:
        SpecError: A folder or a repository does not exist; the message says which, and where it was looked for.
        HubError: The Hub could not be reached.
    """
    known = kept or Sources()
    models: dict[str, Source] = {}
    datasets: dict[str, Source] = {}
    mistakes: list[Mistake] = []
    for name in model_names(spec):
        try:
            models[name] = _model(spec, name, known.models.get(name))
        except SpecError as error:
            mistakes += error.mistakes
    for dataset in _datasets(spec):
        key = _dataset_key(dataset)
        try:
            datasets[key] = _dataset(spec, dataset, known.datasets.get(key), handed)
        except SpecError as error:
            mistakes += error.mistakes
    metrics: dict[str, Source] = {}
    for name in code_of_metrics(spec):
        try:
            metrics |= _script(spec, name)
        except SpecError as error:
            mistakes += error.mistakes
    if mistakes:
        raise SpecError(mistakes)
    return Sources(models, datasets, metrics)


def named(spec: Spec) -> frozenset[str]:
    """Every name of a model, a data set or a metric's script in a spec."""
    return frozenset([*model_names(spec), *(each["path"] for each in _datasets(spec)), *code_of_metrics(spec)])


def code_of(spec: Spec, given: Collection[str] = ()) -> list[str]:
    """Return what a spec runs of code that is not installed, in words.

    Args:
        spec: The spec.
        given: The ids of metrics to leave out.
    """
    models = [f"code that comes with the model `{name}` (`trust_remote_code: true`)" for name in model_names(spec)]
    scripts = [
        f"the metric `{name}`, which is the script {path}" if path else f"the metric `{name}`, a script on the Hub"
        for name, path in ((name, spec.local_path(name)) for name in code_of_metrics(spec))
        if name not in given
    ]
    return [*(models if spec.trusts_model_code else []), *scripts]


def refusal(code: Collection[str]) -> str:
    """Return what is said of code that may not run, and what to do."""
    listed = "\n".join(f"- {each}" for each in code)
    return (
        f"this was not written here, and asks for code that would run on this machine:\n{listed}\n"
        "Read that code first. If you trust it, say so: `benchcard verify --trust-remote-code`, or "
        "`trust_remote_code=True` for `Benchmark.from_card` and `Benchmark.from_spec`."
    )


def changed(kept: Sources, now: Sources) -> list[str]:
    """The names that stood for something else when a run was begun."""
    return [
        source.name
        for part in ("models", "datasets", "metrics")
        for key, source in getattr(now, part).items()
        if key in getattr(kept, part) and getattr(kept, part)[key].digest != source.digest
    ]


def model_names(spec: Spec) -> list[str]:
    """The names of models in a spec."""
    names: list[str] = spec.grid["name_or_path"] if "name_or_path" in spec.grid else [spec.fixed["name_or_path"]]
    return names


def _datasets(spec: Spec) -> list[Mapping[str, Any]]:
    whole = spec.grid.get("dataset") or [spec.fixed.get("dataset", {})]
    fields = {name.partition(".")[2]: values for name, values in spec.grid.items() if name.startswith("dataset.")}
    fields |= {name.partition(".")[2]: [value] for name, value in spec.fixed.items() if name.startswith("dataset.")}
    datasets: list[Mapping[str, Any]] = list(whole)
    for part in ("path", "revision"):
        if part in fields:
            datasets = [{**each, part: value} for each in datasets for value in fields[part]]
    return datasets


def code_of_metrics(spec: Spec) -> list[str]:
    """The ids of metrics that are not installed: scripts, here or on the Hub, that run."""
    lists = spec.grid["metrics"] if "metrics" in spec.grid else [spec.fixed.get("metrics") or []]
    names = dict.fromkeys(name for each in lists for name in each)
    return [name for name in names if split_column(name)[0] not in registry.metrics()]


def _script(spec: Spec, name: str) -> dict[str, Source]:
    """The metric's script, looked for from the spec's folder first; nothing for an id on the Hub."""
    path = spec.local_path(name)
    if path is not None and (path.suffix == ".py" or (path / f"{path.name}.py").is_file()):
        return {name: Source(name, str(path), True, None, content_digest(path))}
    if name.endswith(".py") or name.startswith((".", "/", "~")):
        raise SpecError(
            Mistake(
                "$.metrics", f"`{name}`", "a metric's script, or a folder with one", spec.missing_path_message(name)
            )
        )
    _refuse_hidden(Path(name, f"{Path(name).name}.py"), "$.metrics", f"`{name}`")
    return {}


def _refuse_hidden(path: Path, place: str, found: str) -> None:
    """Raise where a library would take a path of the working directory for the repository of that name."""
    if path.exists():
        hint = f"{path.absolute()} has its name and would be read instead: run this from another folder"
        raise SpecError(Mistake(place, found, "a repository on the Hub", hint))


def _dataset_key(dataset: Mapping[str, Any]) -> str:
    return canonical_json([dataset["path"], dataset.get("revision")])


def _model(spec: Spec, name: str, kept: Source | None) -> Source:
    place = "$.model"
    folder = spec.local_path(name)
    if folder is not None:
        if not folder.is_dir():
            raise SpecError(
                Mistake(place, f"the file `{name}`", "the folder that holds the model", "give the folder it lies in")
            )
        for file in folder.iterdir():
            if file.suffix in _READ_AT_ONCE and (hint := pointer_hint(file)):
                raise SpecError(Mistake(place, f"`{name}`", "a folder with all files of the model", hint))
        return Source(name, str(folder), True, None, content_digest(folder), _inherited(folder))
    _expect_id(name, place, "model", spec)
    from huggingface_hub import snapshot_download

    # No run directory, which may be somebody else's, decides of which commit code runs.
    revision = kept.revision if kept and not spec.trusts_model_code else None
    with asking_the_hub(name, place, "model"), downloads():
        folder = Path(snapshot_download(name, revision=revision, ignore_patterns=list(_UNREAD)))
    # The client lays a snapshot out as …/snapshots/<commit>.
    revision = folder.name
    return Source(name, str(folder), False, revision, digest([name, revision]), _inherited(folder))


def _inherited(folder: Path) -> dict[str, str]:
    """What the README of a model's folder says of `INHERITED`; nothing where it cannot be read."""
    readme = front_matter(folder)
    return {name: value for name in INHERITED if isinstance(value := plain(readme.get(name)), str)}


def _dataset(spec: Spec, dataset: Mapping[str, Any], kept: Source | None, handed: Path | None) -> Source:
    name, place = dataset["path"], "$.dataset.path"
    if name.startswith(MEMORY):
        folder = (handed or Path()) / name.removeprefix(MEMORY)
        if handed is None or not folder.name.isalnum() or folder.parent != handed or not folder.is_dir():
            hint = "it lies in the run directory: run it there, or hand the data over again"
            raise SpecError(Mistake(place, f"`{name}`", "a data set that is here", hint))
        return Source(name, str(folder.resolve()), True, None, name.removeprefix(MEMORY))
    path = spec.local_path(name)
    if path is not None:
        return Source(name, str(path), True, None, data_digest(path))
    if "://" in name:
        return Source(name, name, False, dataset.get("revision"), digest([name, dataset.get("revision")]))
    if kept is not None and not kept.local:
        _refuse_hidden(Path(kept.location), place, f"`{name}`")
        return kept
    _expect_id(name, place, "data set", spec)
    from huggingface_hub import HfApi

    today = renamed.RENAMED.get(name, name)
    with asking_the_hub(today, place, "data set"):
        info = HfApi().dataset_info(today, revision=dataset.get("revision"))
        if not isinstance(info.sha, str):
            raise ValueError("the answer names no commit")
    location = info.id or today
    _refuse_hidden(Path(location), place, f"`{name}`")
    return Source(name, location, False, info.sha, digest([location, info.sha]))


def _expect_id(name: str, place: str, what: str, spec: Spec) -> None:
    """Raise where a name can be no id of the Hub, and so was meant as a path."""
    if not HUB_ID.match(name):
        raise SpecError(
            Mistake(place, f"`{name}`", f"a {what} on the Hub or a local path", spec.missing_path_message(name))
        )
