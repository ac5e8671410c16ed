r"""Benchcard's sections in a README that belongs to somebody else, the rest of which stays to the byte.

    <!-- benchcard:begin id=<slug> schema=1 digest=<sha256 of the lines between> -->
    ...
    <!-- benchcard:end id=<slug> -->

A marker counts where it begins a line, but not in a block of code, which may quote a section. The digest takes `\n` as
line ends and leaves out surrounding empty lines, so that a checkout with other line ends is not an edit.
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
from benchcard.card.frontmatter.merge import merge_fields
from benchcard.card.frontmatter.yaml import BOM, load_yaml, split_card
from benchcard.errors import CardError
from benchcard.utils.text import format_value

if TYPE_CHECKING:
    from markdown_it.token import Token


SCHEMA = 1
# Levels of lists and quotations. No README has as many, and Python's recursion limit is far above.
_MAX_NESTING = 100
# Keys that belong to the first one: name and link identify a licence `other`, the relation is to the base model.
_LICENSE_KEYS = ("license", "license_name", "license_link")
_BASE_MODEL_KEYS = ("base_model", "base_model_relation")

# A slug is part of folder and file names, which file systems limit to 255 bytes.
_SLUG = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_LINE = re.compile(r"([^\r\n]*)(?:\r\n|\r|\n|\Z)")
_LINE_END = re.compile(r"\r\n|\r|\n")
_BEGIN = re.compile(rf"<!-- benchcard:begin id=({_SLUG}) schema=(\d{{1,9}}) digest=([0-9a-f]{{64}}) -->[ \t]*")
_END = re.compile(rf"<!-- benchcard:end id=({_SLUG}) -->[ \t]*")
_DAMAGED = re.compile(
    rf" {{0,3}}<!--[ \t]*benchcard:[ \t]*(?:begin|end)\b(?:[^\r\n]*?\bid=({_SLUG}))?[^\r\n]*", re.IGNORECASE
)


@dataclass(frozen=True)
class Marker:
    """A marker in a text: the places where it begins and ends, before its line end, and its line, from 1."""

    kind: Literal["begin", "end", "damaged"]
    slug: str | None
    start: int
    end: int
    line: int
    schema: int = 0
    digest: str = ""


@dataclass(frozen=True)
class Section:
    r"""A section of a README: the text between its markers, with `\n` as line ends and without surrounding empty lines.

    `edited` tells whether somebody changed it since it was written.
    """

    begin: Marker
    end: Marker
    content: str
    edited: bool


@dataclass(frozen=True)
class Merged:
    """A README with benchcard's section.

    `replaced` is the previous section if somebody had edited it, else empty: save it for its author. `kept` are the
    keys of the front matter that kept another value than the card's.
    """

    text: str
    changed: bool
    replaced: str = ""
    kept: tuple[str, ...] = ()


def merge(
    readme: str,
    card: str,
    slug: str,
    *,
    force: bool = False,
    overwrite: Collection[str] = (),
    without: Collection[str] = (),
) -> Merged:
    """Return the README with the card's body as the section `slug`, and the card's front matter merged into its own.

    An existing section is replaced in its place; a new one is appended. Bytes of the README that are not UTF-8 must be
    decoded with `surrogateescape`. Of the front matter, the card may replace the values of the keys `overwrite`, and
    its keys `without` are left out.

    With `force`, a section that was edited by hand is replaced, broken or duplicate markers are removed, but no text
    that may be somebody else's, and a section is appended after a block of code or HTML that is never closed.

    Raises:
        CardError: The section was edited, its markers are broken or duplicate, the README ends within a block of code
            or HTML, or the front matter cannot be parsed.
    """
    new = split_card(card)
    fields = load_yaml(new.yaml) or {}
    if not isinstance(fields, dict):
        raise CardError("the front matter of the card to merge is not a mapping")
    fields = {key: value for key, value in fields.items() if key not in without}
    existing = load_yaml(split_card(readme).yaml)
    fields, kept, overwrite = _keep_related_keys(fields, existing if isinstance(existing, dict) else {}, overwrite)
    with_front, kept_values = merge_fields(readme, fields, overwrite=overwrite, newline=line_end(readme))
    merge_section(readme, new.body, slug, force=force)  # Its errors name the lines of the README as its author has it.
    merged = merge_section(with_front, new.body, slug, force=force)
    return Merged(merged.text, merged.text != readme, merged.replaced, (*kept, *kept_values))


def _keep_related_keys(
    fields: Mapping[str, Plain], existing: Mapping[str, Plain], overwrite: Collection[str]
) -> tuple[dict[str, Plain], list[str], set[str]]:
    """Return the fields to merge, the keys that keep their values, and the keys to overwrite.

    Keys that belong together count as one, so that no key describes a value that another card gave.
    """
    overwrite = {*overwrite}.union(*(keys for keys in (_LICENSE_KEYS, _BASE_MODEL_KEYS) if keys[0] in overwrite))
    dropped: set[str] = set()
    license_before = {key: existing.get(key) for key in _LICENSE_KEYS if key not in overwrite}
    if any(license_before.values()) and any(value != fields.get(key) for key, value in license_before.items()):
        dropped.update(license_before)
    base_model, relation = _BASE_MODEL_KEYS
    new = fields.get(base_model)
    if base_model not in overwrite and existing.get(base_model) not in (None, new, [new]):
        dropped.add(relation)
    has_license = bool(fields.keys() & {*_LICENSE_KEYS})
    unset = [key for key in _LICENSE_KEYS if has_license and (key in dropped or key not in fields)]
    kept = [key for key in unset if existing.get(key) not in (None, fields.get(key))]
    return {key: value for key, value in fields.items() if key not in dropped}, kept, overwrite


def expect_slug(slug: object) -> None:
    """Raise a `CardError` unless `slug` can name a section, before anything is written under it."""
    if not isinstance(slug, str) or not re.fullmatch(_SLUG, slug):
        raise CardError(
            f"{format_value(slug)} cannot name a section: use at most 100 letters, digits, dots, dashes and "
            "underscores, beginning with a letter or digit"
        )


def merge_section(readme: str, content: str, slug: str, *, force: bool = False) -> Merged:
    """Return the README with `content` as the section `slug`; see `merge`."""
    expect_slug(slug)
    content = _normalize(content)
    if next(_find_markers(content), None) is not None:
        raise CardError("the new section contains one of benchcard's own markers: remove that line")
    text = _remove_broken_markers(readme, slug) if force else readme
    existing = _find_section(text, slug)
    newline = line_end(readme)
    lines = [f"<!-- benchcard:begin id={slug} schema={SCHEMA} digest={_digest(content)} -->", *content.split("\n")]
    # HTML such as `</details>` continues to the next empty line, and the marker must not be part of it.
    section = newline.join([*lines, "", f"<!-- benchcard:end id={slug} -->"])
    if existing is None:
        _, unclosed = _code_blocks(text)
        if unclosed is not None and not force:
            raise CardError(
                f"{unclosed} is never closed, so the card would be part of it: close it, or append the card anyway "
                "with force=True"
            )
        ends = text[len(text.rstrip("\r\n")) :]
        # A lone \r followed by an added \n would become one line end with it.
        count = 0 if ends.endswith("\r") and newline == "\n" else len(_LINE_END.findall(ends))
        empty_line = newline * max(0, 2 - count) if text else ""
        return Merged(text + empty_line + section + newline, True)
    schema = existing.begin.schema
    if existing.content == content and not existing.edited and schema == SCHEMA:
        return Merged(text, text != readme)
    loses_edits = existing.edited and existing.content != content
    if loses_edits and not force:
        raise CardError(
            f"the section {existing.begin.slug!r} was edited by hand: move your text outside of its markers, or "
            "replace the section with force=True"
        )
    if schema > SCHEMA and not force:
        raise CardError(
            f"the section {existing.begin.slug!r} has schema {schema}, which a newer benchcard wrote: upgrade, or "
            "replace it with force=True"
        )
    replaced = text[: existing.begin.start] + section + text[existing.end.end :]
    return Merged(replaced, replaced != readme, existing.content if loses_edits else "")


def find_sections(readme: str) -> dict[str, Section]:
    """Return the sections of a README by slug: the first of several with one slug, and none with broken markers."""
    sections: dict[str, Section] = {}
    for section in _sections(readme, _markers(readme)):
        sections.setdefault(section.begin.slug or "", section)
    return sections


def section_as_card(readme: str, slug: str) -> str:
    """Return a section of a README as a card, with the README's front matter."""
    return f"---\n{split_card(readme).yaml.rstrip()}\n---\n\n{find_sections(readme)[slug].content}\n"


