"""Data that somebody else wrote, made safe to work with: YAML and JSON as plain values, checked before anything relies
on them.

Plain values are texts, numbers, true, false, None, lists and mappings with texts as keys. Whatever passes here can be
copied, compared, hashed and written as JSON, in time linear in its size. Leaves what the values mean to their readers.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from benchcard.errors import Mistake
from benchcard.utils.text import format_value

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node


# Far above what a spec or a card needs, and far below what Python's own recursion takes.
MOST_LEVELS = 100
MOST_VALUES = 200_000
# Python writes no whole number of more than 4,300 digits; others' front matter may hold any that it can write.
_MOST_BITS = 10_000
# How many values an alias may repeat for each that is written, beyond a first few thousand.
_REPEATED, _REPEATED_ANYWAY = 10, 10_000
_TAG = "tag:yaml.org,2002:"
_TAGS = frozenset({"str", "int", "float", "bool", "null", "seq", "map", "timestamp", "merge"})
# What ruamel.yaml and json raise beside errors of their own, where a tag, a date or a number is none.
_FOREIGN = (ValueError, LookupError, TypeError, AttributeError, OverflowError, AssertionError, NotImplementedError)


class UnreadableError(ValueError):
    """A text that is no YAML or JSON, or that holds what is refused; the message says what, and where.

    Attributes:
        line: the line in the text, from 1; None where it is not known.
        column: the column in that line, from 1.
    """

    def __init__(self, problem: str, line: int | None = None, column: int | None = None) -> None:
        self.problem, self.line, self.column = problem, line, column
        super().__init__(problem if line is None else f"{problem} (line {line})")


def load_yaml(text: str) -> Any:
    """Return the data of a YAML text; a date stays the text that it was.

    Raises:
        UnreadableError: it is no YAML, has a key twice, a tag other than those of plain values, an alias that refers to
            itself or repeats too much, or is nested more than `MOST_LEVELS` deep.
    """
    return _yaml(text, "load")


def compose_yaml(text: str) -> Node | None:
    """Return the nodes of a YAML text, each with its place in it, whatever their tags; None for an empty one.

    Raises:
        UnreadableError: as for `load_yaml`, tags and keys apart.
    """
    node: Node | None = _yaml(text, "compose")
    if node is not None:
        _expect_small(node)
    return node


def _yaml(text: str, method: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.composer import Composer
    from ruamel.yaml.constructor import SafeConstructor
    from ruamel.yaml.error import YAMLError

    class ShallowComposer(Composer):
        """The library's own, up to a depth: beyond it, what it looks ahead grows with the square of the depth."""

        level = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.level += 1
            if self.level > MOST_LEVELS + 1:
                raise _too_deep(self.parser.peek_event())
            node = super().compose_node(parent, index)
            self.level -= 1
            return node

    class PlainConstructor(SafeConstructor):
        """The library's own, for plain values alone, with dates as texts."""

        def construct_document(self, node: Node) -> Any:
            for each in _expect_small(node):
                tag = str(each.tag)
                if tag.removeprefix(_TAG) not in _TAGS:
                    shown_tag = tag.replace(_TAG, "!!")
                    raise UnreadableError(f"the tag {shown_tag} is unknown: write a plain value", *_place(each))
            return super().construct_document(node)

        def construct_whole(self, node: Node) -> int:
            value = self.construct_yaml_int(node)
            if value.bit_length() > _MOST_BITS:
                raise UnreadableError(f"a number has more than {_MOST_BITS} bits", *_place(node))
            return int(value)

    PlainConstructor.add_constructor(f"{_TAG}timestamp", SafeConstructor.construct_yaml_str)
    PlainConstructor.add_constructor(f"{_TAG}int", PlainConstructor.construct_whole)
    reader = YAML(typ="safe", pure=True)
    reader.Composer, reader.Constructor = ShallowComposer, PlainConstructor
    try:
        with warnings.catch_warnings():
            # What the library warns of, as an anchor that is used again, is allowed, and no matter of the user's.
            warnings.simplefilter("ignore")
            return getattr(reader, method)(text)
    except UnreadableError:
        raise
    except YAMLError as error:
        context, problem, mark = (getattr(error, name, None) for name in ("context", "problem", "problem_mark"))
        words = ", ".join(filter(None, (context, problem))) or str(error).splitlines()[0]
        raise UnreadableError(words, *((mark.line + 1, mark.column + 1) if mark else ())) from error
    except _FOREIGN as error:
        raise UnreadableError(f"a value is not what its tag or its form says: {error}") from error


