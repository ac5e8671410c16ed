"""Values and text as inline Markdown, written and parsed.

`parse_value(write_value(v)) == v` for all plain data. What `code_span` and `escape` return cannot end the paragraph,
bullet or table cell around it.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter

from benchcard.card.facts import Plain, plain
from benchcard.errors import CardError
from benchcard.utils.text import shorten

_LITERAL_START = re.compile(r"""['"(\[{+\-.0-9]|[bBfFrRuU]{1,2}['"]|(?:None|True|False)\Z""")
# Characters that may be Markdown or HTML within a line; an underscore only outside of words. `tables` escapes pipes.
_MARKUP = re.compile(r"[\\`*<>&\[\]$~]|(?<![^\W_])_|_(?![^\W_])")
_BACKTICKS = re.compile(r"`+")
# A run of backticks, what follows up to the next run of the same length, and that run. Each run is read once.
_CODE_SPAN = re.compile(r"(?<!`)(`++)([^`]*+(?:(?!\1(?!`))`++[^`]*+)*+)\1")
_CODE_SPAN_OR_ESCAPE = re.compile(rf"{_CODE_SPAN.pattern}|\\([!-/:-@\[-`{{-~])")
# A code span that every renderer takes for one, also in a table: it contains no HTML and no pipe.
_SAFE_CODE_SPAN = re.compile(r"(?<!`)(`[^\s`\\<>|](?:[^`\\<>|]*[^\s`\\<>|])?`)(?!`)")
_COMMA = re.compile(r"\s*(?:,\s*|\Z)")
_HARMLESS = re.compile(r"(?:[\w '\",:{}()./@+=-]|\[|\])*")
_EDGE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def write_value(value: Plain) -> str:
    """Return the text of a value in Python's notation; a plain word has no quotes."""
    # Renderers disagree on a backslash before a pipe; doubled, as in quotes, they agree.
    is_line = isinstance(value, str) and survives_escape(value) and "\\|" not in value
    return value if is_line and _parse(value) == (value, None) else repr(value)


def parse_value(text: str) -> Plain:
    """Return the value that `write_value` wrote as `text`; text that is no literal of plain data is a string.

    Raises:
        CardError: A mapping in it has a key twice.
    """
    value, repeated = _parse(text)
    if repeated is not None:
        raise CardError(f"the key {repeated!r} is twice in {shorten(text)}. Keep one of them")
    return value


def _parse(text: str) -> tuple[Plain, str | None]:
    """Return the value of a text, and a key that is twice in a mapping of it, if any."""
    if not _LITERAL_START.match(text):
        return text, None
    try:
        with warnings.catch_warnings():
            # An invalid escape such as '\d' in a card is no reason to warn its reader.
            warnings.simplefilter("ignore")
            tree = ast.parse(text, mode="eval")
            literal = ast.literal_eval(tree)
        value = plain(literal)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, CardError):
        return text, None
    if repr(value) != repr(literal):
        # Sets, tuples and keys that are numbers have another form as plain data.
        return text, None
    for node in ast.walk(tree):
        keys = [key.value for key in node.keys if isinstance(key, ast.Constant)] if isinstance(node, ast.Dict) else []
        if repeated := next((str(key) for key, count in Counter(keys).items() if count > 1), None):
            return value, repeated
    return value, None


def code_span(text: str) -> str:
    """Return `text` as one code span, whatever backticks it contains.

    Source: CommonMark 0.31, section 6.1: a span ends at the first run of as many backticks as opened it, and one space
    on each side is dropped if both are there.
    """
    line = " ".join(text.splitlines()) or " "
    fence = "`"
    runs = set(_BACKTICKS.findall(line))
    while fence in runs:
        fence += "`"
    padded = line.startswith("`") or line.endswith("`") or (line[0] == line[-1] == " " and line.strip())
    return f"{fence} {line} {fence}" if padded else f"{fence}{line}{fence}"


def parse_code_span(text: str) -> str | None:
    """Return the content of the code span that `text` consists of; None if it is something else."""
    span = _CODE_SPAN.match(text)
    return _content(span) if span and span.end() == len(text) else None


def parse_code_spans(text: str) -> list[str] | None:
    """Return the contents of code spans separated by commas; None if `text` is something else."""
    contents: list[str] = []
    line, place = text.strip(), 0
    while place < len(line):
        span = _CODE_SPAN.match(line, place)
        comma = _COMMA.match(line, span.end()) if span else None
        if span is None or comma is None:
            return None
        contents.append(_content(span))
        place = comma.end()
    return contents


def escape(text: str) -> str:
    """Return `text` as one line in which nothing is Markdown or HTML; ordinary words stay as they are."""
    return _escape_markup(_one_line(text))


def escape_prose(text: str) -> str:
    """Return `text` escaped as by `escape`, except for its code spans."""
    *pairs, last = _SAFE_CODE_SPAN.split(_one_line(text))
    if any("`" in between for between in (*pairs[::2], last)):
        return escape(text)
    return "".join(part if place % 2 else _escape_markup(part) for place, part in enumerate([*pairs, last]))


def survives_escape(text: str) -> bool:
    """Return whether `unescape(escape(text))` is `text`: one printable line without spaces around it."""
    return bool(text) and text.isprintable() and text == text.strip()


def unescape(text: str) -> str:
    """Return the text that `escape` or `escape_prose` wrote."""
    return _CODE_SPAN_OR_ESCAPE.sub(lambda match: match.group(3) or match.group(), text)


def bare_or_code_span(text: str) -> str:
    """Return `text` unchanged if no character in it is markup, else as a code span."""
    harmless = _HARMLESS.fullmatch(text) and not _EDGE_UNDERSCORE.search(text) and "](" not in text
    return text if harmless else code_span(text)


def _content(span: re.Match[str]) -> str:
    content = span.group(2)
    is_padded = len(content) > 1 and content[0] == content[-1] == " " and content.strip()
    return content[1:-1] if is_padded else content


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _escape_markup(line: str) -> str:
    return _MARKUP.sub(lambda match: "\\" + match.group(), line)