def line_end(text: str) -> str:
    r"""Return the line end of most lines of `text`: `\n`, `\r\n` or `\r`; `\n` where there is none."""
    ends = _LINE_END.findall(text)
    return max(("\n", "\r\n", "\r"), key=ends.count)


def _find_section(text: str, slug: str) -> Section | None:
    sections, unpaired = _named(text, slug)
    if unpaired:
        places = ", ".join(str(marker.line) for marker in unpaired)
        raise CardError(
            f"markers of the section {slug!r} are broken (line {places}): each begin needs its end below, and no other "
            "marker of benchcard between; repair or delete those lines, or remove them with force=True"
        )
    if len(sections) > 1:
        places = ", ".join(str(section.begin.line) for section in sections)
        raise CardError(
            f"the section {slug!r} is there {len(sections)} times (lines {places}): delete all but one, or keep only "
            "the first with force=True"
        )
    return sections[0] if sections else None


def _remove_broken_markers(text: str, slug: str) -> str:
    """Return the text without unpaired markers of a section, and without later sections of its name.

    Of a later section that was edited, only the markers are removed.
    """
    sections, unpaired = _named(text, slug)
    spans = [(marker.start, marker.end) for marker in unpaired]
    for section in sections[1:]:
        begin, end = section.begin, section.end
        spans += [(begin.start, begin.end), (end.start, end.end)] if section.edited else [(begin.start, end.end)]
    for start, stop in sorted(spans, reverse=True):
        text = text[:start] + _LINE_END.sub("", text[stop:], count=1)
    return text


