"""How values and words are written in Markdown, and read back.

Owns back-ticks, escapes and the text of single values: `parse_value(write_value(v)) == v` for all plain data, and what
`code` and `words` give cannot break the paragraph, bullet or table cell it stands in. Leaves tables to `tables`.
"""

from __future__ import annotations

import ast
import re
import warnings
from bisect import bisect_left

from benchcard.card.facts import Plain, plain
from benchcard.errors import CardError

_CONSTANTS: dict[str, Plain] = {"None": None, "True": True, "False": False}
_LITERAL_START = re.compile(r"""['"(\[{+\-.0-9]|[bBfFrRuU]{1,2}['"]|set\(""")
# What may be Markdown or HTML within a line; an underscore only where it is not inside a word. Pipes: see `tables`.
_MARKED = re.compile(r"[\\`*<>&\[\]$~]|(?<![^\W_])_|_(?![^\W_])")
_TICKS = re.compile(r"`+")
_TICKS_OR_ESCAPE = re.compile(r"`+|\\([!-/:-@\[-`{-~])")
# A word in back-ticks that is one in every renderer, in a table, too: nothing in it is a mark of HTML or of a table.
_SPAN = re.compile(r"(?<!`)(`[^\s`\\<>|](?:[^`\\<>|]*[^\s`\\<>|])?`)(?!`)")
_COMMA = re.compile(r"\s*(?:,\s*|\Z)")
_HARMLESS = re.compile(r"(?:[\w '\",:{}()./@+=-]|\[|\])*")
_EDGE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def write_value(value: Plain) -> str:
    """The text of a value as the cards show it: Python's notation, but a plain word stands without quotes."""
    if isinstance(value, str) and _stands_bare(value):
        return value
    return repr(value)


def parse_value(text: str) -> Plain:
    """The value that `write_value` wrote as `text`; text that is no Python literal is a string."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if not _LITERAL_START.match(text):
        return text
    try:
        with warnings.catch_warnings():
            # A word such as '\d' is no mistake of ours, and no reason to warn whoever reads a card.
            warnings.simplefilter("ignore")
            literal = ast.literal_eval(text)
        return plain(literal)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, CardError):
        return text


def code(text: str) -> str:
    """`text` as one code span, whatever back-ticks it holds.

    Source: CommonMark 0.31, section 6.1: a span ends at the first run of as many back-ticks as opened it, and one space
    on each side is dropped where both are there.
    """
    line = " ".join(text.splitlines()) or " "
    fence = "`"
    taken = set(_TICKS.findall(line))
    while fence in taken:
        fence += "`"
    padded = line.startswith("`") or line.endswith("`") or (line[0] == line[-1] == " " and line.strip())
    return f"{fence} {line} {fence}" if padded else f"{fence}{line}{fence}"


def uncode(text: str) -> str | None:
    """The content of the code span that all of `text` is; None where it is something else."""
    content, end = _code_at(text, 0, _runs(text))
    return content if end == len(text) else None


def split_codes(text: str) -> list[str] | None:
    """The contents of the code spans that `text` lists, separated by commas; None where it lists something else."""
    contents: list[str] = []
    line, place = text.strip(), 0
    runs = _runs(line)
    while place < len(line):
        content, place = _code_at(line, place, runs)
        comma = _COMMA.match(line, place)
        if content is None or comma is None:
            return None
        contents.append(content)
        place = comma.end()
    return contents


def words(text: str) -> str:
    """`text` as one line of words in which nothing is Markdown or HTML; ordinary words stay as they are."""
    return _escaped(_one_line(text))


def prose(text: str) -> str:
    """`text` as `words` writes it, but what it has in back-ticks stays code."""
    *pairs, last = _SPAN.split(_one_line(text))
    if any("`" in between for between in (*pairs[::2], last)):
        return words(text)
    return "".join(part if place % 2 else _escaped(part) for place, part in enumerate([*pairs, last]))


def is_words(text: str) -> bool:
    """Whether `words` loses nothing of `text`: one line, all of it printable, no spaces around it."""
    return bool(text) and text.isprintable() and text == text.strip()


def unwords(text: str) -> str:
    """The text that `words` or `prose` wrote."""
    runs, pieces, place = _runs(text), [], 0
    while found := _TICKS_OR_ESCAPE.search(text, place):
        pieces.append(text[place : found.start()])
        place = found.end()
        if found.group(1):
            pieces.append(found.group(1))
        else:
            place = _closing(runs, place - found.start(), place) or place
            pieces.append(text[found.start() : place])
    return "".join([*pieces, text[place:]])


def bare_or_code(text: str) -> str:
    """`text` as it is where no character in it means anything to Markdown, else as a code span."""
    harmless = _HARMLESS.fullmatch(text) and not _EDGE_UNDERSCORE.search(text) and "](" not in text
    return text if harmless else code(text)


def _runs(text: str) -> dict[int, list[int]]:
    """Return where the runs of back-ticks begin, by their length."""
    runs: dict[int, list[int]] = {}
    for ticks in _TICKS.finditer(text):
        runs.setdefault(len(ticks.group()), []).append(ticks.start())
    return runs


def _closing(runs: dict[int, list[int]], length: int, place: int) -> int | None:
    """Return where the first run of that length behind a place ends; None where there is none."""
    starts = runs.get(length, [])
    index = bisect_left(starts, place)
    return starts[index] + length if index < len(starts) else None


def _code_at(text: str, start: int, runs: dict[int, list[int]]) -> tuple[str | None, int]:
    """Return the content of the code span that begins at a place, and where it ends; None where there is none."""
    opening = _TICKS.match(text, start)
    end = _closing(runs, len(opening.group()), opening.end()) if opening else None
    if opening is None or end is None:
        return None, start
    content = text[opening.end() : end - len(opening.group())]
    if len(content) > 1 and content[0] == content[-1] == " " and content.strip():
        content = content[1:-1]
    return content, end


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _escaped(line: str) -> str:
    return _MARKED.sub(lambda match: "\\" + match.group(), line)


def _stands_bare(text: str) -> bool:
    # GitHub and markdown-it read a backslash before a pipe in two ways; doubled, as in quotes, they read it in one.
    return is_words(text) and "\\|" not in text and bool(parse_value(text) == text)
