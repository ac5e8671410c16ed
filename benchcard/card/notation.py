"""How values and words are written in Markdown, and read back.

Owns back-ticks, escapes and the text of single values: `parse_value(write_value(v)) == v` for all plain data, and what
`code` and `words` give cannot break the paragraph, bullet or table cell it stands in. Leaves tables to `tables`.
"""

from __future__ import annotations

import ast
import re
import warnings

from benchcard.card.facts import Plain, plain
from benchcard.errors import CardError

_CONSTANTS: dict[str, Plain] = {"None": None, "True": True, "False": False}
_LITERAL_START = re.compile(r"""['"(\[{+\-.0-9]|[bBfFrRuU]{1,2}['"]|set\(""")
# What may be Markdown or HTML within a line; an underscore only where it is not inside a word. Pipes: see `tables`.
_MARKED = re.compile(r"[\\`*<>&\[\]$~]|(?<![^\W_])_|_(?![^\W_])")
_TICKS = re.compile(r"`+")
_ESCAPED = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)|\\([!-/:-@\[-`{-~])")
# A word in back-ticks that is one in every renderer, in a table, too: nothing in it is a mark of HTML or of a table.
_SPAN = re.compile(r"(?<!`)(`[^\s`\\<>|](?:[^`\\<>|]*[^\s`\\<>|])?`)(?!`)")
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
    while fence in _TICKS.findall(line):
        fence += "`"
    padded = line.startswith("`") or line.endswith("`") or (line[0] == line[-1] == " " and line.strip())
    return f"{fence} {line} {fence}" if padded else f"{fence}{line}{fence}"


def uncode(text: str) -> str | None:
    """The content of the code span that all of `text` is; None where it is something else."""
    content, rest = _leading_code(text)
    return None if rest else content


def split_codes(text: str) -> list[str] | None:
    """The contents of the code spans that `text` lists, separated by commas; None where it lists something else."""
    contents: list[str] = []
    rest = text.strip()
    while rest:
        content, rest = _leading_code(rest)
        rest = rest.lstrip()
        if content is None or not (rest == "" or rest.startswith(",")):
            return None
        contents.append(content)
        rest = rest.removeprefix(",").lstrip()
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
    return _ESCAPED.sub(lambda match: match.group(2) or match.group(), text)


def bare_or_code(text: str) -> str:
    """`text` as it is where no character in it means anything to Markdown, else as a code span."""
    harmless = _HARMLESS.fullmatch(text) and not _EDGE_UNDERSCORE.search(text) and "](" not in text
    return text if harmless else code(text)


def _leading_code(text: str) -> tuple[str | None, str]:
    """The content of the code span that `text` begins with, and what follows; None and the text where there is none."""
    opening = _TICKS.match(text)
    if opening is None:
        return None, text
    closing = next((ticks for ticks in _TICKS.finditer(text, opening.end()) if ticks.group() == opening.group()), None)
    if closing is None:
        return None, text
    content = text[opening.end() : closing.start()]
    if len(content) > 1 and content[0] == content[-1] == " " and content.strip():
        content = content[1:-1]
    return content, text[closing.end() :]


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _escaped(line: str) -> str:
    return _MARKED.sub(lambda match: "\\" + match.group(), line)


def _stands_bare(text: str) -> bool:
    # GitHub and markdown-it read a backslash before a pipe in two ways; doubled, as in quotes, they read it in one.
    return is_words(text) and "\\|" not in text and bool(parse_value(text) == text)
