"""The types of values that a parameter accepts (text, number, list, mapping); each reports every mistake in a value.

This module also owns the wording of the mistakes. Which parameters there are is left to `parameters`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Protocol

from benchcard.errors import Mistake
from benchcard.utils.text import as_text, closest, did_you_mean, format_value, is_hub_id, join_names


class ValueType(Protocol):
    """The type of a value."""

    @property
    def expected(self) -> str:
        """The accepted values in words, to be read after "expected"."""

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield every mistake in `value`, which is at the JSON path `place`."""


@dataclass(frozen=True)
class Text:
    """A string, non-empty unless it `may_be_empty`, or one of the names that `known` returns; it is called late, since
    registries may grow.
    """

    known: Callable[[], Sequence[str]] | None = None
    may_be_empty: bool = False

    @property
    def expected(self) -> str:
        """The accepted values in words."""
        return join_names(self.known()) if self.known else "a text"

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield a mistake for anything but a non-empty string, and for an unknown name."""
        value = str(value) if isinstance(value, PurePath) else value
        if not isinstance(value, str) or not (value.strip() or self.may_be_empty):
            yield Mistake(place, format_value(value), self.expected)
        elif self.known and value not in self.known():
            yield Mistake(place, format_value(value), self.expected, did_you_mean(value, self.known()))


@dataclass(frozen=True)
class HubId:
    """The id of a repository on the Hub."""

    expected: str = "the id of a repository on the Hub, as `google/vit-base-patch16-224`"

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield a mistake for anything but a string in the format of an id."""
        if not isinstance(value, str) or not is_hub_id(value):
            yield Mistake(place, format_value(value), self.expected)


@dataclass(frozen=True)
class NodePattern:
    """A selector of graph nodes: the name of a pattern, the name of a node, or `re:` and a regular expression."""

    expected: str = "the name of a pattern or of a node, or `re:` and a regular expression"

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield a mistake for anything but a non-empty string, and for an invalid regular expression."""
        if not isinstance(value, str) or not value.strip():
            yield Mistake(place, format_value(value), self.expected)
        elif value.startswith("re:"):
            try:
                re.compile(value[3:])
            except re.error as error:
                yield Mistake(place, format_value(value), "a regular expression", str(error))


@dataclass(frozen=True)
class OperatorType:
    """The type of an operator, as `MatMul`. Unknown types are accepted, unless they look like a typo of a known one."""

    known: tuple[str, ...]
    expected: str = "the type of an operator, as `MatMul`"

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield a mistake for anything but a non-empty string, and for a known type with a typo or in another case."""
        if not isinstance(value, str) or not value.strip():
            yield Mistake(place, format_value(value), self.expected)
        elif value not in self.known and (close := closest(value, self.known, 0.85)):
            yield Mistake(place, format_value(value), self.expected, f"did you mean `{close}`?")


@dataclass(frozen=True)
class NodeExclusion:
    """The nodes that stay in float32: a list of node patterns, or `auto`, alone or with the limits of its search."""

    expected: str = (
        "a list of names of patterns or nodes, or `auto`, or `{auto: {max_drop: 0.01, max_trials: 16}}` with the "
        "limits of its search"
    )

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield a mistake for anything else, also for `auto` inside a list."""
        if isinstance(value, list):
            yield from ListOf(NodePattern()).mistakes(value, place)
            if "auto" in value:
                hint = "write auto without the list"
                yield Mistake(f"{place}[{value.index('auto')}]", '"auto"', NodePattern.expected, hint)
        elif isinstance(value, dict):
            limits = MappingOf({"max_drop": Number(0), "max_trials": Number(1, 10_000, whole=True)})
            yield from MappingOf({"auto": limits}, required=("auto",)).mistakes(value, place)
        elif value != "auto":
            yield Mistake(place, format_value(value), self.expected, _list_hint(NodePattern(), value))


@dataclass(frozen=True)
class Boolean:
    """True or False."""

    expected: str = "true or false"

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield a mistake for anything else, also for `1` and `"yes"`."""
        if not isinstance(value, bool):
            hints = {"yes": "write true", "no": "write false", "true": "without quotes", "false": "without quotes"}
            yield Mistake(place, format_value(value), self.expected, hints.get(str(value).strip().lower(), ""))