def _named(text: str, slug: str) -> tuple[list[Section], list[Marker]]:
    """Return the sections of that name, and its markers without a pair; a marker without slug is nobody's."""
    markers = _markers(text)
    sections = _sections(text, markers)
    paired = {marker for section in sections for marker in (section.begin, section.end)}
    unpaired = [marker for marker in markers if marker.slug == slug and marker not in paired]
    return [section for section in sections if section.begin.slug == slug], unpaired


def _markers(text: str) -> list[Marker]:
    """Return the markers of a text in their order, damaged ones too, without those that a block of code quotes.

    A block of code quotes nothing if it is never closed, or if it begins or ends within a section that nobody edited:
    then an open fence of the author above that section reaches into it.
    """
    markers = list(_find_markers(text))
    if not markers:
        return []
    blocks, _ = _code_blocks(text)
    starts = [start for start, _ in blocks]

    def block_of(marker: Marker) -> int | None:
        index = bisect_right(starts, marker.line) - 1
        return index if index >= 0 and marker.line < blocks[index][1] else None

    ignored: set[int | None] = {None}
    for section in _sections(text, markers):
        blocks_of_markers = {block_of(section.begin), block_of(section.end)}
        if len(blocks_of_markers) > 1 and not section.edited:
            ignored |= blocks_of_markers
    return [marker for marker in markers if block_of(marker) in ignored]


def _code_blocks(text: str) -> tuple[list[tuple[int, int]], str | None]:
    """Return the closed blocks of code of a text, and the block of code or HTML that is still open at its end.

    A block is its first line and the line after its last one, counted from 1. The open block, of which appended text
    would be part, is described in words; None where there is none.

    Source: CommonMark 0.31, sections 4.4 to 4.6, as markdown-it-py implements them. HTML that ends at an empty line
    (types 6 and 7) does not count, since appended text follows an empty line.
    """
    from markdown_it import MarkdownIt

    # Definitions of references are not blocks, and take quadratic time.
    parser = MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING}).disable("reference")
    parser.core.ruler.enableOnly(["normalize", "block"])
    body = split_card(text).body
    first = len(_LINE_END.findall(text, 0, len(text) - len(body))) + 1
    with_probe = f"{body.removeprefix(BOM)}\n\n<!-- -->"
    last = len(_LINE_END.findall(with_probe))
    blocks: list[tuple[int, int]] = []
    around_probe: Token | None = None
    for token in parser.parse(with_probe):
        start, end = token.map or (0, 0)
        if token.level == 0 and start <= last < end:
            around_probe = token
        elif token.type in ("fence", "code_block"):
            blocks.append((first + start, first + end))
    if around_probe is None:
        return blocks, "a list or quotation that is nested too deeply"
    line = (around_probe.map or [0])[0]
    if line == last:
        return blocks, None
    is_html = around_probe.type == "html_block"
    opening = around_probe.content.lstrip().split("\n", 1)[0][:40] if is_html else around_probe.markup
    kind = "HTML" if is_html else "block of code"
    return blocks, f"the {kind} `{opening}` that begins in line {first + line} of the README"


def _find_markers(text: str) -> Iterator[Marker]:
    """Yield all lines of a text that are markers, or damaged ones."""
    for number, line in enumerate(_LINE.finditer(text), 1):
        start, end = line.span(1)
        if match := _BEGIN.fullmatch(text, start, end):
            yield Marker("begin", match.group(1), start, end, number, int(match.group(2)), match.group(3))
        elif match := _END.fullmatch(text, start, end):
            yield Marker("end", match.group(1), start, end, number)
        elif match := _DAMAGED.fullmatch(text, start, end):
            yield Marker("damaged", match.group(1), start, end, number)


def _sections(text: str, markers: list[Marker]) -> list[Section]:
    """Return the sections between each begin and its end, where that is the next marker."""
    sections = []
    for begin, end in pairwise(markers):
        if begin.kind == "begin" and end.kind == "end" and begin.slug == end.slug:
            content = _normalize(text[begin.end : end.start])
            sections.append(Section(begin, end, content, edited=_digest(content) != begin.digest))
    return sections


def _normalize(content: str) -> str:
    return _LINE_END.sub("\n", content).strip("\n")


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()
