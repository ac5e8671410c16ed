"""Whether code that comes with a model may run in this process: not unless the spec asks for it.

It is asked once, by whoever does a step, and not handed through every function that loads a tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

NOTE = "code of the model's repository ran (`trust_remote_code`)"

_trusted: ContextVar[bool] = ContextVar("trusted", default=False)


def trusted() -> bool:
    """Whether it may: what `trust_remote_code` of `from_pretrained` is to be."""
    return _trusted.get()


@contextmanager
def trusting(asked: bool) -> Iterator[None]:
    """A block in which it may, if the spec asks for it."""
    token = _trusted.set(asked)
    try:
        yield
    finally:
        _trusted.reset(token)
