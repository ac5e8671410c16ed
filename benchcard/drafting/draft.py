"""The draft of a spec: its values, where each was taken from, and what else it could be; also as YAML with comments.

Nothing is guessed in silence: an unknown value is a line to fill in.
"""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard import registry
from benchcard.card.frontmatter.yaml import format_flow, format_scalar
from benchcard.drafting.dataset import (
    Candidate,
    Choice,
    data_choices,
    dependent_choices,
    open_dataset,
    unknown,
)
from benchcard.drafting.model import Model, read_model
from benchcard.errors import Mistake, SpecError
from benchcard.sources.resolve import RENAMED
from benchcard.spec.parameters import ALIASES, CALIBRATION_DEFAULTS, DATASET
from benchcard.spec.presets import presets
from benchcard.spec.spec import read_spec
from benchcard.tasks import Usage, default_metrics, task_phases
from benchcard.tasks.labels import model_names
from benchcard.utils.plain import checked, plain
from benchcard.utils.text import join_names, quote_names

if TYPE_CHECKING:
    from benchcard.card.facts import Plain

GRID = "recommended"
# The half-width of the 95 % interval of an accuracy of 0.9 over so many rows is 0.026, of one of 0.85 0.031.
_MAX_EVAL_SAMPLES = 500
_DURATION = 15
# How many data sets of a model card are read, in search of one that fits the model.
_MOST_CANDIDATES = 8
_WIDTH = 120
# The mappings of a spec whose fields have lines of their own.
_GROUPS = ("dataset", "dataset.data_keys", "task_args", "calibration")
# Arguments for which None means that they are not given, as for `Benchmark`.
_ARGUMENTS = ("task", "metrics", "grid", "fixed", "budget")
_GIVEN = "given by you"
_EMBEDDINGS = "sentence-similarity"
# The options of `benchcard init` and `benchcard run` that give a value, by its place.
_OPTIONS = {
    "task": "--task",
    "dataset.path": "--dataset",
    "dataset.name": "--dataset-name",
    "grid": "--grid",
    "budget": "--budget",
}


@dataclass(frozen=True)
class Draft:
    """A spec, perhaps with values that are to be filled in.

    Attributes:
        model: The name of the model.
        command: The command that writes it to a file.
        choices: The values by their places in the spec, such as `dataset.eval_split`.
        notes: What could not be read.
    """

    model: str
    command: str
    choices: Mapping[str, Choice]
    notes: tuple[str, ...]

    @property
    def missing(self) -> dict[str, Choice]:
        """The unknown values, by their places."""
        return {place: choice for place, choice in self.choices.items() if choice.is_unknown}

    def values(self) -> dict[str, Any]:
        """Return the spec as plain data.

        Raises:
            SpecError: Values are unknown; each is a mistake with its candidates and how to give it.
        """
        if missing := self.missing:
            # The other values of the data set follow from this one.
            first = next((place for place in ("dataset.path", "dataset.name") if place in missing), None)
            causes = [place for place in missing if first in (None, place) or not place.startswith("dataset.")]
            raise SpecError([_mistake(self.command, place, missing[place]) for place in causes])

        def values_of(tree: Mapping[str, object]) -> dict[str, Any]:
            return {
                name: node.value if isinstance(node, Choice) else values_of(node)  # type: ignore[arg-type]
                for name, node in tree.items()
            }

        return values_of(self._tree())

    def to_yaml(self) -> str:
        """Return the spec as YAML, with a comment beside each value."""
        head = [
            f"Drafted from the model `{self.model}`. Beside each value is where it was taken from, and what else it "
            "could be.",
            *(f"Note: {note}." for note in self.notes),
        ]
        lines = [line for text in head for line in textwrap.wrap(_one_line(text), _WIDTH - 2, break_on_hyphens=False)]
        return "".join(f"{line}\n" for line in [*(f"# {line}" for line in lines), *_yaml_lines(self._tree())])

    def _tree(self) -> dict[str, object]:
        tree: dict[str, object] = {}
        for place, choice in self.choices.items():
            group, _, name = place.rpartition(".")
            parts = [*group.split("."), name] if group in _GROUPS else [place]
            node: Any = tree
            for part in parts[:-1]:
                node = node.setdefault(part, {})
            node[parts[-1]] = choice
        return tree


