"""The card: text for the Hub, made from facts and read back into them.

Owns the class `Card`. Leaves the facts to `facts`, what stands where to the layouts (`full`, `classic`) and `read`, the
front matter to `frontmatter` and `check`, other people's READMEs to `merge`, and the network to whoever pushes: nothing
here knows a clock, a socket or a model.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from benchcard.card import readme as merge
from benchcard.card.facts import Facts, Plain
from benchcard.card.frontmatter import check, fields, yaml
from benchcard.card.layouts import classic, full, plot
from benchcard.card.reading import classic as read
from benchcard.errors import CardError

if TYPE_CHECKING:
    from benchcard.card.frontmatter.check import Problem
    from benchcard.card.readme import Merged


LAYOUTS = ("full", "classic")
PLOT = "plot.png"


@dataclass(frozen=True)
class Card:
    """A model card.

    Attributes:
        text: all of it, front matter included.
        files: what the text shows, by its path beside the card: the picture, where there is one.
        slug: name of the section that it is in a README; None for a card that was read from a file.
    """

    text: str
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    slug: str | None = field(default=None, repr=False)

    @classmethod
    def from_facts(cls, facts: Facts, layout: str = "full", slug: str = "benchmark") -> Card:
        """The card that shows `facts`.

        Args:
            facts: what it shows.
            layout: `full`, or `classic`, the layout of the cards of 2022, to the byte.
            slug: name of the run: its picture stands in `benchcard/<slug>/`.

        Raises:
            CardError: there is no such layout, a slug that cannot name a section, or a fact that no front matter can
                say.
        """
        if layout not in LAYOUTS:
            raise CardError(f"there is no layout {layout!r}: it is {' or '.join(map(repr, LAYOUTS))}")
        merge.expect_slug(slug)
        if layout == "classic":
            return cls(classic.render(facts), slug=slug)
        picture = plot.png(facts)
        files = {} if picture is None else {f"benchcard/{slug}/{PLOT}": picture}
        text = full.body(facts, plot=next(iter(files), None), slug=slug)
        return cls(f"{fields.render(facts.front_matter)}\n{text}", files, slug)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Card:
        """The card in a file; `save` writes the same bytes again, UTF-8 or not.

        Raises:
            OSError: the file cannot be read.
        """
        return cls(Path(path).read_bytes().decode("utf-8", "surrogateescape"))

    @property
    def body(self) -> str:
        """The text without its front matter."""
        return yaml.split(self.text).body

    @cached_property
    def front_matter(self) -> Mapping[str, Plain]:
        """The front matter as data; empty where there is none.

        Raises:
            CardError: it cannot be read, or is no mapping; `problems` says more.
        """
        data = yaml.load_yaml(yaml.split(self.text).yaml)
        if data is None:
            return {}
        if not isinstance(data, dict):
            raise CardError("the front matter is not a mapping: write `key: value` on each line")
        return data

    def problems(self) -> list[Problem]:
        """What the Hub would refuse (errors) or frown at (warnings), found without asking it."""
        return check.check(self.text)

    def facts(self) -> Facts:
        """The facts that the card shows, read from its text; in a README with one section, from that alone.

        Raises:
            CardError: it is no card of benchcard, or a part of it cannot be read.
        """
        sections = list(merge.sections(self.text))
        return read.read_card(merge.alone(self.text, sections[0]) if len(sections) == 1 else self.text)

    def merge_into(self, readme: str, slug: str, *, force: bool = False, overwrite: Collection[str] = ()) -> Merged:
        """A README with this card as its section `slug`, everything else in it as it was; see `merge.merge`.

        Raises:
            CardError: the section was edited by hand, its markers are broken, or the front matter cannot be read.
        """
        return merge.merge(readme, self.text, slug, force=force, overwrite=overwrite)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the card to the README at `path`, and its picture beside it; gives the path back.

        A README that is there keeps its text, as in a push: the card is a section of it, which the next `save` replaces
        in its place. A card that was read from a file is written as it is, in place of what is there.

        The file is written whole or not at all, and nothing else stays in the folder. It keeps its permissions; a link
        stays a link.

        Args:
            path: a file.
            force: replace a section that was edited by hand.

        Raises:
            CardError: it cannot be written, or `merge_into` refuses; what was at `path` is as it was.
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
                _write(beside.resolve(), content)
            _write(target.resolve(), text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise CardError(f"{target} cannot be written: {error.strerror or error}") from error
        return target

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        """The card without its front matter, its picture inside, as a notebook shows it."""
        body = self.body
        for name, content in self.files.items():
            body = body.replace(f"]({name})", f"](data:image/png;base64,{base64.b64encode(content).decode()})")
        return body


def _write(real: Path, content: bytes) -> None:
    draft = real.with_name(f".{real.name}.{os.urandom(4).hex()}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if real.exists():
            draft.chmod(real.stat().st_mode & 0o7777)
        os.replace(draft, real)
    finally:
        draft.unlink(missing_ok=True)