def _place(node: Any) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _too_deep(node: Any) -> UnreadableError:
    return UnreadableError(f"it is nested more than {MOST_LEVELS} levels deep", *_place(node))


def _expect_small(root: Node) -> list[Node]:
    """Return the nodes below one, each once; refuse those whose aliases would make them endless or huge."""
    sizes: dict[int, tuple[int, int]] = {}
    nodes: list[Node] = []
    above: set[int] = set()

    def measure(node: Node, level: int) -> tuple[int, int]:
        """Return how many values a node stands for, and how many levels."""
        known = sizes.get(id(node))
        if id(node) in above:
            name = f"`*{node.anchor}` " if node.anchor else ""
            raise UnreadableError(f"the alias {name}refers to itself: remove it", *_place(node))
        if level + (known[1] if known else 0) > MOST_LEVELS:
            raise _too_deep(node)
        if known:
            return known
        size, height = 1, 0
        if isinstance(node.value, list):
            above.add(id(node))
            for item in node.value:
                for part in item if isinstance(item, tuple) else (item,):
                    inner, below = measure(part, level + 1)
                    size, height = size + inner, max(height, below + 1)
            above.discard(id(node))
        nodes.append(node)
        sizes[id(node)] = size, height
        return size, height

    size, _ = measure(root, 0)
    if size > _REPEATED_ANYWAY + _REPEATED * len(nodes):
        raise UnreadableError(f"its aliases repeat {len(nodes)} values to {size:.4g}: write out what is needed")
    return nodes


