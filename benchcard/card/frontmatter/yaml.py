"""Front matter as text: where it stands in a card, its nodes with their places, and plain data written as YAML.

Owns the split of a card into front matter and body, reading YAML (through ruamel.yaml), and writing it. Leaves what the
front matter may say to `frontmatter`.

Writing is our own because what we write is read by two kinds of YAML: the Hub's (1.2) and PyYAML (1.1), which
huggingface_hub uses. `no`, `1e-05`, `12:30` or `2022-01-01` are text to one and something else to the other, and
ruamel.yaml leaves them plain.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchcard.card.facts import Plain
from benchcard.errors import CardError
from benchcard.utils import parsing

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node


BOM = "\ufeff"
_LINE_END = r"(?:\r\n|\r|\n)"
_BLOCK = re.compile(rf"(\ufeff?\s*---{_LINE_END})([\S\s]*?)((?:(?<=[\r\n])|{_LINE_END})---[ \t]*(?:{_LINE_END}|\Z))")
_PLAIN = re.compile(r"[A-Za-z](?:[\w./@+() -]*[\w./@+()-])?", re.ASCII)
_RESERVED = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})


@dataclass(frozen=True)
class Split:
    """A card in three pieces; together they are the card, to the byte.

    Attributes:
        opening: byte order mark, white space and `---`, with its line end; empty where there is no front matter.
        yaml: what stands between the dashes.
        closing: the line end before the closing `---` where the YAML has one, the dashes, and their line end.
        body: everything else.
    """

    opening: str
    yaml: str
    closing: str
    body: str

    @property
    def present(self) -> bool:
        """Whether the card has front matter."""
        return bool(self.opening)


def split(text: str) -> Split:
    """The card's front matter and body.

    Source: huggingface_hub 2.4, `repocard.REGEX_YAML_BLOCK`; beyond it a byte order mark may come first, and there may
    be no line between the dashes.
    """
    block = _BLOCK.match(text)
    if block is None:
        return Split("", "", "", text)
    return Split(block.group(1), block.group(2), block.group(3), text[block.end() :])


def compose(yaml: str) -> Node | None:
    """The nodes of a YAML text, each with its place in it; None for an empty one.

    Raises:
        CardError: it is not YAML, or is nested too deeply or without end; the message says where.
    """
    try:
        return parsing.compose_yaml(yaml)
    except parsing.UnreadableError as error:
        raise CardError(f"the front matter is not YAML that can be read: {error}") from error


def load_yaml(yaml: str) -> Plain:
    """The data of a YAML text; a date stays the text that it was.

    Raises:
        CardError: it is not YAML, has a key twice, or a tag or nesting that plain data have not.
    """
    try:
        data: Plain = parsing.load_yaml(yaml)
    except parsing.UnreadableError as error:
        raise CardError(f"the front matter cannot be read: {error}") from error
    return data


def dump_yaml(data: Mapping[str, Plain], newline: str = "\n") -> str:
    """`data` as block YAML with plain scalars only, one key a line, its order kept; empty for no keys.

    Raises:
        CardError: a value is None or not finite, which the Hub refuses.
    """
    return "".join(line + newline for line in _mapping_lines(data, "", ""))


def flow(value: Plain, place: str = "value") -> str:
    """`value` as YAML on one line.

    Raises:
        CardError: a value is None or not finite.
    """
    if isinstance(value, Mapping):
        inner = ", ".join(f"{scalar(str(key), place)}: {flow(item, f'{place}.{key}')}" for key, item in value.items())
        return "{" + inner + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(flow(item, f"{place}[{index}]") for index, item in enumerate(value)) + "]"
    return scalar(value, place)


def scalar(value: Plain, place: str = "value") -> str:
    """`value` as one YAML scalar that YAML 1.1 and 1.2 read alike.

    Raises:
        CardError: it is None, not finite, or no scalar.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        text = repr(value)
        mantissa, mark, exponent = text.partition("e")
        # YAML 1.1 takes a number for one only with a point before its exponent and a sign in it.
        return f"{mantissa}{'' if '.' in mantissa else '.0'}e{exponent}" if mark else text
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
            return value
        quoted = json.dumps(value, ensure_ascii=False)
        return "".join(char if char.isprintable() else _escaped(char) for char in quoted)
    raise CardError(f"{place} is {value!r}: front matter takes texts, finite numbers, true and false")


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _mapping_lines(data: Mapping[str, Plain], indent: str, place: str) -> Iterator[str]:
    for key, value in data.items():
        name = scalar(str(key))
        inner = f"{place}.{key}" if place else str(key)
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}:"
            yield from _mapping_lines(value, indent + "  ", inner)
        elif isinstance(value, (list, tuple)) and value:
            yield f"{indent}{name}:"
            yield from list_lines(value, indent, inner)
        else:
            yield f"{indent}{name}: {flow(value, inner)}"


def list_lines(values: list[Plain] | tuple[Plain, ...], indent: str, place: str = "value") -> Iterator[str]:
    """The lines of a block list, each item behind a dash at `indent`.

    Raises:
        CardError: a value is None or not finite.
    """
    for index, value in enumerate(values):
        if isinstance(value, Mapping) and value:
            first, *others = _mapping_lines(value, indent + "  ", f"{place}[{index}]")
            yield f"{indent}- {first[len(indent) + 2 :]}"
            yield from others
        else:
            yield f"{indent}- {flow(value, f'{place}[{index}]')}"
