"""The spec that a card tells of: what was asked then, as it can be asked again.

Owns the way from the facts of a card to a spec, older cards included, and what of a stranger's card is done on this
machine only where its reader says so. Leaves the grammar of cards to `card.read` and what a spec may say to `spec`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from benchcard import registry
from benchcard.analysis.frames.quality import PASS_METRICS
from benchcard.card.facts import Facts
from benchcard.errors import CardError
from benchcard.sources import resolve
from benchcard.spec import spec as specs
from benchcard.spec.parameters import ALIASES, type_of
from benchcard.spec.spec import Spec

# Metrics whose values a card shows under other names than their own.
_COMPOUND = ("seqeval", "squad", "squad_v2")


def spec_of(
    facts: Facts,
    about: Mapping[str, Any] | None,
    folder: Path | None,
    changes: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
    given: Collection[str] | None = None,
) -> tuple[Spec, tuple[str, ...]]:
    """The spec of a card, and what in it is not as the card says, in sentences.

    Names of the card stand for files in the card's own folder, and for no others of this machine.

    Args:
        facts: what the card shows.
        about: what was published beside it, which says the spec whole; None where there is nothing.
        folder: the card's own folder, where its paths start; None where it has none.
        changes: parameters that are to be other than in the card.
        trust_remote_code: whether code that the card names may run; what `changes` names may run in any case.
        given: the names in `changes` that the reader gave, which are not looked for in the card's folder; None for all.

    Raises:
        CardError: it was measured in a way that is unknown here, or it names code that may not run.
        SpecError: it asks for what cannot be, with the place of each mistake.
    """
    spec, notes = unchecked(facts, about, folder, changes, given)
    if not trust_remote_code and (code := resolve.code_of(spec, set(_texts((changes or {}).get("metrics"))))):
        raise CardError(resolve.refusal(code))
    return replace(spec, trusted=True), notes


def unchecked(
    facts: Facts,
    about: Mapping[str, Any] | None,
    folder: Path | None,
    changes: Mapping[str, Any] | None = None,
    given: Collection[str] | None = None,
) -> tuple[Spec, tuple[str, ...]]:
    """As `spec_of`, whatever code the card names: the spec is not trusted."""
    changes = changes or {}
    theirs = set(_texts(changes) if given is None else given)
    notes: list[str] = []
    told: dict[str, Any]
    if about is not None:
        told = {"task": about["spec"].get("task"), "fixed": {}, "grid": {}}
        told |= {part: dict(about["spec"].get(part) or {}) for part in ("fixed", "grid")}
    else:
        told = _told(facts, notes)
    if (backend := told["fixed"].get("backend", "local")) != "local":
        del told["fixed"]["backend"]
        told["fixed"].pop("backend_args", None)
        notes.append(f"the card was made with the backend `{backend}`: this runs locally unless you pass `backend`")
    own = set(_texts(told))
    for called, value in changes.items():
        name = ALIASES.get(called, called)
        told["grid"].pop(name, None)
        told["fixed"] = {key: kept for key, kept in told["fixed"].items() if ALIASES.get(key, key) != name}
        told["fixed"][name] = value
    spec = specs.read_spec(told)
    return replace(spec, card_folders=dict.fromkeys((resolve.named(spec) & own) - theirs, folder), trusted=False), tuple(notes)


def _texts(value: Any) -> Iterator[str]:
    """Every text in plain data."""
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, (str, PurePath)):
        yield str(value)
    elif isinstance(value, Iterable):
        for each in value:
            yield from _texts(each)


def expect_here(facts: Facts, about: Mapping[str, Any] | None, spec: Spec, way: str) -> None:
    """Raise where the model or the data of a card are a folder or file that is not here.

    A card tells such a folder by its last name where it was given from the root, and nobody but its reader knows where
    it lies now.

    Args:
        facts: what the card shows.
        about: what was published beside it; None where there is nothing.
        spec: what it asks, with the changes that its reader made.
        way: how another model or other data are given, with `{name}` and `{value}`.

    Raises:
        CardError: one is not here; the message says what to pass.
    """
    mistakes = []
    for name in _names(spec, "name_or_path"):
        if _is_local(facts, about, "models", name) and spec.local_path(name) is None:
            path = name if _is_in_reach(name) else f"path/to/{_last(name)}"
            said = way.format(name="model", value=f'"{path}"')
            mistakes.append(f"the model `{name}` was a folder, and is not here: {said} ({spec.missing_path_message(name)})")
    for data in _names(spec, "dataset"):
        name = data.get("path") if isinstance(data, Mapping) else None
        if isinstance(name, str) and _is_local(facts, about, "datasets", name) and spec.local_path(name) is None:
            path = name if _is_in_reach(name) else f"path/to/{_last(name)}"
            said = way.format(name="dataset", value=repr({**data, "path": path}))
            mistakes.append(
                f"the data `{name}` were a folder or a file, and are not here: {said} ({spec.missing_path_message(name)})"
            )
    if mistakes:
        raise CardError("\n".join(mistakes))


def _is_in_reach(name: str) -> bool:
    """Whether a relative name stands for something in the working directory, which its reader may have meant."""
    try:
        return not Path(name).is_absolute() and Path(name).exists()
    except (OSError, ValueError):
        return False


def _names(spec: Spec, name: str) -> list[Any]:
    return list(spec.grid[name]) if name in spec.grid else [spec.fixed[name]] if name in spec.fixed else []


def _last(name: str) -> str:
    return name.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1].rpartition(":")[2]


def _is_local(facts: Facts, about: Mapping[str, Any] | None, part: str, name: str) -> bool:
    """Whether a model or a data set of a card was none of the Hub's, as far as it says."""
    if about is not None:
        return any(each["local"] and each["name"] == name for each in (about.get("sources") or {}).get(part) or ())
    if part == "datasets":
        return facts.data is not None and facts.data.dataset == name and not facts.data.on_hub
    # A full card names a model of the Hub in its front matter; in what is left, one slash may be that of an id.
    unknown = facts.data is not None and facts.front_matter.base_model is None
    return unknown and ("/" not in name or name.startswith("."))


