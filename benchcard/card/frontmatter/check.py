"""Problems that the Hub would report about a card's front matter, found offline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from benchcard.card.facts import Plain
from benchcard.card.frontmatter.hubterms import (
    BASE_MODEL_RELATIONS,
    LANGUAGES,
    LICENSES,
    PIPELINE_TAGS,
    is_language,
)
from benchcard.card.frontmatter.yaml import compose_yaml, load_yaml, split_card
from benchcard.errors import CardError
from benchcard.utils.text import is_hub_id

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node


_TAG = "tag:yaml.org,2002:"
_KNOWN_TAGS = ("!!str", "!!int", "!!float", "!!bool", "!!null", "!!seq", "!!map", "!!timestamp", "!!merge")
_TEXTS = ("library_name", "pipeline_tag", "base_model_relation")
_TEXT_LISTS = ("license", "language", "datasets", "metrics", "tags", "base_model")
_WRONG_KEYS = {"languages": "language", "licenses": "license"}
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|nan)", re.IGNORECASE)

_Form: TypeAlias = "str | list[_Form] | dict[str, _Form]"
_TYPES: dict[str, tuple[type, ...]] = {"text": (str,), "number or text": (int, float, str)}
_MODEL_INDEX: _Form = [
    {
        "name": "text",
        "results": [
            {
                "task": {"type": "text", "name?": "text"},
                "dataset": {"type": "text", "name": "text", "config?": "text", "split?": "text", "revision?": "text"},
                "metrics": [{"type": "text", "value": "number or text", "name?": "text", "config?": "text"}],
                "source?": {"url": "text", "name?": "text"},
            }
        ],
    }
]
"""Form of evaluation results; keys that end in `?` are optional. Source: hub-docs, modelcard.md."""


@dataclass(frozen=True)
class Problem:
    """A problem of front matter: an error where the Hub refuses the card, a warning where it shows a warning.

    `field` is the place, as `model-index[0].name`; empty for the front matter as a whole.
    """

    severity: Literal["error", "warning"]
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.field or 'front matter'}: {self.message}"


def find_problems(text: str) -> list[Problem]:
    """Return the problems of a card's front matter: those of the YAML first, then those of each field.

    Source: hub-docs, modelcard.md and model-cards.md; huggingface_hub 2.4, fixtures of cards that the Hub refuses.
    """
    yaml = split_card(text).yaml
    try:
        node = compose_yaml(yaml)
    except CardError as error:
        return [Problem("error", "", str(error))]
    if node is None:
        return [Problem("warning", "", "it is empty or missing, but the Hub finds models by it")]
    if node.tag != f"{_TAG}map":
        return [Problem("error", "", "it is not a mapping: write `key: value` on each line")]
    problems = list(_check_nodes(node, "", set()))
    try:
        return [*problems, *_check_fields(load_yaml(yaml))]
    except CardError as error:
        # The nodes tell the place of a duplicate key or an unknown tag.
        return problems or [Problem("error", "", str(error))]


def _check_nodes(node: Node, place: str, seen: set[int]) -> Iterator[Problem]:
    """Yield the problems of a node and of all nodes in it; a node that aliases repeat is checked once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    tag = str(node.tag).replace(_TAG, "!!")
    if tag not in _KNOWN_TAGS:
        yield Problem("error", place, f"the Hub does not know the tag {tag}: write a plain value")
    elif tag == "!!null":
        yield Problem("error", place, "it has no value: give it one, or leave the key out")
    elif tag == "!!float" and _NOT_FINITE.fullmatch(node.value):
        yield Problem("error", place, f"{node.value} is not a finite number: leave it out")
    keys: set[str] = set()
    for index, item in enumerate(node.value if isinstance(node.value, list) else ()):
        if not isinstance(item, tuple):
            yield from _check_nodes(item, f"{place}[{index}]", seen)
            continue
        key, value = item
        name = key.value if isinstance(key.value, str) else "?"
        inner = f"{place}.{name}" if place else name
        if not isinstance(key.value, str):
            yield Problem("error", inner, "the key must be a text")
        elif name in keys:
            yield Problem("error", inner, "the key is there twice: keep one")
        keys.add(name)
        yield from _check_nodes(value, inner, seen)


