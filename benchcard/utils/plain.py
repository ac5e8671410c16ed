"""Plain data, which JSON can hold: checked copies, canonical text and digests.

Plain data are text, numbers, true, false, None, lists, and mappings with text as keys. A checked copy can be compared,
hashed and written as JSON in time linear in its size.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any

from benchcard.errors import Mistake
from benchcard.utils.text import format_value, shorten

# Far above what a spec or a card needs, and far below Python's recursion limit.
MAX_LEVELS = 100
MAX_VALUES = 200_000


def canonical_json(value: object) -> str:
    """Return plain data as JSON; equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """Return the SHA-256 of plain data, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def as_plain(value: object) -> Any:
    """Return a copy with dataclasses as dicts, tuples as lists, and paths as absolute text; other values stay."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {name: as_plain(element) for name, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(element) for element in value]
    return str(value.absolute()) if isinstance(value, Path) else value


def plain(value: object) -> Any:
    """Return a copy of a value as plain data, with None in place of what is not plain; see `checked`."""
    return checked(value)[0]


def checked(value: object) -> tuple[Any, list[Mistake]]:
    """Return a copy of a value as plain data, and what in it is not plain.

    Tuples and sets become lists, paths become text, NumPy scalars become numbers, and keys that are numbers, true,
    false or None become text. What is not plain is None in the copy, and so is a copy of more than `MAX_VALUES` values.
    """
    copier = _Copier()
    copy = copier.copy(value, ())
    if copier.count > MAX_VALUES:
        return None, [Mistake("$", "more", f"at most {MAX_VALUES} values")]
    return copy, copier.mistakes


class _Copier:
    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        # The containers around the current value.
        self.parents: set[int] = set()
        self.count = 0

    def copy(self, value: object, path: tuple[str | int, ...]) -> object:
        """Return a copy of the value at a path of keys and indexes."""
        self.count += 1
        if self.count > MAX_VALUES:
            return None
        value = _unboxed(value)
        if isinstance(value, PurePath):
            value = str(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str(value) if _is_unicode(value) else self._mistake(path, value, "text that UTF-8 can encode")
        if isinstance(value, int):
            fits = -(2**63) <= value < 2**63
            return int(value) if fits else self._mistake(path, value, "an integer of 64 bits")
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else self._mistake(path, value, "a finite number")
        if not isinstance(value, (Mapping, list, tuple, set, frozenset)):
            hint = "put it in quotes" if hasattr(value, "isoformat") else ""
            return self._mistake(path, value, "text, a number, true, false, null, a list or a mapping", hint)
        if id(value) in self.parents:
            return self._mistake(path, "a value that contains itself", "a value that does not contain itself")
        if len(path) >= MAX_LEVELS:
            return self._mistake(path, "more", f"at most {MAX_LEVELS} levels of lists and mappings")
        self.parents.add(id(value))
        copy: object
        if isinstance(value, Mapping):
            copy = self._mapping(value, path)
        else:
            copy = [self.copy(element, (*path, index)) for index, element in enumerate(value)]
        self.parents.discard(id(value))
        return sorted(copy, key=_sort_key) if isinstance(value, (set, frozenset)) else copy

    def _mapping(self, value: Mapping[object, object], path: tuple[str | int, ...]) -> dict[str, object]:
        copy: dict[str, object] = {}
        for key, element in value.items():
            name = _unboxed(key)
            # NaN, the only value that differs from itself, is no key.
            if name is None or (isinstance(name, (bool, int, float)) and name == name):
                name = format_value(name)
            if not isinstance(name, str) or not _is_unicode(name):
                self._mistake(path, key, "text as keys")
            elif name in copy:
                self._mistake((*path, name), key, "each key once", "the mapping has it as a number and as text")
            else:
                copy[str(name)] = self.copy(element, (*path, name))
        return copy

    def _mistake(self, path: tuple[str | int, ...], value: object, expected: str, hint: str = "") -> object:
        """Record a mistake and return None, the copy of the value."""
        keys = [f"[{key}]" if isinstance(key, int) else f".{shorten(key)}" for key in path]
        self.mistakes.append(Mistake(f"${''.join(keys)}", format_value(value), expected, hint))
        return None


def _unboxed(value: object) -> object:
    """Return the Python value of a NumPy scalar or an array without dimensions; any other value as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value


def _is_unicode(text: str) -> bool:
    """Return whether UTF-8 can encode a text, which it cannot where there are lone surrogates."""
    return text.encode(errors="ignore").decode() == text


def _sort_key(value: object) -> tuple[str, Any]:
    return type(value).__name__, value if isinstance(value, (bool, int, float, str)) else repr(value)
