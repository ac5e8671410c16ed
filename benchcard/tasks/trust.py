"""Whether code that comes with a model may run in this process.

A step sets it once from the spec, so that it need not be passed through every function that loads a tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

NOTE = "code of the model's repository ran (`trust_remote_code`)"

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)


def trusted() -> bool:
    """Return the value of `trust_remote_code` for `from_pretrained`; False unless the spec allows it."""
    return _trusted.get()


@contextmanager
def trusting(allowed: bool) -> Iterator[None]:
    """Run a block in which code of a model may run, where `allowed`."""
    token = _trusted.set(allowed)
    try:
        yield
    finally:
        _trusted.reset(token)