def _check_fields(data: Mapping[object, Plain]) -> Iterator[Problem]:
    for wrong, right in _WRONG_KEYS.items():
        if wrong in data:
            yield Problem("error", wrong, f"the Hub's key is `{right}`")
    for key in _TEXTS:
        if data.get(key) is not None and not isinstance(data[key], str):
            yield Problem("error", key, f"it must be a text, found {data[key]!r}")
    for key in _TEXT_LISTS:
        yield from _check_texts(key, data.get(key))
    if data.get("widget") is not None and not isinstance(data["widget"], list):
        yield Problem("error", "widget", "it must be a list")
    task = data.get("pipeline_tag")
    if isinstance(task, str) and task not in PIPELINE_TAGS:
        yield Problem("warning", "pipeline_tag", f"{task!r} is not in the Hub's list of tasks")
    relation = data.get("base_model_relation")
    if isinstance(relation, str) and relation not in BASE_MODEL_RELATIONS:
        known = ", ".join(sorted(BASE_MODEL_RELATIONS))
        yield Problem("warning", "base_model_relation", f"{relation!r} is not one of {known}")
    if data.get("model-index") is not None:
        yield from _check_form(data["model-index"], _MODEL_INDEX, "model-index")


def _check_texts(key: str, value: Plain) -> Iterator[Problem]:
    """Yield the problems of a field that holds a text or a list of texts."""
    is_list = isinstance(value, list)
    items = {f"{key}[{index}]": item for index, item in enumerate(value)} if is_list else {key: value}
    for place, item in items.items():
        if item is None:
            continue
        if not isinstance(item, str):
            yield Problem("error", place, f"it must be a text, found {item!r}: put it in quotes")
        elif key == "license" and item not in LICENSES:
            yield Problem("warning", place, f"{item!r} is not in the Hub's list of licences: use its id, or `other`")
        elif key == "language" and not is_language(item):
            codes = "the ISO 639 code of a language in small letters, as `en`, or `code` or `multilingual`"
            yield Problem("error", place, f"{item!r} is not {codes}")
        elif key == "language" and len(item.partition("-")[0]) == 2 and item.partition("-")[0] not in LANGUAGES:
            yield Problem("warning", place, f"{item!r} is not in ISO 639-1, the list of codes of two letters")
        elif key in ("datasets", "base_model") and not is_hub_id(item):
            kind = "data set" if key == "datasets" else "model"
            yield Problem("error", place, f"{item!r} is not the id of a {kind} on the Hub: remove it if it is a path")


def _check_form(value: Plain, form: _Form, place: str) -> Iterator[Problem]:
    """Yield the problems of a value that has another form, or lacks required keys."""
    if isinstance(form, str):
        if not isinstance(value, _TYPES[form]) or isinstance(value, bool):
            yield Problem("error", place, f"it must be a {form}, found {value!r}")
    elif isinstance(form, list) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _check_form(item, form[0], f"{place}[{index}]")
    elif isinstance(form, list):
        yield Problem("error", place, f"it must be a list, found {value!r}")
    elif not isinstance(value, dict):
        required = ", ".join(key for key in form if not key.endswith("?"))
        yield Problem("error", place, f"it must be a mapping with {required}")
    else:
        for name, inner in form.items():
            key = name.removesuffix("?")
            if value.get(key) is not None:
                yield from _check_form(value[key], inner, f"{place}.{key}")
            elif key == name and key not in value:  # `_check_nodes` reports keys without a value.
                yield Problem("error", f"{place}.{key}", "it is required")
