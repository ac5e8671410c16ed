"""Forms of plain data, checked by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from benchcard.utils.text import format_value


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
