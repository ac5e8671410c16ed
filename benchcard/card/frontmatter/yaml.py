"""Front matter as text: its place in a card, its YAML nodes, and plain data written as YAML.

ruamel.yaml does not write it: the Hub reads YAML 1.2, huggingface_hub (PyYAML) YAML 1.1, and ruamel.yaml leaves out the
quotes of `no`, `1e-05`, `12:30` and `2022-01-01`, which are strings in one and something else in the other.
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
_PLAIN_SCALAR = re.compile(r"[A-Za-z](?:[\w./@+() -]*[\w./@+()-])?", re.ASCII)
_RESERVED = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})


@dataclass(frozen=True)
class SplitCard:
    """The pieces of a card. In this order, they are the card to the byte.

    Attributes:
        opening: Byte order mark, white space and `---` with its line end; empty where there is no front matter.
        closing: The line end before the closing `---` if the YAML has one, the dashes, and their line end.
    """

    opening: str
    yaml: str
    closing: str
    body: str


def split_card(text: str) -> SplitCard:
    """Return the front matter and the body of a card. Unlike in the Hub's client, a byte order mark may come first."""
    mark = BOM if text.startswith(BOM) else ""
    block = parsing.FRONT_MATTER.match(text, len(mark))
    if block is None:
        return SplitCard("", "", "", text)
    return SplitCard(mark + block.group(1), block.group(2), block.group(3), text[block.end() :])


def compose_yaml(yaml: str) -> Node | None:
    """Return the root node of a YAML text; nodes know their place in it. None for an empty text."""
    try:
        return parsing.compose_yaml(yaml)
    except parsing.UnreadableError as error:
        raise _error(error) from error


def load_yaml(yaml: str) -> Plain:
    """Return the data of a YAML text, in which a date stays a string; a `CardError` says why it is not plain data."""
    try:
        return parsing.load_yaml(yaml)
    except parsing.UnreadableError as error:
        raise _error(error) from error


def _error(error: parsing.UnreadableError) -> CardError:
    # The first line of a card is the one before the YAML, `---`.
    where = "" if error.line is None else f", line {error.line + 1}"
    return CardError(f"the front matter cannot be read{where}: {error.problem}")


def load_front_matter(yaml: str) -> dict[str, Plain]:
    """Return the keys and values of front matter; none for an empty text."""
    data = load_yaml(yaml)
    if data is not None and not isinstance(data, dict):
        raise CardError("the front matter is not a mapping: write `key: value` on each line")
    return data or {}


def dump_yaml(data: Mapping[str, Plain], newline: str = "\n") -> str:
    """Return `data` as block YAML, one key a line in the given order; a `CardError` for what the Hub refuses."""
    return "".join(line + newline for line in format_mapping(data, ""))


def format_flow(value: Plain, place: str = "value") -> str:
    """Return `value` as YAML on one line; an error names its `place`."""
    if isinstance(value, Mapping):
        items = [f"{format_scalar(str(key))}: {format_flow(item, f'{place}.{key}')}" for key, item in value.items()]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(format_flow(item, f"{place}[{index}]") for index, item in enumerate(value)) + "]"
    return format_scalar(value, place)


def format_scalar(value: Plain, place: str = "value") -> str:
    """Return `value` as one YAML scalar that YAML 1.1 and 1.2 read alike."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        text = repr(value)
        mantissa, mark, exponent = text.partition("e")
        # A number with exponent is a number in YAML 1.1 only if it has a point, and a sign in its exponent.
        return f"{mantissa}{'' if '.' in mantissa else '.0'}e{exponent}" if mark else text
    if isinstance(value, str):
        if _PLAIN_SCALAR.fullmatch(value) and value.lower() not in _RESERVED:
            return value
        quoted = json.dumps(value, ensure_ascii=False)
        return "".join(char if char.isprintable() else _escape(char) for char in quoted)
    raise CardError(f"{place} is {value!r}: front matter takes texts, finite numbers, true and false")


def _escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def format_mapping(data: Mapping[str, Plain], indent: str, place: str = "") -> Iterator[str]:
    """Yield the lines of a block mapping, each key at `indent`; an error names its `place`."""
    for key, value in data.items():
        start = f"{indent}{format_scalar(str(key))}:"
        inner = f"{place}.{key}" if place else str(key)
        if isinstance(value, Mapping) and value:
            yield start
            yield from format_mapping(value, indent + "  ", inner)
        elif isinstance(value, (list, tuple)) and value:
            yield start
            yield from format_list(value, indent, inner)
        else:
            yield f"{start} {format_flow(value, inner)}"


def format_list(values: list[Plain] | tuple[Plain, ...], indent: str, place: str = "value") -> Iterator[str]:
    """Yield the lines of a block list, each item after a dash at `indent`."""
    for index, value in enumerate(values):
        if isinstance(value, Mapping) and value:
            first, *others = format_mapping(value, indent + "  ", f"{place}[{index}]")
            yield f"{indent}- {first[len(indent) + 2 :]}"
            yield from others
        else:
            yield f"{indent}- {format_flow(value, f'{place}[{index}]')}"
