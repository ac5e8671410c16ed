"""Keys merged into the existing front matter of a README, as edits of its text.

Comments, order and quotes stay to the byte. Nothing is removed: lists are united, and an existing value is kept unless
the caller names its key. ruamel.yaml gives the places. The merged text is parsed again, and if its data are not as
expected, nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pprint import saferepr
from typing import TYPE_CHECKING

from benchcard.card.facts import Plain
from benchcard.card.frontmatter import yaml as yamltext
from benchcard.errors import CardError

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

OWN_SOURCE = "benchcard"
"""First word of the `source.name` of benchcard's entries in `model-index`; the rest distinguishes them."""

_LINE = re.compile(r"[^\r\n]+")
_COMMENT_OR_EMPTY = re.compile(r"[ \t]*(?:#[^\r\n]*)?")


def merge_fields(
    text: str, fields: Mapping[str, Plain], *, overwrite: Collection[str] = (), newline: str = "\n"
) -> tuple[str, tuple[str, ...]]:
    """Return a README with `fields` in its front matter, and the keys that kept another value.

    None and empty lists in `fields` are left out. `overwrite` names the keys whose values may be replaced. Added lines
    end in `newline`. A `CardError` says that a key cannot be added without rewriting the front matter.
    """
    fields = {str(key): value for key, value in fields.items() if value is not None and value != []}
    card = yamltext.split_card(text)
    if not fields:
        return text, ()
    if not card.opening:
        mark = yamltext.BOM if text.startswith(yamltext.BOM) else ""
        rest = text[len(mark) :]
        gap = newline if rest and rest[0] not in "\r\n" else ""
        return f"{mark}---{newline}{yamltext.dump_yaml(fields, newline)}---{newline}{gap}{rest}", ()
    merger = _Merger(card.yaml, newline, frozenset(overwrite))
    for key, value in fields.items():
        merger.add(key, value)
    yaml = merger.result()
    line_end = newline if yaml and not card.yaml and card.closing.startswith("---") else ""
    return card.opening + yaml + line_end + card.closing + card.body, tuple(merger.kept)


