"""Keys added to a front matter that is somebody else's, as edits of its text.

Owns where in the text a key or an item goes: comments, order, quotes and whatever is not added to stay to the byte.
Nothing is removed: lists are united, and a value that is there is kept unless the caller names its key. ruamel.yaml
says where things are; what comes out is read again and must be what was meant, or nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from benchcard.card.facts import Plain
from benchcard.card.frontmatter import yaml as yamltext
from benchcard.errors import CardError

OWN_SOURCE = "benchcard"
"""How the `source.name` of our own entries in `model-index` begins; what follows tells them apart."""

_LINE = re.compile(r"[^\r\n]+")
_COMMENT_OR_EMPTY = re.compile(r"[ \t]*(?:#[^\r\n]*)?")


@dataclass(frozen=True)
class _Edit:
    """Text that takes the place of what stands between two places."""

    start: int
    end: int
    text: str


def merge_fields(
    text: str, fields: Mapping[str, Plain], *, overwrite: Collection[str] = (), newline: str = "\n"
) -> tuple[str, tuple[str, ...]]:
    """A text whose front matter says `fields` too, and the keys that say something else and were kept.

    Args:
        text: a README.
        fields: keys and values as plain data; None values are left out.
        overwrite: keys whose values may be replaced.
        newline: line end of what is added.

    Raises:
        CardError: the front matter cannot be read, or a key cannot be added to it without rewriting it.
    """
    wanted = {str(key): value for key, value in fields.items() if value is not None and value != []}
    block = yamltext.split(text)
    if not wanted:
        return text, ()
    if not block.present:
        mark = yamltext.BOM if text.startswith(yamltext.BOM) else ""
        rest = text[len(mark) :]
        gap = newline if rest and rest[0] not in "\r\n" else ""
        return f"{mark}---{newline}{yamltext.dump_yaml(wanted, newline)}---{newline}{gap}{rest}", ()
    merger = _Merger(block.yaml, newline, frozenset(overwrite))
    for key, value in wanted.items():
        merger.add(key, value)
    yaml = merger.result()
    ended = newline if yaml and not block.yaml and block.closing.startswith("---") else ""
    return block.opening + yaml + ended + block.closing + block.body, tuple(merger.kept)


class _Merger:
    """One front matter being merged: its nodes, the edits so far, and what is meant to come out."""

    def __init__(self, yaml: str, newline: str, overwrite: frozenset[str]) -> None:
        self.yaml = yaml
        self.newline = newline
        self.overwrite = overwrite
        # The line end that closes the last line is the closing dashes' own, and a block scalar needs it.
        root = yamltext.compose(yaml + "\n")
        data = yamltext.load_yaml(yaml + "\n")
        if data is not None and not isinstance(data, dict):
            raise CardError("the front matter is not a mapping: write `key: value` on each line, then try again")
        self.meant: dict[Any, Plain] = dict(data or {})
        self.root: Any = root if data is not None else None
        self.entries: dict[str, tuple[Any, Any]] = {}
        if self.root is not None:
            self.entries = {key.value: (key, value) for key, value in self.root.value if isinstance(key.value, str)}
        self.edits: list[_Edit] = []
        self.new: dict[str, Plain] = {}
        self.kept: list[str] = []

    def add(self, key: str, value: Plain) -> None:
        """Make the front matter say `value` under `key`, as far as nothing is lost."""
        if key not in self.meant:
            self.new[key] = value
            self.meant[key] = value
            return
        there = self.meant[key]
        if _canonical(there) == _canonical(value):
            return
        if key not in self.entries:
            self.kept.append(key)  # it comes out of a YAML merge key: there is no text of its own to add to
        elif there is None:
            self._fill(key, value)
        elif key in self.overwrite:
            self._replace(key, value)
        elif isinstance(value, list) and isinstance(there, list):
            self._unite(key, there, value)
        elif isinstance(value, list) and isinstance(there, (str, int, float)):
            self._wrap(key, there, value)
        else:
            self.kept.append(key)

    def result(self) -> str:
        """The merged text, read again to be sure of it."""
        self._append_new()
        yaml = self.yaml
        # From the end, so that places stay true; of two additions at one place the later one first.
        for edit in sorted(self.edits, key=lambda edit: (edit.start, edit.end))[::-1]:
            yaml = yaml[: edit.start] + edit.text + yaml[edit.end :]
        try:
            came = yamltext.load_yaml(yaml + "\n") or {}
        except CardError:
            came = None
        if _canonical(came) != _canonical(self.meant):
            by_hand = yamltext.dump_yaml({key: self.meant[key] for key in self.meant if self.meant[key] is not None})
            raise CardError(
                "the front matter is written in a way that nothing can be added to; write it so by hand:\n" + by_hand
            )
        return yaml

    def _append_new(self) -> None:
        if not self.new:
            return
        if self.root is not None and self.root.flow_style:
            place = self.root.end_mark.index - 1
            inside = ", ".join(f"{yamltext.scalar(key)}: {yamltext.flow(item, key)}" for key, item in self.new.items())
            self.edits.append(_Edit(place, place, f", {inside}" if self.root.value else inside))
            return
        indent = " " * self.root.start_mark.column if self.root is not None else ""
        lines = [indent + line for line in yamltext.dump_yaml(self.new).splitlines()]
        end = len(self.yaml)
        self.edits.append(_Edit(end, end, (self.newline if self.yaml else "") + self.newline.join(lines)))

    def _fill(self, key: str, value: Plain) -> None:
        """Give a value to a key that has none."""
        name, node = self.entries[key]
        self.meant[key] = value
        if node.value:
            self.edits.append(_Edit(node.start_mark.index, node.end_mark.index, yamltext.flow(value, key)))
            return
        colon = self.yaml.find(":", name.end_mark.index)
        self.edits.append(_Edit(colon + 1, colon + 1, f" {yamltext.flow(value, key)}"))

    def _replace(self, key: str, value: Plain) -> None:
        _, node = self.entries[key]
        self.meant[key] = value
        start, end = node.start_mark.index, node.end_mark.index
        if node.flow_style if isinstance(node.value, list) else node.style not in ("|", ">"):
            self.edits.append(_Edit(start, end, yamltext.flow(value, key)))
        else:
            # A block ends where the next key begins; its own last line is the last that is not empty or a comment.
            name, _ = self.entries[key]
            indent = " " * name.start_mark.column
            lines = [indent + line for line in yamltext.dump_yaml({key: value}).splitlines()]
            first = name.start_mark.index
            self.edits.append(_Edit(first, self._last_line_end(end), self.newline.join(lines)[len(indent) :]))

    def _unite(self, key: str, there: list[Plain], value: list[Plain]) -> None:
        """Add the items that are not there yet; our own earlier entry of `model-index` makes room for the new one."""
        _, node = self.entries[key]
        united = list(there)
        missing = []
        for item in value:
            if any(_canonical(item) == _canonical(old) for old in united):
                continue
            own = [place for place, old in enumerate(there) if _source(item) and _source(old) == _source(item)]
            if own:
                united[own[0]] = item
                self._replace_item(node, own[0], item, key)
            else:
                united.append(item)
                missing.append(item)
        self.meant[key] = united
        if not missing:
            return
        if node.flow_style:
            inside = ", ".join(yamltext.flow(item, key) for item in missing)
            place = node.end_mark.index - 1
            if node.value and node.start_mark.index < node.value[-1].end_mark.index <= place:
                place = node.value[-1].end_mark.index  # before a comma or a comment that may follow it
            self.edits.append(_Edit(place, place, f", {inside}" if node.value else inside))
        else:
            place = self._last_line_end(node.end_mark.index)
            lines = yamltext.list_lines(missing, " " * node.start_mark.column, key)
            self.edits.append(_Edit(place, place, self.newline + self.newline.join(lines)))

    def _replace_item(self, node: Any, place: int, item: Plain, key: str) -> None:
        old = node.value[place]
        start, end = old.start_mark.index, old.end_mark.index
        if node.flow_style or not isinstance(old.value, list) or old.flow_style:
            self.edits.append(_Edit(start, end, yamltext.flow(item, key)))
            return
        indent = " " * (old.start_mark.column - 2)
        lines = self.newline.join(yamltext.list_lines([item], indent, key))
        self.edits.append(_Edit(start, self._last_line_end(end), lines[len(indent) + 2 :]))

    def _wrap(self, key: str, there: Plain, value: list[Plain]) -> None:
        """Make a list of the one value that is there and the new ones; the Hub takes both forms."""
        missing = [item for item in value if _canonical(item) != _canonical(there)]
        if not missing:
            return
        _, node = self.entries[key]
        self.meant[key] = [there, *missing]
        start, end = node.start_mark.index, node.end_mark.index
        raw = self.yaml[start:end]
        if node.style in ("|", ">") or re.search(r"[\r\n,\[\]{}]", raw):
            self.kept.append(key)
            self.meant[key] = there
            return
        inside = ", ".join(yamltext.flow(item, key) for item in missing)
        self.edits.append(_Edit(start, end, f"[{raw}, {inside}]"))

    def _last_line_end(self, place: int) -> int:
        """The end of the last line that holds more than a comment before `place`.

        A node in block style ends, to ruamel.yaml, where the next token begins: beyond comments and empty lines.
        """
        before = [line for line in _LINE.finditer(self.yaml) if line.start() < place]
        for line in reversed(before):
            if not _COMMENT_OR_EMPTY.fullmatch(self.yaml, line.start(), min(line.end(), place)):
                return line.end()
        return 0


def _source(entry: Plain) -> str:
    """Our own name of an entry of `model-index` whose results are all ours; else empty."""
    if not isinstance(entry, dict) or not isinstance(entry.get("results"), list):
        return ""
    sources = {
        str(result["source"].get("name")) if isinstance(result, dict) and isinstance(result.get("source"), dict) else ""
        for result in entry["results"]
    }
    return sources.pop() if len(sources) == 1 and next(iter(sources)).startswith(OWN_SOURCE) else ""


def _canonical(value: Plain) -> str:
    """A text that two values share only where they are equal, types included and the order of keys not."""
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{key!r}: {_canonical(item)}" for key, item in value.items())) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_canonical(item) for item in value) + "]"
    return repr(value)
