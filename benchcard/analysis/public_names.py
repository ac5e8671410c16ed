"""What models, data sets and metrics are called where a run is published: as the spec calls them, but for folders of
this machine.

Owns the names of those that the spec gives from the root, and of those that a message tells. Leaves to `card_facts`,
`bundle` and `weights` what is published.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchcard.analysis.records import Records


# From the root, or from a folder above the one at work.
_FROM_ROOT = re.compile(r"[/~\\]|[A-Za-z]:[/\\]|\.\.(?:[/\\]|\Z)")
# The parameters that name them, and the field of a whole `dataset`.
_PARTS = {"name_or_path": "models", "dataset.path": "datasets", "path": "datasets", "metrics": "metrics"}


def last_name(path: str) -> str:
    """The last name of a path from the root or from a folder above; anything else as it is."""
    return path.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1] if _FROM_ROOT.match(path) else path


def public_name(records: Records, part: str, name: str) -> str:
    """What a model, data set or metric of the spec is called: a path from the root or from a folder above by its last
    name, and by a number behind it where an earlier one has that name, as `checkpoint (2)`.

    Args:
        records: of the run.
        part: `models`, `datasets` or `metrics`.
        name: as the spec gives it.
    """
    names: list[str] = [source.name for source in getattr(records.info.sources, part).values()]
    told = {each: each for each in names if not _FROM_ROOT.match(each)}
    for each in names:
        if each not in told:
            last = last_name(each)
            numbered = (f"{last} ({number})" for number in itertools.count(2))
            told[each] = next(free for free in itertools.chain([last], numbered) if free not in told.values())
    return told.get(name, last_name(name))


def public_parameter(records: Records, name: str, value: Any) -> Any:
    """A parameter's value without the way to a folder of this machine."""
    part = _PARTS.get(name)
    if name == "higher_is_better" and isinstance(value, Mapping):
        return {public_name(records, "metrics", key): item for key, item in value.items()}
    if name == "dataset" and isinstance(value, Mapping):
        return {key: public_parameter(records, key, item) for key, item in value.items()}
    if part is not None and isinstance(value, list):
        return [public_name(records, part, each) for each in value]
    return public_name(records, part, value) if part is not None and isinstance(value, str) else value


def public(records: Records, value: Any, name: str = "") -> Any:
    """A spec, or rows of frames, without the way to a folder of this machine.

    Args:
        records: of the run that they are of.
        value: the parameter, the cell, or a mapping or list of them.
        name: the parameter that it is.
    """
    if isinstance(value, str):
        return public_name(records, _PARTS[name], value) if name in _PARTS else public_message(records, value)
    if isinstance(value, Mapping) and name == "higher_is_better":
        return public_parameter(records, name, value)
    if isinstance(value, Mapping):
        return {key: public(records, item, str(key)) for key, item in value.items()}
    return [public(records, each, name) for each in value] if isinstance(value, list) else value


def public_message(records: Records, text: str) -> str:
    """A message without the folders of this machine."""
    sources = records.info.sources
    parts = (sources.models, sources.datasets, sources.metrics)
    known = [source.location for part in parts for source in part.values()]
    for folder in sorted({*filter(None, known), str(records.path.resolve()), str(records.path)}, key=len, reverse=True):
        if _FROM_ROOT.match(folder):
            text = text.replace(folder, last_name(folder))
    return text.replace(str(Path.home()), "~") if len(str(Path.home())) > 1 else text
