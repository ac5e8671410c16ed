"""What the Hub would refuse or frown at in a card's front matter, found offline.

Owns the rules, each with the field and the words in which it is told. Leaves reading YAML to `yamltext` and the Hub's
lists of words to `hubterms`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from benchcard.card.frontmatter import yaml
from benchcard.card.frontmatter.hubterms import BASE_MODEL_RELATIONS, LICENSES, PIPELINE_TAGS, is_hub_id
from benchcard.errors import CardError

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node


Severity = Literal["error", "warning"]

_STANDARD = "tag:yaml.org,2002:"
_KINDS = frozenset({"str", "int", "float", "bool", "null", "seq", "map", "timestamp", "merge"})
_TEXTS = ("library_name", "pipeline_tag", "base_model_relation")
_TEXT_LISTS = ("license", "language", "datasets", "metrics", "tags", "base_model")
_SINGULAR = {"languages": "language", "licenses": "license"}
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|nan)", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """One thing in a front matter that the Hub refuses or frowns at.

    Attributes:
        severity: `error` where the Hub refuses the card, `warning` where it shows a remark.
        field: the place, as `model-index[0].name`; empty for the front matter as a whole.
        words: what is wrong, and what would be right.
    """

    severity: Severity
    field: str
    words: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.field or 'front matter'}: {self.words}"


def check(text: str) -> list[Problem]:
    """All that the Hub would refuse or frown at in a card's front matter; first what YAML says, then field by field.

    Source: hub-docs, modelcard.md and model-cards.md; huggingface_hub 2.4, fixtures of cards that the Hub refuses.
    """
    block = yaml.split(text)
    try:
        node = yaml.compose(block.yaml)
    except CardError as error:
        return [Problem("error", "", str(error))]
    if node is None:
        return [Problem("warning", "", "it is empty or missing, and the Hub finds a model by it")]
    if not _is(node, "map"):
        return [Problem("error", "", "it is not a mapping: write `key: value` on each line")]
    problems = list(_walk(node, "", set()))
    try:
        data = yaml.load_yaml(block.yaml)
    except CardError as error:
        # A key that stands twice, or an unknown tag, was found in the nodes already, with its place.
        return (
            problems if any(problem.severity == "error" for problem in problems) else [Problem("error", "", str(error))]
        )
    return [*problems, *_fields(data)]


def _is(node: Node, kind: str) -> bool:
    return str(node.tag) == _STANDARD + kind


def _walk(node: Node, place: str, seen: set[int]) -> Iterator[Problem]:
    """Problems of a node and of all in it, each node once even where many aliases name it."""
    if id(node) in seen:
        return
    seen.add(id(node))
    tag = str(node.tag)
    if not tag.startswith(_STANDARD) or tag.removeprefix(_STANDARD) not in _KINDS:
        yield Problem(
            "error", place, f"the tag {tag.replace(_STANDARD, '!!')} is unknown to the Hub: write a plain value"
        )
    elif _is(node, "null"):
        yield Problem("error", place, "it has no value: give it one, or leave the key out")
    elif _is(node, "float") and _NOT_FINITE.fullmatch(node.value):
        yield Problem("error", place, f"{node.value} is no number: leave it out")
    if _is(node, "map"):
        keys: set[str] = set()
        for key, value in node.value:
            simple = isinstance(key.value, str)
            name = str(key.value) if simple else "?"
            inner = f"{place}.{name}" if place else name
            if name in keys:
                yield Problem("error", inner, "the key stands twice: keep one")
            if simple:
                keys.add(name)
            else:
                yield Problem("error", inner, "the key is no plain word")
            yield from _walk(value, inner, seen)
    elif isinstance(node.value, list):
        for index, item in enumerate(node.value):
            parts = item if isinstance(item, tuple) else (item,)
            for part in parts:
                yield from _walk(part, f"{place}[{index}]", seen)


def _fields(data: dict[Any, Any]) -> Iterator[Problem]:
    for wrong, right in _SINGULAR.items():
        if wrong in data:
            yield Problem("error", wrong, f"the Hub's key is `{right}`")
    for key in _TEXTS:
        if data.get(key) is not None and not isinstance(data[key], str):
            yield Problem("error", key, f"it must be a text, found {data[key]!r}")
    for key in _TEXT_LISTS:
        yield from _texts(key, data.get(key))
    if data.get("widget") is not None and not isinstance(data["widget"], list):
        yield Problem("error", "widget", "it must be a list")
    tag = data.get("pipeline_tag")
    if isinstance(tag, str) and tag not in PIPELINE_TAGS:
        yield Problem("warning", "pipeline_tag", f"{tag!r} is not in the Hub's list of tasks")
    relation = data.get("base_model_relation")
    if isinstance(relation, str) and relation not in BASE_MODEL_RELATIONS:
        yield Problem(
            "warning", "base_model_relation", f"{relation!r} is none of {', '.join(sorted(BASE_MODEL_RELATIONS))}"
        )
    if data.get("model-index") is not None:
        yield from _model_index(data["model-index"])


def _texts(key: str, value: object) -> Iterator[Problem]:
    """Problems of a field that holds a text or a list of texts."""
    if value is None:
        return
    named = (
        [(f"{key}[{index}]", item) for index, item in enumerate(value)] if isinstance(value, list) else [(key, value)]
    )
    for place, item in named:
        if item is None:
            continue
        if not isinstance(item, str):
            yield Problem("error", place, f"it must be a text, found {item!r}: put it in quotes")
        elif key == "license" and item not in LICENSES:
            yield Problem("warning", place, f"{item!r} is not in the Hub's list of licences: use its id, or `other`")
        elif key in ("datasets", "base_model") and not is_hub_id(item):
            kind = "data set" if key == "datasets" else "model"
            yield Problem("error", place, f"{item!r} is no id of a {kind} on the Hub: a local path has no place here")


def _model_index(entries: object) -> Iterator[Problem]:
    """Problems of the Hub's evaluation results.

    Source: hub-docs, modelcard.md: `name`, `results`, `task.type`, `dataset.type`, `dataset.name`, `metrics[].type` and
    `metrics[].value` are required.
    """
    if not isinstance(entries, list):
        yield Problem("error", "model-index", "it must be a list of models, each with `name` and `results`")
        return
    for index, entry in enumerate(entries):
        place = f"model-index[{index}]"
        yield from _required(entry, place, {"name": "text", "results": "list"})
        results = entry.get("results") if isinstance(entry, dict) else None
        for number, result in enumerate(results if isinstance(results, list) else []):
            yield from _result(result, f"{place}.results[{number}]")


def _result(result: object, place: str) -> Iterator[Problem]:
    yield from _required(result, place, {"task": "mapping", "dataset": "mapping", "metrics": "list"})
    if not isinstance(result, dict):
        return
    if isinstance(result.get("task"), dict):
        yield from _required(result["task"], f"{place}.task", {"type": "text"}, {"name": "text"})
    if isinstance(result.get("dataset"), dict):
        optional = {"config": "text", "split": "text", "revision": "text"}
        yield from _required(result["dataset"], f"{place}.dataset", {"type": "text", "name": "text"}, optional)
    if result.get("source") is not None:
        yield from _required(result["source"], f"{place}.source", {"url": "text"}, {"name": "text"})
    metrics = result.get("metrics")
    for number, metric in enumerate(metrics if isinstance(metrics, list) else []):
        inner = f"{place}.metrics[{number}]"
        yield from _required(
            metric, inner, {"type": "text", "value": "number or text"}, {"name": "text", "config": "text"}
        )


_CHECKS: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "list": (list,),
    "mapping": (dict,),
    "number or text": (int, float, str),
}


def _required(
    value: object, place: str, required: dict[str, str], optional: dict[str, str] | None = None
) -> Iterator[Problem]:
    """Problems of a mapping's keys: required ones that are missing, and any of the wrong kind."""
    if not isinstance(value, dict):
        yield Problem("error", place, f"it must be a mapping with {', '.join(required)}")
        return
    for key, kind in {**required, **(optional or {})}.items():
        item = value.get(key)
        if key not in value:
            if key in required:
                yield Problem("error", f"{place}.{key}", "it is required")
        elif item is None:
            continue  # told as a key without a value
        elif not isinstance(item, _CHECKS[kind]) or isinstance(item, bool):
            yield Problem("error", f"{place}.{key}", f"it must be a {kind}, found {item!r}")
