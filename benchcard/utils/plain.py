"""Plain data (what JSON can hold): conversion, canonical text, and digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON text that is equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of a value of plain data, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
