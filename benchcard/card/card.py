"""The class `Card`: a model card, made from facts or read from a file."""

from __future__ import annotations

import base64
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchcard.card import readme as readmes
from benchcard.card.facts import Facts, Plain
from benchcard.card.frontmatter import fields
from benchcard.card.frontmatter.check import Problem, find_problems
from benchcard.card.frontmatter.yaml import load_front_matter, split_card
from benchcard.card.layouts import classic, full, plot
from benchcard.card.paths import FOLDER, PLOT
from benchcard.card.reading.classic import read_card
from benchcard.errors import CardError
from benchcard.utils.files import write_bytes_atomically

LAYOUTS = ("full", "classic")


@dataclass(frozen=True)
class Card:
    """A model card, with its front matter.

    `files` are the contents of the files that the text refers to, by path relative to the card: the picture, if any.
    `slug` names its section in a README; None for a card that was read from a file.
    """

    text: str
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    slug: str | None = field(default=None, repr=False)

    @classmethod
    def from_facts(cls, facts: Facts, layout: str = "full", slug: str = "benchmark", usage: str = "") -> Card:
        """Return the card with these contents.

        The layout is `full`, or `classic`, that of the cards of 2022 to the byte. The slug names the run: its picture
        is `benchcard/<slug>/plot.png`. `usage` is a section on how the published models are loaded.

        Raises:
            CardError: The layout does not exist, the slug cannot name a section, or front matter cannot hold a fact.
        """
        if layout not in LAYOUTS:
            raise CardError(f"there is no layout {layout!r}: use {' or '.join(map(repr, LAYOUTS))}")
        readmes.expect_slug(slug)
        if layout == "classic":
            return cls("\n".join(filter(None, (classic.render(facts), usage))), slug=slug)
        if any(row.original is not None for row in facts.rows):
            raise CardError(
                "each row of this card has the figures of two models, as in the first cards of 2022. The layout 'full' "
                "expects one model in each row: use 'classic'"
            )
        picture = plot.render_png(facts)
        files = {} if picture is None else {f"{FOLDER}/{slug}/{PLOT}": picture}
        text = full.body(facts, plot=next(iter(files), None), slug=slug, usage=usage)
        return cls(f"{fields.render_front_matter(facts.front_matter)}\n{text}", files, slug)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Card:
        """Return the card in a file. `save` writes the same bytes again, even if they are not UTF-8.

        Raises:
            OSError: The file cannot be read.
        """
        return cls(Path(path).read_bytes().decode("utf-8", "surrogateescape"))

    @property
    def body(self) -> str:
        """The text without its front matter."""
        return split_card(self.text).body

    @cached_property
    def front_matter(self) -> Mapping[str, Plain]:
        """The front matter as data; empty where there is none.

        Raises:
            CardError: It cannot be parsed, or is not a mapping; `problems` tells more.
        """
        return load_front_matter(split_card(self.text).yaml)

    def problems(self) -> list[Problem]:
        """Return what the Hub would refuse (errors) or warn of (warnings) in the front matter, found offline."""
        return find_problems(self.text)

    def facts(self) -> Facts:
        """Return the facts that the card shows; in a README with one section, those of that section.

        Raises:
            CardError: It is not a card of benchcard, or a part of it cannot be parsed.
        """
        slugs = list(readmes.find_sections(self.text))
        return read_card(readmes.section_as_card(self.text, slugs[0]) if len(slugs) == 1 else self.text)

    def merge_into(
        self, readme: str, slug: str, *, force: bool = False, overwrite: Collection[str] = ()
    ) -> readmes.Merged:
        """Return a README with this card as its section `slug`, the rest unchanged; see `readme.merge`.

        Raises:
            CardError: The section was edited by hand, its markers are broken, or the front matter cannot be parsed.
        """
        return readmes.merge(readme, self.text, slug, force=force, overwrite=overwrite)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the card to the README at `path`, and its picture beside it; return the path.

        The text of an existing README stays: the card becomes a section of it, as in a push, and the next `save`
        replaces that section; with `force`, even if it was edited by hand. A card that was read from a file replaces
        the whole file. The file is written completely or not at all. It keeps its permissions; a link stays a link.

        Raises:
            CardError: The file cannot be written, or `merge_into` refuses; the file at `path` is unchanged.
        """
        target = Path(path)
        try:
            text = self.text
            if self.slug is not None:
                readme = target.read_bytes() if target.exists() else b""
                text = self.merge_into(readme.decode("utf-8", "surrogateescape"), self.slug, force=force).text
            for name, content in self.files.items():
                beside = target.parent / name
                beside.parent.mkdir(parents=True, exist_ok=True)
                write_bytes_atomically(beside.resolve(), content)
            write_bytes_atomically(target.resolve(), text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            expected = "Expected the path of a file, such as README.md, in a folder that can be written"
            raise CardError(f"{target} cannot be written: {error.strerror or error}. {expected}") from error
        return target

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        """Return the body with its picture embedded, for a notebook, which would show front matter as a heading."""
        body = self.body
        for name, content in self.files.items():
            body = body.replace(f"]({name})", f"](data:image/png;base64,{base64.b64encode(content).decode()})")
        return body
