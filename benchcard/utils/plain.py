"""Plain data (what JSON can hold): conversion, canonical text, and digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON text that is equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of a value of plain data, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def as_plain(value: Any) -> Any:
    """Return a copy of a value with dataclasses as dicts, tuples as lists, and paths as absolute paths in text.

    Other values stay as they are.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {name: as_plain(element) for name, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(element) for element in value]
    return str(value.absolute()) if isinstance(value, Path) else value
