"""The kinds of value that a parameter may take, each able to say what is wrong with a value and where.

This module owns shapes of values (text, number, list, mapping) and the wording of mistakes. Which parameters there are
is told in `parameters`; what their values come to, in `plan`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchcard.errors import Mistake
from benchcard.utils.text import as_text, closest, did_you_mean, format_value, join_names


class ValueType(Protocol):
    """What may stand in a place."""

    @property
    def words(self) -> str:
        """What may stand here, to be read after "expected"."""

    def mistakes(self, value: Any, place: str) -> Iterator[Mistake]:
        """All that is wrong with `value`, which stands at `place`."""


@dataclass(frozen=True)
class Text:
    """A string, free or one of the known ones. `known` is asked when it is needed, so that registries may grow."""

    known: Callable[[], Sequence[str]] | None = None

    @property
    def words(self) -> str:
        """What may stand here."""
        return join_names(self.known()) if self.known else "a text"

    def mistakes(self, value: Any, place: str) -> Iterator[Mistake]:
        """Anything that is no text, is empty, or is not among the known ones."""
        if not isinstance(value, str) or not value.strip():
            yield Mistake(place, format_value(value), self.words)
        elif self.known and value not in self.known():
            yield Mistake(place, format_value(value), self.words, did_you_mean(value, self.known()))


@dataclass(frozen=True)
class NodePattern:
    """What names nodes of a graph: a pattern's name, a node's name, or `re:` and a regular expression."""

    words: str = "the name of a pattern or of a node, or `re:` and a regular expression"

    def mistakes(self, value: Any, place: str) -> Iterator[Mistake]:
        """Anything that is no text, and expressions that are none."""
        if not isinstance(value, str) or not value.strip():
            yield Mistake(place, format_value(value), self.words)
        elif value.startswith("re:"):
            try:
                re.compile(value[3:])
            except re.error as error:
                yield Mistake(place, format_value(value), "a regular expression", str(error))


@dataclass(frozen=True)
class OperatorType:
    """The type of an operator, as `MatMul`. There are more than the known ones: only slips of these are mistakes."""

    known: tuple[str, ...]
    words: str = "the type of an operator, as `MatMul`"

    def mistakes(self, value: Any, place: str) -> Iterator[Mistake]:
        """Anything that is no text, and slips of the known types, in letters or in case."""
        if not isinstance(value, str) or not value.strip():
            yield Mistake(place, format_value(value), self.words)
        elif value not in self.known and (close := closest(value, self.known, 0.85)):
            yield Mistake(place, format_value(value), self.words, f"did you mean `{close}`?")


@dataclass(frozen=True)
class NodeExclusion:
    """What stays in float32: a list that names it, or `auto`, as a word or with the limits of its search."""

    words: str = (
        "a list of names of patterns or nodes, or `auto`, or `{auto: {max_drop: 0.01, max_trials: 16}}` with limits of "
        "its own"
    )

    def mistakes(self, value: Any, place: str) -> Iterator[Mistake]:
        """Anything else; `auto` among others in a list is one too."""
        if isinstance(value, list):
            yield from ListOf(NodePattern()).mistakes(value, place)
            if "auto" in value:
                yield Mistake(
                    f"{place}[{value.index('auto')}]", '"auto"', NodePattern.words, "write auto without the list"
                )
        elif isinstance(value, dict):
            limits = MappingOf({"max_drop": Number(0), "max_trials": Number(1, 10_000, whole=True)})
            yield from MappingOf({"auto": limits}, required=("auto",)).mistakes(value, place)
        elif value != "auto":
            single = isinstance(value, str) and not any(NodePattern().mistakes(value, place))
            yield Mistake(place, format_value(value), self.words, f"write [{format_value(value)}]" if single else "")


@dataclass(frozen=True)
class Boolean:
    """True or False."""

    words: str = "true or false"

    def mistakes(self, value: Any, place: str) -> Iterator[Mistake]:
        """Anything that is not a truth value; `1` and `"yes"` are none."""
        if not isinstance(value, bool):
            looks = str(value).strip().lower()
            hint = {"yes": "write true", "no": "write false", "true": "without quotes", "false": "without quotes"}
            yield Mistake(place, format_value(value), self.words, hint.get(looks, ""))


@dataclass(frozen=True)
class Number:
    """A finite number within bounds, whole where `whole` is set."""

    least: float | None = None
    most: float | None = None
    whole: bool = False
    among: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """What may stand here."""
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

    def mistakes(self, value: Any, place: str) -> Iterator[Mistake]:
        """Anything that is no number, or outside the bounds."""
        most = sys.float_info.max  # compared, so that a whole number that no float holds is none, either
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and -most <= value <= most
        if (
            not number
            or (self.whole and not isinstance(value, int))
            or (self.least is not None and value < self.least)
            or (self.most is not None and value > self.most)
            or (self.among and value not in self.among)
        ):
            yield Mistake(place, format_value(value), self.words)


@dataclass(frozen=True)
class ListOf:
    """A list, every element of one kind, none twice."""

    of: ValueType
    least: int = 0

    @property
    def words(self) -> str:
        """What may stand here."""
        return f"a list{' of one or more' if self.least else ''}, each {self.of.words}"

    def mistakes(self, value: Any, place: str) -> Iterator[Mistake]:
        """Anything that is no list, is too short, repeats itself, or has an element of another kind."""
        if not isinstance(value, list):
            single = not any(self.of.mistakes(value, place))
            yield Mistake(place, format_value(value), self.words, f"write [{format_value(value)}]" if single else "")
            return
        if len(value) < self.least:
            yield Mistake(place, format_value(value), self.words)
        before = set()
        for index, element in enumerate(value):
            yield from self.of.mistakes(element, f"{place}[{index}]")
            text = as_text(element, sort_keys=True)
            if text in before:
                yield Mistake(
                    f"{place}[{index}]", format_value(element), "each element once", "it stands before already"
                )
            before.add(text)


@dataclass(frozen=True)
class MappingOf:
    """A mapping with known fields, or, where it is `open`, with any, each of which is of one kind where it is given."""

    fields: Mapping[str, ValueType] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    open: bool = False
    each: ValueType | None = None

    @property
    def words(self) -> str:
        """What may stand here."""
        return "a mapping" if self.open or not self.fields else f"a mapping with {join_names(self.fields)}"

    def mistakes(self, value: Any, place: str) -> Iterator[Mistake]:
        """Anything that is no mapping, lacks a field, has an unknown one, or one of another kind."""
        if not isinstance(value, Mapping):
            yield Mistake(place, format_value(value), self.words)
            return
        for name in self.required:
            if value.get(name) is None:
                yield Mistake(f"{place}.{name}", "nothing", self.fields[name].words, "it cannot be left out")
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
    """Another kind, or nothing."""

    of: ValueType

    @property
    def words(self) -> str:
        """What may stand here."""
        return f"{self.of.words} or nothing (null)"

    def mistakes(self, value: Any, place: str) -> Iterator[Mistake]:
        """What the other kind finds wrong, unless the value is None."""
        if value is not None:
            yield from self.of.mistakes(value, place)


@dataclass(frozen=True)
class Either:
    """One of several kinds; the first is the one that messages explain."""

    kinds: tuple[ValueType, ...]

    @property
    def words(self) -> str:
        """What may stand here."""
        return ", or ".join(kind.words for kind in self.kinds)

    def mistakes(self, value: Any, place: str) -> Iterator[Mistake]:
        """Nothing where one kind takes the value; else what the kind that comes closest finds."""
        found = [list(kind.mistakes(value, place)) for kind in self.kinds]
        if all(found):
            inside = [mistakes for mistakes in found if all(mistake.place != place for mistake in mistakes)]
            yield from (
                inside[0]
                if inside
                else [Mistake(place, format_value(value), self.words, found[-1][0].hint or found[0][0].hint)]
            )