def _mistake(command: str, place: str, choice: Choice) -> Mistake:
    expected = join_names(choice.others) if choice.others else "a value"
    ways = [_OPTIONS[place]] if place in _OPTIONS else []
    ways.append(f"{place.partition('.')[0]}=")
    hint = f"{choice.source}; give it with {join_names(ways)}, or fill in the line that `{command}` leaves"
    return Mistake(f"$.{place}", "nothing", expected, hint)


def _yaml_lines(tree: Mapping[str, object], indent: str = "") -> Iterator[str]:
    for name, node in tree.items():
        start = f"{indent}{format_scalar(name)}:"
        if isinstance(node, Mapping):
            yield start
            yield from _yaml_lines(node, indent + "  ")
        elif isinstance(node, Choice):
            yield from _with_comment(f"{start} {_flow(node.value)}", _comment(node))


def _flow(value: Plain) -> str:
    """Return a value as YAML on one line: as JSON, which is YAML, too, where it has a null."""
    text = json.dumps(value, ensure_ascii=False)
    return text if "null" in text else format_flow(value)


def _comment(choice: Choice) -> str:
    if choice.is_unknown:
        return f"FILL IN: {choice.source}" + (f"; candidates: {quote_names(choice.others)}" if choice.others else "")
    return choice.source + (f"; else {join_names(choice.others)}" if choice.others else "")


def _with_comment(line: str, comment: str) -> Iterator[str]:
    """Yield a line with its comment, which continues on lines below it where it is long."""
    start = f"{line}  # "
    width = max(_WIDTH - len(start), 40)
    first, *rest = textwrap.wrap(_one_line(comment), width, break_long_words=False, break_on_hyphens=False) or [""]
    yield f"{start}{first}".rstrip(" #")
    yield from (f"{' ' * (len(start) - 2)}# {text}" for text in rest)


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def draft_spec(
    model: str | Path, dataset: str | Path | Mapping[str, object] | None = None, **parameters: object
) -> Draft:
    """Return the draft of a spec for a model.

    Args:
        model: An id on the Hub, or a local folder.
        dataset: An id on the Hub, a path, or the mapping of a spec, of which any part may be missing.
        **parameters: Parameters of the spec, which are taken as they are.

    Raises:
        SpecError: A parameter is wrong, or the model or the data set does not exist or cannot be read.
        HubError: The Hub refused, or could not be reached.
    """
    values = {name: value for name, value in parameters.items() if value is not None or name not in _ARGUMENTS}
    if data := _dataset_argument(dataset):
        values["dataset"] = data
    parts = _parts(values)
    if "model" not in map(_place, parts):
        values["model"] = str(model)
    given = dict(_places(values))
    _expect_valid(values, given)
    known = {**dict(_places(parts)), **given}
    described = read_model(str(model))
    choices = {"task": given.get("task") or _task(described), "model": Choice(str(model), _GIVEN)}
    task = str(choices["task"].value)
    if described.needs_code:
        why = "the model needs code of its repository: read it, and write true if it may run"
        choices["trust_remote_code"] = unknown(why)
    choices |= _task_arguments(described, task)
    arguments = _arguments({**choices, **known})
    find_usage = getattr(registry.task(task), "usage", None) if task in registry.tasks() else None
    usage = find_usage(arguments, model_names(described.config)) if find_usage is not None else None
    of_data, notes = _data_choices(described, task, usage, known)
    choices |= of_data
    choices |= _measuring(described, task, usage, {**choices, **known})
    inside = tuple(f"{_place(name)}." for name in parts)
    drafted = {place: choice for place, choice in choices.items() if not f"{place}.".startswith(inside)}
    return Draft(str(model), _command(str(model), given), {**drafted, **given}, (*described.notes, *notes))


