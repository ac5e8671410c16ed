"""Finding a card, and what was published beside it: in a text, a file, a folder, or a repository on the Hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec

from benchcard.card import Card, Facts
from benchcard.card import readme as readmes
from benchcard.card.paths import FOLDER, RUN
from benchcard.errors import CardError, NoCardError
from benchcard.utils.parsing import UnreadableError, load_json
from benchcard.utils.text import is_hub_id

README = "README.md"


@dataclass(frozen=True)
class PublishedSpec:
    """The spec of a published run, not yet checked."""

    task: str | None = None
    fixed: Mapping[str, object] = field(default_factory=dict)
    grid: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedSource:
    """A model or a data set of a published run; `local` where it was a file or a folder."""

    name: str
    local: bool
    digest: str


@dataclass(frozen=True)
class PublishedNoise:
    """The noise certificate of models that were timed together: the ratio of the baseline to itself."""

    ratio_low: float | None = None
    ratio_high: float | None = None


@dataclass(frozen=True)
class TimeKey:
    """The row and the shape that a published row of times belongs to."""

    row: Annotated[int, msgspec.Meta(ge=0)]
    batch_size: Annotated[int, msgspec.Meta(ge=1)]
    input_length: Annotated[int, msgspec.Meta(ge=0)] | None = None
    phase: str | None = None


@dataclass(frozen=True)
class PublishedRun:
    """The part of a published `run.json` that is read again; `publishing.bundle` writes it.

    `sources` are its `models` and `datasets`. `quality` and `time` are the rows of these frames, by column; those of
    `time` have the fields of a `TimeKey`.
    """

    spec: PublishedSpec
    sources: Mapping[str, tuple[PublishedSource, ...]] = field(default_factory=dict)
    quality: tuple[Mapping[str, object], ...] = ()
    time: tuple[Mapping[str, object], ...] = ()
    noise: tuple[PublishedNoise, ...] = ()
    machine: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedCard:
    """A card that was read: what it shows, and the run that was published beside it, or None.

    `folder` is where its paths start; None for a text or a repository, which name no path of this machine. `section` is
    the name of its section in the README; empty where it is a text without markers.
    """

    facts: Facts
    run: PublishedRun | None
    folder: Path | None
    section: str = ""


@dataclass(frozen=True)
class Readme:
    """A README with cards, or the text of one: its name in messages, and what reads the files beside it.

    `folder` is as in a `PublishedCard`.
    """

    text: str
    name: str
    folder: Path | None = None
    read_file: Callable[[str], bytes | None] = lambda _path: None

    @property
    def sections(self) -> tuple[str, ...]:
        """The names of its sections; none where it is a card without markers, or no card."""
        return tuple(readmes.find_sections(self.text))

    def card(self, section: str | None = None) -> PublishedCard:
        """Return one card, and the run that was published beside it.

        Raises:
            CardError: There is no such card, it cannot be read, or there are several and `section` names none of them.
        """
        sections = self.sections
        if section is None and len(sections) > 1:
            raise CardError(f"{self.name} has {len(sections)} sections: name one of {', '.join(sections)}")
        if section is not None and section not in sections:
            raise CardError(f"{self.name} has no section {section!r}; there is {', '.join(sections) or 'none'}")
        slug = section or next(iter(sections), "")
        try:
            facts = Card(readmes.section_as_card(self.text, slug) if slug else self.text).facts()
        except CardError as error:
            raise type(error)(f"{self.name}: {error}") from error
        location = f"{FOLDER}/{slug}/{RUN}"
        content = self.read_file(location) if slug else None
        run = None if content is None else _read_run(content, str(self.folder / location if self.folder else location))
        return PublishedCard(facts, run, self.folder and self.folder.resolve(), slug)


def find_readme(card: str | Path, *, token: str | bool | None = None, endpoint: str | None = None) -> Readme:
    """Return the text of several lines, or the README in a file, a folder or a repository.

    Raises:
        CardError: There is no such README.
        HubError: The repository does not exist or cannot be reached.
    """
    if isinstance(card, str) and "\n" in card:
        return Readme(card, "the text")
    path = Path(card).expanduser()
    if path.is_dir():
        path = path / README
    if path.is_file():
        folder = path.parent
        return Readme(_read_text(path), str(path), folder, lambda name: _read_beside(folder / name))
    name = str(card)
    if not is_hub_id(name) or "/" not in name:
        is_folder = Path(name).expanduser().is_dir()
        problem = f"the folder {name!r} has no {README}" if is_folder else f"there is no card {name!r}"
        raise CardError(f"{problem}: give the text of a card, a file, a folder with a {README}, or a repository")
    from benchcard.hub import repository

    text = repository.read_readme(name, token=token, endpoint=endpoint)
    if text is None:
        raise NoCardError(
            f"{name} has no {README}. Expected a repository to which a card was pushed: push one to it first"
        )
    read_file = partial(repository.read_file, name, token=token, endpoint=endpoint)
    return Readme(text, f"the {README} of {name}", None, read_file)


def _read_beside(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise CardError(f"{path} cannot be read: {error.strerror}") from error


def _read_run(content: bytes, location: str) -> PublishedRun:
    try:
        data = load_json(content)
    except UnreadableError as error:
        raise CardError(f"{location} cannot be read: {error}") from None
    try:
        run = msgspec.convert(data, PublishedRun)
        msgspec.convert(run.time, tuple[TimeKey, ...])
    except msgspec.ValidationError as error:
        message = f"{location} is not what benchcard publishes: {error}. Remove it to read the card alone"
        raise CardError(message) from None
    return run
