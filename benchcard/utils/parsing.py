"""Untrusted text as plain data: YAML, JSON and the front matter of a README, with limits on depth and size.

What is read can be processed in time linear in the size of the text. See `utils.plain` for what plain data are.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard.utils.plain import MAX_LEVELS
from benchcard.utils.text import format_value

if TYPE_CHECKING:
    from ruamel.yaml.error import StreamMark
    from ruamel.yaml.nodes import Node


_LINE_END = r"(?:\r\n|\r|\n)"
FRONT_MATTER = re.compile(rf"(\s*---{_LINE_END})([\S\s]*?)((?:(?<=[\r\n])|{_LINE_END})---[ \t]*(?:{_LINE_END}|\Z))")
"""Front matter at the start of a README: what comes before the YAML, the YAML, and what closes it.

Source: huggingface_hub 2.4, `repocard.REGEX_YAML_BLOCK`, whose import takes half a second. In addition, there may be no
line between the dashes.
"""
# Python converts integers to text up to 4,300 digits; front matter of others may hold any number that can be written.
_MAX_INTEGER_BITS = 10_000
# How many values aliases may repeat in all: a fixed number, and so many more for each value of the text.
_FREE_REPEATS, _REPEATS_PER_VALUE = 10_000, 10
_TAG = "tag:yaml.org,2002:"
_TAGS = frozenset({"str", "int", "float", "bool", "null", "seq", "map", "timestamp", "merge"})
# What ruamel.yaml raises, beside its own errors, for a value that does not fit its tag.
_VALUE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, OverflowError, AssertionError, NotImplementedError)
_TOO_DEEP = f"more than {MAX_LEVELS} levels deep: use less nesting"


class UnreadableError(ValueError):
    """A text that is no valid YAML or JSON, or that holds what is refused; line and column count from 1."""

    def __init__(self, problem: str, line: int | None = None, column: int | None = None) -> None:
        self.problem, self.line, self.column = problem, line, column
        super().__init__(problem if line is None else f"{problem} (line {line})")


def load_yaml(text: str) -> Any:
    """Return the data of a YAML text; dates stay text.

    Raises:
        UnreadableError: Also for a duplicate key, a tag of other than plain data, an alias that refers to itself or
            repeats too much, and more than `MAX_LEVELS` levels.
    """
    return _read_yaml(text, "load")


def compose_yaml(text: str) -> Node | None:
    """Return the nodes of a YAML text, which know their lines and columns, with any tags; None for an empty text."""
    node: Node | None = _read_yaml(text, "compose")
    if node is not None:
        _distinct_nodes(node)
    return node


def _read_yaml(text: str, method: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.composer import Composer
    from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
    from ruamel.yaml.error import YAMLError

    class ShallowComposer(Composer):
        # The library's look-ahead grows with the square of the depth.
        level = 0

        def compose_node(self, parent: object, index: object) -> object:
            self.level += 1
            if self.level > MAX_LEVELS + 1:
                raise _error_at(self.parser.peek_event().start_mark, _TOO_DEEP)
            node: object = super().compose_node(parent, index)
            self.level -= 1
            return node

    class PlainConstructor(SafeConstructor):
        def construct_document(self, node: Node) -> object:
            for inner in _distinct_nodes(node):
                tag = str(inner.tag)
                if tag.removeprefix(_TAG) not in _TAGS:
                    problem = f"the tag {tag.replace(_TAG, '!!')} is unknown: write a plain value"
                    raise _error_at(inner.start_mark, problem)
            return super().construct_document(node)

        def check_mapping_key(self, node: Node, key_node: Node, mapping: Any, key: object, value: object) -> bool:
            try:
                return bool(super().check_mapping_key(node, key_node, mapping, key, value))
            except DuplicateKeyError:
                problem = f"the key {format_value(key)} is there twice: keep one of them"
                raise _error_at(key_node.start_mark, problem) from None

        def construct_integer(self, node: Node) -> int:
            value = self.construct_yaml_int(node)
            if value.bit_length() > _MAX_INTEGER_BITS:
                raise _error_at(node.start_mark, f"an integer has more than {_MAX_INTEGER_BITS} bits")
            return int(value)

    PlainConstructor.add_constructor(f"{_TAG}timestamp", SafeConstructor.construct_yaml_str)
    PlainConstructor.add_constructor(f"{_TAG}int", PlainConstructor.construct_integer)
    reader = YAML(typ="safe", pure=True)
    reader.Composer, reader.Constructor = ShallowComposer, PlainConstructor
    try:
        with warnings.catch_warnings():
            # The library warns of what is allowed, such as an anchor that is defined twice.
            warnings.simplefilter("ignore")
            return getattr(reader, method)(text)
    except UnreadableError:
        raise
    except YAMLError as error:
        context, problem, mark = (getattr(error, name, None) for name in ("context", "problem", "problem_mark"))
        message = ", ".join(filter(None, (context, problem))) or str(error).splitlines()[0]
        raise UnreadableError(message, *((mark.line + 1, mark.column + 1) if mark else ())) from error
    except _VALUE_ERRORS as error:
        raise UnreadableError(f"a value does not fit its tag: {error}") from error


def _error_at(mark: StreamMark, problem: str) -> UnreadableError:
    return UnreadableError(problem, mark.line + 1, mark.column + 1)


def _distinct_nodes(root: Node) -> list[Node]:
    sizes: dict[int, tuple[int, int]] = {}
    nodes: list[Node] = []
    parents: set[int] = set()

    def measure(node: Node, level: int) -> tuple[int, int]:
        """Return the number of values and of levels that a node expands to."""
        known = sizes.get(id(node))
        if id(node) in parents:
            name = f"`*{node.anchor}` " if node.anchor else ""
            raise _error_at(node.start_mark, f"the alias {name}refers to itself: remove it")
        if level + (known[1] if known else 0) > MAX_LEVELS:
            raise _error_at(node.start_mark, _TOO_DEEP)
        if known:
            return known
        size, height = 1, 0
        if isinstance(node.value, list):
            parents.add(id(node))
            for item in node.value:
                for child in item if isinstance(item, tuple) else (item,):
                    child_size, child_height = measure(child, level + 1)
                    size, height = size + child_size, max(height, child_height + 1)
            parents.discard(id(node))
        nodes.append(node)
        sizes[id(node)] = size, height
        return size, height

    size, _ = measure(root, 0)
    if size > _FREE_REPEATS + _REPEATS_PER_VALUE * len(nodes):
        raise UnreadableError(f"aliases repeat {len(nodes)} values to {size:.4g}: write out what is needed")
    return nodes


def load_json(text: str | bytes) -> Any:
    """Return the data of a JSON text.

    Raises:
        UnreadableError: Also for a number that is not finite or has more than 64 bits, text that UTF-8 cannot encode,
            and more than `MAX_LEVELS` levels.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, parse_constant=_parse_number, parse_float=_parse_number, parse_int=_parse_number)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnreadableError:
        raise
    except RecursionError:
        raise UnreadableError(_TOO_DEEP) from None
    except ValueError as error:
        raise UnreadableError(str(error)) from error
    level = [value]
    for _ in range(MAX_LEVELS + 1):
        containers = (element for element in level if isinstance(element, (dict, list)))
        level = [
            element
            for container in containers
            for element in (container.values() if isinstance(container, dict) else container)
        ]
    if level:
        raise UnreadableError(_TOO_DEEP)
    return value


def _parse_number(text: str) -> float:
    value = float(text) if set(text) & set(".eEIN") else int(text)
    if not (math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**64):
        raise UnreadableError(f"{format_value(text)} is not finite, or has more than 64 bits")
    return value


def front_matter(folder: Path) -> dict[str, object]:
    """Return the front matter of a folder's README; empty where there is none, or it cannot be read."""
    try:
        block = FRONT_MATTER.match((folder / "README.md").read_text(encoding="utf-8"))
        fields = load_yaml(block.group(2)) if block else None
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}
