r"""Benchcard's section in a README that is somebody else's.

Owns the markers and what stands between them; everything else in the README stays to the byte. Leaves the keys of the
front matter to `frontmatter_merge`.

    <!-- benchcard:begin id=<slug> schema=1 digest=<sha256 of the lines between> -->
    ...
    <!-- benchcard:end id=<slug> -->

A marker counts where it begins a line, but not in a block of code, which shows what a section looks like. The digest
is of the lines between with `\n` as their ends and no empty lines around, so that a checkout that changes line ends is
no edit.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from benchcard.card.facts import Plain
from benchcard.card.frontmatter import yaml
from benchcard.card.frontmatter.merge import merge_fields
from benchcard.errors import CardError
from benchcard.utils.text import format_value

if TYPE_CHECKING:
    from markdown_it.token import Token


SCHEMA = 1
# Lists and quotations within one another; far more than any README has, and far below what Python's recursion takes.
_MOST_NESTING = 100
# Keys that go with the first one: name and link say which licence `other` is, the relation is one to that model.
_LICENCE = ("license", "license_name", "license_link")
_ORIGIN = ("base_model", "base_model_relation")

# A slug names a folder, and files with something around it: file systems take 255 bytes.
_SLUG = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_LINE = re.compile(r"([^\r\n]*)(?:\r\n|\r|\n|\Z)")
_LINE_END = re.compile(r"\r\n|\r|\n")
_BEGIN = re.compile(rf"<!-- benchcard:begin id=({_SLUG}) schema=(\d{{1,9}}) digest=([0-9a-f]{{64}}) -->[ \t]*")
_END = re.compile(rf"<!-- benchcard:end id=({_SLUG}) -->[ \t]*")
_DAMAGED = re.compile(
    rf" {{0,3}}<!--[ \t]*benchcard:[ \t]*(?:begin|end)\b(?:[^\r\n]*?\bid=({_SLUG}))?[^\r\n]*", re.IGNORECASE
)


@dataclass(frozen=True)
class Section:
    r"""A section that stands in a README between its markers.

    Attributes:
        slug: its name.
        content: what stands between the markers, `\n` as line ends, no empty lines around.
        schema: form of the section, as its marker says.
        edited: whether somebody changed it since it was written.
        start: place of the first marker in the README.
        end: place after the last marker, before its line end.
    """

    slug: str
    content: str
    schema: int
    edited: bool
    start: int
    end: int


@dataclass(frozen=True)
class Merged:
    """A README with benchcard's section in it.

    Attributes:
        text: all of it.
        changed: whether it differs from what it was.
        replaced: the section that was there before, where somebody had edited it; else empty. Keep it for them.
        kept: keys of the front matter that say something else than the card, and were left as they are.
    """

    text: str
    changed: bool
    replaced: str = ""
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Marker:
    kind: Literal["begin", "end", "damaged"]
    slug: str | None
    start: int
    end: int
    line: int
    schema: int = 0
    digest: str = ""


def merge(
    readme: str,
    card: str,
    slug: str,
    *,
    force: bool = False,
    overwrite: Collection[str] = (),
    without: Collection[str] = (),
) -> Merged:
    """The README with the card's body as the section `slug`, and the card's front matter merged into its own.

    A section that is there is replaced in its place, else it is appended. Merging the same card again changes nothing.

    Args:
        readme: the README; for bytes that are no UTF-8, decode and encode with `surrogateescape`.
        card: text of the whole card.
        slug: name of the section: letters, digits, dots, dashes and underscores, 100 at most.
        force: replace a section that was edited by hand, and take away markers that are broken or doubled; text that is
            not surely benchcard's own stays; and add a section behind a block of code or HTML that is never closed.
        overwrite: keys of the front matter whose values the card may replace.
        without: keys of the card's front matter that are left out.

    Raises:
        CardError: the section was edited, its markers are broken or doubled, the README ends within a block of code
            or of HTML, or the front matter cannot be read.
    """
    block = yaml.split(card)
    fields = yaml.load_yaml(block.yaml) or {}
    if not isinstance(fields, dict):
        raise CardError("the front matter of the card to merge is not a mapping")
    fields = {key: value for key, value in fields.items() if key not in without}
    there = yaml.load_yaml(yaml.split(readme).yaml)
    fields, others, overwrite = _with_those_beside(fields, there if isinstance(there, dict) else {}, overwrite)
    with_front, kept = merge_fields(readme, fields, overwrite=overwrite, newline=line_end(readme))
    merge_section(readme, block.body, slug, force=force)  # What it refuses it tells by the lines that its author has.
    merged = merge_section(with_front, block.body, slug, force=force)
    return Merged(merged.text, merged.text != readme, merged.replaced, (*others, *kept))


def _with_those_beside(
    fields: Mapping[str, Plain], there: Mapping[str, Plain], overwrite: Collection[str]
) -> tuple[dict[str, Plain], list[str], frozenset[str]]:
    """The card's fields without those that would speak of another value than the card's, since it stays; the keys
    whose values stay; and the keys to overwrite, with those that go with them.
    """
    overwrite = frozenset(overwrite).union(*(keys for keys in (_LICENCE, _ORIGIN) if keys[0] in overwrite))
    dropped: set[str] = set()
    theirs = {key: there.get(key) for key in _LICENCE if key not in overwrite}
    if any(theirs.values()) and any(value != fields.get(key) for key, value in theirs.items()):
        dropped.update(theirs)
    origin, relation = _ORIGIN
    ours = fields.get(origin)
    if origin not in overwrite and there.get(origin) not in (None, ours, [ours]):
        dropped.add(relation)
    left = [key for key in _LICENCE if key in dropped or key not in fields] if fields.keys() & {*_LICENCE} else []
    kept = [key for key in left if there.get(key) not in (None, fields.get(key))]
    return {key: value for key, value in fields.items() if key not in dropped}, kept, overwrite


def expect_slug(slug: object) -> None:
    """Nothing; a name that no section can have is refused, before anything is written under it.

    Raises:
        CardError: it is no plain word, or too long.
    """
    if not isinstance(slug, str) or not re.fullmatch(_SLUG, slug):
        raise CardError(
            f"{format_value(slug)} cannot name a section: use letters, digits, dots, dashes and underscores, a letter "
            "or "
            "digit first, 100 at most"
        )


def merge_section(readme: str, content: str, slug: str, *, force: bool = False) -> Merged:
    """The README with `content` as the section `slug`; see `merge`."""
    expect_slug(slug)
    content = _settled(content)
    if next(_all_markers(content), None) is not None:
        raise CardError("the new section holds a line that is one of benchcard's own markers")
    text = _repaired(readme, slug) if force else readme
    found = _own_section(text, slug)
    newline = line_end(readme)
    lines = [f"<!-- benchcard:begin id={slug} schema={SCHEMA} digest={_digest(content)} -->", *content.split("\n")]
    # HTML as `</details>` goes on to the next empty line, and would show what follows the marker as it is written.
    section = newline.join([*lines, "", f"<!-- benchcard:end id={slug} -->"])
    if found is None:
        _, opened = _code_blocks(text)
        if opened is not None and not force:
            raise CardError(
                f"{opened} is never closed, and would swallow the card: close it, or put the card there all the same "
                "with force=True"
            )
        appended = text + _gap(text, newline) + section + newline
        return Merged(appended, True)
    if found.content == content and not found.edited and found.schema == SCHEMA:
        return Merged(text, text != readme)
    lost = found.edited and found.content != content
    if lost and not force:
        raise CardError(
            f"the section {slug!r} was edited by hand, and would lose that: move what you wrote outside of its "
            "markers, or replace it with force=True"
        )
    if found.schema > SCHEMA and not force:
        raise CardError(
            f"the section {slug!r} has schema {found.schema}, which a newer benchcard wrote: upgrade, or replace it "
            "with force=True"
        )
    replaced = text[: found.start] + section + text[found.end :]
    return Merged(replaced, replaced != readme, found.content if lost else "")


def sections(readme: str) -> dict[str, Section]:
    """The whole sections of a README by slug, the first where a slug stands twice; broken ones are left out."""
    found: dict[str, Section] = {}
    for begin, end in _pairs(list(_markers(readme))):
        section = _section(readme, begin, end)
        found.setdefault(section.slug, section)
    return found


def alone(readme: str, slug: str) -> str:
    """The card that a section of a README holds, with the README's front matter."""
    return f"---\n{yaml.split(readme).yaml.rstrip()}\n---\n\n{sections(readme)[slug].content}\n"


