"""The check of a card's front matter in `LocalHub`: errors, which refuse a commit, and warnings.

Owns the known rules of the Hub's own check, in the words of the Hub. It shares the lists of terms with the offline
check in `card`, but no rule, so that each can be tested against the other.

Source: errors and warnings that users of the Hub reported, and https://github.com/huggingface/hub-docs (modelcard.md,
datasetcard.md). It is unknown whether the Hub accepts `.nan` as the value of a metric; here it is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from benchcard.card.frontmatter.hubterms import LICENSES, PIPELINE_TAGS

_FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[\r\n]+(.*?)(?:[\r\n]+|(?<=\n))---[ \t]*(?:\r\n|\r|\n|\Z)", re.DOTALL)
_REPO_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9_][\w.-]{0,95}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{1,8})*|code|multilingual")
_RENAMED = {"languages": "language", "licenses": "license"}


def front_matter(content: str) -> str | None:
    """Return the YAML between the first two lines of dashes; None where there is none."""
    match = _FRONT_MATTER.match(content)
    return match.group(1) if match else None


def card_data(content: str) -> dict[str, object]:
    """Return the front matter as a mapping; empty where there is none or where it cannot be read."""
    try:
        data = YAML(typ="safe", pure=True).load(front_matter(content) or "")
    except YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


def check_metadata(content: str, repo_type: str) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings of the Hub for the text of a README; each names its field."""
    text = front_matter(content)
    if text is None or not text.strip():
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        return [f"duplicated mapping key{_place(error)}"], []
    except MarkedYAMLError as error:
        tag = re.search(r"constructor for the tag '?([^'\s]+)", str(error))
        what = f"unknown tag !<{tag.group(1)}>" if tag else str(error.problem)
        return [f"{what}{_place(error)}"], []
    except YAMLError as error:
        return [str(error)], []
    if not isinstance(data, Mapping):
        return ["YAML metadata must be a mapping of keys to values"], []
    check = _check_model if repo_type == "model" else _check_dataset
    return [*_check_shared(data), *check(data)], [*_warn(data)]


def _place(error: MarkedYAMLError) -> str:
    mark = error.problem_mark
    return f" ({mark.line + 1}:{mark.column + 1})" if mark is not None else ""


def _values(data: Mapping[str, object], key: str) -> list[tuple[str, object]]:
    """Return the value of a key, or each value of its list, with its place."""
    if key not in data:
        return []
    value = data[key]
    return [(f"{key}[{i}]", item) for i, item in enumerate(value)] if isinstance(value, list) else [(key, value)]


def _check_shared(data: Mapping[str, object]) -> Iterator[str]:
    for old, new in _RENAMED.items():
        if old in data:
            yield f'"{old}" is deprecated. Use "{new}" instead.'
    for key in ("license", "language", "tags"):
        for place, value in _values(data, key):
            if not isinstance(value, str):
                yield f'"{place}" must be a string'
            elif key == "license" and value not in LICENSES:
                yield f'"{place}" must be one of [{", ".join(sorted(LICENSES))}]'
            elif key == "language" and not _LANGUAGE.fullmatch(value):
                known = 'an ISO 639-1, 639-2 or 639-3 code (two/three letters), or a special value like "code"'
                yield f'"{place}" with value "{value}" is not valid. It must be {known}, "multilingual".'
    if "tags" in data and not isinstance(data["tags"], list):
        yield '"tags" must be an array'
    yield from _check_binary(data, "")


def _check_binary(value: object, place: str) -> Iterator[str]:
    if isinstance(value, bytes):
        yield f'unknown tag !<tag:yaml.org,2002:binary> in "{place}"'
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _check_binary(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _check_binary(item, f"{place}[{index}]")


def _check_model(data: Mapping[str, object]) -> Iterator[str]:
    for key, kind in (("datasets", "dataset"), ("base_model", "model")):
        for place, value in _values(data, key):
            if not isinstance(value, str):
                yield f'"{place}" must be a string'
            elif not _REPO_ID.fullmatch(value):
                hint = "If possible, use a dataset id" if kind == "dataset" else "Use a model id"
                yield f'"{place}" with value "{value}" is not valid. {hint} from https://hf.co/{kind}s.'
    for place, value in _values(data, "metrics"):
        if not isinstance(value, str):
            yield f'"{place}" must be a string'
    for key in ("widget", "model-index"):
        if key in data and not isinstance(data[key], list):
            yield f'"{key}" must be an array'
    entries = data.get("model-index")
    if isinstance(entries, list):
        for index, entry in enumerate(entries):
            yield from _check_model_index(entry, f"model-index[{index}]")


def _check_model_index(entry: object, place: str) -> Iterator[str]:
    yield from _check_fields(entry, place, required=("name",))
    results = entry.get("results") if isinstance(entry, Mapping) else None
    if not isinstance(results, list):
        yield f'"{place}.results" must be an array'
        return
    for index, result in enumerate(results):
        path = f"{place}.results[{index}]"
        if not isinstance(result, Mapping):
            yield f'"{path}" must be an object'
            continue
        yield from _check_fields(result.get("task"), f"{path}.task", required=("type",), optional=("name",))
        yield from _check_fields(
            result.get("dataset"),
            f"{path}.dataset",
            required=("type", "name"),
            optional=("config", "split", "revision"),
        )
        if "source" in result:
            yield from _check_fields(result["source"], f"{path}.source", required=("url",), optional=("name",))
        metrics = result.get("metrics")
        if not isinstance(metrics, list):
            yield f'"{path}.metrics" must be an array'
            continue
        for number, metric in enumerate(metrics):
            metric_path = f"{path}.metrics[{number}]"
            yield from _check_fields(metric, metric_path, required=("type",), optional=("name", "config"))
            if isinstance(metric, Mapping):
                value = metric.get("value")
                if value is None:
                    yield f'"{metric_path}.value" is required'
                elif isinstance(value, float) and not math.isfinite(value):
                    yield f'"{metric_path}.value" must be a finite number'


def _check_fields(
    value: object, place: str, *, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Iterator[str]:
    """Yield the errors of an object whose fields must be texts."""
    if not isinstance(value, Mapping):
        yield f'"{place}" is required' if value is None else f'"{place}" must be an object'
        return
    for key in (*required, *optional):
        if key not in value:
            if key in required:
                yield f'"{place}.{key}" is required'
        elif not isinstance(value[key], str):
            yield f'"{place}.{key}" must be a string'


def _check_dataset(data: Mapping[str, object]) -> Iterator[str]:
    for key in ("task_categories", "size_categories"):
        for place, value in _values(data, key):
            if not isinstance(value, str):
                yield f'"{place}" must be a string'
    if "configs" in data and not isinstance(data["configs"], list):
        yield '"configs" must be an array'


def _warn(data: Mapping[str, object]) -> Iterator[str]:
    for key in ("pipeline_tag", "task_categories"):
        for place, value in _values(data, key):
            if isinstance(value, str) and value not in PIPELINE_TAGS:
                yield f'"{place}" with value "{value}" is not in the official list'