def _command(model: str, given: Mapping[str, Choice]) -> str:
    """Return the command that drafts a spec from the same given values, of those that have an option."""
    values = {option: given[place].value for place, option in _OPTIONS.items() if place in given}
    options = [
        part for option, value in values.items() if isinstance(value, (str, int, float)) for part in (option, value)
    ]
    return shlex.join(["benchcard", "init", model, *map(str, options), "-o", "spec.yaml"])


def _dataset_argument(dataset: object) -> Mapping[str, object]:
    """Return the fields of `dataset` that are given.

    Raises:
        SpecError: It is data in memory, which no spec can have.
    """
    if dataset is None or isinstance(dataset, (str, Path)):
        return {} if dataset is None else {"path": dataset}
    hint = "save data in memory with `save_to_disk` and give the folder, or use `Benchmark(dataset=…)`"
    if not isinstance(dataset, Mapping) or (not dataset.keys() <= DATASET.fields.keys() and checked(dataset)[1]):
        expected = f"an id, a path, or a mapping with {join_names(DATASET.fields)}"
        raise SpecError(Mistake("$.dataset", type(dataset).__name__, expected, hint))
    if checked(path := dataset.get("path"))[1]:
        raise SpecError(Mistake("$.dataset.path", type(path).__name__, "an id on the Hub, or a path", hint))
    return dataset


def _parts(values: Mapping[str, object]) -> dict[str, Plain]:
    """Return the parameters inside of `fixed` and `grid`, with the first value of those in `grid`."""
    fixed, grid = (plain(part) if isinstance(part := values.get(name), Mapping) else {} for name in ("fixed", "grid"))
    return {**fixed, **{name: axis[0] if isinstance(axis, list) and axis else None for name, axis in grid.items()}}


def _expect_valid(values: Mapping[str, object], given: Mapping[str, Choice]) -> None:
    """Raise `SpecError` with the mistakes in given values. What a spec needs beside them is not given yet."""
    names = [
        *(name for name in values if name != "dataset"),
        *(place for place in given if place.startswith("dataset.")),
    ]
    starts = tuple(f"$.{name}{mark}" for name in names for mark in ".[")
    try:
        read_spec(values)
    except SpecError as error:
        mistakes = [
            mistake for mistake in error.mistakes if mistake.place == "$" or f"{mistake.place}.".startswith(starts)
        ]
        if mistakes:
            raise SpecError(mistakes) from None


def _place(name: str) -> str:
    """Return the place of a parameter in a draft: for each name of the model the same."""
    return "model" if ALIASES.get(name, name) == "name_or_path" else name


def _places(values: Mapping[str, object], group: str = "") -> Iterator[tuple[str, Choice]]:
    """Yield the choices of given values by their places; those in `_GROUPS` field by field."""
    for name, value in values.items():
        place = f"{group}.{name}" if group else _place(name)
        if place in _GROUPS and isinstance(value, Mapping):
            yield from _places(value, place)
        else:
            yield place, Choice(plain(value), _GIVEN)


def _same_task(one: str, other: str) -> bool:
    """Return whether two names are those of one task, as `feature-extraction` and `sentence-similarity` are."""
    return one == other or type(registry.task(one)) is type(registry.task(other))


def _loads(task: str, other: str) -> bool:
    """Return whether a task uses the models of another one: `text-ranking` classifiers, `text-retrieval` embeddings,
    and embeddings masked language models, whose checkpoints name that class.
    """
    loaded = getattr(registry.task(task), "loads_as", task)
    is_embedding = loaded in registry.tasks() and _same_task(loaded, _EMBEDDINGS)
    return (loaded != task and loaded == other) or (is_embedding and other in ("fill-mask", _EMBEDDINGS))