def line_end(text: str) -> str:
    r"""The line end that most lines of `text` have: `\n`, `\r\n` or `\r`; `\n` where there is none."""
    ends = _LINE_END.findall(text)
    return max(("\n", "\r\n", "\r"), key=ends.count)


def _own_section(text: str, slug: str) -> Section | None:
    """The one section of that name; None where there is none.

    Raises:
        CardError: its markers are broken or doubled.
    """
    markers = _markers(text)
    pairs = [(begin, end) for begin, end in _pairs(markers) if begin.slug == slug]
    strays = _strays(markers, slug)
    if strays:
        places = ", ".join(str(marker.line) for marker in strays)
        raise CardError(
            f"markers of the section {slug!r} are broken (line {places}): each begin needs its end below it and "
            "nothing of benchcard's between; mend or delete those lines, or take them away with force=True"
        )
    if len(pairs) > 1:
        places = ", ".join(str(begin.line) for begin, _ in pairs)
        raise CardError(
            f"the section {slug!r} stands {len(pairs)} times (lines {places}): delete all but one, or keep the first "
            "alone with force=True"
        )
    return _section(text, *pairs[0]) if pairs else None


def _repaired(text: str, slug: str) -> str:
    """The text without stray markers of a section, and with the first alone of several of its name.

    A later one goes whole where it is as it was written; where it was edited only its markers go.
    """
    markers = _markers(text)
    doomed = [(marker.start, marker.end) for marker in _strays(markers, slug)]
    pairs = [(begin, end) for begin, end in _pairs(markers) if begin.slug == slug]
    for first, last in pairs[1:]:
        if _section(text, first, last).edited:
            doomed += [(first.start, first.end), (last.start, last.end)]
        else:
            doomed.append((first.start, last.end))
    pieces, place = [], 0
    for start, end in sorted(doomed):
        pieces.append(text[place:start])
        after = _LINE_END.match(text, end)
        place = after.end() if after else end
    return "".join([*pieces, text[place:]])


