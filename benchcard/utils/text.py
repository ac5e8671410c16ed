"""Text for messages: values on one line, lists of names, plurals, suggestions for misspelled names. The form of ids."""

from __future__ import annotations

import difflib
import html
import json
import re
from collections.abc import Iterable, Mapping
from functools import partial

_LINE_WIDTH = 240  # characters
_HUB_ID = re.compile(r"(?:\b[\w.-]{1,96}\b/)?\b[\w.-]{1,96}\b", re.ASCII)


class DisplayText(str):
    """Text that an interactive session and a notebook show as it is, without quotes and escapes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f'<div style="white-space: pre-wrap">{html.escape(self)}</div>'


def format_value(value: object) -> str:
    """Return a value as text for a message, cut to 80 characters."""
    return shorten(as_text(value))


def shorten(text: str) -> str:
    """Return a text, cut to 80 characters."""
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_text(value: object, sort_keys: bool = False) -> str:
    """Return a value as JSON, or as its `repr`, or the name of its type where it is too deep or too large for both."""
    for write in (partial(json.dumps, ensure_ascii=False, sort_keys=sort_keys), repr):
        try:
            # A lone surrogate cannot be printed.
            return write(value).encode("utf-8", "backslashreplace").decode()
        except (TypeError, ValueError, RecursionError):
            continue
    return type(value).__name__


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return a hint with the known word that is most similar to `word`, ignoring case; empty where none is similar."""
    match = closest(str(word), known, 0.6)
    return f"did you mean `{match}`?" if match else ""


def closest(word: str, known: Iterable[str], cutoff: float) -> str | None:
    """Return the known word most similar to `word`, ignoring case; None where no similarity reaches the cutoff."""
    by_lower_case = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(word.lower(), by_lower_case, n=1, cutoff=cutoff)
    return by_lower_case[matches[0]] if matches else None


def quote_names(words: Iterable[str]) -> str:
    """Return words as `a`, `b`, `c`, in backquotes."""
    return ", ".join(f"`{word}`" for word in words)


def join_names(words: Iterable[str]) -> str:
    """Return words as `a`, `b` or `c`, in backquotes."""
    *first, last = [f"`{word}`" for word in words] or ["nothing"]
    return f"{', '.join(first)} or {last}" if first else last


def pluralize(number: float, noun: str) -> str:
    """Return a number with its noun: `1 row`, `2 rows`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def first_line(message: object) -> str:
    """Return the first line of a message, shortened and without colours."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(message)).strip().splitlines()
    first = lines[0].strip() if lines else ""
    return first if len(first) <= _LINE_WIDTH else f"{first[:_LINE_WIDTH]}..."


def machine_name(arguments: Mapping[str, object]) -> str:
    """Return the machine that `backend_args` name, as `ml.m5.2xlarge` or `isa=vnni`; empty where they name none."""
    words: list[str] = []
    for value in arguments.values():
        if isinstance(value, Mapping):
            words += [f"{name}={each}" for name, each in value.items()]
        else:
            words += map(str, value if isinstance(value, list) else [value])
    return ", ".join(words)


def is_hub_id(text: str) -> bool:
    """Return whether `text` has the format of a Hub id of a model or data set; a relative path may have it too.

    Source: huggingface_hub 2.4, `utils._validators.validate_repo_id`.
    """
    return bool(_HUB_ID.fullmatch(text)) and "--" not in text and ".." not in text and not text.endswith(".git")