def _told(facts: Facts, notes: list[str]) -> dict[str, Any]:
    fixed = {name: _value(name, value) for name, value in facts.fixed.items() if _known(name, value, notes)}
    grid: dict[str, Any] = {
        name: [_value(name, value) for value in values]
        for name, values in facts.benchmarked.items()
        if _known(name, values, notes)
    }
    if any(row.original is not None for row in facts.rows) and "apply_quantization" not in {*fixed, *grid}:
        grid["apply_quantization"] = [False, True]
        notes.append("the original model, whose figures stand in each row of this card, is a row of its own")
    timed: dict[str, Any] = {"duration": 0}
    if facts.shapes:
        lengths = dict.fromkeys(shape.input_length for shape in facts.shapes if shape.input_length is not None)
        timed = {
            "batch_sizes": list(dict.fromkeys(shape.batch_size for shape in facts.shapes)),
            **({"input_lengths": list(lengths)} if lengths else {}),
            **({} if facts.duration_s is None else {"duration": facts.duration_s}),
        }
    fixed |= {name: value for name, value in timed.items() if name not in grid}
    if facts.max_eval_samples is not None:
        fixed["max_eval_samples"] = facts.max_eval_samples
    fixed |= _metrics(facts, fixed, notes)
    fixed |= facts.settings
    fixed["backend"] = facts.backend
    if facts.backend_args:
        fixed["backend_args"] = dict(facts.backend_args)
    return {"task": facts.task, "fixed": fixed, "grid": grid}


def _known(name: str, value: Any, notes: list[str]) -> bool:
    """Whether a parameter of a card is one of today's; what older cards said beside that is told."""
    if type_of(ALIASES.get(name, name)) is not None:
        return True
    if name == "aware_training" and value is not False:
        raise CardError("the card is of models that were trained for quantization, which cannot be run again here")
    notes.append(f"`{name}` is no parameter any more and was left out")
    return False


def _value(name: str, value: Any) -> Any:
    # The cards show the data set as a list of one.
    if name == "dataset" and isinstance(value, list) and len(value) == 1:
        return value[0]
    return value


def _metrics(facts: Facts, fixed: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The ids of the metrics; nothing where the card says them, or the task's own ones are meant."""
    if "metrics" in {*fixed, *facts.settings, *facts.benchmarked} or facts.task not in registry.tasks():
        return {}
    from benchcard.tasks import default_metrics

    names = [metric.name for metric in facts.metrics if metric.name not in PASS_METRICS]
    usual = default_metrics(registry.task(facts.task), fixed.get("task_args") or {})
    if any(name in _COMPOUND for name in usual):
        return {}
    if names and all(name in registry.metrics() for name in names):
        return {"metrics": names}
    unknown = [name for name in names if name not in registry.metrics() and name not in usual]
    if unknown:
        own = f"the task's own are measured instead: {', '.join(usual)}"
        several = "metrics {} are not known by these names"
        said = several if len(unknown) > 1 else "metric {} is not known by this name"
        notes.append(f"the {said.format(', '.join(unknown))}, and {own}")
    return {}
