"""Requests and outcomes of steps, and the key of a step.

Each kind of step has a dataclass for its `Request` and another for the values of its `Outcome`. This module writes and
reads them as plain data. How a step is done is left to the other modules of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Protocol, Self, TypeAlias, TypeVar, get_args

import msgspec

from benchcard import registry
from benchcard.utils.plain import as_plain, digest
from benchcard.utils.values import Failure

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)
Count = Annotated[int, msgspec.Meta(ge=0)]
"""A whole number of at least 0."""
Positive = Annotated[int, msgspec.Meta(gt=0)]
"""A whole number of at least 1."""
Progress = Callable[[int, int], None]
"""Takes the units of work that are done and their total."""


@dataclass(frozen=True)
class Outcome(Generic[V_co]):
    """The result of a step that succeeded. If `planned`, the step was not done, and `values` are placeholders."""

    kind: str
    key: str
    folder: Path
    values: V_co
    planned: bool = False


def local(**options: Any) -> Any:
    """Return a field of a request that does not determine the result: a path on this machine, a number of threads."""
    return field(metadata={"local": True}, **options)


def need(**options: Any) -> Any:
    """Return a field of a request that holds the outcome of an earlier step, or None."""
    return field(metadata={"need": True}, **options)


def named(name: str) -> Any:
    """Return a field of a request that has another name in the key."""
    return field(metadata={"name": name})


@dataclass(frozen=True, kw_only=True)
class Request(Generic[V_co]):
    """The arguments of a step of one kind. The type parameter is the class of its outcome's values.

    A field with a default is left out of the key where it has this value.
    """

    kind: ClassVar[str]

    @property
    def engine(self) -> str:
        """The kind of child process that does the step: "onnx", "torch", or a name of its framework's own."""
        framework: str | None = getattr(self, "framework", None)
        return str(registry.framework(framework).engine) if framework else "torch"

    @cached_property
    def asked(self) -> dict[str, Any]:
        """The fields that determine the result, except the needs, as plain data."""
        own = [entry for entry in fields(self) if not entry.metadata.keys() & {"local", "need"}]
        values = {entry: getattr(self, entry.name) for entry in own}
        return {
            entry.metadata.get("name", entry.name): value
            for entry, value in values.items()
            if entry.default is MISSING or value != entry.default
        }

    @cached_property
    def needs(self) -> dict[str, Outcome[Any]]:
        """The outcomes of earlier steps whose files this step reads, by name."""
        outcomes = {entry.name: getattr(self, entry.name) for entry in fields(self) if "need" in entry.metadata}
        return {name: outcome for name, outcome in outcomes.items() if outcome is not None}

    @cached_property
    def key(self) -> str:
        """SHA-256 of everything that determines the result."""
        needs = {name: outcome.key for name, outcome in self.needs.items()}
        return digest({"kind": self.kind, "asked": self.asked, "needs": needs})

    def __str__(self) -> str:
        return self.kind

    def as_json(self) -> Any:
        """Return the request for a child process; paths are absolute."""
        return as_plain(self)

    def with_threads(self, threads: int) -> Self:
        """Return the same request with at most this many threads, where it has a number of threads."""
        own: int | None = getattr(self, "threads", None)
        changes: dict[str, Any] = {} if own is None else {"threads": min(threads, own)}
        return replace(self, **changes)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the request that `as_json` gave."""
        return msgspec.convert(values, cls, dec_hook=decode)

    @classmethod
    def read_values(cls, values: Mapping[str, Any]) -> V_co:
        """Return the values of an outcome from plain data; `msgspec.ValidationError` if these have another form."""
        kind: type[V_co] = get_args(cls.__orig_bases__[-1])[0]  # type: ignore[attr-defined] # a fact of generic classes
        return msgspec.convert(values, kind, dec_hook=decode)


AnyRequest: TypeAlias = Request[Any]
"""A request of any kind of step."""


def decode(kind: type, value: Any) -> Any:
    """Return a value of a type that msgspec does not know: a path from its text."""
    return Path(value) if kind is Path else value


class NotRun(Failure):
    """The failure of a step that has not been run yet."""


class StepFailed(Exception):
    """A step failed, and its row ends there."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Ask(Protocol):
    """A function that gives the outcome of a step, or its failure."""

    def __call__(self, request: Request[V], /) -> Outcome[V] | Failure:
        """Return the outcome of a step, or its failure."""
