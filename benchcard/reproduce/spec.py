"""The spec of a card, so that its run can be repeated; and the limits on what a card may do on this machine."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath, PureWindowsPath

from benchcard import registry
from benchcard.analysis.frames.quality import PASS_METRICS
from benchcard.card.facts import Facts
from benchcard.errors import BenchcardError, CardError
from benchcard.metrics.info import METRICS
from benchcard.reproduce.source import PublishedCard
from benchcard.sources import resolve
from benchcard.spec import spec as specs
from benchcard.spec.parameters import ALIASES, BACKEND_ARGUMENTS, split_name, type_of
from benchcard.spec.spec import Spec
from benchcard.tasks import default_metrics
from benchcard.utils.text import pluralize
from benchcard.utils.values import MEMORY_PREFIX

# The names that the first cards have for the columns of question answering.
_DATA_KEYS = {"question": "primary", "context": "secondary"}


def spec_of(
    card: PublishedCard,
    changes: Mapping[str, object] | None = None,
    trust_remote_code: bool = False,
    given: Collection[str] | None = None,
) -> tuple[Spec, tuple[str, ...]]:
    """Return the spec of a card, and the differences between the two, a sentence each.

    Names in the card stand for files in the card's own folder, and for no others on this machine. `changes` are
    parameters that differ from the card. Code that they name may run in any case, code that the card names only with
    `trust_remote_code`. `given` are the names in them that the user gave, which are not limited to the card's folder;
    None for all.

    Raises:
        CardError: The card was measured in a way that this version does not support, or it names code that may not run.
        SpecError: It asks for something that is not possible; the error has the place of each mistake.
    """
    spec, notes = untrusted_spec(card, changes, given)
    named = [value for name, value in (changes or {}).items() if split_name(name)[0] in ("metrics", "task_args")]
    if not trust_remote_code and (code := resolve.uninstalled_code(spec, set(_texts(named)))):
        raise CardError(resolve.untrusted_code_message(code))
    return replace(spec, trusted=True), notes


def untrusted_spec(
    card: PublishedCard, changes: Mapping[str, object] | None = None, given: Collection[str] | None = None
) -> tuple[Spec, tuple[str, ...]]:
    """Return what `spec_of` does, whatever code the card names; the spec is not trusted."""
    notes: list[str] = []
    return _read_spec(card, changes or {}, given, notes), tuple(notes)


def spec_notes(card: PublishedCard) -> tuple[str, ...]:
    """Return the differences between the spec of a card and the card, and why there is no spec where that is so."""
    notes: list[str] = []
    try:
        _read_spec(card, {}, None, notes)
    except BenchcardError as error:
        first, *others = str(error).splitlines()
        more = f", and {pluralize(len(others), 'further mistake')}: `.spec` lists all" if others else ""
        notes.append(f"the benchmark of this card cannot be run here: {first}{more}")
    return tuple(notes)


def _read_spec(
    card: PublishedCard, changes: Mapping[str, object], given: Collection[str] | None, notes: list[str]
) -> Spec:
    """Return the untrusted spec of a card, and add to `notes` what differs from the card."""
    from_user = set(_texts(changes) if given is None else given)
    task, fixed, grid = _parameters(card, notes)
    if (backend := fixed.get("backend", "local")) != "local":
        del fixed["backend"]
        fixed, grid = (
            {name: value for name, value in part.items() if split_name(name)[0] != BACKEND_ARGUMENTS}
            for part in (fixed, grid)
        )
        notes.append(f"the card was made with the backend `{backend}`: this runs locally unless you pass `backend`")
    foreign = set(_texts([task, fixed, grid])) - from_user
    for key, value in changes.items():
        name = ALIASES.get(key, key)
        grid.pop(name, None)
        fixed = {other: kept for other, kept in fixed.items() if ALIASES.get(other, other) != name}
        fixed[name] = value
    spec = specs.read_spec({"task": task, "fixed": fixed, "grid": grid}, foreign=foreign)
    return replace(spec, card_folders=dict.fromkeys(foreign, card.folder), trusted=False)


def _parameters(card: PublishedCard, notes: list[str]) -> tuple[str | None, dict[str, object], dict[str, object]]:
    """Return task, fixed and benchmarked parameters of a card, and add to `notes` what differs from the card."""
    if card.run is not None:
        return card.run.spec.task, dict(card.run.spec.fixed), dict(card.run.spec.grid)
    return (card.facts.task, *_parameters_of_facts(card.facts, notes))


def source_names(card: PublishedCard) -> Mapping[str, frozenset[str]]:
    """Return the names of the `models` and the `datasets` that a card says were measured."""
    _, *parameters = _parameters(card, [])
    models = [values.get(name) for values in parameters for name in ("name_or_path", *ALIASES)]
    datasets = [values.get("dataset") for values in parameters]
    entries = [entry for value in datasets for entry in (value if isinstance(value, list) else [value])]
    paths = [entry.get("path") for entry in entries if isinstance(entry, Mapping)]
    paths += [values.get("dataset.path") for values in parameters]
    return {"models": frozenset(_texts(models)), "datasets": frozenset(_texts(paths))}


def fixed_dataset(card: PublishedCard) -> Mapping[str, object] | None:
    """Return the data set of a card; None where it is benchmarked, or is not described."""
    dataset = _parameters(card, [])[1].get("dataset")
    return dataset if isinstance(dataset, Mapping) else None


def _texts(value: object) -> Iterator[str]:
    """Yield every text in plain data."""
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, (str, PurePath)):
        yield str(value)
    elif isinstance(value, Iterable):
        for element in value:
            yield from _texts(element)


def expect_here(card: PublishedCard, spec: Spec, instruction: str) -> None:
    """Raise where the model or the data of a card are local files or folders that do not exist here.

    A card names such a folder by its last name only, where its path was absolute; only the user knows where it is now.
    `instruction` says how to give another one, with the placeholders `{name}` and `{value}`.
    """
    sources = [
        ("model", name, f"the model `{name}` was a folder, and is", f'"{_suggested_path(name)}"')
        for name in spec.values("name_or_path")
    ]
    for dataset in spec.values("dataset"):
        name = dataset["path"]
        suggestion = repr({**dataset, "path": _suggested_path(name)})
        sources.append(("dataset", name, f"the data `{name}` were a folder or a file, and are", suggestion))
    messages = [
        f"{subject} not here: {instruction.format(name=part, value=suggestion)} ({spec.missing_path_message(name)})"
        for part, name, subject, suggestion in sources
        if _is_local(card, part, name) and spec.local_path(name) is None
    ]
    if messages:
        raise CardError("\n".join(messages))


def _suggested_path(name: str) -> str:
    """Return the path to suggest: a relative one that exists in the working directory, or one to fill in."""
    if not os.path.isabs(name) and os.path.exists(name):
        return name
    return f"path/to/{PureWindowsPath(name).name.rpartition(':')[2]}"


def _is_local(card: PublishedCard, part: str, name: str) -> bool:
    """Return whether a `model` or a `dataset` of a card is known not to be on the Hub."""
    facts = card.facts
    if card.run is not None:
        return any(source.local and source.name == name for source in card.run.sources.get(f"{part}s", ()))
    if part == "dataset":
        is_shown = facts.data is not None and facts.data.dataset == name and not facts.data.on_hub
        return is_shown or name.startswith(MEMORY_PREFIX)
    # A full card names a Hub model in its front matter. Any other model is local, unless it looks like an id.
    unknown = facts.data is not None and (facts.front_matter.base_model is None or "base_model" in facts.fixed)
    return unknown and ("/" not in name or name.startswith("."))


def _parameters_of_facts(facts: Facts, notes: list[str]) -> tuple[dict[str, object], dict[str, object]]:
    """Return the fixed and the benchmarked parameters of a card, and add to `notes` what differs from the card."""
    fixed: dict[str, object] = {name: value for name, value in facts.fixed.items() if _is_known(name, value, notes)}
    # The cards show the data set as a list of one.
    if isinstance(dataset := fixed.get("dataset"), list) and len(dataset) == 1:
        fixed["dataset"] = dataset[0]
    if "dataset" in fixed:
        fixed["dataset"] = _current_dataset(fixed["dataset"])
    grid: dict[str, object] = {
        name: [_current_dataset(value) for value in values] if name == "dataset" else values
        for name, values in facts.benchmarked.items()
        if _is_known(name, values, notes)
    }
    if any(row.original is not None for row in facts.rows) and "apply_quantization" not in {*fixed, *grid}:
        grid["apply_quantization"] = [False, True]
        notes.append("the original model, whose figures are in each row of this card, becomes a row of its own")
    lengths = dict.fromkeys(shape.input_length for shape in facts.shapes if shape.input_length is not None)
    shown = {
        "batch_sizes": list(dict.fromkeys(shape.batch_size for shape in facts.shapes)) or None,
        "input_lengths": list(lengths) or None,
        "duration": facts.duration_s if facts.shapes else 0,
    }
    fixed |= {name: value for name, value in shown.items() if name not in grid and value is not None}
    if facts.max_eval_samples is not None:
        fixed["max_eval_samples"] = facts.max_eval_samples
    fixed |= _metrics(facts, fixed, notes)
    fixed |= facts.settings
    fixed["backend"] = facts.backend
    if facts.backend_args:
        fixed["backend_args"] = dict(facts.backend_args)
    return fixed, grid


def _current_dataset(dataset: object) -> object:
    """Return the data set of a card with the names that columns have now."""
    keys = dataset.get("data_keys") if isinstance(dataset, Mapping) else None
    if not isinstance(dataset, Mapping) or not isinstance(keys, Mapping):
        return dataset
    return {**dataset, "data_keys": {_DATA_KEYS.get(name, name): column for name, column in keys.items()}}


def _is_known(name: str, value: object, notes: list[str]) -> bool:
    """Return whether a parameter of a card still exists; add a note where it does not."""
    if type_of(ALIASES.get(name, name)) is not None:
        return True
    if name == "aware_training" and value is not False:
        raise CardError("the models of this card were trained for quantization, which cannot be repeated here")
    notes.append(f"`{name}` is no longer a parameter, and was left out")
    return False


def _metrics(facts: Facts, fixed: Mapping[str, object], notes: list[str]) -> dict[str, object]:
    """Return the parameter `metrics`; nothing where the card sets it, or where the defaults of the task are meant."""
    if "metrics" in {*fixed, *facts.settings, *facts.benchmarked} or facts.task not in registry.tasks():
        return {}
    names = [metric.name for metric in facts.metrics if metric.name not in PASS_METRICS]
    task, task_args = registry.task(facts.task), fixed.get("task_args")
    defaults = default_metrics(task, task_args if isinstance(task_args, Mapping) else {})
    if names and all(name in registry.metrics() for name in names):
        return {"metrics": names}
    # A card shows the figures of a metric, as `overall_f1`, and not its id, as `seqeval`.
    for metric in getattr(task, "scorers", ()) if names else ():
        if all(f"{metric}.{name}" in METRICS for name in names):
            return {"metrics": [metric]}
    unknown = [name for name in names if name not in registry.metrics() and name not in defaults]
    if unknown:
        subject = f"metric {unknown[0]} is" if len(unknown) == 1 else f"metrics {', '.join(unknown)} are"
        notes.append(f"the {subject} unknown here: the task's own are measured instead: {', '.join(defaults)}")
    return {}