def load_json(text: str | bytes) -> Any:
    """Return the data of a JSON text.

    Raises:
        UnreadableError: it is no JSON, holds a number that is not finite or has more than 64 bits, a text that UTF-8
            cannot hold, or is nested more than `MOST_LEVELS` deep.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_number)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnreadableError:
        raise
    except RecursionError:
        raise UnreadableError(f"it is nested more than {MOST_LEVELS} levels deep") from None
    except ValueError as error:
        raise UnreadableError(str(error)) from error
    level = [value]
    for _ in range(MOST_LEVELS + 1):
        level = [
            inner
            for each in level
            if isinstance(each, (dict, list))
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    if level:
        raise UnreadableError(f"it is nested more than {MOST_LEVELS} levels deep")
    return value


def _number(word: str) -> float:
    """Return the number of a word of JSON."""
    value = float(word) if set(word) & set(".eEIN") else int(word)
    if not -(2**63) <= value < 2**64:
        raise UnreadableError(f"{format_value(word)} is not finite, or has more than 64 bits")
    return value


def checked(value: Any) -> tuple[Any, list[Mistake]]:
    """Return a copy of a value as plain data, and what in it is not plain, each with its place.

    Tuples and sets become lists; paths, NumPy scalars, and keys that are numbers, true, false or None become what they
    stand for. What is not plain is None in the copy, and so is a value that holds more than `MOST_VALUES`.
    """
    check = _Check()
    copy = check.plain(value, None, 0)
    if check.count > MOST_VALUES:
        return None, [Mistake("$", "more", f"at most {MOST_VALUES} values")]
    return copy, check.mistakes


def plain(value: Any) -> Any:
    """Return a copy of a value as plain data, with None in the place of what is not plain; see `checked`."""
    return checked(value)[0]


class _Check:
    """One pass over a value."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self.above: set[int] = set()
        self.count = 0

    def plain(self, value: Any, path: Any, level: int) -> Any:
        """Return the copy of what stands at a path: the path above, and a key or an index."""
        self.count += 1
        if self.count > MOST_VALUES:
            return (
                self._mistake(None, "more", f"at most {MOST_VALUES} values") if self.count == MOST_VALUES + 1 else None
            )
        if hasattr(value, "item") and getattr(value, "shape", None) == ():
            value = value.item()
        if isinstance(value, PurePath):
            value = str(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str(value) if _is_unicode(value) else self._mistake(path, value, "a text that UTF-8 can hold")
        if isinstance(value, int):
            bound = 2**63
            return int(value) if -bound <= value < bound else self._mistake(path, value, "a number of 64 bits")
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else self._mistake(path, value, "a finite number")
        if not isinstance(value, (Mapping, list, tuple, set, frozenset)):
            hint = "put it in quotes" if hasattr(value, "isoformat") else ""
            expected = "a text, a number, true, false, nothing, a list or a mapping"
            return self._mistake(path, value, expected, hint)
        if id(value) in self.above:
            return self._mistake(path, "a value inside itself", "values that end")
        if level >= MOST_LEVELS:
            return self._mistake(path, "a deeper one", f"at most {MOST_LEVELS} levels of lists and mappings")
        self.above.add(id(value))
        copy = self._mapping(value, path, level) if isinstance(value, Mapping) else self._list(value, path, level)
        self.above.discard(id(value))
        return copy

    def _list(self, value: Any, path: Any, level: int) -> list[Any]:
        copies = [self.plain(element, (path, index), level + 1) for index, element in enumerate(value)]
        return sorted(copies, key=_rank) if isinstance(value, (set, frozenset)) else copies

    def _mapping(self, value: Mapping[Any, Any], path: Any, level: int) -> dict[str, Any]:
        copy: dict[str, Any] = {}
        for key, element in value.items():
            name = key.item() if hasattr(key, "item") and getattr(key, "shape", None) == () else key
            if name is None or (isinstance(name, (bool, int, float)) and name == name):
                name = format_value(name)
            if not isinstance(name, str) or not _is_unicode(name):
                self._mistake(path, key, "names as text")
            elif name in copy:
                self._mistake((path, name), key, "each name once", "it stands there as a number or as text already")
            else:
                copy[str(name)] = self.plain(element, (path, name), level + 1)
        return copy

    def _mistake(self, path: Any, value: Any, expected: str, hint: str = "") -> None:
        self.mistakes.append(Mistake(_written(path), format_value(value), expected, hint))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _rank(value: Any) -> tuple[str, Any]:
    """A sort key for values of any kinds."""
    return type(value).__name__, value if isinstance(value, (bool, int, float, str)) else repr(value)


def _written(path: Any) -> str:
    parts: list[str] = []
    while path is not None:
        path, part = path
        parts.append(f"[{part}]" if isinstance(part, int) else f".{part}" if len(part) <= 80 else f".{part[:77]}...")
    return "$" + "".join(reversed(parts))


def mismatches(value: Any, form: Any, place: str = "$") -> Iterator[str]:
    """Yield in words in what plain data differ from a form.

    Args:
        value: the data.
        form: a type or a tuple of types; a function that says whether a value is right; a list of one form, for a list
            of such; a mapping of names to forms, for a mapping that has them, and maybe others. Names that end in `?`
            may be missing, or be None; the name `*` stands for all others.
        place: where it stands.
    """
    if isinstance(form, dict):
        if not isinstance(value, dict):
            yield f"{place} is no mapping"
            return
        rest = form.get("*")
        named = {name.removesuffix("?"): name for name in form if name != "*"}
        for name, written in named.items():
            if value.get(name) is None and written.endswith("?"):
                continue
            if name not in value:
                yield f"{place}.{name} is missing"
            else:
                yield from mismatches(value[name], form[written], f"{place}.{name}")
        for name, element in value.items() if rest is not None else ():
            if name not in named:
                yield from mismatches(element, rest, f"{place}.{format_value(name)}")
    elif isinstance(form, list):
        if not isinstance(value, list):
            yield f"{place} is no list"
            return
        for index, element in enumerate(value):
            yield from mismatches(element, form[0], f"{place}[{index}]")
    elif not _is(value, form):
        yield f"{place} is {format_value(value)}"


def _is(value: Any, form: Any) -> bool:
    if isinstance(form, (type, tuple)):
        types = form if isinstance(form, tuple) else (form,)
        # To Python a truth value is a number.
        return isinstance(value, types) and (not isinstance(value, bool) or bool in types or object in types)
    return bool(form(value))


def is_count(value: Any) -> bool:
    """Whether a value is a whole number of at least 0."""
    return type(value) is int and value >= 0


def is_positive(value: Any) -> bool:
    """Whether a value is a whole number of at least 1."""
    return type(value) is int and value > 0


def known(kind: type, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a dataclass that a mapping has, without what else it holds."""
    return {field.name: told[field.name] for field in fields(kind) if field.name in told}


def front_matter(folder: Path) -> dict[str, Any]:
    """Return the front matter of a folder's README; empty where there is none that can be read."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    try:
        block = REGEX_YAML_BLOCK.search((folder / "README.md").read_text(encoding="utf-8"))
        fields = load_yaml(block.group(2)) if block else None
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}