@dataclass(frozen=True)
class Number:
    """A finite number within bounds or among some numbers; an integer where `whole` is set."""

    least: float | None = None
    most: float | None = None
    whole: bool = False
    among: tuple[int, ...] = ()

    @property
    def expected(self) -> str:
        """The accepted values in words."""
        if self.among:
            return join_names(str(number) for number in self.among)
        bounds = ""
        if self.least is not None and self.most is not None:
            bounds = f" from {self.least} to {self.most}"
        elif self.least is not None:
            bounds = f" of at least {self.least}"
        elif self.most is not None:
            bounds = f" of at most {self.most}"
        return f"a {'whole ' if self.whole else ''}number{bounds}"

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield a mistake for anything that is not such a number."""
        largest = sys.float_info.max
        if (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            # This refuses NaN, infinity, and integers that no float can hold.
            or not -largest <= value <= largest
            or (self.whole and not isinstance(value, int))
            or (self.least is not None and value < self.least)
            or (self.most is not None and value > self.most)
            or (self.among and value not in self.among)
        ):
            yield Mistake(place, format_value(value), self.expected)


@dataclass(frozen=True)
class Duration:
    """A time: a number of seconds, or a text such as `90s`, `10m` or `1h30m`."""

    expected: str = "a time, such as `90s`, `10m` or `1h30m`, or a number of seconds"

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield a mistake for anything else, and for zero."""
        if isinstance(value, str):
            if not parse_duration(value):
                yield Mistake(place, format_value(value), self.expected)
        elif any(Number(0).mistakes(value, place)) or not value:
            yield Mistake(place, format_value(value), self.expected)


def parse_duration(text: str) -> float | None:
    """Return the seconds that a text such as `1h30m` stands for; None where it is no time."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.replace(" ", "").lower())
    if found is None or not any(found.groups()):
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 3600.0 * hours + 60.0 * minutes + seconds


@dataclass(frozen=True)
class ListOf:
    """A list of distinct elements of one type, with at least `least` of them."""

    of: ValueType
    least: int = 0

    @property
    def expected(self) -> str:
        """The accepted values in words."""
        return f"a list{' of one or more' if self.least else ''}, each {self.of.expected}"

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield a mistake for anything but a list, for too few elements, and for each wrong or repeated element."""
        if not isinstance(value, list):
            yield Mistake(place, format_value(value), self.expected, _list_hint(self.of, value))
            return
        if len(value) < self.least:
            yield Mistake(place, format_value(value), self.expected)
        seen = set()
        for index, element in enumerate(value):
            yield from self.of.mistakes(element, f"{place}[{index}]")
            text = as_text(element, sort_keys=True)
            if text in seen:
                yield Mistake(f"{place}[{index}]", format_value(element), "each element once", "it is a repetition")
            seen.add(text)


def _list_hint(element_type: ValueType, value: object) -> str:
    """Return the hint to put a value into a list, where it is a valid element; empty where it is not."""
    return "" if any(element_type.mistakes(value, "")) else f"write [{format_value(value)}]"


@dataclass(frozen=True)
class MappingOf:
    """A mapping with known fields. An `open` one accepts other names too, whose values are of the type `each`."""

    fields: Mapping[str, ValueType] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    open: bool = False
    each: ValueType | None = None

    @property
    def expected(self) -> str:
        """The accepted values in words."""
        return "a mapping" if self.open or not self.fields else f"a mapping with {join_names(self.fields)}"

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield a mistake for anything but a mapping, and for each field that is missing, unknown or wrong."""
        if not isinstance(value, Mapping):
            yield Mistake(place, format_value(value), self.expected)
            return
        for name in self.required:
            if value.get(name) is None:
                yield Mistake(f"{place}.{name}", "nothing", self.fields[name].expected, "it is required")
        for name, element in value.items():
            if name in self.fields:
                if element is None and name in self.required:
                    continue
                yield from self.fields[name].mistakes(element, f"{place}.{name}")
            elif not isinstance(name, str):
                yield Mistake(place, format_value(name), "names as text")
            elif not self.open:
                yield Mistake(f"{place}.{name}", f"`{name}`", join_names(self.fields), did_you_mean(name, self.fields))
            elif self.each is not None:
                yield from self.each.mistakes(element, f"{place}.{name}")


@dataclass(frozen=True)
class Optional:
    """A value of another type, or None."""

    of: ValueType

    @property
    def expected(self) -> str:
        """The accepted values in words."""
        return f"{self.of.expected} or nothing (null)"

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield the mistakes of the other type, unless the value is None."""
        if value is not None:
            yield from self.of.mistakes(value, place)


@dataclass(frozen=True)
class Either:
    """A value of one of several types."""

    types: tuple[ValueType, ...]

    @property
    def expected(self) -> str:
        """The accepted values in words."""
        return ", or ".join(value_type.expected for value_type in self.types)

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield the mistakes of the type that fits best: the first with mistakes only inside the value."""
        by_type = [list(value_type.mistakes(value, place)) for value_type in self.types]
        if all(by_type):
            hint = by_type[-1][0].hint or by_type[0][0].hint
            outside = [Mistake(place, format_value(value), self.expected, hint)]
            inside = (mistakes for mistakes in by_type if all(mistake.place != place for mistake in mistakes))
            yield from next(inside, outside)


@dataclass(frozen=True)
class Anything:
    """Any plain value."""

    expected: str = "a value"

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield nothing."""
        yield from ()
