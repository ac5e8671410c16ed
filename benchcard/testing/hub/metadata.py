"""The check of a card's front matter in `LocalHub`: errors, which refuse a commit, and warnings.

Owns the known rules of the Hub's own check, in the words of the Hub. It shares the lists of terms with the offline
check in `card`, but no rule, so that each can be tested against the other.

Source: errors and warnings that users of the Hub reported, and https://github.com/huggingface/hub-docs (modelcard.md,
datasetcard.md). It is unknown whether the Hub accepts `.nan` as the value of a metric; here it is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from benchcard.card.frontmatter.hubterms import LICENSES, PIPELINE_TAGS

_FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[\r\n]+(.*?)(?:[\r\n]+|(?<=\n))---[ \t]*(?:\r\n|\r|\n|\Z)", re.DOTALL)
_RENAMED = {"languages": "language", "licenses": "license"}
_Rule = Callable[[object], str]


def _text(is_valid: Callable[[str], object] = lambda _text: True, message: str = "") -> _Rule:
    """Return the rule for a text that must be valid; the message may contain the text as `{}`."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            return "must be a string"
        return "" if is_valid(value) else message.format(value)

    return check


def _figure(value: object) -> str:
    if value is None:
        return "is required"
    return "must be a finite number" if isinstance(value, float) and not math.isfinite(value) else ""


_TEXT = _text()
_LICENSE = _text(LICENSES.__contains__, f"must be one of [{', '.join(sorted(LICENSES))}]")
_INVALID = 'with value "{}" is not valid. '
_LANGUAGE = _text(
    re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{1,8})*|code|multilingual").fullmatch,
    f"{_INVALID}It must be an ISO 639-1, 639-2 or 639-3 code (two/three letters), or a special value like "
    '"code", "multilingual".',
)
_REPO_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9_][\w.-]{0,95}")
_DATASET_ID = _text(_REPO_ID.fullmatch, f"{_INVALID}If possible, use a dataset id from https://hf.co/datasets.")
_MODEL_ID = _text(_REPO_ID.fullmatch, f"{_INVALID}Use a model id from https://hf.co/models.")
_TAG = _text(PIPELINE_TAGS.__contains__, 'with value "{}" is not in the official list')

# A rule is a function that returns what is wrong with a value, None for any value, `[rule]` for a list, `(rule,)` for a
# value or a list of such values, or the rules of the fields of a mapping. The names of fields that may be missing end
# in `?`.
_RESULT = {
    "task": {"type": _TEXT, "name?": _TEXT},
    "dataset": {"type": _TEXT, "name": _TEXT, "config?": _TEXT, "split?": _TEXT, "revision?": _TEXT},
    "source?": {"url": _TEXT, "name?": _TEXT},
    "metrics": [{"type": _TEXT, "name?": _TEXT, "config?": _TEXT, "value": _figure}],
}
_SHARED: dict[str, object] = {"license?": (_LICENSE,), "language?": (_LANGUAGE,), "tags?": [_TEXT]}
_MODEL = _SHARED | {
    "datasets?": (_DATASET_ID,),
    "base_model?": (_MODEL_ID,),
    "metrics?": (_TEXT,),
    "widget?": [None],
    "model-index?": [{"name": _TEXT, "results": [_RESULT]}],
}
_DATASET = _SHARED | {"task_categories?": (_TEXT,), "size_categories?": (_TEXT,), "configs?": [None]}
_WARNINGS = {"pipeline_tag?": (_TAG,), "task_categories?": (_TAG,)}


class _Constructor(SafeConstructor):
    """The tags that the Hub knows, which `!!binary` is not one of."""


_Constructor.add_constructor("tag:yaml.org,2002:binary", SafeConstructor.construct_undefined)


def _load(text: str) -> object:
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    return yaml.load(text)


def front_matter(content: str) -> str:
    """Return the YAML between the first two lines of dashes; empty where there is none."""
    match = _FRONT_MATTER.match(content)
    return match[1] if match else ""


def card_data(content: str) -> dict[str, object]:
    """Return the front matter as a mapping; empty where there is none or where it cannot be read."""
    try:
        data = _load(front_matter(content))
    except YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


def check_metadata(content: str, repo_type: str) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings of the Hub for the text of a README; each names its field."""
    text = front_matter(content)
    if not text.strip():
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = _load(text)
    except MarkedYAMLError as error:
        tag = re.search(r"constructor for the tag '?([^'\s]+)", str(error))
        message = f"unknown tag !<{tag[1]}>" if tag else str(error.problem)
        if isinstance(error, DuplicateKeyError):
            message = "duplicated mapping key"
        mark = error.problem_mark
        return [f"{message} ({mark.line + 1}:{mark.column + 1})" if mark is not None else message], []
    except YAMLError as error:
        return [str(error)], []
    if not isinstance(data, dict):
        return ["YAML metadata must be a mapping of keys to values"], []
    errors = [f'"{old}" is deprecated. Use "{new}" instead.' for old, new in _RENAMED.items() if old in data]
    errors += _errors(_MODEL if repo_type == "model" else _DATASET, data, "")
    return errors, list(_errors(_WARNINGS, data, ""))


def _errors(rule: Any, value: object, place: str) -> Iterator[str]:
    """Yield what is wrong with a value and with all that it contains, with the place of each mistake."""
    if isinstance(rule, dict):
        if not isinstance(value, dict):
            yield f'"{place}" must be an object'
            return
        for name, field_rule in rule.items():
            key = name.removesuffix("?")
            field_place = f"{place}.{key}" if place else key
            if key in value:
                yield from _errors(field_rule, value[key], field_place)
            elif key == name:
                yield f'"{field_place}" is required'
    elif isinstance(rule, list):
        if not isinstance(value, list):
            yield f'"{place}" must be an array'
            return
        for index, item in enumerate(value):
            yield from _errors(rule[0], item, f"{place}[{index}]")
    elif isinstance(rule, tuple):
        yield from _errors([rule[0]] if isinstance(value, list) else rule[0], value, place)
    elif rule is not None and (message := rule(value)):
        yield f'"{place}" {message}'