def _task(model: Model) -> Choice:
    known, tag = registry.tasks(), model.tag
    made_for, source = model.task, f"`config.json` names the class {model.architecture}"
    if model.embeds and (made_for not in known or made_for in ("feature-extraction", "fill-mask")):
        made_for, source = _EMBEDDINGS, "the model has the files of sentence-transformers"
    evaluated = {result.task_type for result in model.results}
    is_used = tag in known and _loads(tag, made_for) and made_for not in evaluated
    if is_used or (tag in known and (made_for not in known or _same_task(tag, made_for))):
        return Choice(tag, "`pipeline_tag` of the model card")
    if made_for in known:
        remark = f"; `pipeline_tag` of the model card says {tag}, for which the class is not made" if tag else ""
        return Choice(made_for, source + remark)
    if (task := next((result.task_type for result in model.results if result.task_type in known), None)) is not None:
        return Choice(task, "`model-index` of the model card")
    reasons = [f"the model card says {tag}"] if tag else []
    reasons += [f"{source}, for {model.task or 'no known task'}"] if model.architecture else []
    return unknown(f"benchcard has no task for this model: {' and '.join(reasons) or 'nothing names one'}", known)


def _task_arguments(model: Model, task: str) -> dict[str, Choice]:
    """Return the choices of `task_args` that follow from what the model predicts."""
    accepted = registry.task(task).arguments if task in registry.tasks() else {}
    if "is_regression" in accepted and model.config.num_labels == 1:
        return {"task_args.is_regression": Choice(True, "`config.json`: the model has one output")}
    problem = getattr(model.config, "problem_type", None)
    if "is_multi_label" in accepted and problem == "multi_label_classification":
        return {"task_args.is_multi_label": Choice(True, "`problem_type` in `config.json`")}
    return {}


def _arguments(choices: Mapping[str, Choice]) -> dict[str, Plain]:
    prefix = "task_args."
    return {place.removeprefix(prefix): choice.value for place, choice in choices.items() if place.startswith(prefix)}


def _candidates(model: Model, task: str, usage: Usage | None, given: Mapping[str, Choice]) -> list[Candidate]:
    """Return the data sets that the user or the model card names."""

    def text(place: str) -> str | None:
        value = given[place].value if place in given else None
        return None if value is None else str(value)

    name, split, revision = (text(f"dataset.{field}") for field in ("name", "eval_split", "revision"))
    if (path := text("dataset.path")) is not None:
        return [Candidate(path, _GIVEN, name, split, revision, is_given=True)]
    types = {task, *(usage.task_types if usage else ())}
    results = [
        Candidate(
            result.dataset_type, "`model-index` of the model card", config, split or result.dataset_split, revision
        )
        for result in model.results
        if result.task_type in types or (result.task_type in registry.tasks() and _same_task(result.task_type, task))
        for config in [name or result.dataset_config or result.dataset_args]
        if config is None or isinstance(config, str)
    ]
    listed = [Candidate(path, "`datasets` of the model card", name, split, revision) for path in model.datasets]
    indexed = {candidate.path for candidate in results}
    named = [*results, *(candidate for candidate in listed if candidate.path not in indexed)]
    return list({(candidate.path, candidate.name): candidate for candidate in reversed(named)}.values())[::-1]


def _data_choices(
    model: Model, task: str, usage: Usage | None, given: Mapping[str, Choice]
) -> tuple[dict[str, Choice], list[str]]:
    """Return the choices of the first data set that leaves nothing unknown, else of the first one; and notes."""
    candidates = _candidates(model, task, usage, given)
    notes: list[str] = []
    refused: set[str] = set()
    drafted: list[dict[str, Choice]] = []
    for candidate in candidates[:_MOST_CANDIDATES]:
        try:
            data = open_dataset(candidate)
        except SpecError as error:
            if candidate.is_given:
                raise
            reasons = "; ".join(mistake.hint or mistake.expected for mistake in error.mistakes).rstrip(".")
            name = f" with the configuration `{candidate.name}`" if candidate.name else ""
            notes.append(f"{candidate.source} has `{candidate.path}`{name}, which cannot be used: {reasons}")
            refused.add(candidate.path)
            continue
        choices = data_choices(data, usage, model.config, given)
        places = {**choices, **given}
        rows, evaluated = (
            data.layout.splits.get(str(places[place].value)) if place in places else None
            for place in ("dataset.calibration_split", "dataset.eval_split")
        )
        is_given = any(place.startswith("calibration") for place in given)
        if not is_given and rows is not None and rows < int(CALIBRATION_DEFAULTS["num_calibration_samples"]):
            choices["calibration.num_calibration_samples"] = Choice(rows, "all rows of the split for calibration")
        # The rows of a data set on the Hub are known only where it is cached.
        is_local = candidate.is_given and Path(candidate.path).exists()
        if "budget" not in given and is_local and evaluated is not None and evaluated <= _MAX_EVAL_SAMPLES:
            about = f"all rows: the evaluation split has {evaluated}"
            choices["max_eval_samples"] = Choice(None, about)
        others = dict.fromkeys(other.path for other in candidates if other.path not in {candidate.path, *refused})
        choices["dataset.path"] = replace(choices["dataset.path"], others=tuple(others))
        drafted.append(choices)
        if not any(choice.is_unknown and place not in given for place, choice in choices.items()):
            return choices, notes
    if drafted:
        return drafted[0], notes
    why = "the model card names none that can be used" if candidates else "the model card names none"
    common = usage.datasets if usage else ()
    return {"dataset.path": unknown(f"the data set to evaluate on: {why}", common), **dependent_choices(usage)}, notes


