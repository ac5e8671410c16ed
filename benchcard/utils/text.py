"""Words for messages: values as text, lists of names, plurals, and near misses."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from functools import partial
from typing import Any


def format_value(value: Any) -> str:
    """The value as text for a message, cut to one short line."""
    text = as_text(value)
    return text if len(text) <= 80 else text[:77] + "..."


def as_text(value: Any, sort_keys: bool = False) -> str:
    """Return a value as JSON, or in Python's notation, or its type where it is too deep or too large for either."""
    for write in (partial(json.dumps, ensure_ascii=False, sort_keys=sort_keys), repr):
        try:
            # A lone surrogate could not be printed.
            return write(value).encode("utf-8", "backslashreplace").decode()
        except (TypeError, ValueError, RecursionError):
            continue
    return type(value).__name__


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """A hint that names the known word closest to `word`, in whatever case, or nothing."""
    close = closest(str(word), known, 0.6)
    return f"did you mean `{close}`?" if close else ""


def closest(word: str, known: Iterable[str], likeness: float) -> str | None:
    """Return the known word closest to another, in whatever case; None where none is close enough."""
    by_case = {each.lower(): each for each in known}
    close = difflib.get_close_matches(word.lower(), list(by_case), n=1, cutoff=likeness)
    return by_case[close[0]] if close else None


def join_names(words: Iterable[str]) -> str:
    """Words as `a`, `b` or `c`."""
    quoted = [f"`{word}`" for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}" if quoted else "nothing"


def pluralize(number: float, word: str) -> str:
    """So many of a thing: `1 row`, `2 rows`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def quote_names(words: Iterable[str]) -> str:
    """Return words as `a`, `b`, `c`."""
    return ", ".join(f"`{word}`" for word in words)
