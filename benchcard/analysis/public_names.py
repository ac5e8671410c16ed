"""Public names: the names of models, data sets and metrics without folders of this machine, for publishing.

This module renames what a spec gives by a path, in parameters, frames and messages. What is published is left to
`publishing`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from benchcard.analysis.records import Records

# Absolute paths, and paths that start in a parent folder.
_OUTSIDE = re.compile(r"[/~\\]|[A-Za-z]:[/\\]|\.\.(?:[/\\]|\Z)")
# The kind of source that a parameter names; `path` is the field of a whole `dataset`.
_KINDS = {"name_or_path": "models", "dataset.path": "datasets", "path": "datasets", "metrics": "metrics"}


def last_name(path: str) -> str:
    """Return the last part of a path that is absolute or starts in a parent folder; any other name as it is."""
    return path.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1] if _OUTSIDE.match(path) else path


def public_name(records: Records, kind: str, name: str) -> str:
    """Return the public name of one of the `models`, `datasets` or `metrics` (`kind`) of the spec.

    A path outside the working directory becomes its last part, with a number if another source has that name, as
    `checkpoint (2)`.
    """
    names: list[str] = [source.name for source in getattr(records.info.sources, kind).values()]
    public_names = {source: source for source in names if not _OUTSIDE.match(source)}
    for source in names:
        if source not in public_names:
            base = last_name(source)
            numbered = chain([base], (f"{base} ({number})" for number in count(2)))
            public_names[source] = next(free for free in numbered if free not in public_names.values())
    return public_names.get(name, last_name(name))


def public_parameter(records: Records, name: str, value: Any) -> Any:
    """Return a parameter's value with public names."""
    kind = _KINDS.get(name)
    if isinstance(value, Mapping) and name == "higher_is_better":
        return {public_name(records, "metrics", metric): direction for metric, direction in value.items()}
    if isinstance(value, Mapping) and name == "dataset":
        return {key: public_parameter(records, key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [public_parameter(records, name, item) for item in value] if kind else value
    return public_name(records, kind, value) if kind and isinstance(value, str) else value


def public_value(records: Records, value: Any, name: str = "") -> Any:
    """Return a parameter of this name, a cell of a frame, or a mapping or list of them, with public names."""
    if isinstance(value, Mapping) and name != "higher_is_better":
        return {key: public_value(records, item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [public_value(records, item, name) for item in value]
    if isinstance(value, str) and name not in _KINDS:
        return public_message(records, value)
    return public_parameter(records, name, value)


def public_message(records: Records, text: str) -> str:
    """Return a message without the folders of this machine."""
    locations = (source.location for source in records.info.sources.by_name().values())
    folders = {*filter(None, locations), str(records.path.resolve()), str(records.path)}
    for folder in sorted(folders, key=len, reverse=True):
        if _OUTSIDE.match(folder):
            text = text.replace(folder, last_name(folder))
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text