def _markers(text: str) -> list[_Marker]:
    """Return the markers of a text, damaged ones too, in their order, without those that a block of code quotes.

    A block of code quotes nothing where it is never closed, or where it ends or begins within a section that nobody
    edited: then it is the author's open fence above that section that reaches into it.
    """
    every = list(_all_markers(text))
    if not every:
        return []
    code, _ = _code_blocks(text)
    starts = [start for start, _ in code]

    def block(marker: _Marker) -> int | None:
        index = bisect_right(starts, marker.line) - 1
        return index if index >= 0 and marker.line < code[index][1] else None

    cut = {
        index
        for begin, end in _pairs(every)
        if block(begin) != block(end) and not _section(text, begin, end).edited
        for index in (block(begin), block(end))
    }
    return [marker for marker in every if block(marker) in {None, *cut}]


def _code_blocks(text: str) -> tuple[list[tuple[int, int]], str | None]:
    """Return the lines of each closed block of code, and what is still open at the end of a text.

    Returns:
        For each block its first line and the line after its last one, counted from 1; and the block of code or of HTML
        that swallows what is appended, in words, None where there is none.

    Source: CommonMark 0.31, sections 4.4 to 4.6, as markdown-it-py reads them. HTML that ends at an empty line (types
    6 and 7 there) swallows nothing, since an empty line stands before what is appended.
    """
    from markdown_it import MarkdownIt

    # A definition is no block, and takes quadratic time.
    parser = MarkdownIt("commonmark", {"maxNesting": _MOST_NESTING}).disable("reference")
    parser.core.ruler.enableOnly(["normalize", "block"])
    body = yaml.split(text).body
    first = len(_LINE_END.findall(text, 0, len(text) - len(body))) + 1
    probed = f"{body.removeprefix(yaml.BOM)}\n\n<!-- -->"
    last = len(_LINE_END.findall(probed))
    code: list[tuple[int, int]] = []
    holder: Token | None = None
    for token in parser.parse(probed):
        start, end = token.map or (0, 0)
        if token.level == 0 and start <= last < end:
            holder = token
        elif token.type in ("fence", "code_block"):
            code.append((first + start, first + end))
    if holder is None:
        return code, "a list or quotation that is nested too deeply"
    line = (holder.map or [0])[0]
    if line == last:
        return code, None
    opening = holder.content.lstrip().split("\n", 1)[0][:40] if holder.type == "html_block" else holder.markup
    kind = "HTML" if holder.type == "html_block" else "block of code"
    return code, f"the {kind} `{opening}` that begins in line {first + line} of the README"


def _all_markers(text: str) -> Iterator[_Marker]:
    """All lines of a text that are markers, or damaged ones."""
    for number, line in enumerate(_LINE.finditer(text), 1):
        start, end = line.span(1)
        if begin := _BEGIN.fullmatch(text, start, end):
            yield _Marker("begin", begin.group(1), start, end, number, int(begin.group(2)), begin.group(3))
        elif finish := _END.fullmatch(text, start, end):
            yield _Marker("end", finish.group(1), start, end, number)
        elif damaged := _DAMAGED.fullmatch(text, start, end):
            yield _Marker("damaged", damaged.group(1), start, end, number)


def _pairs(markers: list[_Marker]) -> list[tuple[_Marker, _Marker]]:
    """Each begin with its end, where that is the very next marker."""
    return [
        (begin, end)
        for begin, end in pairwise(markers)
        if begin.kind == "begin" and end.kind == "end" and begin.slug == end.slug
    ]


def _strays(markers: list[_Marker], slug: str) -> list[_Marker]:
    """The markers of a section that belong to no pair. Those that do not tell whose they are can be nobody's loss."""
    paired = {marker.start for pair in _pairs(markers) for marker in pair}
    return [marker for marker in markers if marker.slug == slug and marker.start not in paired]


def _section(text: str, begin: _Marker, end: _Marker) -> Section:
    content = _settled(text[begin.end : end.start])
    edited = _digest(content) != begin.digest
    return Section(begin.slug or "", content, begin.schema, edited, begin.start, end.end)


def _settled(content: str) -> str:
    return _LINE_END.sub("\n", content).strip("\n")


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def _gap(text: str, newline: str) -> str:
    """What makes an empty line between a text and what is appended to it."""
    if not text:
        return ""
    ends = text[len(text.rstrip("\r\n")) :]
    # A lone \r followed by our \n would become one line end with it.
    count = 0 if ends.endswith("\r") and newline == "\n" else len(_LINE_END.findall(ends))
    return newline * max(0, 2 - count)