def _measuring(model: Model, task: str, usage: Usage | None, choices: Mapping[str, Choice]) -> dict[str, Choice]:
    """Return the choices of metrics, grid, and how much is measured."""
    measuring = {}
    if task in registry.tasks():
        measuring["metrics"] = _metrics(model, task, usage, choices)
    others = tuple(name for name in presets() if name != GRID)
    measuring["grid"] = Choice(GRID, "what makes sense on this machine", others)
    is_free = "budget" not in choices  # which decides these
    if is_free and "max_eval_samples" not in choices:
        about = "a cap on the time: at most so many evenly spaced rows are evaluated; null for all rows"
        measuring["max_eval_samples"] = Choice(_MAX_EVAL_SAMPLES, about)
    if usage is not None:
        sizes = "what models of this task are commonly run with"
        measuring["batch_sizes"] = Choice(list(usage.batch_sizes), sizes)
    if usage is not None and usage.input_length is not None:
        # In phases of generation, another token follows the text.
        has_next = bool(task_phases(registry.task(task), _arguments(choices)))
        maximum = model.maximum and model.maximum - has_next
        length = min(usage.input_length, maximum or usage.input_length)
        why = "tokens in a timed text, as is common for this task"
        if length == maximum:
            beside = " beside the next token" if has_next else ""
            why = f"tokens in a timed text: the most that the model takes{beside}"
        measuring["input_lengths"] = Choice([length], why)
    if is_free:
        measuring["duration"] = Choice(_DURATION, "seconds of timing for each configuration and size")
    return measuring


def _metrics(model: Model, task: str, usage: Usage | None, choices: Mapping[str, Choice]) -> Choice:
    """Return the metrics that the model card names and that fit the task; those of the task where there are none."""
    path = choices["dataset.path"].value if "dataset.path" in choices else None
    results = [result for result in model.results if RENAMED.get(result.dataset_type, result.dataset_type) == path]
    sources = {
        "`model-index` of the model card": [result.metric_type for result in results],
        "`metrics` of the model card": model.metrics,
    }
    defaults = default_metrics(registry.task(task), _arguments(choices))
    for source, named in sources.items():
        if usage is None:
            break
        known = [usage.metric_names.get(name, name) for name in map(str, named)]
        # The metric of one label has averages over several.
        several = model.config.num_labels > 2
        averages = {name: f"{name}_macro" for name in known if f"{name}_macro" in usage.metrics}
        averages = {name: average for name, average in averages.items() if several or name not in usage.metrics}
        fitting = [averages.get(name, name) for name in known]
        fitting = list(dict.fromkeys(name for name in fitting if name in usage.metrics))
        if fitting:
            if averages:
                source += f", where {quote_names(averages)} does not say which average over labels it is"
            others = [name for name in usage.metrics if name in defaults or name.rpartition("_")[0] in averages]
            return Choice(list(fitting), source, tuple(name for name in others if name not in fitting))
    fitting = [name for name in defaults if usage is None or name in usage.metrics]
    return Choice(list(fitting), "the metrics of the task")
