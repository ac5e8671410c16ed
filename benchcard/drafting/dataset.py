"""What the splits and features of a data set say about its use: which split is evaluated, and which columns are read.

Leaves the choice of a data set to `draft`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchcard.errors import SpecError
from benchcard.hub.faults import reporting_hub_errors
from benchcard.sources.resolve import named_dataset
from benchcard.tasks import Usage, labels
from benchcard.tasks.data import Layout, read_layout

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from benchcard.card.facts import Plain

# The branch with the rows of a data set as parquet. Source: https://huggingface.co/docs/dataset-viewer/parquet
_CONVERTED = "refs/convert/parquet"
_EVALUATED = ("validation", "valid", "val", "dev", "test", "eval")
_BOXES = {"bbox", "bboxes", "boxes"}
_INPUTS = ("dataset.data_keys.primary", "dataset.data_keys.secondary")
_KINDS = {"image": "images", "audio": "sounds", "text": "texts", "texts": "lists of words"}


@dataclass(frozen=True)
class Choice:
    """The value of a line of a spec.

    Attributes:
        source: Where it was taken from; for a value that `is_unknown`, why it is unknown.
        others: What else it could be.
    """

    value: Plain
    source: str
    others: tuple[str, ...] = ()
    is_unknown: bool = False


def unknown(source: str, others: Sequence[str] = (), *, is_list: bool = False) -> Choice:
    """Return the choice of an unknown value. A spec with its empty text is refused."""
    return Choice([""] if is_list else "", source, tuple(others), True)


@dataclass(frozen=True)
class Candidate:
    """A data set that may be the one to evaluate on.

    Attributes:
        source: Who names it, for a comment.
        is_given: Whether the user names it: only then it may be a local path.
    """

    path: str
    source: str
    name: str | None = None
    split: str | None = None
    revision: str | None = None
    is_given: bool = False


@dataclass(frozen=True)
class DataSet:
    """A candidate as it is on the Hub or on disk; `path` is its current name."""

    candidate: Candidate
    path: str
    revision: str | None
    layout: Layout

    def choices(self) -> Iterator[tuple[str, Choice]]:
        """Yield the choices of its path, configuration and revision, by their places in a spec."""
        source = self.candidate.source
        if self.path != self.candidate.path:
            source += f", as `{self.candidate.path}`, an old id of it"
        yield "dataset.path", Choice(self.path, source)
        names, name = self.layout.configurations, self.layout.configuration
        if len(names) > 1 and not name:
            yield "dataset.name", unknown("which configuration to evaluate on", names)
        elif name and len(names) != 1:
            is_named = name == self.candidate.name
            why = self.candidate.source if is_named else "the default configuration of the data set"
            yield "dataset.name", Choice(name, why, tuple(other for other in names if other != name))
        if self.revision is not None and self.revision != self.candidate.revision:
            why = "the data set is read by a script, which is not run: this branch has its rows as parquet"
            yield "dataset.revision", Choice(self.revision, why)

    def split_choices(self) -> Iterator[tuple[str, Choice]]:
        """Yield the choices of its splits, by their places in a spec."""
        splits, wanted = list(self.layout.splits), self.candidate.split
        only = splits if len(splits) == 1 else []
        usual = [split for word in _EVALUATED for split in splits if split.startswith(word)]
        split = next(iter([wanted] if wanted in splits else usual or only), None)
        if split is None:
            yield "dataset.eval_split", unknown("which split to evaluate on: none has a usual name", splits)
            return
        why = "the usual split for evaluation"
        if split == wanted:
            why = "the split of the results in the model card"
        elif split in only and split not in usual:
            why = "the only split of the data set: the model may have been trained on it"
        yield "dataset.eval_split", Choice(split, why, tuple(other for other in splits if other != split))
        train = next((name for name in splits if name.startswith("train")), split)
        why = "the split that the model was trained on, if this is its data set"
        if train == split:
            why = "the evaluation split itself; calibration reads no labels"
        yield "dataset.calibration_split", Choice(train, f"{why}; for static quantization")


def open_dataset(candidate: Candidate) -> DataSet:
    """Return a data set with its splits and features, without its rows where that is possible.

    Raises:
        SpecError: There is no such data set or configuration, or it cannot be read.
        HubError: The Hub refused, or could not be reached.
    """
    from huggingface_hub import HfApi

    arguments = {"path": candidate.path, "revision": candidate.revision}
    source, revision = named_dataset(arguments, on_hub=not candidate.is_given), candidate.revision
    errors = nullcontext() if source.local else reporting_hub_errors("data set", candidate.path, "$.dataset.path")
    with errors:
        if not (source.local or source.offline or revision or "://" in source.location):
            script = f"{source.location.rpartition('/')[2]}.py"
            if HfApi().file_exists(source.location, script, repo_type="dataset", revision=source.revision):
                source, revision = named_dataset({**arguments, "revision": _CONVERTED}, on_hub=True), _CONVERTED
        name, is_certain = candidate.name, candidate.is_given or source.offline
        layout = read_layout(source.location, name if is_certain else None, source.revision)
        # A model card may call something else a configuration, which shows where they are known.
        if not is_certain and name in layout.configurations:
            layout = read_layout(source.location, name, source.revision)
    return DataSet(candidate, candidate.path if source.local else source.location, revision, layout)


def kind_of(feature: object) -> str:
    """Return what a column of this feature holds, in the words of `Usage`; empty for anything else."""
    import datasets

    if isinstance(feature, (datasets.Image, datasets.Audio)):
        return "image" if isinstance(feature, datasets.Image) else "audio"
    if isinstance(feature, datasets.ClassLabel):
        return "label"
    if isinstance(feature, datasets.Value):
        kinds = {"string": "text", "large": "text", "bool": "integer", "int": "integer", "uint": "integer"}
        kinds["float"] = "float"
        return next((kind for start, kind in kinds.items() if feature.dtype.startswith(start)), "")
    inner = getattr(feature, "feature", None)
    if any(isinstance(mapping, Mapping) and "text" in mapping for mapping in (feature, inner)):
        return "answers"
    if any(isinstance(mapping, Mapping) and _BOXES & set(mapping) for mapping in (feature, inner)):
        return "objects"
    lists = {"label": "labels", "integer": "integers", "text": "texts"}
    return lists.get(kind_of(inner), "") if inner is not None else ""


def data_choices(
    data: DataSet, usage: Usage | None, config: PretrainedConfig, given: Mapping[str, Choice]
) -> dict[str, Choice]:
    """Return all choices that follow from a data set and the labels of a model; `given` ones of columns are heeded."""
    choices = dict(data.choices())
    if "dataset.name" in choices and choices["dataset.name"].is_unknown:
        return {**choices, **dependent_choices(usage)}
    inputs = _input_choices(data.layout, usage)
    columns = [{**inputs, **given}[place].value for place in inputs]
    return {
        **choices,
        **dict(data.split_choices()),
        **inputs,
        **_reference_choices(data.layout, usage, config, columns),
    }


def dependent_choices(usage: Usage | None) -> dict[str, Choice]:
    """Return the choices of values that are unknown without the data set."""
    why = "it depends on the data set"
    inputs, references = (usage.inputs, usage.references) if usage else ((("",),), ())
    needed = min(inputs, key=len)
    names = [sorted({names[index] for names in inputs if len(names) == len(needed)}) for index in range(len(needed))]
    return {
        "dataset.eval_split": unknown(why),
        **{place: unknown(why, list(filter(None, known))) for place, known in zip(_INPUTS, names)},
        **({"dataset.ref_keys": unknown(why, references, is_list=True)} if needs_references(usage) else {}),
    }


def needs_references(usage: Usage | None) -> bool:
    """Return whether a data set needs a column of references; text generation needs none."""
    return usage is None or bool(usage.reference_kinds)


def _input_choices(layout: Layout, usage: Usage | None) -> dict[str, Choice]:
    """Return the choices of the input columns, by their places in a spec."""
    if usage is None:
        return {_INPUTS[0]: unknown("which column to read", list(layout.features))}
    kinds = {name: kind_of(feature) for name, feature in layout.features.items()}
    of_kind = [
        name for name, kind in kinds.items() if kind in (usage.input_kind, usage.second_kind or usage.input_kind)
    ]
    exact = {name.lower(): name for name in reversed(of_kind)}
    names = next((names for names in usage.inputs if all(name.lower() in exact for name in names)), None)
    if names is not None:
        columns, why = [exact[name.lower()] for name in names], "the usual name of such a column"
    else:
        references = {name.lower() for name in usage.references}
        columns = [name for name in of_kind if name.lower() not in references]
        why = f"the data set has no other column of {_KINDS[usage.input_kind]}"
        needed = min(len(names) for names in usage.inputs)
        if not len(columns) == needed == 1:
            missing = unknown(f"which column of {_KINDS[usage.input_kind]} to read", of_kind)
            return dict.fromkeys(_INPUTS[:needed], missing)
    return {
        place: Choice(column, why, tuple(name for name in of_kind if name not in columns))
        for place, column in zip(_INPUTS, columns)
    }


def _reference_choices(
    layout: Layout, usage: Usage | None, config: PretrainedConfig, inputs: Sequence[object]
) -> dict[str, Choice]:
    """Return the choices of the column of references and, where its labels are not the model's, of `label_mapping`."""
    place, features = "dataset.ref_keys", layout.features
    if not needs_references(usage):
        return {}
    if usage is None:
        return {place: unknown("which column has the references", list(features), is_list=True)}
    own = labels.model_names(config)
    if "labels" in usage.reference_kinds and len(own) > 1 and set(own) <= set(features):
        return {place: Choice(list(own), "a column for each label of the model")}
    kinds = {name: kind_of(feature) for name, feature in features.items() if name not in inputs}
    columns = [name for wanted in usage.reference_kinds for name, kind in kinds.items() if kind == wanted]
    mistakes: dict[str, str] = {}
    notes: dict[str, str] = {}
    if usage.reference_kinds[0] in ("label", "labels"):
        for name in columns:
            declared = getattr(getattr(features[name], "feature", features[name]), "names", None)
            if declared is None:
                notes[name] = "its labels are matched with the model's when the rows are read"
                continue
            try:
                notes[name] = (
                    "; ".join(labels.align(config.id2label, declared, [], None).notes) or "its labels are the model's"
                )
            except SpecError as error:
                mistakes[name] = "; ".join(mistake.found for mistake in error.mistakes)
    # Of several columns with labels, those with the labels of the model come first.
    pool = [name for name in columns if name in notes and kinds[name].startswith("label")] or columns
    exact = {name.lower(): name for name in reversed(pool)}
    usual = next((exact[name.lower()] for name in usage.references if name.lower() in exact), None)
    possible = [name for name in pool if kinds[name].startswith("label")] or pool
    column = usual or (possible[0] if len(possible) == 1 else None)
    if column is None:
        return {place: unknown("which column has the references", pool or list(kinds), is_list=True)}
    why = "the usual name of such a column" if usual else "the only column that can have the references"
    others = tuple(name for name in pool if name != column and kinds[name] == kinds[column])
    choices = {place: Choice([column], "; ".join(filter(None, (why, notes.get(column)))), others)}
    if column in mistakes:
        needed = f"which label of the model each label of the data set is: they differ, {mistakes[column]}"
        choices["task_args.label_mapping"] = unknown(needed, ["{name in the data set: name or id in the model}"])
    return choices