class _Merger:
    def __init__(self, yaml: str, newline: str, overwrite: frozenset[str]) -> None:
        self.yaml = yaml
        self.newline = newline
        self.overwrite = overwrite
        self.kept: list[str] = []
        # The line end of the last line is part of the closing dashes, but a block scalar needs it.
        self.root = yamltext.compose_yaml(yaml + "\n")
        self.expected = yamltext.load_front_matter(yaml + "\n")
        if self.root is not None and not isinstance(self.root.value, list):
            self.root = None  # The text is `null`.
        pairs: list[tuple[Node, Node]] = self.root.value if self.root is not None else []
        self.entries = {key.value: (key, value) for key, value in pairs if isinstance(key.value, str)}
        # Start and end of the replaced text, and its replacement.
        self.edits: list[tuple[int, int, str]] = []
        self.new: dict[str, Plain] = {}

    def add(self, key: str, value: Plain) -> None:
        """Add `value` under `key`, unless an existing value would be lost."""
        if key not in self.expected:
            self.new[key] = self.expected[key] = value
            return
        existing = self.expected[key]
        if saferepr(existing) == saferepr(value):
            return
        if key not in self.entries:
            self.kept.append(key)  # It comes from a YAML merge key: there is no text to edit.
        elif existing is None:
            self._fill(key, value)
        elif key in self.overwrite:
            self._replace(key, value)
        elif isinstance(value, list) and isinstance(existing, list):
            self._unite(key, existing, value)
        elif isinstance(value, list) and isinstance(existing, (str, int, float)):
            self._wrap(key, existing, value)
        else:
            self.kept.append(key)

    def result(self) -> str:
        """Return the merged text, after parsing it again as a check."""
        self._append_new()
        yaml = self.yaml
        # From the end, so that places stay valid; the later of two additions at one place first.
        for start, end, replacement in sorted(self.edits, key=lambda edit: edit[:2])[::-1]:
            yaml = yaml[:start] + replacement + yaml[end:]
        try:
            is_expected = saferepr(yamltext.load_front_matter(yaml + "\n")) == saferepr(self.expected)
        except CardError:
            is_expected = False
        if not is_expected:
            by_hand = yamltext.dump_yaml({key: value for key, value in self.expected.items() if value is not None})
            raise CardError(
                f"nothing can be added to the front matter in the form that it has; replace it by hand with:\n{by_hand}"
            )
        return yaml

    def _append_new(self) -> None:
        if not self.new:
            return
        if self.root is not None and _is_flow(self.root):
            place = self.root.end_mark.index - 1
            items = ", ".join(
                f"{yamltext.format_scalar(key)}: {yamltext.format_flow(item, key)}" for key, item in self.new.items()
            )
            self._insert(place, f", {items}" if self.root.value else items)
        else:
            indent = " " * self.root.start_mark.column if self.root is not None else ""
            lines = self.newline.join(yamltext.format_mapping(self.new, indent))
            self._insert(len(self.yaml), self.newline + lines if self.yaml else lines)

    def _insert(self, place: int, text: str) -> None:
        self.edits.append((place, place, text))

    def _replace_flow(self, node: Node, text: str) -> None:
        self.edits.append((node.start_mark.index, node.end_mark.index, text))

    def _replace_block(self, first: Node, last: Node, lines: Iterable[str], indent: int) -> None:
        """Replace whole lines but for the first `indent` characters, which stay."""
        text = self.newline.join(lines)[indent:]
        self.edits.append((first.start_mark.index, self._last_line_end(last.end_mark.index), text))

    def _fill(self, key: str, value: Plain) -> None:
        name, node = self.entries[key]
        self.expected[key] = value
        if node.value:
            self._replace_flow(node, yamltext.format_flow(value, key))
        else:
            colon = self.yaml.find(":", name.end_mark.index)
            self._insert(colon + 1, f" {yamltext.format_flow(value, key)}")

    def _replace(self, key: str, value: Plain) -> None:
        name, node = self.entries[key]
        self.expected[key] = value
        if _is_flow(node):
            self._replace_flow(node, yamltext.format_flow(value, key))
        else:
            indent = name.start_mark.column
            self._replace_block(name, node, yamltext.format_mapping({key: value}, " " * indent), indent)

    def _unite(self, key: str, existing: list[Plain], value: list[Plain]) -> None:
        """Add the missing items; an item of benchcard's own in `model-index` replaces the earlier one."""
        _, node = self.entries[key]
        united = self.expected[key] = list(existing)
        for item in _missing(value, existing):
            own = [place for place, other in enumerate(existing) if _source(item) and _source(other) == _source(item)]
            if not own:
                united.append(item)
                continue
            united[own[0]] = item
            old = node.value[own[0]]
            if _is_flow(node) or not isinstance(old.value, list) or _is_flow(old):
                self._replace_flow(old, yamltext.format_flow(item, key))
            else:
                indent = old.start_mark.column
                self._replace_block(old, old, yamltext.format_list([item], " " * (indent - 2), key), indent)
        missing = united[len(existing) :]
        if missing and _is_flow(node):
            items = ", ".join(yamltext.format_flow(item, key) for item in missing)
            place = node.end_mark.index - 1
            if node.value and node.start_mark.index < node.value[-1].end_mark.index <= place:
                place = node.value[-1].end_mark.index  # A comma or a comment may follow it.
            self._insert(place, f", {items}" if node.value else items)
        elif missing:
            lines = yamltext.format_list(missing, " " * node.start_mark.column, key)
            self._insert(self._last_line_end(node.end_mark.index), self.newline + self.newline.join(lines))

    def _wrap(self, key: str, existing: Plain, value: list[Plain]) -> None:
        """Replace a single value by a list of it and the new ones; the Hub takes both forms."""
        missing = _missing(value, [existing])
        _, node = self.entries[key]
        raw = self.yaml[node.start_mark.index : node.end_mark.index]
        if missing and (not _is_flow(node) or re.search(r"[\r\n,\[\]{}]", raw)):
            self.kept.append(key)
        elif missing:
            self.expected[key] = [existing, *missing]
            self._replace_flow(node, f"[{raw}, {', '.join(yamltext.format_flow(item, key) for item in missing)}]")

    def _last_line_end(self, place: int) -> int:
        """Return the end of the last line before `place` that contains more than a comment.

        For ruamel.yaml, a node in block style ends where the next token begins: after comments and empty lines.
        """
        before = [line for line in _LINE.finditer(self.yaml) if line.start() < place]
        for line in reversed(before):
            if not _COMMENT_OR_EMPTY.fullmatch(self.yaml, line.start(), min(line.end(), place)):
                return line.end()
        return 0


def _missing(items: Iterable[Plain], existing: Iterable[Plain]) -> list[Plain]:
    """Return the items that do not exist; their text tells 1 from true."""
    known = set(map(saferepr, existing))
    return [item for item in items if saferepr(item) not in known]


def _is_flow(node: Node) -> bool:
    """Return whether a node ends where its text ends: a collection in flow style, or a scalar that is not a block."""
    from ruamel.yaml.nodes import CollectionNode, ScalarNode

    if isinstance(node, CollectionNode):
        return bool(node.flow_style)
    return isinstance(node, ScalarNode) and node.style not in ("|", ">")


def _source(entry: Plain) -> str:
    """Return benchcard's name of an entry of `model-index` that holds its results alone; else an empty string."""
    if not isinstance(entry, dict) or not isinstance(entry.get("results"), list):
        return ""
    sources = {
        str(result["source"].get("name")) if isinstance(result, dict) and isinstance(result.get("source"), dict) else ""
        for result in entry["results"]
    }
    return sources.pop() if len(sources) == 1 and next(iter(sources)).startswith(OWN_SOURCE) else ""
